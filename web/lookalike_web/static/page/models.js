// A collection's models: embed it with another one beside the one that serves, compare what both find, switch, roll back.

import { call, finalJob, show } from "./api.js";
import { attempt, button, choice, count, dialog, el, options, picker, plural, row, table } from "./dom.js";

const SAMPLES = 6; // Stored images that are compared at once, and hits of each that are shown.
const HITS = 6;
/** What a switch to a model is called, by where the model stands. */
const SWITCHES = { shadow: "Switch to it", retired: "Roll back to it" };
const short = ({ name, fingerprint }) => `${name} (${fingerprint.slice(0, 8)})`;

export async function showModels(view, context) {
  const name = context.argument;
  const path = `/v1/collections/${encodeURIComponent(name)}`;
  context.adopt(name);
  const body = el("div");
  view.append(
    el("p", { className: "crumbs" }, el("a", { href: "#/collections" }, "Collections"), " / ", el("a", { href: `#/collections/${name}` }, name)),
    el("h1", {}, `Models of ${name}`),
    body,
  );
  const draw = async () => {
    const [record, info] = await Promise.all([call(path, { signal: context.signal }), call("/v1/info", { signal: context.signal })]);
    if (!record.model) {
      body.replaceChildren(el("p", { className: "empty" }, "It has no images yet: its model is that of the first worker that stores one."));
      return;
    }
    const models = record.models.length ? record.models : [{ model: record.model, state: "serving", count: record.count }];
    const others = models.filter(({ state }) => state !== "serving");
    body.replaceChildren(list(models, { path, name, draw }), reembedForm(name, models, info), ...(others.length ? [comparison(name, others, context)] : []));
  };
  await draw();
}

function list(models, { path, name, draw }) {
  const { body, view } = table("Models", ["Model", "Weights", "State", "Images", "What can be done"]);
  for (const { model, state, count: stored } of models) {
    const change = (work) => attempt(async () => {
      await work();
      await draw();
    });
    const use = () => change(() => call(`${path}/switch`, { method: "POST", json: { model: model.fingerprint } }));
    const drop = () => ask(`Drop ${short(model)}?`, `The vectors that ${name} has of it go. Image files and other models stay.`, "Drop", () =>
      change(() => call(`${path}/models/${model.fingerprint}`, { method: "DELETE" })),
    );
    const actions = SWITCHES[state] ? el("div", { className: "actions in-row" }, button(SWITCHES[state], use), button("Drop", drop)) : "–";
    body.append(row(short(model), model.trained ? model.weights : "untrained", el("span", { className: `state ${state}` }, state), stored === null ? "–" : count(stored), actions));
  }
  return view;
}

/** Ask before something that only work can undo. */
function ask(title, text, label, work) {
  dialog({ className: "ask", "aria-labelledby": "ask-title" }, (close) => [
    el("form", { method: "dialog", onsubmit: work }, el("h2", { id: "ask-title" }, title), el("p", {}, text), el("div", { className: "actions" }, el("button", { className: "primary" }, label), button("Keep it", close))),
  ]);
}

/** Filling goes by live workers: another model's have to run beside the others. */
function reembedForm(name, models, info) {
  const serving = models.find(({ state }) => state === "serving").model.fingerprint;
  const live = new Map(info.workers.filter(({ model }) => model && model.fingerprint !== serving).map(({ model }) => [model.fingerprint, short(model)]));
  if (!live.size) {
    return el("p", { className: "hint" }, "To embed it with another model, start workers that have it: ", el("code", {}, "LOOKALIKE_MODEL=resnet18"), " beside those that run.");
  }
  const model = options("model", "With", [...live], "");
  const change = choice("switch", "switch to it at the end");
  const onsubmit = (event) => {
    event.preventDefault();
    attempt(async () => {
      const json = { collection: name, model: model.input.value, switch: change.input.checked };
      location.hash = `#/jobs/${(await call("/v1/reembeds", { method: "POST", json })).id}`;
    });
  };
  return el(
    "section",
    { className: "block" },
    el("h2", {}, "Embed it again"),
    el("p", { className: "hint" }, "All images pass through another model while searches go on with the one that serves. Done again, only what is missing is embedded."),
    el("form", { className: "panel", "aria-label": "Embed it again", onsubmit }, model.row, change.row, el("button", { className: "primary" }, "Begin")),
  );
}

/** The same pictures searched for with two models, side by side. */
function comparison(name, others, context) {
  const model = options("other", "The serving one beside", others.map(({ model }) => [model.fingerprint, short(model)]), "");
  const place = el("div", { className: "comparison" });
  const run = (search) => attempt(async () => {
    place.replaceChildren(el("p", { className: "hint", role: "status" }, "Searching with both…"));
    const ask = async (terms) => finalJob((await search({ collection: name, limit: HITS, ...terms })).id, context);
    const jobs = await Promise.all([ask({}), ask({ model: model.input.value })]).finally(() => place.replaceChildren());
    place.append(...compared(jobs));
  });
  const withStored = () => run(async (terms) => {
    const { images } = await call(`/v1/images?collection=${encodeURIComponent(name)}&limit=${SAMPLES}`, { signal: context.signal });
    return call("/v1/searches", { method: "POST", json: { ...terms, queries: images.map(({ id }) => ({ image_id: id })) } });
  });
  const withPictures = (files) => run((terms) => {
    const body = new FormData();
    for (const { file, name: called } of files.slice(0, context.info.limits.max_queries)) body.append("image", file, called);
    for (const [field, value] of Object.entries(terms)) body.append(field, String(value));
    return call("/v1/searches", { method: "POST", body });
  });
  return el(
    "section",
    { className: "block", "aria-label": "Comparison" },
    el("h2", {}, "Compare"),
    el("div", { className: "panel" }, model.row, button("With images of the collection", withStored), picker("compared", "With other pictures", withPictures, { accept: "image/*" })),
    place,
  );
}

function compared(jobs) {
  const failed = jobs.find(({ state }) => state !== "succeeded");
  if (failed) return [el("p", { className: "problem", role: "alert" }, failed.error?.message ?? `The search was ${failed.state}.`)];
  const [serving, other] = jobs.map(({ result }) => result);
  const pairs = serving.queries.map((answer, at) => [answer.hits, other.queries[at].hits]);
  const shares = pairs.filter(([left, right]) => left.length && right.length).map(([left, right]) => shared(left, right).size / Math.max(left.length, right.length));
  const mean = shares.reduce((sum, each) => sum + each, 0) / (shares.length || 1);
  return [
    el("p", { role: "status" }, `${Math.round(100 * mean)} % of the first ${HITS} hits of ${plural(pairs.length, "picture")} are found by both; those have a coloured rim.`),
    ...pairs.map(([left, right], at) => el("div", { className: "pair" }, query(jobs[0], at), side(serving.model, left, shared(left, right)), side(other.model, right, shared(left, right)))),
  ];
}

function shared(left, right) {
  const ids = new Set(right.map(({ id }) => id));
  return new Set(left.map(({ id }) => id).filter((id) => ids.has(id)));
}

function query(job, at) {
  const picture = el("img", { alt: `Query ${at + 1}`, className: "asked" });
  show(picture, `/v1/jobs/${job.id}/queries/${at}/thumbnail`);
  return picture;
}

function side(model, hits, both) {
  const line = (hit) => {
    const picture = el("img", { alt: `${hit.name || hit.uri}, ${hit.distance.toFixed(3)}${both.has(hit.id) ? ", found by both" : ""}`, className: both.has(hit.id) ? "both" : "" });
    show(picture, hit.thumbnail_url);
    return el("li", {}, picture);
  };
  return el("div", { className: "side" }, el("h3", {}, short(model)), el("ol", { className: "strip" }, hits.map(line)));
}
