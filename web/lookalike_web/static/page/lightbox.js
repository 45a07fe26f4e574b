// The lightbox: one hit in full, with what is stored of it, its neighbours an arrow key away.

import { call, show } from "./api.js";
import { attempt, bytes, count, el } from "./dom.js";
import { distanceText } from "./grid.js";
import { searchLike } from "./search.js";

/** Open the hit at a place of a list. */
export function openLightbox(hits, at, result, context) {
  const body = el("div", { className: "lightbox-body" });
  const dialog = el(
    "dialog",
    {
      className: "lightbox",
      "aria-label": "Image",
      onclose: () => dialog.remove(),
      onclick: (event) => event.target === dialog && dialog.close(),
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step && hits[at + step]) turn(at + step);
      },
    },
    body,
  );
  const turn = (to) => {
    at = to;
    body.replaceChildren(...page(hits, at, result, context, dialog, turn));
    body.querySelector(".next:enabled, .previous:enabled, .close").focus();
  };
  context.signal.addEventListener("abort", () => dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  turn(at);
}

function page(hits, at, result, context, dialog, turn) {
  const hit = hits[at];
  const image = el("img", { alt: hit.name || hit.uri, className: "full" });
  const facts = el("dl", { className: "facts" });
  const query = `?collection=${encodeURIComponent(result.collection)}`;
  describe(facts, hit, result);
  attempt(async () => {
    const stored = await call(`/v1/images/${hit.id}${query}`, { signal: context.signal });
    describe(facts, hit, result, stored);
    image.addEventListener("error", () => show(image, hit.thumbnail_url), { once: true });
    await show(image, stored.content_url);
  });
  const arrow = (name, step, sign) =>
    el("button", { type: "button", className: name, "aria-label": name, disabled: !hits[at + step], onclick: () => turn(at + step) }, sign);
  return [
    el("figure", {}, arrow("previous", -1, "‹"), image, arrow("next", 1, "›")),
    el(
      "aside",
      {},
      el("button", { type: "button", className: "close", "aria-label": "Close", onclick: () => dialog.close() }, "×"),
      el("h2", {}, hit.name || "Image"),
      facts,
      el(
        "button",
        { type: "button", className: "primary", onclick: () => { dialog.close(); searchLike(context, hit.id); } },
        "More like this",
      ),
    ),
  ];
}

function describe(list, hit, result, stored) {
  const facts = {
    Place: `${hit.rank}`,
    Distance: distanceText(hit, result),
    Address: hit.uri,
    Pixels: `${count(hit.width)} × ${count(hit.height)}`,
    ...(stored ? { Size: bytes(stored.size) } : {}),
    ...(hit.duplicate_of ? { "Same content as": hit.duplicate_of } : {}),
    ...hit.metadata,
  };
  list.replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]),
  );
}
