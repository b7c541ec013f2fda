// Talks to the node: the token, requests and the stream of events. docs/api.md describes both.

const TOKEN_KEY = "qshare-token";
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 8000;
/** The node sends a comment every 15 s; a stream that is silent for longer is dead. */
const SILENCE_MAX_MS = 40000;

/** An error that the node answered, or `unreachable` if it did not answer. */
export class ApiError extends Error {
  constructor(status, code, message, hint) {
    super(message);
    this.status = status;
    this.code = code;
    this.hint = hint;
  }
}

/**
 * Takes the token out of the address, so that it stays neither in the address bar nor in the
 * history, and keeps it for this tab.
 */
export function takeToken() {
  const match = /(?:^#|&)token=([^&]+)/.exec(location.hash);
  if (match) {
    try {
      setToken(decodeURIComponent(match[1]));
    } catch {
      // A damaged address: the page asks for the token.
    }
    history.replaceState(null, "", `${location.pathname}#/downloads`);
  }
  return sessionStorage.getItem(TOKEN_KEY);
}

export const setToken = (token) => sessionStorage.setItem(TOKEN_KEY, token.trim());
export const forgetToken = () => sessionStorage.removeItem(TOKEN_KEY);

function headers(more = {}) {
  return { Authorization: `Bearer ${sessionStorage.getItem(TOKEN_KEY) ?? ""}`, ...more };
}

const FETCH_OPTIONS = { credentials: "omit", cache: "no-store", redirect: "error" };

async function send(method, path, { body, signal } = {}) {
  const options = { ...FETCH_OPTIONS, method, signal, headers: headers() };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(`/api/1/${path}`, options);
  } catch (cause) {
    if (cause.name === "AbortError") throw cause;
    throw new ApiError(0, "unreachable", "the node does not answer", "Is it still running?");
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response) {
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.code, error.message, error.hint);
  } catch {
    return new ApiError(response.status, "internal", `the node answered ${response.status}`);
  }
}

/** Sends a request and returns the JSON of the answer. */
export const call = async (method, path, body) => (await send(method, path, { body })).json();

/** Returns a text as the QR code's image. */
export async function qrCode(text) {
  return (await send("POST", "qr", { body: { text } })).blob();
}

/**
 * Copies a file to the node. `onprogress` gets the number of bytes sent. Returns a promise of the
 * answer, and a function that aborts the transfer.
 */
export function upload(name, file, onprogress) {
  const request = new XMLHttpRequest();
  const path = name.split("/").map(encodeURIComponent).join("/");
  const done = new Promise((resolve, reject) => {
    request.open("PUT", `/api/1/uploads/${path}`);
    request.setRequestHeader("Authorization", headers().Authorization);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => onprogress(event.loaded);
    request.onload = () => {
      if (request.status < 400) return resolve(request.response);
      const error = request.response?.error ?? {};
      reject(new ApiError(request.status, error.code, error.message ?? `the node answered ${request.status}`, error.hint));
    };
    request.onerror = () => reject(new ApiError(0, "unreachable", "the connection to the node broke", "Drop the file again"));
    request.onabort = () => reject(new ApiError(0, "aborted", "cancelled"));
    request.send(file);
  });
  return { done, abort: () => request.abort() };
}

/**
 * The stream of events, which connects again by itself. `EventSource` could not send the token in
 * a header.
 */
export class Events {
  /** `handlers`: `event(name, body)`, `connected()`, `lost(error)`. */
  constructor(handlers) {
    this.handlers = handlers;
    this.download = null;
    this.retryMs = RETRY_FIRST_MS;
    this.abort = null;
    this.timer = 0;
  }

  /** Connects, following the details of one download or of none. */
  follow(download) {
    if (this.abort && this.download === download) return;
    this.download = download;
    this.connect();
  }

  stop() {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.abort = null;
  }

  async connect() {
    this.stop();
    const abort = new AbortController();
    this.abort = abort;
    const query = this.download ? `?download=${encodeURIComponent(this.download)}` : "";
    try {
      const response = await send("GET", `events${query}`, { signal: abort.signal });
      this.retryMs = RETRY_FIRST_MS;
      this.handlers.connected();
      await this.read(response.body.getReader(), abort);
      throw new ApiError(0, "unreachable", "the connection to the node ended");
    } catch (cause) {
      if (this.abort !== abort) return;
      this.abort = null;
      if (this.download && cause.code === "not_found") {
        // The download is gone; its list is still of interest.
        this.handlers.event("download-gone", this.download);
        return;
      }
      this.handlers.lost(cause);
      if (cause.status === 401 || cause.status === 403) return;
      this.timer = setTimeout(() => this.connect(), this.retryMs);
      this.retryMs = Math.min(this.retryMs * 2, RETRY_MAX_MS);
    }
  }

  async read(reader, abort) {
    const decoder = new TextDecoder();
    let left = "";
    for (;;) {
      let silence;
      const silent = new Promise((resolve) => {
        silence = setTimeout(resolve, SILENCE_MAX_MS, { done: true });
      });
      const { done, value } = await Promise.race([reader.read(), silent]);
      clearTimeout(silence);
      if (done || this.abort !== abort) {
        reader.cancel().catch(() => {});
        return;
      }
      const blocks = (left + decoder.decode(value, { stream: true })).split("\n\n");
      left = blocks.pop();
      for (const block of blocks) this.dispatch(block);
    }
  }

  dispatch(block) {
    let name = "message";
    const data = [];
    for (const line of block.split("\n")) {
      if (line.startsWith("event:")) name = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    }
    if (data.length > 0) this.handlers.event(name, JSON.parse(data.join("\n")));
  }
}
