// One job: as it happens, with what can be done about it, its result, its files and what failed of it.

import { call, download, follow } from "./api.js";
import { attempt, button, bytes, count, duration, el, facts, moment, options, row, table } from "./dom.js";

export const FINAL = new Set(["succeeded", "failed", "cancelled"]);
/** Kinds of jobs whose results have a view of their own. */
const VIEWS = { search: "search", duplicates: "duplicates", evaluation: "evaluations", map: "maps" };
const ACTIONS = { pause: "Pause", resume: "Resume", cancel: "Cancel", retry: "Try the failed ones again" };
const WAITING = {
  vector_store: "Milvus cannot be reached. The job goes on by itself once it can.",
  source: "The place the images are read from cannot be reached. The job goes on by itself once it can.",
  worker: "Something is missing on the worker's machine; its log says what.",
};
const STAGES = { read_s: "read", decode_s: "decode", embed_s: "embed", store_s: "store" };

/** Where a job's result is shown best. */
export const viewOf = (job) => `#/${VIEWS[job.kind] ?? "jobs"}/${job.id}`;

/** The word for a job's state, in its colour. */
export function state(job) {
  const word = job.paused && !FINAL.has(job.state) ? "paused" : job.state;
  return el("span", { className: `state ${word}` }, word);
}

/** Show a job as it happens; resolves to its final record. */
export async function watch(place, context) {
  const id = context.argument;
  const path = `/v1/jobs/${encodeURIComponent(id)}`;
  const draw = (job) => place.replaceChildren(...describe(job));
  let job = await call(path, { signal: context.signal });
  context.adopt(job.request.collection);
  draw(job);
  if (FINAL.has(job.state)) return job;
  const { request } = job; // Too large to come with every event.
  await follow(id, (record) => draw({ ...record, request }), context);
  job = await call(path, { signal: context.signal });
  draw(job);
  return job;
}

/** Show a job until it is final; resolves to its record, and shows why where it did not succeed, null then. */
export async function outcome(view, context) {
  const live = el("div", { className: "job" });
  view.append(live);
  const job = await watch(live, context);
  if (job.state !== "succeeded") return null;
  live.remove();
  return job;
}

export async function showJob(view, context) {
  const live = el("div", { className: "job" });
  const rest = el("div");
  view.append(el("p", { className: "crumbs" }, el("a", { href: "#/jobs" }, "Jobs")), el("h1", {}, "Job ", el("code", {}, context.argument)), live, rest);
  const job = await watch(live, context);
  if (job.state === "succeeded" && VIEWS[job.kind]) rest.append(el("p", {}, el("a", { className: "button primary", href: viewOf(job) }, "Show what came of it")));
  if (job.result) rest.append(result(job.result));
  if (job.links.files) await attempt(() => showFiles(rest, job, context));
  if (job.links.failures) await showFailures(rest, job, context);
}

function describe(job) {
  return [
    el("p", { className: "lead" }, state(job), ` ${job.kind} in `, el("a", { href: `#/collections/${job.request.collection}` }, job.request.collection), `, begun ${moment(job.created_at)}`),
    job.request.dry_run && el("p", { className: "hint" }, "A trial: nothing is stored or removed. This is what would be done."),
    job.waiting_for && el("p", { className: "problem" }, WAITING[job.waiting_for]),
    job.error && el("p", { className: "problem", role: "alert" }, job.error.message),
    bar(job),
    facts(numbers(job)),
    job.progress.stages && stages(job.progress.stages),
    el("div", { className: "actions" }, actions(job)),
  ].filter(Boolean);
}

function bar({ state: now, progress: { total, done } }) {
  const label = total === null ? (FINAL.has(now) ? `${count(done)} done` : `${count(done)} done, still listing`) : `${count(done)} of ${count(total)}`;
  const progress = el("progress", { "aria-label": "Progress", max: total || 1 });
  if (total !== null) progress.value = total ? done : 1;
  else if (FINAL.has(now)) progress.value = 1;
  return el("div", { className: "progress" }, progress, el("span", {}, label));
}

function numbers(job) {
  const { progress } = job;
  const open = !FINAL.has(job.state);
  return [
    ...["added", "changed", "moved", "duplicates", "unchanged", "failed", "removed"].filter((name) => progress[name]).map((name) => [name, count(progress[name])]),
    ...(progress.images_per_s === null ? [] : [["rate", `${progress.images_per_s.toFixed(1)} images/s`]]),
    ...(open && progress.eta_s !== null ? [["time left", duration(progress.eta_s)]] : []),
    ...(open && progress.position !== null ? [["jobs before it", count(progress.position)]] : []),
    ...(job.finished_at ? [["ended", moment(job.finished_at)]] : []),
  ];
}

/** Where the time went, as shares of one bar. */
function stages(times) {
  const sum = Object.keys(STAGES).reduce((total, name) => total + times[name], 0);
  if (!sum) return null;
  const shares = Object.entries(STAGES).map(([name, label]) => [label, times[name] / sum, times[name]]);
  const parts = shares.map(([label, share]) => {
    const part = el("span", { className: `stage ${label}` });
    part.style.setProperty("--share", String(share));
    return part;
  });
  const words = shares.map(([label, share, seconds]) => el("li", { className: label }, `${label} ${Math.round(100 * share)} %, ${duration(seconds)}`));
  return el("div", { className: "split" }, el("div", { className: "stages", "aria-hidden": "true" }, parts), el("ul", { className: "legend", "aria-label": "Where the time went" }, words));
}

const actions = (job) =>
  Object.entries(ACTIONS)
    .filter(([name]) => job.links[name])
    .map(([name, label]) => button(label, () => act(job, name)));

async function act(job, name) {
  const made = await attempt(() => call(job.links[name], { method: "POST" }));
  if (!made) return;
  if (made.id !== job.id) location.hash = `#/jobs/${made.id}`;
  else window.dispatchEvent(new HashChangeEvent("hashchange"));
}

/** What a job says of its result, whatever its kind: single values; lists and reports are in its files and views. */
function result(values) {
  const text = (value) => (typeof value === "number" ? (Number.isInteger(value) ? count(value) : value.toFixed(4)) : String(value));
  const known = Object.entries(values).flatMap(([name, value]) => {
    if (name === "model" && value) return [["model", `${value.name}, ${value.weights}`]];
    return value === null || typeof value === "object" ? [] : [[name.replaceAll("_", " "), text(value)]];
  });
  return known.length ? el("section", {}, el("h2", {}, "Result"), facts(known)) : el("span");
}

/** The files that a job left, as links. */
export async function showFiles(place, job, { signal }) {
  const { files } = await call(job.links.files, { signal });
  if (!files.length) return;
  const line = (file) => el("li", {}, button(file.name, () => attempt(() => download(file.url, file.name)), { className: "link" }), ` ${bytes(file.size)}`);
  place.append(el("section", { "aria-label": "Files" }, el("h2", {}, "Files"), el("ul", { className: "files" }, files.map(line))));
}

async function showFailures(place, job, context) {
  const kinds = Object.entries(job.failure_counts).sort(([, one], [, other]) => other - one);
  const words = [["", "all codes"], ...kinds.map(([code, times]) => [code, `${code} (${count(times)})`])];
  const code = options("code", "Show", words, "", { onchange: () => draw() });
  const { body, view } = table("Failed files", ["File", "Code", "What is wrong", "Stage", "Attempts"]);
  const more = button("More", () => attempt(load));
  const lines = [];
  let cursor = "";
  const draw = () => body.replaceChildren(...lines.filter((line) => !code.input.value || line.code === code.input.value).map(failure));
  const load = async () => {
    const page = await call(`${job.links.failures}?format=json&limit=200${cursor && `&cursor=${encodeURIComponent(cursor)}`}`, { signal: context.signal });
    lines.push(...page.failures);
    cursor = page.next_cursor;
    more.hidden = !cursor;
    draw();
  };
  const save = (format) => button(`Save as ${format.toUpperCase()}`, () => attempt(() => download(`${job.links.failures}?format=${format}`, `failures.${format}`)));
  place.append(
    el(
      "section",
      { "aria-label": "Failures" },
      el("h2", {}, "Failed files"),
      el("div", { className: "panel" }, code.row, save("csv"), save("ndjson")),
      job.failures_dropped ? el("p", { className: "problem" }, `${count(job.failures_dropped)} more were counted and not kept.`) : null,
      view,
      more,
    ),
  );
  await load();
}

const failure = (line) =>
  row(el("span", { title: line.uri }, line.name || line.uri), el("code", {}, line.code), line.message, line.stage, String(line.attempts));
