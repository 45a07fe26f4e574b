// The service: requests, server-sent events and pictures, with the API key where one is needed.

const KEY = "lookalike-api-key";
const PICTURES_AT_A_TIME = 6;
const LONGEST_PAUSE_MS = 15_000;

/** What the service answered instead of what was asked for: `code` for programs, `message` for people. */
export class ApiError extends Error {
  constructor(problem, status, retryAfter = null) {
    super(problem.detail ?? `The service answered with status ${status}.`);
    this.name = "ApiError";
    this.code = problem.code ?? "";
    this.status = status;
    this.problem = problem;
    this.retryAfterMs = Number(retryAfter) * 1000 || 0;
  }
}

let askForKey = async () => null;
let asking = null;

/** Name the function that asks the user for an API key: told whether one was refused, it gives one, or null. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

const storedKey = () => sessionStorage.getItem(KEY);

/** The headers that every request carries. */
const keyHeaders = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

/** A key other than the one that was refused; many requests may wait for one answer of the user. */
function otherKey(refused) {
  const key = storedKey();
  if (key && key !== refused) return Promise.resolve(key);
  asking ??= askForKey(Boolean(refused))
    .then((given) => {
      if (given) sessionStorage.setItem(KEY, given);
      return given;
    })
    .finally(() => (asking = null));
  return asking;
}

/** Send a request; throws `ApiError` for any answer that is no success. */
export async function send(path, { json, headers = {}, ...options } = {}) {
  const content = json === undefined ? {} : { "Content-Type": "application/json" };
  const body = json === undefined ? options.body : JSON.stringify(json);
  for (let key = storedKey(); ; ) {
    const answer = await fetch(path, { ...options, body, headers: { ...content, ...headers, ...keyHeaders(key) } });
    if (answer.ok) return answer;
    if (answer.status === 401) key = await otherKey(key);
    if (answer.status !== 401 || !key) {
      throw new ApiError(await answer.json().catch(() => ({})), answer.status, answer.headers.get("Retry-After"));
    }
  }
}

/** Ask the service; resolves to the parsed answer, null where it is empty. */
export async function call(path, options) {
  const answer = await send(path, options);
  return answer.status === 204 ? null : answer.json();
}

/** True of what may pass by itself: no connection, or a service that is busy, starting or being replaced. */
const passing = (error) => error instanceof TypeError || [429, 502, 503, 504].includes(error.status);

/** Wait; an aborted wait ends like an aborted request. */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal?.aborted) stop();
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", () => clearTimeout(timer) ?? stop(), { once: true });
  });
}

/**
 * Do something until it succeeds or fails for good, with growing pauses. `onTrouble` is told the seconds until the next
 * attempt, and null once all is well again. `work` is given a function to call at each sign of life.
 */
export async function steadily(work, { signal, onTrouble = () => {} } = {}) {
  let attempts = 0;
  const alive = () => {
    if (attempts) onTrouble(null);
    attempts = 0;
  };
  for (;;) {
    try {
      const answer = await work(alive);
      alive();
      return answer;
    } catch (error) {
      if (!passing(error)) throw error;
      const backoff = Math.min(LONGEST_PAUSE_MS, 500 * 2 ** attempts);
      attempts += 1;
      const ms = Math.max(error.retryAfterMs ?? 0, backoff);
      onTrouble(Math.ceil(ms / 1000));
      await pause(ms, signal);
    }
  }
}

const jobPath = (id) => `/v1/jobs/${encodeURIComponent(id)}`;
const isFinal = (job) => !["queued", "running"].includes(job.state);

/** Wait for a job's final record, through whatever passes. */
export async function finalJob(id, { signal, onTrouble } = {}) {
  for (;;) {
    const began = performance.now();
    const job = await steadily(() => call(`${jobPath(id)}?wait=25`, { signal }), { signal, onTrouble });
    if (isFinal(job)) return job;
    // Where too many wait already the answer comes at once, and asking again at once would make it worse.
    if (performance.now() - began < 1000) await pause(1000, signal);
  }
}

/** Follow a job until it is final: calls `onRecord` with each change, and goes on after whatever passes. */
export async function follow(id, onRecord, { signal, onTrouble }) {
  let last = "";
  let ended = false;
  const stream = async (alive) => {
    const answer = await send(`${jobPath(id)}/events`, { signal, headers: last ? { "Last-Event-ID": last } : {} });
    if (answer.status === 204) ended = true;
    else {
      for await (const event of events(answer.body)) {
        alive();
        last = event.id ?? last;
        if (event.name === "progress") onRecord(JSON.parse(event.data));
        if (event.name === "done") ended = true;
        if (ended) return;
      }
    }
  };
  while (!ended) {
    const began = performance.now();
    await steadily(stream, { signal, onTrouble });
    if (!ended && performance.now() - began < 1000) await pause(1000, signal);
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

const waiting = [];
let underWay = 0;
const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries.filter((entry) => entry.isIntersecting)) {
      if (isIntersecting) near.unobserve(target);
      waiting.push(target);
    }
    while (underWay < PICTURES_AT_A_TIME && waiting.length) next();
  },
  { rootMargin: "400px" },
);
const paths = new WeakMap();

/** Put a picture of the service into an image element, when it comes near; a failure is an `error` event of it. */
export function show(image, path) {
  if (!storedKey()) {
    image.loading = "lazy";
    image.src = path;
    return;
  }
  paths.set(image, path); // Only where a key is needed does a picture come through a script, a few at a time.
  near.observe(image);
}

async function next() {
  const image = waiting.pop(); // What came into sight last is what is looked at.
  underWay += 1;
  try {
    if (image.isConnected) {
      const url = URL.createObjectURL(await (await send(paths.get(image))).blob());
      image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
      image.src = url;
    }
  } catch {
    image.dispatchEvent(new Event("error"));
  } finally {
    underWay -= 1;
    if (waiting.length) next();
  }
}

/** Save what an address answers under a name; only with a key does it go through memory. */
export async function download(path, name) {
  const url = storedKey() ? URL.createObjectURL(await (await send(path)).blob()) : path;
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  if (url !== path) setTimeout(() => URL.revokeObjectURL(url), 1000);
}
