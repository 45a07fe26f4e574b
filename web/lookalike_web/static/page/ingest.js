// Ingest: a folder the service can read, files and folders of this machine, or addresses.

import { call, keyHeaders, ApiError } from "./api.js";
import { attempt, bytes, count, el } from "./dom.js";

const PIECE_BYTES = 8 << 20; // Small enough for progress to move, large enough for few requests.
const AT_A_TIME = 3;

export async function showIngest(view, context) {
  view.append(
    el("h1", {}, "Ingest"),
    el(
      "div",
      { className: "columns" },
      card("Files of this machine", uploadForm(context)),
      context.info.roots ? card("A folder of the service", folderForm(context)) : null,
      context.info.url_ingest ? card("Addresses", urlForm(context)) : null,
    ),
  );
}

const card = (title, content) => el("section", { className: "card" }, el("h2", {}, title), content);

async function submit(context, source, extra = {}) {
  const json = { collection: context.collection(), source, ...extra };
  const job = await attempt(() => call("/v1/ingests", { method: "POST", json }));
  if (job) location.hash = `#/jobs/${job.id}`;
}

function field(id, label, properties = {}) {
  const input = el("input", { id, ...properties });
  return { input, row: el("div", { className: "field" }, el("label", { for: id }, label), input) };
}

function choice(id, label, checked = false) {
  const input = el("input", { id, type: "checkbox", checked });
  return { input, row: el("div", { className: "choice" }, input, el("label", { for: id }, label)) };
}

function folderForm(context) {
  const path = field("path", "Path, under a root", { required: true, spellcheck: false, placeholder: "photos/2024" });
  const include = field("include", "Only names like", { placeholder: "*.jpg *.png", spellcheck: false });
  const recursive = choice("recursive", "with its subfolders", true);
  const label = choice("label", "store the folder's name as label");
  const sync = choice("sync", "remove what is gone from the folder");
  const dry = choice("dry", "only say what would be done");
  return el(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        const globs = include.input.value.split(/\s+/).filter(Boolean);
        const source = { type: "folder", path: path.input.value, recursive: recursive.input.checked, include: globs };
        submit(context, source, {
          label_from_folder: label.input.checked,
          sync: sync.input.checked,
          dry_run: dry.input.checked,
        });
      },
    },
    [path, include, recursive, label, sync, dry].map((each) => each.row),
    el("button", { className: "primary" }, "Ingest folder"),
  );
}

function urlForm(context) {
  const area = el("textarea", { id: "urls", rows: 6, required: true, spellcheck: false });
  return el(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        submit(context, { type: "urls", urls: area.value.split(/\s+/).filter(Boolean) });
      },
    },
    el("div", { className: "field" }, el("label", { for: "urls" }, "One address a line"), area),
    el("button", { className: "primary" }, "Ingest addresses"),
  );
}

function uploadForm(context) {
  const status = el("div", { className: "progress", role: "status" });
  const send = (files) => attempt(() => upload(context, files, status));
  const files = picker("files", "Choose files", send, {});
  const folder = picker("folder", "Choose a folder", send, { webkitdirectory: true });
  const area = el(
    "div",
    {
      className: "drop",
      ondragover: (event) => event.preventDefault(),
      ondrop: (event) => {
        event.preventDefault();
        attempt(async () => send(await filesOf(event.dataTransfer)));
      },
    },
    el("strong", {}, "Drop files or folders here"),
    el("span", { className: "actions" }, files, folder),
  );
  return el("div", {}, area, status);
}

function picker(id, label, send, properties) {
  const input = el("input", {
    id,
    type: "file",
    multiple: true,
    className: "visually-hidden",
    onchange: () => send([...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }))),
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

/** Send files in pieces, a few at a time, then ingest them as one job. */
async function upload(context, files, status) {
  const total = files.reduce((sum, { file }) => sum + file.size, 0);
  const bar = el("progress", { max: total || 1, value: 0, "aria-label": "Upload" });
  const text = el("span");
  status.replaceChildren(bar, text);
  let sent = 0;
  const advance = (size) => {
    sent += size;
    bar.value = sent;
    text.textContent = `${count(files.length)} files, ${bytes(sent)} of ${bytes(total)} sent`;
  };
  const kept = new Array(files.length);
  const waiting = files.entries();
  const sender = async () => {
    for (const [at, { file, name }] of waiting) kept[at] = { sha256: await send(file, name, context, advance), name };
  };
  advance(0);
  await Promise.all(Array.from({ length: AT_A_TIME }, sender));
  await submit(context, { type: "upload", files: kept });
}

async function send(file, name, { signal, info }, advance) {
  const record = await call("/v1/uploads", { method: "POST", json: { size: file.size, name }, signal });
  const piece = Math.min(PIECE_BYTES, info.limits.max_upload_bytes);
  let { offset, sha256 } = record;
  while (sha256 === null) {
    const part = file.slice(offset, offset + piece);
    const answer = await fetch(`/v1/uploads/${record.id}`, {
      method: "PATCH",
      body: part,
      signal,
      headers: { "Content-Type": "application/octet-stream", "Upload-Offset": String(offset), ...keyHeaders() },
    });
    if (!answer.ok) throw new ApiError(await answer.json().catch(() => ({})), answer.status);
    advance(part.size);
    ({ offset, sha256 } = await answer.json());
  }
  return sha256;
}
