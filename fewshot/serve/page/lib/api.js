// The API: one function sends, and tells failures as sentences.

/** What the service refused: a sentence for people, and a code. */
export class Refusal extends Error {
  constructor(message, code, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

let askToken = async () => false;
let readOnlyFound = () => {};

/** Set what to do if a token is asked for: return whether one was accepted. */
export function onToken(act) {
  askToken = act;
}

/** Set what to do if the service turns out to be read-only. */
export function onReadOnly(act) {
  readOnlyFound = act;
}

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

/** Return the address of a part of the API, relative to the page. */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const parameters = new URLSearchParams(given);
  return `v1/${path}${given.length ? `?${parameters}` : ""}`;
}

/** Send a request and return the answer's JSON, or null. */
export async function ask(method, path, { query, json, body, type, match, signal, headers = {} } = {}) {
  const sent = { method, signal, credentials: "same-origin", headers: { Accept: "application/json", ...headers } };
  if (json !== undefined) [sent.body, sent.headers["Content-Type"]] = [JSON.stringify(json), "application/json"];
  else if (body !== undefined) sent.body = body;
  if (type) sent.headers["Content-Type"] = type;
  if (match) sent.headers["If-Match"] = `"${match}"`;
  for (let attempt = 0; ; attempt += 1) {
    let response;
    try {
      response = await fetch(address(path, query), sent);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal("The service does not answer; see whether it is still running", "offline", 0);
    }
    if (response.ok) return response.status === 204 ? null : response.json();
    const refusal = await refused(response);
    if (refusal.code === "token" && path !== "session" && attempt < 3 && (await askToken())) continue;
    if (refusal.status === 503 && attempt < 4) {
      await pause(Math.min(Number(response.headers.get("Retry-After")) || 1, 5));
      continue;
    }
    if (refusal.code === "read_only") readOnlyFound();
    throw refusal;
  }
}

async function refused(response) {
  try {
    const { error } = await response.json();
    return new Refusal(error.message, error.code, response.status);
  } catch {
    return new Refusal(`The service answered ${response.status}`, "http", response.status);
  }
}

/** Return pictures and fields as a form. */
export function form(pictures, fields = {}) {
  const found = new FormData();
  for (const [name, value] of Object.entries(fields)) found.append(name, value);
  for (const picture of pictures) found.append("images", picture.blob, picture.name);
  return found;
}

/** Cut pictures into parts that one request may hold. */
export function parts(pictures, { images = 256, body_bytes = 2 ** 26 } = {}, most = images) {
  const found = [];
  let room = 0;
  for (const picture of pictures) {
    const bytes = picture.blob.size + 1000;
    if (!found.length || found.at(-1).length >= Math.min(most, images) || bytes > room) {
      found.push([]);
      room = body_bytes * 0.9;
    }
    found.at(-1).push(picture);
    room -= bytes;
  }
  return found;
}
