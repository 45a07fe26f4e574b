// Jobs: the list, and one job as it happens, with what can be done about it.

import { call, download, follow } from "./api.js";
import { attempt, count, duration, el, moment } from "./dom.js";

const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const ACTIONS = { pause: "Pause", resume: "Resume", cancel: "Cancel", retry: "Try the failed ones again" };
const WAITING = {
  vector_store: "Milvus cannot be reached. The job goes on by itself once it can.",
  source: "The place the images are read from cannot be reached. The job goes on by itself once it can.",
  worker: "Something is missing on the worker's machine; its log says what.",
};
const STAGES = { read_s: "read", decode_s: "decode", embed_s: "embed", store_s: "store" };

export async function showJobs(view, context) {
  const body = el("tbody");
  const more = el("button", { type: "button", hidden: true }, "Older jobs");
  view.append(
    el("h1", {}, "Jobs"),
    el(
      "div",
      { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Jobs" },
      el("table", {}, head("Job", "Kind", "State", "Progress", "Collection", "Created"), body),
    ),
    more,
  );
  let cursor = null;
  const load = () =>
    attempt(async () => {
      const after = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
      const page = await call(`/v1/jobs?limit=50${after}`, { signal: context.signal });
      body.append(...page.jobs.map(row));
      cursor = page.next_cursor;
      more.hidden = !cursor;
      if (!body.children.length) body.append(el("tr", {}, el("td", { colSpan: 6 }, "No jobs yet.")));
    });
  more.addEventListener("click", load);
  await load();
}

const head = (...names) => el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name))));

function row(job) {
  const { progress } = job;
  const done = progress.total === null ? count(progress.done) : `${count(progress.done)} of ${count(progress.total)}`;
  const failed = progress.failed ? `, ${count(progress.failed)} failed` : "";
  const address = job.kind === "search" ? `#/search/${job.id}` : `#/jobs/${job.id}`;
  return el(
    "tr",
    {},
    el("td", {}, el("a", { href: address }, job.id)),
    el("td", {}, job.kind),
    el("td", {}, state(job)),
    el("td", {}, done + failed),
    el("td", {}, job.request.collection),
    el("td", {}, moment(job.created_at)),
  );
}

function state(job) {
  const word = job.paused && !FINAL.has(job.state) ? "paused" : job.state;
  return el("span", { className: `state ${word}` }, word);
}

export async function showJob(view, context) {
  const id = context.argument;
  const live = el("div", { className: "job" });
  const failures = el("section", { "aria-label": "Failures" });
  view.append(el("h1", {}, "Job ", el("code", {}, id)), live, failures);
  const draw = (job) => live.replaceChildren(...describe(job));
  const path = `/v1/jobs/${encodeURIComponent(id)}`;
  let job = await call(path, { signal: context.signal });
  draw(job);
  if (!FINAL.has(job.state)) {
    const { request } = job; // Too large to come with every event.
    await follow(id, (record) => draw({ ...record, request }), context.signal);
    job = await call(path, { signal: context.signal });
    draw(job);
  }
  if (job.links.failures) await showFailures(failures, job, context);
}

function describe(job) {
  return [
    el("p", {}, state(job), ` ${job.kind} into ${job.request.collection}, begun ${moment(job.created_at)}`),
    job.waiting_for && el("p", { className: "problem" }, WAITING[job.waiting_for]),
    job.error && el("p", { className: "problem", role: "alert" }, job.error.message),
    bar(job.progress),
    el("dl", { className: "facts" }, facts(job).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    job.progress.stages && stages(job.progress.stages),
    el("div", { className: "actions" }, actions(job)),
  ].filter(Boolean);
}

function bar({ total, done }) {
  const label = total === null ? `${count(done)} done, still listing` : `${count(done)} of ${count(total)}`;
  const progress = el("progress", { "aria-label": "Progress", max: total || 1 });
  if (total !== null) progress.value = total ? done : 1;
  return el("div", { className: "progress" }, progress, el("span", {}, label));
}

function facts(job) {
  const { progress } = job;
  const counts = ["added", "changed", "moved", "duplicates", "unchanged", "failed", "removed"]
    .filter((name) => progress[name])
    .map((name) => [name, count(progress[name])]);
  const open = !FINAL.has(job.state);
  return [
    ...counts,
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
  const parts = Object.entries(STAGES).map(([name, label]) => {
    const part = el("span", { className: `stage ${label}`, title: `${label}: ${duration(times[name])}` }, label);
    part.style.setProperty("--share", String(times[name] / sum));
    return part;
  });
  return el("div", { className: "stages", role: "img", "aria-label": stageText(times, sum) }, parts);
}

const stageText = (times, sum) =>
  Object.entries(STAGES)
    .map(([name, label]) => `${label} ${Math.round((100 * times[name]) / sum)} %`)
    .join(", ");

function actions(job) {
  return Object.entries(ACTIONS)
    .filter(([name]) => job.links[name])
    .map(([name, label]) => el("button", { type: "button", onclick: () => act(job, name) }, label));
}

async function act(job, name) {
  const made = await attempt(() => call(job.links[name], { method: "POST" }));
  if (!made) return;
  if (made.id !== job.id) location.hash = `#/jobs/${made.id}`;
  else window.dispatchEvent(new HashChangeEvent("hashchange"));
}

async function showFailures(section, job, context) {
  const kinds = Object.entries(job.failure_counts).sort(([, one], [, other]) => other - one);
  const filter = el(
    "select",
    { id: "code", onchange: () => draw() },
    el("option", { value: "" }, "all codes"),
    kinds.map(([code, times]) => el("option", { value: code }, `${code} (${count(times)})`)),
  );
  const body = el("tbody");
  const more = el("button", { type: "button", onclick: () => attempt(load) }, "More");
  const lines = [];
  let cursor = "";
  const draw = () => body.replaceChildren(...lines.filter((line) => !filter.value || line.code === filter.value).map(failureRow));
  const load = async () => {
    const page = await call(`${job.links.failures}?format=json&limit=200${cursor && `&cursor=${encodeURIComponent(cursor)}`}`, {
      signal: context.signal,
    });
    lines.push(...page.failures);
    cursor = page.next_cursor;
    more.hidden = !cursor;
    draw();
  };
  section.append(
    el("h2", {}, "Failed files"),
    el(
      "div",
      { className: "controls" },
      el("label", { for: "code" }, "Show"),
      filter,
      ...["csv", "ndjson"].map((format) =>
        el(
          "button",
          { type: "button", onclick: () => attempt(() => download(`${job.links.failures}?format=${format}`, `failures.${format}`)) },
          `Save as ${format.toUpperCase()}`,
        ),
      ),
    ),
    job.failures_dropped ? el("p", { className: "problem" }, `${count(job.failures_dropped)} more were counted and not kept.`) : "",
    el(
      "div",
      { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Failed files" },
      el("table", {}, head("File", "Code", "What is wrong", "Stage", "Attempts"), body),
    ),
    more,
  );
  await load();
}

function failureRow(line) {
  return el(
    "tr",
    {},
    el("td", { title: line.uri }, line.name || line.uri),
    el("td", {}, el("code", {}, line.code)),
    el("td", {}, line.message),
    el("td", {}, line.stage),
    el("td", {}, String(line.attempts)),
  );
}
