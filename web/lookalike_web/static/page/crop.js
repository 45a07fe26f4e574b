// A region of a picture: dragged with a pointer, moved with the arrow keys, or typed as numbers.

import { button, dialog, el, field } from "./dom.js";

const LEAST = 0.02;
const STEP = 0.02;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const round = (value) => Math.round(value * 1000) / 1000;

/** Let the user choose a region; `fill` puts the picture into an image, `onChosen` is given `[x, y, width, height]`. */
export function chooseRegion(fill, box, onChosen) {
  let region = box ?? [0.2, 0.2, 0.6, 0.6];
  const image = el("img", { alt: "The picture that is searched with", draggable: false });
  const frame = el("span", { className: "region", tabIndex: 0, role: "group" });
  const stage = el("div", { className: "crop-stage" }, image, frame);
  const names = ["Left", "Top", "Width", "Height"];
  const fields = names.map((name, at) =>
    field(`crop-${at}`, `${name}, %`, { type: "number", min: 0, max: 100, step: 1, onchange: () => set(region.with(at, Number(fields[at].input.value) / 100)) }),
  );
  const set = ([x, y, width, height]) => {
    const left = clamp(x, 0, 1 - LEAST);
    const top = clamp(y, 0, 1 - LEAST);
    region = [left, top, clamp(width, LEAST, 1 - left), clamp(height, LEAST, 1 - top)].map(round);
    ["x", "y", "width", "height"].forEach((name, at) => frame.style.setProperty(`--${name}`, String(region[at])));
    fields.forEach(({ input }, at) => (input.value = String(Math.round(region[at] * 100))));
    frame.setAttribute("aria-label", `Region: ${names.map((name, at) => `${name.toLowerCase()} ${Math.round(region[at] * 100)} %`).join(", ")}`);
  };
  frame.addEventListener("keydown", (event) => onKey(event, region, set));
  drag(stage, image, set);
  dialog({ className: "crop", "aria-labelledby": "crop-title" }, (close) => [
    el("h2", { id: "crop-title" }, "Search a region"),
    el("p", { className: "hint" }, "Drag a rectangle over the picture. Arrow keys move it, with Shift they change its size."),
    stage,
    el("div", { className: "crop-fields" }, fields.map(({ row }) => row)),
    el(
      "div",
      { className: "actions" },
      button("Search this region", () => {
        close();
        onChosen(region);
      }, { className: "primary" }),
      button("Cancel", close),
    ),
  ]);
  set(region);
  fill(image);
  frame.focus();
}

function onKey(event, [x, y, width, height], set) {
  const [dx, dy] = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key] ?? [];
  if (dx === undefined) return;
  event.preventDefault();
  if (event.shiftKey) set([x, y, width + dx, height + dy]);
  else set([clamp(x + dx, 0, 1 - width), clamp(y + dy, 0, 1 - height), width, height]);
}

/** A pointer draws a new rectangle from where it goes down to where it goes up. */
function drag(stage, image, set) {
  const at = (event) => {
    const { left, top, width, height } = image.getBoundingClientRect();
    return [clamp((event.clientX - left) / width, 0, 1), clamp((event.clientY - top) / height, 0, 1)];
  };
  stage.addEventListener("pointerdown", (event) => {
    const [x, y] = at(event);
    stage.setPointerCapture(event.pointerId);
    const onMove = (moved) => {
      const [to, bottom] = at(moved);
      set([Math.min(x, to), Math.min(y, bottom), Math.abs(to - x), Math.abs(bottom - y)]);
    };
    stage.addEventListener("pointermove", onMove);
    stage.addEventListener("pointerup", () => stage.removeEventListener("pointermove", onMove), { once: true });
  });
}
