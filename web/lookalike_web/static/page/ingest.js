// Ingest: a folder the service can read, files and folders of this machine, or addresses.

import { call } from "./api.js";
import { attempt, choice, el, field } from "./dom.js";
import { upload } from "./uploads.js";

export async function showIngest(view, context) {
  view.append(
    el("h1", {}, "Ingest"),
    el("p", { className: "hint" }, `Images are stored in ${context.collection()}. What is stored already is skipped, and nothing is stored twice.`),
    el(
      "div",
      { className: "columns" },
      card("Files of this machine", uploadForm(context)),
      context.info.roots ? card("A folder of the service", folderForm(context)) : null,
      context.info.url_ingest ? card("Addresses", urlForm(context)) : null,
    ),
  );
  const redraw = () => window.dispatchEvent(new HashChangeEvent("hashchange"));
  window.addEventListener("collectionchange", redraw, { signal: context.signal });
}

const card = (title, content) => el("section", { className: "card" }, el("h2", {}, title), content);

async function submit(context, source, extra = {}) {
  const json = { collection: context.collection(), source, ...extra };
  const job = await attempt(() => call("/v1/ingests", { method: "POST", json }));
  if (job) location.hash = `#/jobs/${job.id}`;
}

function folderForm(context) {
  const path = field("path", "Path, under a root", { required: true, spellcheck: false, placeholder: "photos/2024" });
  const include = field("include", "Only names like", { placeholder: "*.jpg *.png", spellcheck: false });
  const recursive = choice("recursive", "with its subfolders", { checked: true });
  const label = choice("label", "store the folder's name as label");
  const sync = choice("sync", "remove what is gone from the folder");
  const dry = choice("dry", "only say what would be done");
  const onsubmit = (event) => {
    event.preventDefault();
    const globs = include.input.value.split(/\s+/).filter(Boolean);
    const source = { type: "folder", path: path.input.value, recursive: recursive.input.checked, include: globs };
    submit(context, source, { label_from_folder: label.input.checked, sync: sync.input.checked, dry_run: dry.input.checked });
  };
  return el("form", { onsubmit }, [path, include, recursive, label, sync, dry].map((each) => each.row), el("button", { className: "primary" }, "Ingest folder"));
}

function urlForm(context) {
  const { input, row } = field("urls", "One address a line", { rows: 6, required: true, spellcheck: false }, "textarea");
  const onsubmit = (event) => {
    event.preventDefault();
    submit(context, { type: "urls", urls: input.value.split(/\s+/).filter(Boolean) });
  };
  return el("form", { onsubmit }, row, el("button", { className: "primary" }, "Ingest addresses"));
}

function uploadForm(context) {
  const start = (files) => files.length && upload(files, { collection: context.collection(), info: context.info });
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
    el("strong", {}, "Drop files or folders here"),
    el("span", {}, "They go on while you look at other views"),
    el("span", { className: "actions" }, picker("files", "Choose files", start, {}), picker("folder", "Choose a folder", start, { webkitdirectory: true })),
  );
  return area;
}

function picker(id, label, start, properties) {
  const input = el("input", {
    id,
    type: "file",
    multiple: true,
    className: "visually-hidden",
    onchange: () => start([...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }))),
    ...properties,
  });
  return el("label", { className: "button", for: id }, label, input);
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
