// The page's frame: which view is shown, the collection that is worked with, the banners, and the question for a key.

import { call, onKeyNeeded, steadily } from "./api.js";
import { attempt, button, dialog, el, troubleIn } from "./dom.js";
import { showSearch } from "./search.js";

/** The views by the first part of the address. The first page's comes at once, others when they are asked for. */
const VIEWS = {
  search: showSearch,
  ingest: async (...all) => (await import("./ingest.js")).showIngest(...all),
  jobs: async (...all) => (await import("./jobs.js")).showJobs(...all),
  collections: async (...all) => (await import("./collections.js")).showCollections(...all),
  duplicates: async (...all) => (await import("./duplicates.js")).showDuplicates(...all),
  evaluations: async (...all) => (await import("./evaluations.js")).showEvaluation(...all),
  maps: async (...all) => (await import("./maps.js")).showMap(...all),
  models: async (...all) => (await import("./models.js")).showModels(...all),
};
/** Views that are part of another, in the navigation. */
const UNDER = { duplicates: "collections", evaluations: "collections", maps: "collections", models: "collections" };

const view = document.getElementById("view");
const select = document.getElementById("collection");
let leave = new AbortController();
let info = null;

/** Show what the address names: `#/search/JOB`, `#/jobs`, and so on. The view before is told to let go. */
function route() {
  if (location.hash === "#view") return; // The link that skips to the content.
  const [name, argument] = location.hash.replace(/^#\//, "").split("/");
  const section = Object.hasOwn(VIEWS, name) ? name : "search";
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${UNDER[section] ?? section}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${section[0].toUpperCase()}${section.slice(1)} · lookalike`;
  const place = el("div", { className: `view ${section}` });
  view.replaceChildren(place);
  window.scrollTo(0, 0);
  const context = { argument, info, signal, collection: () => select.value, choose, adopt, onTrouble: troubleIn(trouble) };
  attempt(() => VIEWS[section](place, context)).finally(() => signal.aborted || context.onTrouble(null));
}

const trouble = document.getElementById("trouble");

/** Offer the collections there are, and one that is wanted although it does not exist yet. */
async function choose(wanted) {
  const { collections } = await call("/v1/collections");
  const names = new Set([info.default_collection, ...collections.map((each) => each.name)]);
  if (wanted) names.add(wanted);
  const chosen = wanted ?? sessionStorage.getItem("lookalike-collection") ?? info.default_collection;
  offer([...names].sort());
  select.value = names.has(chosen) ? chosen : info.default_collection;
  return collections;
}

/** Work with the collection that a job is about, as when its address was shared. */
function adopt(name) {
  const names = new Set([...select.options].map((option) => option.value));
  if (!names.has(name)) offer([...names, name].sort());
  select.value = name;
  sessionStorage.setItem("lookalike-collection", name);
}

const offer = (names) => select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));

/** Ask for an API key in a dialog; resolves to null where the user gives none. */
function askForKey(wasRefused) {
  return new Promise((resolve) => {
    const input = el("input", { type: "password", id: "key", required: true, autocomplete: "off" });
    const shown = dialog({ className: "ask", "aria-labelledby": "key-title" }, (close) => [
      el(
        "form",
        { method: "dialog", onsubmit: () => resolve(input.value) },
        el("h2", { id: "key-title" }, "This service needs an API key"),
        wasRefused && el("p", { className: "problem", role: "alert" }, "The service does not take that key. Is it whole, and still valid?"),
        el("div", { className: "field" }, el("label", { for: "key" }, "Key, kept until this tab closes"), input),
        el("div", { className: "actions" }, el("button", { className: "primary" }, "Use this key"), button("Not now", close)),
      ),
    ]);
    shown.addEventListener("close", () => resolve(null));
  });
}

function announce() {
  const banner = document.getElementById("banner");
  banner.hidden = info.trained !== false && info.workers.length > 0;
  banner.textContent = info.workers.length
    ? "The network is untrained: it finds near-duplicates, and knows no concepts. Set LOOKALIKE_WEIGHTS to change that."
    : "No worker is running: jobs are accepted, and wait.";
}

onKeyNeeded(askForKey);
select.addEventListener("change", () => {
  sessionStorage.setItem("lookalike-collection", select.value);
  window.dispatchEvent(new Event("collectionchange"));
});
window.addEventListener("hashchange", route);
// A picture that misses the drop area must not take the place of the page.
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", (event) => event.preventDefault());
attempt(async () => {
  info = await steadily(() => call("/v1/info"), { onTrouble: troubleIn(trouble) });
  announce();
  offer([info.default_collection]); // Jobs and ingests are of use without Milvus, and to keys that may not search, too.
  await attempt(() => choose());
  route();
});
