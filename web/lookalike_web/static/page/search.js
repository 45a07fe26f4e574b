// Search: pictures dropped, pasted, picked or taken from a result; the answers as grids. The address names the job.

import { call, download, finalJob, show } from "./api.js";
import { attempt, count, el, notify } from "./dom.js";
import { grid } from "./grid.js";

const LIMITS = [12, 24, 48, 96, 200, 500, 1000];
/** What a dragged hit carries: its image id. */
export const HIT_TYPE = "application/x-lookalike-image";

const options = { limit: 24, filter: "" };
/** The pictures of the search that was just sent, by job: they are at hand, and need not be fetched. */
const sent = new Map();

export async function showSearch(view, context) {
  const answer = el("div", { className: "answer" });
  view.append(el("h1", { className: "visually-hidden" }, "Search"), form(context), answer);
  let again = null;
  const redo = () => again?.();
  window.addEventListener("collectionchange", redo, { signal: context.signal });
  const onPaste = (event) => searchFiles(context, imagesOf(event.clipboardData));
  document.addEventListener("paste", onPaste, { signal: context.signal });
  if (!context.argument) {
    answer.append(el("p", { className: "hint" }, "Nearest images appear here, the most alike first."));
    return;
  }
  again = await showJob(answer, context);
}

/** The drop area and the controls. A whole window of drop area: pictures are rarely aimed well. */
function form(context) {
  const picker = el("input", {
    type: "file",
    id: "picker",
    multiple: true,
    accept: "image/jpeg,image/png,image/webp,image/gif,image/bmp",
    className: "visually-hidden",
    onchange: () => searchFiles(context, [...picker.files]),
  });
  const area = el(
    "label",
    { className: "drop", for: "picker" },
    el("strong", {}, "Drop, paste or choose pictures"),
    el("span", {}, "or drag a result here to search for more like it"),
  );
  const onDrop = (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    const id = event.dataTransfer.getData(HIT_TYPE);
    if (id) searchLike(context, id);
    else searchFiles(context, imagesOf(event.dataTransfer));
  };
  const { signal } = context;
  document.addEventListener("dragover", (event) => event.preventDefault(), { signal });
  document.addEventListener("dragenter", () => document.body.classList.add("dragging"), { signal });
  const onLeave = (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging"); // Else it only went to another element.
  };
  document.addEventListener("dragleave", onLeave, { signal });
  document.addEventListener("drop", onDrop, { signal });
  return el("section", { "aria-label": "Query", className: "query-form" }, picker, area, controls(context));
}

function controls(context) {
  const limit = el(
    "select",
    { id: "limit", onchange: () => (options.limit = Number(limit.value)) },
    LIMITS.filter((each) => each <= context.info.limits.max_limit).map((each) =>
      el("option", { value: each, selected: each === options.limit }, String(each)),
    ),
  );
  const filter = el("input", {
    id: "filter",
    type: "text",
    value: options.filter,
    placeholder: "album == 'spring'",
    spellcheck: false,
    oninput: () => (options.filter = filter.value.trim()),
  });
  return el(
    "div",
    { className: "controls" },
    el("label", { for: "limit" }, "Results"),
    limit,
    el("label", { for: "filter" }, "Filter"),
    filter,
  );
}

function imagesOf(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}

/** Search with pictures of this machine. */
async function searchFiles(context, files) {
  const { max_queries: most } = context.info.limits;
  if (!files.length) return;
  if (files.length > most) notify(`Only the first ${most} pictures are searched with.`);
  const taken = files.slice(0, most);
  const body = new FormData();
  for (const file of taken) body.append("image", file, file.name);
  body.append("collection", context.collection());
  body.append("limit", String(options.limit));
  if (options.filter) body.append("filter", options.filter);
  await submit({ body }, taken);
}

/** Search with a stored image: more like this. */
export async function searchLike(context, id) {
  const json = { collection: context.collection(), queries: [{ image_id: id }], limit: options.limit };
  await submit({ json: options.filter ? { ...json, filter: options.filter } : json }, []);
}

async function submit(request, files) {
  const job = await attempt(() => call("/v1/searches", { method: "POST", ...request }));
  if (!job) return;
  sent.clear();
  sent.set(job.id, files);
  location.hash = `#/search/${job.id}`;
}

/** Show a search job; returns how to send the same search again, as when another collection is chosen. */
async function showJob(answer, context) {
  const id = context.argument;
  answer.append(el("p", { className: "hint", role: "status" }, "Searching…"));
  const job = await finalJob(id, { signal: context.signal }).finally(() => answer.replaceChildren());
  if (job.kind !== "search") {
    location.replace(`#/jobs/${id}`);
    return null;
  }
  if (job.state !== "succeeded") {
    answer.append(el("p", { className: "problem", role: "alert" }, job.error?.message ?? `The search was ${job.state}.`));
  } else {
    answer.append(heading(job), ...job.result.queries.map((query, at) => section(query, at, job, context)));
  }
  const files = sent.get(id) ?? [];
  const stored = job.request.queries?.[0]?.image_id;
  if (files.length) return () => searchFiles(context, files);
  return stored ? () => searchLike(context, stored) : null;
}

function heading(job) {
  const { queries, took_ms: took, collection, metric } = job.result;
  const found = queries.reduce((sum, query) => sum + query.hits.length, 0);
  return el(
    "p",
    { className: "summary", role: "status" },
    `${count(found)} results from ${collection} in ${Math.round(took)} ms, by ${metric}. `,
    el(
      "button",
      { type: "button", onclick: () => attempt(() => download(job.links.figure, `lookalike-${job.id}.png`)) },
      "Save as a picture",
    ),
  );
}

function section(query, at, job, context) {
  const label = query.query.image_id ? "a stored image" : (query.query.path ?? query.query.upload?.name ?? "a vector");
  const title = el("h2", {}, el("span", { className: "query-name" }, label));
  const picture = queryPicture(query, at, job);
  if (picture) title.prepend(picture);
  const body = query.error
    ? el("p", { className: "problem" }, query.error.message)
    : query.hits.length
      ? grid(query.hits, job.result, context)
      : el("p", { className: "hint" }, "Nothing found. Is the collection empty, or the filter too narrow?");
  return el("section", { className: "result", "aria-label": `Results for ${label}` }, title, body);
}

function queryPicture(query, at, job) {
  if (query.query.vector) return null;
  const image = el("img", { className: "query-picture", alt: "", width: 72, height: 72 });
  const file = sent.get(job.id)?.[at];
  if (file) {
    image.src = URL.createObjectURL(file);
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } else {
    image.addEventListener("error", () => image.remove(), { once: true });
    show(image, `/v1/jobs/${job.id}/queries/${at}/thumbnail`).catch(() => image.remove());
  }
  return image;
}
