// Ingest: files and folders of this machine, or what the service can read itself.

import { call } from "./api.js";
import { attempt, choice, el, field, options, picker } from "./dom.js";
import { upload } from "./uploads.js";

/** What one uploaded file can be besides a picture: the type of its source. */
const CONTAINERS = { archive: /\.(zip|tar|tar\.gz|tgz)$/i, manifest: /\.(csv|jsonl|ndjson|parquet)$/i };

export async function showIngest(view, context) {
  const { info } = context;
  const terms = termsForm();
  const submit = (source, extra = {}) => attempt(async () => show(await send(context, source, { ...terms.read(), ...extra })));
  const show = (job) => (location.hash = `#/jobs/${job.id}`);
  view.append(
    el("h1", {}, "Ingest"),
    el("p", { className: "hint" }, `Images are stored in ${context.collection()}. What is stored already is skipped, and nothing is stored twice.`),
    terms.place,
    el(
      "div",
      { className: "columns" },
      card("Files of this machine", uploadForm(context, terms)),
      info.roots ? card("A folder of the service", folderForm(submit)) : null,
      info.url_ingest ? card("Addresses", urlForm(submit)) : null,
      info.roots || info.url_ingest ? card("An archive or a manifest", containerForm(submit, info)) : null,
      info.object_roots ? card("Objects", objectsForm(submit)) : null,
    ),
  );
  const redraw = () => window.dispatchEvent(new HashChangeEvent("hashchange"));
  window.addEventListener("collectionchange", redraw, { signal: context.signal });
}

const card = (title, content) => el("section", { className: "card" }, el("h2", {}, title), content);

const send = (context, source, extra, signal) =>
  call("/v1/ingests", { method: "POST", json: { collection: context.collection(), source, ...extra }, signal });

/** What goes with every image, whatever it comes from; out of the way until somebody wants it. */
function termsForm() {
  const metadata = field("metadata", "Metadata, one NAME=VALUE a line", { rows: 3, spellcheck: false, placeholder: "album=spring\nyear=2024" }, "textarea");
  const priority = options("priority", "Priority", ["low", "normal", "high"], "normal");
  const label = choice("label", "store the folder's name as label");
  const checksum = choice("checksum", "tell changed files by their content");
  const dry = choice("dry", "only say what would be done");
  const place = el(
    "details",
    { className: "refine" },
    el("summary", {}, "Metadata and more"),
    el("div", { className: "columns" }, metadata.row, el("div", {}, [priority, label, checksum, dry].map((each) => each.row))),
  );
  const read = () => ({
    metadata: parsed(metadata.input.value),
    priority: priority.input.value,
    label_from_folder: label.input.checked,
    checksum: checksum.input.checked,
    dry_run: dry.input.checked,
  });
  return { place, read };
}

/** Lines of NAME=VALUE as fields: numbers and truth values are such, all else is text. */
function parsed(text) {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf("=");
      if (at < 1) throw new Error(`“${line}” is not of the form NAME=VALUE, as album=spring is.`);
      return [line.slice(0, at).trim(), meant(line.slice(at + 1).trim())];
    }),
  );
}

function meant(text) {
  if (["true", "false"].includes(text)) return text === "true";
  return text !== "" && String(Number(text)) === text ? Number(text) : text;
}

const globs = (id) => field(id, "Only names like", { placeholder: "*.jpg *.png", spellcheck: false });
const words = ({ input }) => input.value.split(/\s+/).filter(Boolean);

/** A form with one button; `onsubmit` is called instead of the browser's. */
function form(label, rows, onsubmit) {
  const prevented = (event) => {
    event.preventDefault();
    onsubmit();
  };
  return el("form", { onsubmit: prevented }, rows.map((each) => each.row), el("button", { className: "primary" }, label));
}

function folderForm(submit) {
  const path = field("path", "Path, under a root", { required: true, spellcheck: false, placeholder: "photos/2024" });
  const include = globs("include");
  const recursive = choice("recursive", "with its subfolders", { checked: true });
  const sync = choice("sync", "remove what is gone from the folder");
  return form("Ingest folder", [path, include, recursive, sync], () =>
    submit({ type: "folder", path: path.input.value, recursive: recursive.input.checked, include: words(include) }, { sync: sync.input.checked }),
  );
}

function objectsForm(submit) {
  const prefix = field("prefix", "Address of the prefix, under an object root", { required: true, spellcheck: false });
  const include = globs("objects-include");
  const sync = choice("objects-sync", "remove what is gone from there");
  return form("Ingest objects", [prefix, include, sync], () =>
    submit({ type: "objects", prefix: prefix.input.value, include: words(include) }, { sync: sync.input.checked }),
  );
}

function urlForm(submit) {
  const urls = field("urls", "One address a line", { rows: 6, required: true, spellcheck: false }, "textarea");
  return form("Ingest addresses", [urls], () => submit({ type: "urls", urls: words(urls) }));
}

function containerForm(submit, { roots, url_ingest: urls }) {
  const type = options("container", "It is", [["archive", "an archive of images (zip, tar)"], ["manifest", "a list of addresses with metadata (CSV, JSON lines, Parquet)"]], "archive");
  const what = [roots && "path under a root", urls && "web address"].filter(Boolean).join(" or ");
  const place = field("place", `Its ${what}`, { required: true, spellcheck: false, placeholder: "shards/0001.tar" });
  return form("Ingest it", [type, place], () => {
    const at = place.input.value.trim();
    submit({ type: type.input.value, ...(urls && /^https?:/i.test(at) ? { url: at } : { path: at }) });
  });
}

function uploadForm(context, terms) {
  const start = (files) => attempt(async () => sendFiles(files, context, terms.read()));
  const area = el(
    "div",
    {
      className: "drop",
      ondragover: (event) => event.preventDefault(),
      ondrop: (event) => {
        event.preventDefault();
        attempt(async () => start(await filesOf(event.dataTransfer)));
      },
    },
    el("strong", {}, "Drop files, folders or archives here"),
    el("span", {}, "They go on while you look at other views"),
    el("span", { className: "actions" }, picker("files", "Choose files", start), picker("folder", "Choose a folder", start, { webkitdirectory: true })),
  );
  return area;
}

/** One job for all pictures, and one for each archive and manifest among them; what lies in a folder is its content. */
function sendFiles(files, context, extra) {
  const typeOf = ({ name }) => !name.includes("/") && Object.keys(CONTAINERS).find((type) => CONTAINERS[type].test(name));
  for (const file of files.filter(typeOf)) {
    upload([file], ([kept], signal) => send(context, { type: typeOf(file), upload: kept }, extra, signal), context.info);
  }
  const pictures = files.filter((file) => !typeOf(file));
  if (pictures.length) upload(pictures, (kept, signal) => send(context, { type: "upload", files: kept }, extra, signal), context.info);
}

/** All files of what was dropped, folders walked, with their paths as names. */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const found = [];
  while (entries.length) {
    const entry = entries.shift();
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push({ file, name: entry.fullPath.replace(/^\//, "") });
      continue;
    }
    const reader = entry.createReader();
    for (let batch; (batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length; ) {
      entries.push(...batch);
    }
  }
  return found;
}
