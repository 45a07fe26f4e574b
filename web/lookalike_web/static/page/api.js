// The service: requests, server-sent events and pictures, with the API key where one is needed.

const KEY = "lookalike-api-key";

/** What the service answered instead of what was asked for: `code` for programs, `message` for people. */
export class ApiError extends Error {
  constructor(problem, status) {
    super(problem.detail ?? `The service answered with status ${status}.`);
    this.name = "ApiError";
    this.code = problem.code ?? "";
    this.status = status;
  }
}

let askForKey = async () => null;

/** Name the function that asks the user for an API key: it returns one, or null. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** The headers that every request carries. */
export function keyHeaders() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Keep an API key until the tab closes. */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

async function send(path, { json, headers = {}, ...options } = {}) {
  const content = json === undefined ? {} : { "Content-Type": "application/json" };
  const body = json === undefined ? options.body : JSON.stringify(json);
  const init = () => ({ ...options, body, headers: { ...content, ...headers, ...keyHeaders() } });
  let answer = await fetch(path, init());
  while (answer.status === 401) {
    const key = await askForKey();
    if (!key) break;
    useKey(key);
    answer = await fetch(path, init());
  }
  if (!answer.ok) throw new ApiError(await answer.json().catch(() => ({})), answer.status);
  return answer;
}

/** Ask the service; resolves to the parsed answer, null where it is empty. Throws `ApiError`. */
export async function call(path, options) {
  const answer = await send(path, options);
  return answer.status === 204 ? null : answer.json();
}

/** Ask for bytes, as of a picture. */
export async function blob(path) {
  return (await send(path)).blob();
}

/** Wait for a job's final record. */
export async function finalJob(id, { signal } = {}) {
  for (;;) {
    const began = performance.now();
    const job = await call(`/v1/jobs/${encodeURIComponent(id)}?wait=25`, { signal });
    if (!["queued", "running"].includes(job.state)) return job;
    // Where too many wait already the answer comes at once, and asking again at once would make it worse.
    if (performance.now() - began < 1000) await new Promise((done) => setTimeout(done, 1000));
  }
}

/** Follow a job: calls `onRecord` with each change, and resolves once it is final or `signal` aborts. */
export async function follow(id, onRecord, signal) {
  const path = `/v1/jobs/${encodeURIComponent(id)}/events`;
  let last = "";
  while (!signal.aborted) {
    const answer = await send(path, { signal, headers: last ? { "Last-Event-ID": last } : {} });
    if (answer.status === 204) return;
    for await (const event of events(answer.body)) {
      last = event.id ?? last;
      if (event.name === "progress") onRecord(JSON.parse(event.data));
      if (event.name === "done") return;
    }
  }
}

/** Read a stream of server-sent events. `EventSource` would not send an API key. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const event = {};
      for (const line of text.slice(0, end).split("\n")) {
        const colon = line.indexOf(": ");
        if (colon > 0) event[line.slice(0, colon) === "event" ? "name" : line.slice(0, colon)] = line.slice(colon + 2);
      }
      text = text.slice(end + 2);
      yield event;
    }
  }
}

/** Put a picture of the service into an image element; only where a key is needed does it go through a script. */
export async function show(image, path) {
  if (!sessionStorage.getItem(KEY)) {
    image.src = path;
    return;
  }
  const url = URL.createObjectURL(await blob(path));
  image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  image.src = url;
}

/** Save what an address answers under a name, with the key where one is needed. */
export async function download(path, name) {
  const url = URL.createObjectURL(await blob(path));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
