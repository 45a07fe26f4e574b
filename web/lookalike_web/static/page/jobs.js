// Jobs: the list, kept fresh while something runs; one job is a view of its own.

import { call } from "./api.js";
import { attempt, button, count, el, moment, options, row, table } from "./dom.js";
import { FINAL, showJob, state, viewOf } from "./job.js";

const FRESH_MS = 3000;
const STATES = ["queued", "running", "succeeded", "failed", "cancelled"];

export async function showJobs(view, context) {
  if (context.argument) return showJob(view, context);
  const { body, view: list } = table("Jobs", ["Kind", "State", "Progress", "Collection", "Created", "Job"]);
  const only = options("state", "Show", [["", "all states"], ...STATES], "", { onchange: () => reload() });
  const more = button("Older jobs", () => load(), { hidden: true });
  view.append(el("h1", {}, "Jobs"), el("div", { className: "panel" }, only.row), list, more);
  let cursor = null;
  const page = (after) => {
    const query = new URLSearchParams({ limit: 50, ...(after ? { cursor: after } : {}), ...(only.input.value ? { state: only.input.value } : {}) });
    return call(`/v1/jobs?${query}`, { signal: context.signal });
  };
  const load = () =>
    attempt(async () => {
      const { jobs, next_cursor: next } = await page(cursor);
      body.append(...jobs.map(line));
      cursor = next;
      more.hidden = !cursor;
      if (!body.children.length) body.append(el("tr", {}, el("td", { colSpan: 6 }, "No jobs here. ", el("a", { href: "#/ingest" }, "Ingest some images"), " to begin.")));
      refresh();
    });
  const reload = () => {
    cursor = null;
    body.replaceChildren();
    return load();
  };
  let timer = 0;
  context.signal.addEventListener("abort", () => clearTimeout(timer));
  /** Ask again for the newest while one of them is unfinished; rows are replaced, so that the focus and place stay. */
  const refresh = () => {
    clearTimeout(timer);
    if (!body.querySelector("[data-open]")) return;
    timer = setTimeout(async () => {
      const { jobs } = await page(null).catch(() => ({ jobs: [] }));
      for (const job of jobs) {
        const old = body.querySelector(`[data-id="${job.id}"]`);
        if (old && !old.contains(document.activeElement)) old.replaceWith(line(job));
      }
      if (!context.signal.aborted) refresh();
    }, FRESH_MS);
  };
  return load();
}

function line(job) {
  const { progress } = job;
  const done = progress.total === null ? count(progress.done) : `${count(progress.done)} of ${count(progress.total)}`;
  const failed = progress.failed ? `, ${count(progress.failed)} failed` : "";
  const address = job.kind === "search" ? viewOf(job) : `#/jobs/${job.id}`;
  const link = el("a", { href: address }, job.kind, el("span", { className: "visually-hidden" }, ` ${job.id}`));
  const made = row(link, state(job), done + failed, job.request.collection, moment(job.created_at), el("code", {}, job.id));
  made.dataset.id = job.id;
  if (!FINAL.has(job.state)) made.dataset.open = "";
  return made;
}
