// Collections: what there is, how much of it, by which model and index; make one, look into one, delete one.

import { call, show } from "./api.js";
import { attempt, button, count, dialog, el, facts, field, options } from "./dom.js";
import { features } from "./features.js";
import { importForm } from "./imports.js";

export async function showCollections(view, context) {
  const offered = await features();
  if (context.argument) return showCollection(view, context, offered);
  const cards = el("div", { className: "cards" });
  const draw = async () => {
    const collections = await context.choose(context.collection());
    cards.replaceChildren(...collections.map((each) => card(each, context, offered, draw)));
    if (!collections.length) cards.append(el("p", { className: "empty" }, "None yet: the first ", el("a", { href: "#/ingest" }, "ingest"), " makes one."));
  };
  view.append(el("h1", {}, "Collections"), cards, createForm(draw), offered.has("/v1/imports") ? importForm(context) : "");
  return draw();
}

const network = (model) => (model ? `${model.name}, ${model.trained ? model.weights : "untrained"}` : "bound by the first image");

function card({ name, metric, index, model }, context, offered, draw) {
  const images = el("span", { className: "big" }, "…");
  const strip = el("div", { className: "strip" });
  attempt(async () => {
    const { count: stored } = await call(`/v1/collections/${name}`, { signal: context.signal });
    images.textContent = count(stored);
    if (stored && offered.has("/v1/images", "get")) await samples(strip, name, 5, context);
  });
  return el(
    "article",
    { className: "card collection-card", "aria-label": name },
    el("h2", {}, el("a", { href: `#/collections/${name}` }, name)),
    el("p", {}, images, " images"),
    strip,
    el("p", { className: "hint" }, `${metric}, ${index}, ${network(model)}`),
    el("div", { className: "actions" }, el("a", { className: "button", href: `#/collections/${name}` }, "Open", hidden(name)), button(["Delete", hidden(name)], () => remove(name, draw))),
  );
}

const hidden = (name) => el("span", { className: "visually-hidden" }, ` ${name}`);

async function samples(place, name, limit, { signal }) {
  const { images } = await call(`/v1/images?collection=${name}&limit=${limit}`, { signal });
  for (const image of images) {
    const picture = el("img", { alt: "", decoding: "async" });
    show(picture, image.thumbnail_url);
    place.append(picture);
  }
}

/** Start a job and go to the view that shows it. */
async function start(path, json, view) {
  const job = await attempt(() => call(path, { method: "POST", json }));
  if (job) location.hash = `#/${view}/${job.id}`;
}

async function showCollection(view, context, offered) {
  const name = context.argument;
  context.adopt(name);
  const record = await call(`/v1/collections/${name}`, { signal: context.signal });
  const strip = el("div", { className: "strip large" });
  const tools = [
    ["/v1/duplicates", duplicatesTool],
    ["/v1/maps", mapTool],
    ["/v1/evaluations", recallTool],
    ["/v1/exports", exportTool],
    ["/v1/reembeds", modelsTool],
    ["/v1/collections/{name}/reindex", reindexTool],
  ].filter(([path]) => offered.has(path));
  view.append(
    el("p", { className: "crumbs" }, el("a", { href: "#/collections" }, "Collections")),
    el("h1", {}, name),
    facts(told(record)),
    strip,
    el("div", { className: "actions" }, el("a", { className: "button primary", href: "#/search" }, "Search it"), el("a", { className: "button", href: "#/ingest" }, "Ingest more")),
    el("div", { className: "columns tools" }, tools.map(([, tool]) => tool(name, record))),
  );
  if (record.count && offered.has("/v1/images", "get")) await samples(strip, name, 12, context);
}

function told({ count: stored, metric, index, index_chosen: chosen, model, models = [] }) {
  const why = chosen && [chosen.index ?? chosen.index_type, chosen.reason].filter(Boolean).join(": ");
  return [
    ["Images", count(stored)],
    ["Metric", metric],
    ["Index", why ? `${index} (${why})` : index],
    ["Model", network(model)],
    ...(model ? [["Vectors", `${count(model.dim)} numbers${model.precision ? `, ${model.precision} by ${model.engine}` : ""}`]] : []),
    ...(models.length > 1 ? [["Models", models.map((each) => [each.model.name, each.state, each.count].filter((part) => part !== undefined && part !== null).join(" ")).join("; ")]] : []),
  ];
}

const tool = (title, text, onsubmit, ...content) =>
  el(
    "form",
    {
      className: "card",
      "aria-label": title,
      onsubmit: (event) => {
        event.preventDefault();
        onsubmit();
      },
    },
    el("h2", {}, title),
    el("p", { className: "hint" }, text),
    content,
  );

const go = (label) => el("button", { className: "primary" }, label);

function duplicatesTool(name) {
  const level = options("level", "How alike", [["content", "the same bytes"], ["picture", "the same picture, resized or saved anew"], ["near", "nearly the same"]], "content");
  const run = () => start("/v1/duplicates", { collection: name, level: level.input.value }, "duplicates");
  return tool("Duplicates", "Groups of images that are the same, with the one to keep. Nothing is deleted before you say so.", run, level.row, go("Find duplicates"));
}

const mapTool = (name) =>
  tool("Map", "All images on a plane, alike ones near each other.", () => start("/v1/maps", { collection: name }, "maps"), go("Draw the map"));

const recallTool = (name) =>
  tool("Recall", "How much of what an exact search finds the index finds, and how fast.", () => start("/v1/evaluations", { collection: name, type: "recall" }, "evaluations"), go("Measure recall"));

function exportTool(name) {
  const format = options("format", "Files", [["parquet", "Parquet"], ["npy", "NumPy and JSON lines"]], "parquet");
  const run = () => start("/v1/exports", { collection: name, format: format.input.value }, "jobs");
  return tool("Export", "Ids, addresses, metadata and vectors as files, which another service can import.", run, format.row, go("Export"));
}

const modelsTool = (name, { models }) =>
  tool("Models", models?.length > 1 ? `It has vectors of ${models.length} models.` : "Embed it with another model while this one serves, compare both, switch and roll back.", () => (location.hash = `#/models/${name}`), go("Show its models"));

function reindexTool(name, record) {
  const index = options("reindex", "Index", ["AUTO", "FLAT", "IVF_FLAT", "HNSW"], record.index);
  const run = () => start(`/v1/collections/${name}/reindex`, { index: index.input.value }, "jobs");
  return tool("Index", "Build another index over the same vectors.", run, index.row, go("Build it"));
}

/** Deleting asks for the name: there is no way back but to ingest again. */
function remove(name, draw) {
  const input = el("input", { id: "confirm", required: true, pattern: name, autocomplete: "off" });
  const onsubmit = () =>
    attempt(async () => {
      await call(`/v1/collections/${name}`, { method: "DELETE" });
      await draw();
    });
  dialog({ className: "ask", "aria-labelledby": "confirm-title" }, (close) => [
    el(
      "form",
      { method: "dialog", onsubmit },
      el("h2", { id: "confirm-title" }, `Delete ${name}?`),
      el("p", {}, "Its vectors go; image files stay where they are. To get it back everything has to be ingested again."),
      el("div", { className: "field" }, el("label", { for: "confirm" }, "Type its name to delete it"), input),
      el("div", { className: "actions" }, el("button", { className: "primary" }, "Delete"), button("Keep it", close)),
    ),
  ]);
}

function createForm(draw) {
  const name = field("name", "New collection", { required: true, pattern: "[A-Za-z](_?[A-Za-z0-9])*", maxLength: 48 });
  const metric = options("metric", "Metric", ["COSINE", "L2", "IP"], "COSINE");
  const index = options("index", "Index", ["AUTO", "FLAT", "IVF_FLAT", "HNSW", "tutorial"], "AUTO");
  const onsubmit = (event) => {
    event.preventDefault();
    attempt(async () => {
      await call("/v1/collections", { method: "POST", json: { name: name.input.value, metric: metric.input.value, index: index.input.value } });
      name.input.value = "";
      await draw();
    });
  };
  return el("form", { className: "panel", "aria-label": "New collection", onsubmit }, name.row, metric.row, index.row, el("button", { className: "primary" }, "Create"));
}
