// JMAP client (RFC 8620): session, calls batched per tick into one request, uploads, download addresses.
// The session cookie is accepted only together with the header X-Mailstead, which another site cannot send.

export const CORE = "urn:ietf:params:jmap:core";
export const MAIL = "urn:ietf:params:jmap:mail";
export const SUBMISSION = "urn:ietf:params:jmap:submission";

const HEADERS = { "X-Mailstead": "1", Accept: "application/json" };

/** A method, set or request error; `type` is the JMAP error type, or "network" when the server was not reached. */
export class JmapError extends Error {
  constructor(type, description = "", detail = {}) {
    super(description || type);
    this.type = type;
    this.detail = detail;
  }
}

export let session = null;
let onReachable = () => {};

/** Have `report(isReachable)` called after every request. */
export function watchConnection(report) {
  onReachable = report;
}

function toSignIn() {
  const next = encodeURIComponent(location.pathname + location.search);
  location.assign(`/login/?next=${next}`);
  return new Promise(() => {}); // the page is leaving: nothing after this should run
}

async function fetchJson(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { ...options, headers: { ...HEADERS, ...options.headers }, credentials: "same-origin" });
  } catch (error) {
    onReachable(false);
    throw new JmapError("network", "The server cannot be reached.", { cause: String(error) });
  }
  if (response.status === 401 || response.status === 403) return toSignIn();
  const body = await response.json().catch(() => null);
  if (!response.ok) {
    onReachable(response.status < 500);
    throw new JmapError(body?.type ?? "serverFail", body?.detail ?? `The server answered ${response.status}.`, body ?? {});
  }
  onReachable(true);
  if (body === null) throw new JmapError("serverFail", "The server's answer cannot be read.");
  return body;
}

/** Load the session resource; everything else needs it. */
export async function loadSession() {
  session = await fetchJson("/.well-known/jmap");
  return session;
}

export const accountId = () => session.primaryAccounts[MAIL];
export const limit = (name, otherwise) => session.capabilities[CORE]?.[name] ?? otherwise;

let queue = [];
let number = 0;

/**
 * Call a method. Calls made in the same tick travel in one request, in order. The promise gives the response's
 * arguments; its `ref(path)` makes a result reference for a later call of the same tick (RFC 8620 §3.7).
 */
export function call(name, args) {
  const id = `c${number++}`;
  const entry = { id, name, args: { accountId: accountId(), ...args } };
  const promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
  promise.catch(() => {}); // whoever awaits it sees the error; a call made for its reference alone needs no handler
  promise.ref = (path) => ({ resultOf: id, name, path });
  if (queue.length === 0) queueMicrotask(flush);
  queue.push(entry);
  return promise;
}

async function flush() {
  const entries = queue;
  queue = [];
  const most = limit("maxCallsInRequest", 16);
  // References reach back within one request only, and no caller makes a chain longer than the limit.
  for (let start = 0; start < entries.length; start += most) send(entries.slice(start, start + most));
}

async function send(entries) {
  const using = [CORE, MAIL, SUBMISSION].filter((name) => name in session.capabilities);
  const methodCalls = entries.map(({ id, name, args }) => [name, args, id]);
  try {
    const body = await fetchJson(session.apiUrl, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ using, methodCalls }),
    });
    settle(entries, body.methodResponses);
  } catch (error) {
    for (const entry of entries) entry.reject(error);
  }
}

function settle(entries, responses) {
  const answers = new Map();
  for (const [name, args, id] of responses) {
    if (!answers.has(id)) answers.set(id, [name, args]); // further ones are implicit calls (onSuccessUpdateEmail)
    else if (name === "error") answers.set(id, [name, args]);
  }
  for (const { id, resolve, reject } of entries) {
    const [name, args] = answers.get(id) ?? ["error", { type: "serverFail", description: "The server left a call unanswered." }];
    if (name === "error") reject(new JmapError(args.type, args.description, args));
    else resolve(args);
  }
}

/** Throw the first per-object error of a /set response, so that callers see one kind of failure. */
export function checkSet(response) {
  for (const kind of ["notCreated", "notUpdated", "notDestroyed"]) {
    for (const error of Object.values(response[kind] ?? {})) {
      throw new JmapError(error.type, error.description, error);
    }
  }
  return response;
}

const expand = (template, values) => template.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(values[name] ?? ""));

/** Address at which a blob downloads as an attachment called `name`. */
export function downloadUrl(blobId, name = "attachment", type = "application/octet-stream") {
  return expand(session.downloadUrl, { accountId: accountId(), blobId, name, type });
}

export function eventsUrl(types) {
  return expand(session.eventSourceUrl, { types: types.join(","), closeafter: "no", ping: 30 });
}

/** Fetch a blob's bytes; used for previews and never for navigation. */
export async function fetchBlob(blobId, name, type) {
  const response = await fetch(downloadUrl(blobId, name, type), { headers: HEADERS, credentials: "same-origin" });
  if (!response.ok) throw new JmapError("notFound", `${name} cannot be loaded.`);
  return new Blob([await response.arrayBuffer()], { type });
}

/** Upload a file: `onProgress(0…1)`; gives {blobId, type, size}. XMLHttpRequest, because fetch reports no progress. */
export function upload(file, { onProgress = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const most = limit("maxSizeUpload", Infinity);
    if (file.size > most) {
      reject(new JmapError("tooLarge", `Larger than the ${Math.floor(most / 1048576)} MB that can be sent.`));
      return;
    }
    const request = new XMLHttpRequest();
    request.open("POST", expand(session.uploadUrl, { accountId: accountId() }));
    for (const [name, value] of Object.entries(HEADERS)) request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new JmapError("network", "The upload did not get through."));
    request.onabort = () => reject(new JmapError("aborted"));
    request.onload = () => {
      if (request.status === 401) toSignIn();
      else if (request.status >= 200 && request.status < 300 && request.response) resolve(request.response);
      else reject(new JmapError(request.response?.type ?? "serverFail", request.response?.detail ?? "The upload was refused."));
    };
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
