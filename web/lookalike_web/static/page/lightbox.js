// The lightbox: one hit in full, with what is stored of it, its neighbours an arrow key away.

import { call, show } from "./api.js";
import { attempt, button, bytes, count, dialog, el, facts } from "./dom.js";
import { likeness } from "./grid.js";
import { TURNED } from "./query.js";

/** Open the hit at a place of a list. `actions` are `search(hit)`, and perhaps `more(hit)` and `less(hit)`. */
export function openLightbox(hits, at, result, actions, context) {
  const body = el("div", { className: "lightbox-body" });
  const shown = dialog({ className: "lightbox", "aria-label": "Image" }, () => [body]);
  const turn = (to) => {
    at = to;
    body.replaceChildren(...page(hits, at, result, actions, context, shown, turn));
    body.querySelector(".next:enabled, .previous:enabled, .close").focus();
  };
  shown.addEventListener("click", (event) => event.target === shown && shown.close());
  shown.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step && hits[at + step]) turn(at + step);
  });
  context.signal.addEventListener("abort", () => shown.close());
  turn(at);
}

function page(hits, at, result, actions, context, shown, turn) {
  const hit = hits[at];
  const image = el("img", { alt: hit.name || hit.uri, className: "full" });
  const stage = el("div", { className: "stage-of" }, image, hit.box ? region(image, hit) : null);
  const list = el("div", {}, describe(hit, result));
  const original = el("a", { className: "button", target: "_blank", rel: "noopener", hidden: true }, "Open the file");
  show(image, hit.thumbnail_url); // At hand; the file itself takes its place.
  attempt(async () => {
    const stored = await call(`/v1/images/${hit.id}?collection=${encodeURIComponent(result.collection)}`, { signal: context.signal });
    list.replaceChildren(describe(hit, result, stored));
    original.href = stored.content_url;
    original.hidden = context.info.api_key_required; // A link carries no key.
    image.addEventListener("error", () => show(image, hit.thumbnail_url), { once: true });
    show(image, stored.content_url);
  });
  const arrow = (name, step, sign) =>
    button(sign, () => turn(at + step), { className: name, "aria-label": name, disabled: !hits[at + step] });
  const act = (name, label, className = "") =>
    actions[name] &&
    button(label, () => {
      shown.close();
      actions[name](hit);
    }, { className });
  return [
    el("figure", {}, arrow("previous", -1, "‹"), stage, arrow("next", 1, "›")),
    el(
      "aside",
      {},
      button("×", () => shown.close(), { className: "close", "aria-label": "Close" }),
      el("h2", {}, hit.name || "Image"),
      el("div", { className: "actions" }, act("search", "Search with this", "primary"), act("more", "More like this"), act("less", "Not like this"), original),
      list,
    ),
  ];
}

/** The region of the picture that was found, laid over where the picture is drawn. */
function region(image, { box, width, height }) {
  const frame = el("span", { className: "box found" });
  const place = () => {
    const scale = Math.min(image.clientWidth / width, image.clientHeight / height);
    const [left, top] = [(image.clientWidth - width * scale) / 2, (image.clientHeight - height * scale) / 2];
    const [x, y, w, h] = box;
    const parts = { x: (left + x * width * scale) / image.clientWidth, y: (top + y * height * scale) / image.clientHeight, width: (w * width * scale) / image.clientWidth, height: (h * height * scale) / image.clientHeight };
    Object.entries(parts).forEach(([name, value]) => frame.style.setProperty(`--${name}`, String(value)));
  };
  new ResizeObserver(place).observe(image);
  return frame;
}

function describe(hit, result, stored) {
  return facts(
    Object.entries({
      Place: `${hit.rank}`,
      Distance: likeness(hit, result),
      ...(hit.percentile === undefined || hit.percentile === null ? {} : { "Closer than": `${Number(hit.percentile.toFixed(2))} % of random pairs` }),
      ...(hit.variant ? { Found: `with the picture ${TURNED[hit.variant]}` } : {}),
      ...(hit.box ? { Region: hit.box.map((part) => `${Math.round(part * 100)} %`).join(", ") } : {}),
      Pixels: `${count(hit.width)} × ${count(hit.height)}`,
      ...(stored ? { Size: bytes(stored.size) } : {}),
      Address: hit.uri,
      ...(hit.duplicate_of ? { "Same content as": hit.duplicate_of } : {}),
      ...hit.metadata,
    }).map(([name, value]) => [name, String(value)]),
  );
}
