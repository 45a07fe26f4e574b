// Collections: what there is, how much of it, by which model and index; make one, delete one.

import { call } from "./api.js";
import { attempt, count, el } from "./dom.js";

export async function showCollections(view, context) {
  const body = el("tbody");
  view.append(
    el("h1", {}, "Collections"),
    el(
      "div",
      { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Collections" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ["Name", "Images", "Metric", "Index", "Model", "Change"].map((name) => el("th", { scope: "col" }, name)))),
        body,
      ),
    ),
    createForm(context, () => draw()),
  );
  const draw = async () => {
    const collections = await context.choose(context.collection());
    body.replaceChildren(...collections.map((each) => row(each, context, draw)));
    if (!collections.length) body.append(el("tr", {}, el("td", { colSpan: 6 }, "None yet: the first ingest makes one.")));
  };
  await draw();
}

function row({ name, metric, index, model }, context, draw) {
  const images = el("td", { className: "number" }, "…");
  attempt(async () => {
    const { count: stored } = await call(`/v1/collections/${name}`, { signal: context.signal });
    images.textContent = count(stored);
  });
  const network = model ? `${model.name}, ${model.trained ? model.weights : "untrained"}` : "bound by the first image";
  return el(
    "tr",
    {},
    el("td", {}, name),
    images,
    el("td", {}, metric),
    el("td", {}, index),
    el("td", {}, network),
    el("td", {}, el("button", { type: "button", onclick: () => remove(name, draw) }, "Delete", el("span", { className: "visually-hidden" }, ` ${name}`))),
  );
}

/** Deleting asks for the name: there is no way back but to ingest again. */
function remove(name, draw) {
  const input = el("input", { id: "confirm", required: true, pattern: name, autocomplete: "off" });
  const dialog = el(
    "dialog",
    { className: "ask", "aria-labelledby": "confirm-title", onclose: () => dialog.remove() },
    el(
      "form",
      {
        method: "dialog",
        onsubmit: () =>
          attempt(async () => {
            await call(`/v1/collections/${name}`, { method: "DELETE" });
            await draw();
          }),
      },
      el("h2", { id: "confirm-title" }, `Delete ${name}?`),
      el("p", {}, "Its vectors go; image files stay where they are. To get it back everything has to be ingested again."),
      el("label", { for: "confirm" }, "Type its name to delete it"),
      input,
      el(
        "div",
        { className: "actions" },
        el("button", { className: "primary" }, "Delete"),
        el("button", { type: "button", onclick: () => dialog.close() }, "Keep it"),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}

function createForm(context, draw) {
  const name = el("input", { id: "name", required: true, pattern: "[A-Za-z](_?[A-Za-z0-9])*", maxLength: 48 });
  const metric = options("metric", ["COSINE", "L2", "IP"]);
  const index = options("index", ["AUTO", "FLAT", "IVF_FLAT", "HNSW", "tutorial"]);
  return el(
    "form",
    {
      className: "controls",
      "aria-label": "New collection",
      onsubmit: (event) => {
        event.preventDefault();
        attempt(async () => {
          const json = { name: name.value, metric: metric.value, index: index.value };
          await call("/v1/collections", { method: "POST", json });
          name.value = "";
          await draw();
        });
      },
    },
    el("label", { for: "name" }, "New collection"),
    name,
    el("label", { for: "metric" }, "Metric"),
    metric,
    el("label", { for: "index" }, "Index"),
    index,
    el("button", { className: "primary" }, "Create"),
  );
}

const options = (id, names) => el("select", { id }, names.map((name) => el("option", { value: name }, name)));
