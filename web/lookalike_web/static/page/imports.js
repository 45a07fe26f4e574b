// Imports: the files of an export stored with their vectors as they are; nothing is embedded.

import { call } from "./api.js";
import { attempt, el, field, picker } from "./dom.js";
import { upload } from "./uploads.js";

/** A form that imports into a collection: files of this machine, a folder of the service, or an export job's. */
export function importForm(context) {
  const into = field("into", "Into the collection", { required: true, pattern: "[A-Za-z](_?[A-Za-z0-9])*", maxLength: 48, value: context.collection() });
  const from = field("from", context.info.roots ? "Id of an export's job, or a path under a root" : "Id of an export's job", { spellcheck: false, placeholder: "01J…" });
  const send = (source, signal) => call("/v1/imports", { method: "POST", json: { collection: into.input.value.trim(), ...source }, signal });
  const onsubmit = (event) => {
    event.preventDefault();
    const text = from.input.value.trim();
    if (!text) return from.input.focus();
    return attempt(async () => {
      const job = await send(/^[0-9A-Z]{26}$/.test(text) ? { job_id: text } : { path: text });
      location.hash = `#/jobs/${job.id}`;
    });
  };
  const withFiles = (files) => {
    if (!into.input.reportValidity()) return;
    const named = files.map(({ file }) => ({ file, name: file.name })); // The names they were exported with, without folders.
    upload(named, (uploads, signal) => send({ uploads }, signal), context.info);
  };
  return el(
    "details",
    { className: "refine", "aria-label": "Import" },
    el("summary", {}, "Import an export"),
    el("p", { className: "hint" }, "The images of an export are stored with their vectors; nothing is embedded. A collection that exists has to be of the same model."),
    el("form", { className: "panel", "aria-label": "Import", onsubmit }, into.row, from.row, el("button", {}, "Import"), picker("exported", "Or choose its files", withFiles)),
  );
}
