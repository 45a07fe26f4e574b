// The page's frame: which view is shown, the collection that is worked with, the banner, and the question for a key.

import { call, onKeyNeeded } from "./api.js";
import { attempt, el } from "./dom.js";
import { showCollections } from "./collections.js";
import { showIngest } from "./ingest.js";
import { showJob, showJobs } from "./jobs.js";
import { showSearch } from "./search.js";

const VIEWS = {
  search: showSearch,
  ingest: showIngest,
  jobs: (view, context) => (context.argument ? showJob(view, context) : showJobs(view, context)),
  collections: showCollections,
};

const view = document.getElementById("view");
const select = document.getElementById("collection");
let leave = new AbortController();
let info = null;

/** Show what the address names: `#/search/JOB`, `#/jobs`, and so on. The view before is told to let go. */
function route() {
  const [name, argument] = location.hash.replace(/^#\//, "").split("/");
  const section = Object.hasOwn(VIEWS, name) ? name : "search";
  leave.abort();
  leave = new AbortController();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${section}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${section} · lookalike`;
  view.replaceChildren();
  attempt(() => VIEWS[section](view, { argument, info, signal: leave.signal, collection: () => select.value, choose }));
}

/** Offer the collections there are, and those a job or an address names although they do not exist yet. */
async function choose(wanted) {
  const { collections } = await call("/v1/collections");
  const names = new Set([info.default_collection, ...collections.map((each) => each.name)]);
  if (wanted) names.add(wanted);
  const chosen = wanted ?? sessionStorage.getItem("lookalike-collection") ?? info.default_collection;
  offer([...names].sort());
  select.value = names.has(chosen) ? chosen : info.default_collection;
  return collections;
}

const offer = (names) => select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));

/** Ask for an API key in a dialog; resolves to null where the user gives none. */
function askForKey() {
  return new Promise((resolve) => {
    const input = el("input", { type: "password", id: "key", required: true, autocomplete: "off" });
    const dialog = el(
      "dialog",
      { className: "ask", "aria-labelledby": "key-title", onclose: () => finish(null) },
      el(
        "form",
        { method: "dialog", onsubmit: () => finish(input.value) },
        el("h2", { id: "key-title" }, "This service needs an API key"),
        el("label", { for: "key" }, "Key, kept until this tab closes"),
        input,
        el("div", { className: "actions" }, el("button", { className: "primary" }, "Use this key")),
      ),
    );
    const finish = (key) => {
      dialog.remove();
      resolve(key);
    };
    document.body.append(dialog);
    dialog.showModal();
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
attempt(async () => {
  info = await call("/v1/info");
  announce();
  offer([info.default_collection]); // Jobs and ingests are of use without Milvus, and to keys that may not search, too.
  await attempt(() => choose());
  route();
});
