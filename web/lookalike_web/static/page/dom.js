// Elements and words: the little that all views share. Text is set as text, never as HTML.

/** Make an element: properties, `data-` and `aria-` attributes and `on…` listeners in one object, children after it. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for" || name === "list") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button that does something. */
export const button = (label, onclick, properties = {}) => el("button", { type: "button", onclick, ...properties }, label);

/** An input with its label above it: gives the input, and the row to place. */
export function field(id, label, properties = {}, tag = "input", ...children) {
  const input = el(tag, { id, ...properties }, ...children);
  return { input, row: el("div", { className: "field" }, el("label", { for: id }, label), input) };
}

/** A field that offers words, each with what it is called. */
export function options(id, label, words, chosen, properties = {}) {
  const entries = words.map((word) => (Array.isArray(word) ? word : [word, String(word)]));
  const made = entries.map(([value, text]) => el("option", { value, selected: String(value) === String(chosen) }, text));
  return field(id, label, properties, "select", made);
}

/** A box to tick, with its label behind it. */
export function choice(id, label, properties = {}) {
  const input = el("input", { id, type: "checkbox", ...properties });
  return { input, row: el("div", { className: "choice" }, input, el("label", { for: id }, label)) };
}

/** An input for files of this machine that looks like a button; `onFiles` is given `{file, name}` of each. */
export function picker(id, label, onFiles, properties = {}) {
  const input = el("input", {
    id,
    type: "file",
    multiple: true,
    className: "visually-hidden",
    onchange: () => onFiles([...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }))),
    ...properties,
  });
  return el("label", { className: "button", for: id }, label, input);
}

/** A table that scrolls by itself where the window is narrow; rows are lists of what stands in the cells. */
export function table(label, names, rows = []) {
  const body = el("tbody", {}, rows);
  const head = el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name))));
  const view = el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": label }, el("table", {}, head, body));
  return { body, view };
}

/** A row of a table. */
export const row = (...cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell)));

/** A list of facts, by name. */
export const facts = (entries) =>
  el("dl", { className: "facts" }, entries.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

/** A dialog, shown and removed when it closes; `fill` is given the function that closes it. */
export function dialog(properties, fill) {
  const shown = el("dialog", properties);
  shown.addEventListener("close", () => shown.remove());
  shown.append(...fill(() => shown.close()));
  document.body.append(shown);
  shown.showModal();
  return shown;
}

/** Say something for a while in the corner of the page, once; errors stay until they are dismissed. */
export function notify(text, { isError = false } = {}) {
  const notices = document.getElementById("notices");
  if ([...notices.children].some((each) => each.firstChild.textContent === text)) return;
  const notice = el(
    "div",
    { className: isError ? "notice error" : "notice" },
    el("span", {}, text),
    button("×", () => notice.remove(), { "aria-label": "Dismiss" }),
  );
  notices.append(notice);
  if (!isError) setTimeout(() => notice.remove(), 6000);
}

/** Run something, and show what goes wrong instead of losing it. An aborted request is no error. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    notify(error instanceof TypeError && error.message.includes("fetch") ? "The service cannot be reached." : error.message, { isError: true });
    return undefined;
  }
}

/** Show in an element that the service cannot be reached just now, and that it is tried again. */
export const troubleIn = (element) => (seconds) => {
  element.hidden = seconds === null;
  element.textContent = seconds === null ? "" : `No connection to the service. Trying again in ${seconds} s…`;
};

const NUMBER = new Intl.NumberFormat("en");
const TIME = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

/** A count with separators: 1,234,567. */
export const count = (value) => NUMBER.format(value);

/** A count of things: 1 image, 2 images. */
export const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

/** A moment in the reader's time zone. */
export const moment = (text) => (text ? TIME.format(new Date(text)) : "–");

/** Bytes in the largest fitting unit. */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; value >= 1000 && at < units.length - 1; at += 1) value /= 1000;
  return `${value < 10 && at > 0 ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}

/** Seconds as people say them: 45 s, 3 min 20 s, 2 h 5 min. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
