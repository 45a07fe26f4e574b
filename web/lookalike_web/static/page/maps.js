// A map of a collection: a point per image, alike ones near each other; drawn on a canvas, and as a list for those
// who do not see one.

import { call, send, show } from "./api.js";
import { attempt, button, count, el } from "./dom.js";
import { outcome } from "./job.js";

const NEAR_PX = 18;
const LISTED = 100;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export async function showMap(view, context) {
  view.append(el("h1", {}, "Map"));
  const job = await outcome(view, context);
  if (!job) return;
  const { collection } = job.request;
  const { points, explained } = await (await send(`/v1/jobs/${job.id}/files/map.json`, { signal: context.signal })).json();
  const percent = Math.round(100 * (explained[0] + explained[1]));
  const open = (id) => attempt(() => searchWith(collection, id));
  const map = new ScatterMap(points, collection, open, context.signal);
  view.append(
    el("p", { className: "lead" }, `${count(points.length)} images of `, el("a", { href: `#/collections/${collection}` }, collection), `. The two directions show ${percent} % of how they differ.`),
    map.stage,
    el("p", { className: "hint" }, "Drag to move, scroll or + and − to zoom, click a point to search with it. With the keyboard: arrows, + and −, 0 for all."),
    list(points, collection, open),
  );
  map.fit();
}

async function searchWith(collection, id) {
  const job = await call("/v1/searches", { method: "POST", json: { collection, queries: [{ image_id: id }], limit: 24 } });
  location.hash = `#/search/${job.id}`;
}

const thumbnail = (id, collection) => `/v1/images/${id}/thumbnail?collection=${collection}`;

/** The points as pictures in the order of the map, from left to right, a hundred at a time. */
function list(points, collection, open) {
  const ordered = points.toSorted((one, other) => one.x - other.x);
  const place = el("div", { className: "starters small" });
  const more = button("More", () => page(), { className: "more" });
  let shown = 0;
  const page = () => {
    for (const { id } of ordered.slice(shown, shown + LISTED)) {
      const picture = el("img", { alt: "", decoding: "async" });
      show(picture, thumbnail(id, collection));
      place.append(button(picture, () => open(id), { className: "starter", "aria-label": `Search with image ${id}` }));
    }
    shown += LISTED;
    more.hidden = shown >= ordered.length;
  };
  const details = el("details", { className: "refine", ontoggle: () => shown || page() }, el("summary", {}, "All points as a list"), place, more);
  return details;
}

class ScatterMap {
  constructor(points, collection, open, signal) {
    Object.assign(this, { points, collection, open, view: { x: 0, y: 0, scale: 1 }, hovered: null });
    this.canvas = el("canvas", { tabIndex: 0, role: "img", "aria-label": `Map of ${count(points.length)} images; the list below has them all` });
    this.tip = el("img", { className: "tip", alt: "", hidden: true });
    const zoom = (factor) => this.zoom(factor, this.width / 2, this.height / 2);
    this.stage = el(
      "div",
      { className: "map" },
      this.canvas,
      this.tip,
      el("div", { className: "map-tools" }, button("+", () => zoom(1.5), { "aria-label": "Zoom in" }), button("−", () => zoom(1 / 1.5), { "aria-label": "Zoom out" }), button("All", () => this.fit())),
    );
    const observer = new ResizeObserver(() => this.fit());
    observer.observe(this.canvas);
    signal.addEventListener("abort", () => observer.disconnect());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(), { signal });
    this.listen(zoom);
  }

  listen(zoom) {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.drag(event));
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => this.point(null));
    const onWheel = (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    };
    canvas.addEventListener("wheel", onWheel, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
      if (step) this.move(...step);
      else if (event.key === "+") zoom(1.5);
      else if (event.key === "-") zoom(1 / 1.5);
      else if (event.key === "0") this.fit();
      else return;
      event.preventDefault();
    });
  }

  /** All points, with a margin. */
  fit() {
    const { width, height } = this.canvas.getBoundingClientRect();
    if (!width || !this.points.length) return;
    const density = window.devicePixelRatio || 1;
    Object.assign(this, { width, height, density });
    Object.assign(this.canvas, { width: width * density, height: height * density });
    const [left, right] = extent(this.points, "x");
    const [top, bottom] = extent(this.points, "y");
    const scale = 0.9 * Math.min(width / (right - left || 1), height / (bottom - top || 1));
    this.view = { scale, x: width / 2 - (scale * (left + right)) / 2, y: height / 2 - (scale * (top + bottom)) / 2 };
    this.least = scale / 4;
    this.draw();
  }

  at(point) {
    return [point.x * this.view.scale + this.view.x, point.y * this.view.scale + this.view.y];
  }

  draw() {
    const brush = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    brush.setTransform(this.density, 0, 0, this.density, 0, 0);
    brush.clearRect(0, 0, this.width, this.height);
    brush.globalAlpha = this.points.length > 2000 ? 0.5 : 0.75;
    brush.fillStyle = style.getPropertyValue("--accent");
    const size = clamp(600 / Math.sqrt(this.points.length), 3, 10);
    for (const point of this.points) {
      const [x, y] = this.at(point);
      brush.fillRect(x - size / 2, y - size / 2, size, size);
    }
    if (!this.hovered) return;
    const [x, y] = this.at(this.hovered);
    brush.globalAlpha = 1;
    brush.strokeStyle = style.color;
    brush.lineWidth = 2;
    brush.strokeRect(x - size, y - size, 2 * size, 2 * size);
  }

  nearest(x, y) {
    let best = null;
    let least = NEAR_PX ** 2;
    for (const point of this.points) {
      const [px, py] = this.at(point);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  hover(event) {
    if (!event.buttons) this.point(this.nearest(event.offsetX, event.offsetY));
  }

  point(point) {
    if (point === this.hovered) return;
    this.hovered = point;
    this.tip.hidden = !point;
    if (point) {
      const [x, y] = this.at(point);
      this.tip.style.setProperty("--x", `${clamp(x, 0, this.width - 180)}px`);
      this.tip.style.setProperty("--y", `${y > 200 ? y - 190 : y + 20}px`);
      this.tip.removeAttribute("src");
      show(this.tip, thumbnail(point.id, this.collection));
    }
    this.draw();
  }

  drag(event) {
    const { canvas } = this;
    let moved = 0;
    canvas.setPointerCapture(event.pointerId);
    const onMove = ({ movementX, movementY }) => {
      moved += Math.abs(movementX) + Math.abs(movementY);
      this.move(movementX, movementY);
    };
    canvas.addEventListener("pointermove", onMove);
    const onUp = (up) => {
      canvas.removeEventListener("pointermove", onMove);
      const hit = moved < 4 && this.nearest(up.offsetX, up.offsetY);
      if (hit) this.open(hit.id);
    };
    canvas.addEventListener("pointerup", onUp, { once: true });
  }

  move(dx, dy) {
    this.view.x += dx;
    this.view.y += dy;
    this.point(null);
    this.draw();
  }

  zoom(factor, x, y) {
    const scale = clamp(this.view.scale * factor, this.least, this.least * 4000);
    const real = scale / this.view.scale;
    this.view = { scale, x: x - (x - this.view.x) * real, y: y - (y - this.view.y) * real };
    this.point(null);
    this.draw();
  }
}

/** Least and greatest, of lists longer than a call may have arguments. */
const extent = (points, axis) =>
  points.reduce(([low, high], point) => [Math.min(low, point[axis]), Math.max(high, point[axis])], [Infinity, -Infinity]);
