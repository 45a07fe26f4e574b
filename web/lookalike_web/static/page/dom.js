// Elements and words: the little that all views share. Text is set as text, never as HTML.

/** Make an element: properties, `data-` and `aria-` attributes and `on…` listeners in one object, children after it. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Say something for a while in the corner of the page; errors stay until they are dismissed. */
export function notify(text, { isError = false } = {}) {
  const notice = el(
    "div",
    { className: isError ? "notice error" : "notice" },
    text,
    el("button", { type: "button", "aria-label": "Dismiss", onclick: () => notice.remove() }, "×"),
  );
  document.getElementById("notices").append(notice);
  if (!isError) setTimeout(() => notice.remove(), 6000);
}

/** Run something, and show what goes wrong instead of losing it. An aborted request is no error. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    notify(error.message, { isError: true });
    return undefined;
  }
}

const NUMBER = new Intl.NumberFormat("en");
const TIME = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" });

/** A count with separators: 1,234,567. */
export const count = (value) => NUMBER.format(value);

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
