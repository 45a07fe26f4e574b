// The grid of hits: justified rows, laid out from the stored sizes before a single picture has arrived.

import { show } from "./api.js";
import { el } from "./dom.js";
import { openLightbox } from "./lightbox.js";
import { HIT_TYPE } from "./search.js";

const ROW_PX = 190; // The height a row has at most; a full one is scaled to the width.
const GAP_PX = 8;

/** Make a grid that lays itself out anew when its width changes. Rows out of sight cost nothing. */
export function grid(hits, result, context) {
  const list = el("div", { className: "grid", role: "list" });
  const cells = hits.map((hit, at) => cell(hit, () => openLightbox(hits, at, result, context), result));
  let width = 0;
  const observer = new ResizeObserver(([entry]) => {
    const now = Math.floor(entry.contentRect.width);
    if (now === width || now === 0) return;
    width = now;
    list.replaceChildren(...rows(hits, cells, width));
  });
  observer.observe(list);
  context.signal.addEventListener("abort", () => observer.disconnect());
  list.addEventListener("keydown", (event) => move(event, cells));
  return list;
}

/** Break the hits into rows of one height each; the last row keeps the usual height. */
function rows(hits, cells, width) {
  const made = [];
  let row = [];
  let ratios = 0;
  const close = (height) => {
    const line = el("div", { className: "grid-row", role: "presentation" });
    line.style.setProperty("--height", `${height}px`);
    for (const at of row) {
      cells[at].style.setProperty("--width", `${ratio(hits[at]) * height}px`);
      line.append(cells[at]);
    }
    made.push(line);
    row = [];
    ratios = 0;
  };
  hits.forEach((hit, at) => {
    row.push(at);
    ratios += ratio(hit);
    const height = (width - GAP_PX * (row.length - 1)) / ratios;
    if (height <= ROW_PX) close(height);
  });
  if (row.length) close(ROW_PX);
  return made;
}

/** Width over height, within bounds: a panorama must not take a whole row for itself. */
const ratio = (hit) => Math.min(3, Math.max(0.4, hit.width / hit.height || 1));

function cell(hit, open, result) {
  const image = el("img", { alt: "", loading: "lazy", decoding: "async", draggable: false });
  image.addEventListener("load", () => image.classList.add("loaded"));
  image.addEventListener("error", () => image.replaceWith(el("span", { className: "gone" }, "not there any more")));
  show(image, hit.thumbnail_url).catch(() => image.dispatchEvent(new Event("error")));
  const button = el(
    "button",
    {
      type: "button",
      className: "hit",
      draggable: true,
      onclick: open,
      ondragstart: (event) => event.dataTransfer.setData(HIT_TYPE, hit.id),
      "aria-label": `${hit.rank}. ${hit.name || hit.uri}, ${distanceText(hit, result)}`,
    },
    image,
    scoreBar(hit, result),
  );
  return el("div", { className: "cell", role: "listitem" }, button);
}

/** How alike a hit is, as a bar where the metric has bounds, and always as the number Milvus gave. */
export function scoreBar(hit, result) {
  const bar = el("span", { className: "score", title: distanceText(hit, result) });
  const fill = el("span", { className: "fill" });
  const share = result.metric === "IP" ? 0 : Math.min(1, Math.max(0, hit.score));
  fill.style.setProperty("--share", String(share));
  bar.append(fill, el("span", { className: "number" }, hit.distance.toFixed(3)));
  return bar;
}

export const distanceText = (hit, result) => `${result.metric} ${hit.distance.toFixed(4)}`;

/** Arrow keys walk through the hits. */
function move(event, cells) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const at = cells.findIndex((each) => each.contains(document.activeElement));
  const next = cells[at + step]?.querySelector("button");
  if (next) {
    event.preventDefault();
    next.focus();
  }
}
