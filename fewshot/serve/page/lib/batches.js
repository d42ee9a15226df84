// Many pictures in requests that the service takes; one that it cannot read does not stop the others.

import { parts } from "./api.js";

//: Statuses of what a picture itself is refused for.
export const OF_PICTURE = new Set([413, 415, 422]);

/** Send pictures with `send`; return [{pictures, answer}] and, for single pictures that were refused, {pictures, error}. */
export async function sentInParts(pictures, limits, send, { most, onpart = () => {} } = {}) {
  const found = [];
  for (const part of parts(pictures, limits, most)) {
    found.push(...(await sentOrSplit(part, send)));
    onpart(part.length);
  }
  return found;
}

async function sentOrSplit(part, send) {
  try {
    return [{ pictures: part, answer: await send(part) }];
  } catch (error) {
    if (!OF_PICTURE.has(error.status)) throw error;
    if (part.length === 1) return [{ pictures: part, error }];
    const middle = part.length >> 1;
    return [...(await sentOrSplit(part.slice(0, middle), send)), ...(await sentOrSplit(part.slice(middle), send))];
  }
}
