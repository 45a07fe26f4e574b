// Uploads of files: they go on whatever view is shown, tell how far they are in the tray, and end in an ingest.

import { call, send, steadily } from "./api.js";
import { attempt, button, bytes, el, plural, troubleIn } from "./dom.js";

const PIECE_BYTES = 8 << 20; // Small enough for progress to move, large enough for few requests.
const AT_A_TIME = 3;

let underWay = 0;
window.addEventListener("beforeunload", (event) => {
  if (underWay) event.preventDefault(); // The browser asks before a tab with uploads is closed.
});

/**
 * Send files in pieces, a few at a time, then have `submit` make a job of them, as `{sha256, name}` each. `files` are of
 * `{file, name}`.
 */
export async function upload(files, submit, info) {
  const stop = new AbortController();
  const shown = progress(files, stop);
  const { hash } = location;
  underWay += 1;
  try {
    const job = await attempt(() => sendAll(files, submit, { info, signal: stop.signal, shown }));
    if (job && location.hash === hash) location.hash = `#/jobs/${job.id}`;
    else if (job) shown.done(job);
    if (!job || location.hash === `#/jobs/${job.id}`) shown.remove();
  } finally {
    underWay -= 1;
  }
}

async function sendAll(files, submit, { info, signal, shown }) {
  const kept = new Array(files.length);
  const waiting = files.entries();
  const sender = async () => {
    for (const [at, { file, name }] of waiting) kept[at] = { sha256: await sendOne(file, name, { info, signal, shown }), name };
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, sender));
  return submit(kept, signal);
}

async function sendOne(file, name, { info, signal, shown }) {
  const patiently = (work) => steadily(work, { signal, onTrouble: shown.trouble });
  const record = await patiently(() => call("/v1/uploads", { method: "POST", json: { size: file.size, name }, signal }));
  const piece = Math.min(PIECE_BYTES, info.limits.max_upload_bytes);
  let { offset, sha256 } = record;
  shown.advance(sha256 === null ? offset : file.size);
  while (sha256 === null) {
    const from = offset;
    ({ offset, sha256 } = await patiently(() => sendPiece(record.id, file, from, piece, signal)));
    shown.advance(offset - from);
  }
  return sha256;
}

async function sendPiece(id, file, from, piece, signal) {
  try {
    const body = file.slice(from, from + piece);
    const headers = { "Content-Type": "application/octet-stream", "Upload-Offset": String(from) };
    return await (await send(`/v1/uploads/${id}`, { method: "PATCH", body, headers, signal })).json();
  } catch (error) {
    if (error.code !== "upload_conflict") throw error;
    return call(`/v1/uploads/${id}`, { signal }); // An answer was lost: it says where to go on.
  }
}

function progress(files, stop) {
  const tray = document.getElementById("tray");
  const total = files.reduce((sum, { file }) => sum + file.size, 0);
  const bar = el("progress", { max: total || 1, value: 0, "aria-label": "Upload" });
  const text = el("span");
  const problem = el("span", { className: "problem", role: "status", hidden: true });
  const cancel = button("Cancel", () => stop.abort());
  const line = el("div", { className: "upload" }, bar, text, problem, cancel);
  let sent = 0;
  const advance = (size) => {
    sent += size;
    bar.value = sent;
    text.textContent = `${plural(files.length, "file")}, ${bytes(sent)} of ${bytes(total)} sent`;
  };
  const remove = () => {
    line.remove();
    tray.hidden = !tray.children.length;
  };
  const done = (job) => line.replaceChildren(el("a", { href: `#/jobs/${job.id}`, onclick: remove }, `${plural(files.length, "file")} sent: show the job`), button("×", remove, { "aria-label": "Dismiss" }));
  advance(0);
  tray.append(line);
  tray.hidden = false;
  return { advance, remove, done, trouble: troubleIn(problem) };
}
