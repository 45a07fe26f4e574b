// The grid of hits: justified rows, laid out from the stored sizes before a single picture has arrived. Only rows near
// the window exist as elements, so that ten thousand hits scroll like ten.

import { show } from "./api.js";
import { el } from "./dom.js";

/** What a dragged hit carries: its image id. */
export const HIT_TYPE = "application/x-lookalike-image";

const GAP_PX = 12;
const CAPTION_PX = 30; // As in style.css.
const MARGIN = 1; // Windows above and below that are kept ready.
const STEPS = { ArrowRight: 1, ArrowLeft: -1 };

/**
 * Make a grid that lays itself out anew when its width changes: its element, and how to add more hits. `actions` are
 * `open(at)`, and where the service combines examples `more(hit)` and `less(hit)`; `signal` ends it.
 */
export function grid(hits, result, actions, signal) {
  const made = new Grid(hits, result, actions, signal);
  return { list: made.list, extend: (more) => made.extend(more) };
}

class Grid {
  constructor(hits, result, actions, signal) {
    Object.assign(this, { hits, result, actions, rows: [], shown: new Map(), width: 0, current: 0 });
    this.list = el("div", { className: "grid", role: "list", onkeydown: (event) => this.onKey(event) });
    this.list.addEventListener("focusin", (event) => {
      const cell = event.target.closest(".cell");
      if (cell) this.mark(Number(cell.dataset.at));
    });
    const observer = new ResizeObserver(([entry]) => this.layOut(Math.floor(entry.contentRect.width)));
    observer.observe(this.list);
    let asked = 0;
    const onScroll = () => {
      asked ||= requestAnimationFrame(() => {
        asked = 0;
        this.draw();
      });
    };
    window.addEventListener("scroll", onScroll, { signal, passive: true });
    window.addEventListener("resize", onScroll, { signal, passive: true });
    signal.addEventListener("abort", () => observer.disconnect());
  }

  extend(more) {
    this.hits.push(...more);
    const { width } = this;
    this.width = 0;
    this.layOut(width);
  }

  /** Break the hits into rows of one height each; the last row keeps the usual height. */
  layOut(width) {
    if (width === this.width || width === 0) return;
    this.width = width;
    const tallest = Math.min(260, Math.max(150, width / 6));
    this.rows = [];
    let top = 0;
    let row = [];
    let ratios = 0;
    const close = (height) => {
      this.rows.push({ top, height, from: row[0], to: row.at(-1) });
      top += height + CAPTION_PX + GAP_PX;
      row = [];
      ratios = 0;
    };
    this.hits.forEach((hit, at) => {
      row.push(at);
      ratios += ratio(hit);
      const height = (width - GAP_PX * (row.length - 1)) / ratios;
      if (height <= tallest) close(height);
    });
    if (row.length) close(tallest);
    this.list.style.setProperty("--total", `${top}px`);
    const hadFocus = this.list.contains(document.activeElement);
    this.list.replaceChildren();
    this.shown.clear();
    this.draw();
    if (hadFocus) this.list.querySelector(`.cell[data-at="${this.current}"] .hit`).focus();
  }

  /** Make the rows near the window, let go of the others. The one with the focus stays. */
  draw() {
    const offset = this.list.getBoundingClientRect().top;
    const from = -offset - MARGIN * innerHeight;
    const to = -offset + (1 + MARGIN) * innerHeight;
    if (!this.rows.length) return;
    const wanted = new Set([this.rows.findIndex((row) => this.current <= row.to)]); // Where the Tab key leads.
    for (let at = this.rowAt(from); at < this.rows.length && this.rows[at].top < to; at += 1) wanted.add(at);
    for (const [at, line] of this.shown) {
      if (wanted.has(at) || line.contains(document.activeElement)) continue;
      line.remove();
      this.shown.delete(at);
    }
    for (const at of wanted) this.make(at);
  }

  make(at) {
    if (this.shown.has(at)) return;
    const { top, height, from, to } = this.rows[at];
    const line = el("div", { className: "grid-row", role: "presentation" });
    line.style.setProperty("--top", `${top}px`);
    line.style.setProperty("--height", `${height}px`);
    for (let hit = from; hit <= to; hit += 1) line.append(this.cell(hit, height));
    this.shown.set(at, line);
    // In the order of the hits, which is the order in which a screen reader goes.
    const after = [...this.shown.keys()].filter((each) => each > at).sort((one, other) => one - other)[0];
    this.list.insertBefore(line, after === undefined ? null : this.shown.get(after));
  }

  cell(at, height) {
    const hit = this.hits[at];
    const image = el("img", { alt: "", decoding: "async", draggable: false });
    image.addEventListener("load", () => image.classList.add("loaded"));
    image.addEventListener("error", () => image.replaceWith(el("span", { className: "gone" }, "not there any more")));
    show(image, hit.thumbnail_url);
    const open = el(
      "button",
      {
        type: "button",
        className: "hit",
        draggable: true,
        tabIndex: at === this.current ? 0 : -1,
        onclick: () => this.actions.open(at),
        ondragstart: (event) => event.dataTransfer.setData(HIT_TYPE, hit.id),
        "aria-label": `${hit.rank}. ${hit.name || hit.uri}, ${likeness(hit, this.result)}`,
      },
      image,
    );
    const cell = el("div", { className: "cell", role: "listitem", "aria-setsize": this.hits.length, "aria-posinset": at + 1 }, open);
    cell.dataset.at = String(at);
    if (this.actions.more) cell.append(this.judge(hit));
    cell.append(caption(hit, this.result));
    cell.style.setProperty("--width", `${ratio(hit) * height}px`);
    return cell;
  }

  /** For the mouse; from the keyboard it is + and -, and in the lightbox there are buttons for everybody. */
  judge(hit) {
    const mark = (sign, label, onclick) => el("button", { type: "button", tabIndex: -1, title: label, "aria-label": label, onclick }, sign);
    return el(
      "span",
      { className: "judge" },
      mark("+", "More like this", () => this.actions.more(hit)),
      mark("−", "Not like this", () => this.actions.less(hit)),
    );
  }

  rowAt(y) {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const { top, height } = this.rows[middle];
      if (top + height + CAPTION_PX < y) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  mark(at) {
    this.button(this.current)?.setAttribute("tabindex", "-1");
    this.current = at;
    this.button(at)?.setAttribute("tabindex", "0");
  }

  button(at) {
    return this.list.querySelector(`.cell[data-at="${at}"] .hit`);
  }

  /** Arrow keys walk through the hits, + and - judge one. */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const hit = this.hits[this.current];
    const to = this.target(event.key);
    if (to !== null && this.hits[to]) this.focus(to);
    else if (event.key === "+" && this.actions.more) this.actions.more(hit);
    else if (event.key === "-" && this.actions.less) this.actions.less(hit);
    else return;
    event.preventDefault();
  }

  target(key) {
    if (STEPS[key]) return this.current + STEPS[key];
    if (key === "Home") return 0;
    if (key === "End") return this.hits.length - 1;
    if (key !== "ArrowDown" && key !== "ArrowUp") return null;
    const here = this.rows.findIndex((row) => this.current <= row.to);
    const there = this.rows[here + (key === "ArrowDown" ? 1 : -1)];
    if (!there) return null;
    const { from, to } = this.rows[here];
    const share = (this.current - from + 0.5) / (to - from + 1);
    return there.from + Math.floor(share * (there.to - there.from + 1));
  }

  focus(at) {
    this.make(this.rows.findIndex((row) => at <= row.to));
    this.mark(at);
    const button = this.button(at);
    button.focus({ preventScroll: true });
    button.closest(".cell").scrollIntoView({ block: "nearest" });
    this.draw();
  }
}

/** Width over height, within bounds: a panorama must not take a whole row for itself. */
const ratio = (hit) => Math.min(3, Math.max(0.4, hit.width / hit.height || 1));

/** How alike a hit is: a bar where the metric has bounds, the number Milvus gave, and the band where there is one. */
function caption(hit, result) {
  const bar = el("span", { className: "score" });
  bar.style.setProperty("--share", String(share(hit, result)));
  return el(
    "span",
    { className: "caption", title: likeness(hit, result) },
    bar,
    el("span", { className: "number" }, hit.distance.toFixed(3)),
    hit.band ? el("span", { className: `band ${hit.band}` }, hit.band) : null,
  );
}

const share = (hit, { metric }) => (metric === "IP" ? 0 : Math.min(1, Math.max(0, hit.score)));

/** A hit's likeness in words. */
export const likeness = (hit, result) => `${result.metric} ${hit.distance.toFixed(4)}${hit.band ? `, ${hit.band}` : ""}`;
