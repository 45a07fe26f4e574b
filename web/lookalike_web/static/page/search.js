// Search: pictures dropped, pasted, picked or taken from a result; the answers as grids. The address names the job.

import { call, download, finalJob, show } from "./api.js";
import { attempt, button, choice, count, el, field, notify, options, plural } from "./dom.js";
import { features } from "./features.js";
import { grid, HIT_TYPE } from "./grid.js";
import { openLightbox } from "./lightbox.js";
import { adoptTerms, bare, judged, nameOf, termFields, terms, TURNED, without } from "./query.js";

const LIMITS = [12, 24, 48, 96, 200, 500, 1000, 2000, 5000, 10_000];
const STARTERS = 24;

/** The pictures of the search that was just sent, by job: they are at hand, and need not be fetched. */
const sent = new Map();
let panelIsOpen = false;
let closerIsOpen = false;

export async function showSearch(view, context) {
  const offered = await features();
  const search = new Search(context, offered);
  const answer = el("div", { className: "answer" });
  view.append(el("h1", { className: "visually-hidden" }, "Search"), search.form(), answer);
  window.addEventListener("collectionchange", () => search.elsewhere(), { signal: context.signal });
  const onPaste = (event) => search.files(imagesOf(event.clipboardData));
  document.addEventListener("paste", onPaste, { signal: context.signal });
  if (context.argument) await search.show(answer);
  else await search.welcome(answer);
}

const imagesOf = (transfer) => [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));

class Search {
  constructor(context, offered) {
    this.context = context;
    this.offered = offered;
    this.fields = offered.fields("/v1/searches");
    this.queryFields = offered.fields("/v1/searches", "queries");
    this.combines = "positive" in this.queryFields;
    this.queries = []; // Of the search that is shown, as they can be sent again.
    this.pictures = [];
  }

  /** The drop area and the controls. A whole window of drop area: pictures are rarely aimed well. */
  form() {
    const { signal, argument } = this.context;
    const picker = el("input", {
      type: "file",
      id: "picker",
      multiple: true,
      accept: "image/jpeg,image/png,image/webp,image/gif,image/bmp",
      className: "visually-hidden",
      onchange: () => this.files([...picker.files]),
    });
    const area = el(
      "label",
      { className: argument ? "drop slim" : "drop", for: "picker" },
      el("strong", {}, argument ? "Search with another picture" : "Find pictures that look alike"),
      el("span", {}, argument ? "drop, paste or choose it" : "Drop a picture anywhere, paste one, or choose files"),
      argument ? null : el("span", { className: "button primary" }, "Choose pictures"),
    );
    const dragging = (on) => document.body.classList.toggle("dragging", on);
    document.addEventListener("dragenter", () => dragging(true), { signal });
    document.addEventListener("dragleave", (event) => event.relatedTarget || dragging(false), { signal });
    const onDrop = (event) => {
      event.preventDefault();
      dragging(false);
      const id = event.dataTransfer.getData(HIT_TYPE);
      if (id) this.with({ image_id: id });
      else this.files(imagesOf(event.dataTransfer));
    };
    document.addEventListener("drop", onDrop, { signal });
    this.panel = el("div", { className: "panel-place" });
    this.drawPanel();
    return el("section", { "aria-label": "Query", className: "query-form" }, picker, area, this.panel);
  }

  /** The terms, unobtrusive until somebody wants them; only those that this service knows. */
  drawPanel() {
    const most = this.context.info.limits.max_limit;
    const limits = LIMITS.filter((each) => each <= most || each === Number(terms.limit));
    if (!limits.includes(Number(terms.limit))) limits.push(Number(terms.limit));
    const parts = [
      ["limit", options("limit", "Results", limits.sort((a, b) => a - b), terms.limit)],
      ["filter", field("filter", "Filter", { placeholder: "album == 'spring'", spellcheck: false, value: terms.filter })],
      ["min_score", field("min_score", "Least score", { type: "number", step: "any", placeholder: "0.8", value: terms.min_score })],
      ["group_by", field("group_by", "One result per", { placeholder: "a metadata field", spellcheck: false, value: terms.group_by, pattern: "[A-Za-z][A-Za-z0-9_]{0,63}" })],
      ["distinct", choice("distinct", "Hide identical copies", { checked: terms.distinct })],
      ["exclude_self", choice("exclude_self", "Hide the query itself", { checked: terms.exclude_self })],
    ].filter(([name]) => name === "limit" || name in this.fields);
    const closer = this.closer();
    const submit = (event) => {
      event.preventDefault();
      for (const [name, { input }] of parts) terms[name] = readInput(input);
      closer.read();
      this.again();
    };
    const body = el(
      "form",
      { className: "panel", "aria-label": "Terms of the search", onsubmit: submit },
      parts.map(([, { row }]) => row),
      closer.place,
      el("button", { className: "primary" }, "Apply"),
    );
    const isSet = Object.keys(termFields(this.fields)).length - 1;
    const panel = el(
      "details",
      { className: "refine", open: panelIsOpen, ontoggle: () => (panelIsOpen = panel.open) },
      el("summary", {}, "Refine", isSet ? el("span", { className: "badge" }, `${isSet} set`) : null),
      body,
      this.byAddress(),
    );
    this.panel.replaceChildren(panel);
  }

  /** What few searches need: the picture turned, how closely and how freshly to look, and by which model. */
  closer() {
    const parts = [
      ["params", field("params", "Search parameter", { placeholder: "ef=256", spellcheck: false, pattern: "(ef|nprobe)=[0-9]+", value: Object.entries(terms.params).map((pair) => pair.join("=")).join() })],
      ["consistency", options("consistency", "Just stored images", [["", "as the service is set"], ["strong", "are found"], ["bounded", "may be missed"]], terms.consistency)],
      ["max_distance", field("max_distance", "Farthest distance", { type: "number", step: "any", value: terms.max_distance })],
      ["model", field("model", "Model", { placeholder: "the serving one", spellcheck: false, value: terms.model })],
    ].filter(([name]) => name in this.fields);
    const turned = "variants" in this.fields ? Object.entries(TURNED).map(([name, label]) => [name, choice(name, label, { checked: terms.variants.includes(name) })]) : [];
    const place = el(
      "details",
      { className: "closer", open: closerIsOpen, ontoggle: () => (closerIsOpen = place.open) },
      el("summary", {}, "More terms"),
      el("div", { className: "panel" }, parts.map(([, { row }]) => row)),
      turned.length ? el("fieldset", {}, el("legend", {}, "Search with the picture also"), turned.map(([, { row }]) => row)) : null,
    );
    const read = () => {
      for (const [name, { input }] of parts) terms[name] = readInput(input);
      terms.params = terms.params ? Object.fromEntries([terms.params.split("=")].map(([name, value]) => [name, Number(value)])) : {};
      terms.variants = turned.filter(([, { input }]) => input.checked).map(([name]) => name);
    };
    return { place: parts.length + turned.length ? place : null, read };
  }

  /** Search with what the service itself can read. */
  byAddress() {
    const { info } = this.context;
    const urls = "url" in this.queryFields && info.url_ingest;
    if (!info.roots && !urls) return null;
    const what = [info.roots && "Path under a root", urls && "web address"].filter(Boolean).join(" or ");
    const { input, row } = field("address", what, { required: true, spellcheck: false, placeholder: "photos/a.jpg" });
    const submit = (event) => {
      event.preventDefault();
      const text = input.value.trim();
      this.with(urls && /^https?:/i.test(text) ? { url: text } : { path: text });
    };
    return el("form", { className: "panel by-address", onsubmit: submit }, row, el("button", {}, "Search with it"));
  }

  /** Search with pictures of this machine. */
  async files(files) {
    const { max_queries: most } = this.context.info.limits;
    if (!files.length) return;
    if (files.length > most) notify(`Only the first ${most} pictures are searched with.`);
    const taken = files.slice(0, most);
    const body = new FormData();
    for (const file of taken) body.append("image", file, file.name);
    body.append("collection", this.context.collection());
    for (const [name, value] of Object.entries(termFields(this.fields))) body.append(name, typeof value === "object" ? JSON.stringify(value) : String(value));
    await this.submit({ body }, taken);
  }

  with(...queries) {
    return this.send(queries, []);
  }

  send(queries, pictures, extra = {}) {
    return this.submit({ json: { collection: this.context.collection(), queries, ...termFields(this.fields), ...extra } }, pictures);
  }

  async submit(request, pictures) {
    const job = await attempt(() => call("/v1/searches", { method: "POST", ...request }));
    if (!job) return;
    sent.clear();
    sent.set(job.id, pictures);
    location.hash = `#/search/${job.id}`;
  }

  /** The same search once more, by other terms. */
  again() {
    if (!this.queries.length) this.drawPanel();
    else if (this.queries.some((query) => query.upload) && !this.combines) this.files(this.pictures.filter(Boolean));
    else this.send(this.queries, this.pictures);
  }

  /** The same search in another collection; its own images are not stored there. */
  elsewhere() {
    terms.model = ""; // The other collection has models of its own.
    const isStored = (query) => query.image_id || query.positive;
    if (this.queries.length && !this.queries.some(isStored)) this.again();
    else if (location.hash !== "#/search") location.hash = "#/search";
    else window.dispatchEvent(new HashChangeEvent("hashchange"));
  }

  change(at, query) {
    const pictures = this.pictures.slice();
    if (!(query.upload || query.positive?.[0].upload)) pictures[at] = undefined;
    return this.send(this.queries.with(at, query), pictures);
  }

  /** Before the first search: pictures to begin with, or the way to some. */
  async welcome(place) {
    const name = this.context.collection();
    const { signal } = this.context;
    const collection = await call(`/v1/collections/${name}`, { signal }).catch((error) => {
      if (error.code === "collection_not_found") return { count: 0 };
      return { count: null };
    });
    if (collection.count === 0) {
      place.append(el("p", { className: "empty" }, `${name} has no images yet. `, el("a", { href: "#/ingest" }, "Ingest some"), " to search them."));
      return;
    }
    if (!this.offered.has("/v1/images", "get")) {
      const text = collection.count === null ? "Nearest images appear here, the most alike first." : `${plural(collection.count, "image")} in ${name}. The most alike appear here.`;
      place.append(el("p", { className: "hint" }, text));
      return;
    }
    const { images } = await call(`/v1/images?collection=${name}&limit=${STARTERS}`, { signal });
    place.append(
      el("h2", { className: "quiet" }, `Or begin with one of the ${plural(collection.count ?? images.length, "image")} in ${name}`),
      el("div", { className: "starters" }, images.map((image) => this.starter(image))),
    );
  }

  starter(image) {
    const picture = el("img", { alt: "", decoding: "async" });
    show(picture, image.thumbnail_url);
    return button(picture, () => this.with({ image_id: image.id }), { className: "starter", "aria-label": `Search with ${image.name || image.uri}` });
  }

  /** Show a search job. */
  async show(place) {
    const { argument: id, signal, onTrouble } = this.context;
    place.append(el("p", { className: "hint", role: "status" }, "Searching…"), skeleton());
    const job = await finalJob(id, { signal, onTrouble }).finally(() => place.replaceChildren());
    if (job.kind !== "search") {
      location.replace(`#/jobs/${id}`);
      return;
    }
    this.queries = job.request.queries.map(bare);
    this.pictures = sent.get(id) ?? [];
    this.context.adopt(job.request.collection);
    adoptTerms(job.request);
    this.drawPanel();
    if (job.state !== "succeeded") {
      place.append(el("p", { className: "problem", role: "alert" }, job.error?.message ?? `The search was ${job.state}.`));
      return;
    }
    place.append(heading(job), ...job.result.queries.map((answer, at) => this.section(answer, at, job)));
  }

  section(answer, at, job) {
    const query = this.queries[at];
    const label = nameOf(query);
    const picture = this.picture(query, at, job);
    const isPicture = !query.vector && !query.positive;
    const head = el(
      "header",
      { className: "query" },
      picture,
      el(
        "div",
        {},
        el("h2", {}, el("span", { className: "query-name" }, label)),
        el("p", { className: "hint" }, answer.error ? "" : `${plural(answer.hits.length, "result")}${query.box ? " for the region" : ""}`),
        query.positive ? this.chips(query, at, job) : null,
        isPicture && "box" in this.queryFields ? el("div", { className: "actions" }, this.cropButtons(query, at, job)) : null,
      ),
    );
    return el("section", { className: "result", "aria-label": `Results for ${label}` }, head, ...this.hits(answer, at, job));
  }

  hits(answer, at, job) {
    if (answer.error) return [el("p", { className: "problem" }, answer.error.message)];
    if (!answer.hits.length) return [el("p", { className: "empty" }, "Nothing found. Is the collection empty, or a term too narrow?")];
    const { hits } = answer;
    const { result } = job;
    const actions = {
      open: (place) => openLightbox(hits, place, result, actions, this.context),
      search: (hit) => this.with({ image_id: hit.id }),
      ...(this.combines && !this.queries[at].vector
        ? {
            more: (hit) => this.change(at, judged(this.queries[at], hit.id, true)),
            less: (hit) => this.change(at, judged(this.queries[at], hit.id, false)),
          }
        : {}),
    };
    const shown = grid(hits, result, actions, this.context.signal);
    let next = answer.next_offset ?? null;
    if (next === null) return [shown.list];
    const load = async () => {
      const json = { ...termFields(this.fields), collection: job.request.collection, queries: [this.queries[at]], offset: next };
      const page = await finalJob((await call("/v1/searches", { method: "POST", json })).id, this.context);
      const [more] = page.result?.queries ?? [];
      if (!more || more.error) throw new Error(more?.error.message ?? page.error?.message ?? "The search was cancelled.");
      shown.extend(more.hits);
      next = more.next_offset ?? null;
      if (next === null) wanted.remove();
    };
    const wanted = button("More results", async () => {
      wanted.disabled = true;
      await attempt(load);
      wanted.disabled = false;
    }, { className: "more" });
    return [shown.list, wanted];
  }

  picture(query, at, job) {
    if (query.vector) return null;
    const image = el("img", { className: "query-picture", alt: "" });
    const frame = el("div", { className: "query-frame" }, image);
    image.addEventListener("error", () => frame.remove(), { once: true });
    this.fill(image, query, at, job);
    if (query.box) {
      const [x, y, width, height] = query.box;
      const box = el("span", { className: "box" });
      Object.entries({ x, y, width, height }).forEach(([name, value]) => box.style.setProperty(`--${name}`, String(value)));
      frame.append(box);
    }
    return frame;
  }

  fill(image, query, at, job) {
    const file = this.pictures[at];
    if (!file) return show(image, `/v1/jobs/${job.id}/queries/${at}/thumbnail`);
    image.src = URL.createObjectURL(file);
    return image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  }

  cropButtons(query, at, job) {
    const { box, ...whole } = query;
    const choose = async () => {
      const { chooseRegion } = await import("./crop.js");
      chooseRegion((image) => this.fill(image, query, at, job), box, (chosen) => this.change(at, { ...whole, box: chosen }));
    };
    return [
      button(box ? "Change the region" : "Search a region", () => attempt(choose)),
      box ? button("Whole picture", () => this.change(at, whole)) : null,
    ];
  }

  /** The examples of a query, each of which can be taken out again. */
  chips(query, at, job) {
    const chip = (example, wanted, isOnly) => {
      const picture = el("img", { alt: "", decoding: "async" });
      picture.addEventListener("error", () => picture.remove(), { once: true });
      if (example.image_id) show(picture, `/v1/images/${example.image_id}/thumbnail?collection=${job.request.collection}`);
      else this.fill(picture, example, at, job);
      const what = `${wanted ? "like" : "not like"} ${nameOf(example)}`;
      const remove = button("×", () => this.change(at, without(query, example)), { "aria-label": `Remove: ${what}` });
      return el("li", { className: wanted ? "chip" : "chip not" }, el("span", { className: "sign" }, wanted ? "+" : "−"), picture, el("span", { className: "visually-hidden" }, what), isOnly ? null : remove);
    };
    const { positive, negative = [] } = query;
    return el(
      "ul",
      { className: "chips", "aria-label": "Examples" },
      positive.map((example) => chip(example, true, positive.length === 1)),
      negative.map((example) => chip(example, false, false)),
    );
  }
}

const readInput = (input) =>
  input.type === "checkbox" ? input.checked : input.value.trim() === "" ? "" : ["limit", "min_score", "max_distance"].includes(input.id) ? Number(input.value) : input.value.trim();

const skeleton = () => el("div", { className: "skeleton", "aria-hidden": "true" }, Array.from({ length: 12 }, () => el("span")));

function heading(job) {
  const { queries, took_ms: took, collection, metric } = job.result;
  const found = queries.reduce((sum, query) => sum + query.hits.length, 0);
  return el(
    "div",
    { className: "summary" },
    el("p", { role: "status" }, `${plural(found, "result")} from ${collection} in ${count(Math.round(took))} ms, by ${metric}`),
    button("Save as a picture", () => attempt(() => download(job.links.figure, `lookalike-${job.id}.png`))),
  );
}
