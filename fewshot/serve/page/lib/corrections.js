// What pictures were named here since the page was opened, by their files: answers of Try that are saved tell it, too.

const names = new Map();

//: The same file is another object each time it is chosen.
const keyOf = (file) => `${file.name}/${file.size}/${file.lastModified}`;

//: Versions that were undone, which may be done again.
const undone = new Set();

/** Keep what a picture was named, in a version if that is known; null forgets it. */
export function named(file, name, version = null) {
  if (name === null) names.delete(keyOf(file));
  else names.set(keyOf(file), { name, version });
}

/** A version was undone, and what was named in it. */
export const undid = (version) => undone.add(version);

/** A version was done again. */
export const redid = (version) => undone.delete(version);

/** Return what a picture was named; empty if it was not. */
export function nameOf(file) {
  const found = file && names.get(keyOf(file));
  return found && !undone.has(found.version) ? found.name : "";
}
