// What pictures were named here since the page was opened, by their files: answers of Try that are saved tell it, too.

const names = new Map();

//: The same file is another object each time it is chosen.
const keyOf = (file) => `${file.name}/${file.size}/${file.lastModified}`;

/** Keep what a picture was named; null forgets it. */
export function named(file, name) {
  if (name === null) names.delete(keyOf(file));
  else names.set(keyOf(file), name);
}

/** Return what a picture was named; empty if it was not. */
export const nameOf = (file) => (file && names.get(keyOf(file))) ?? "";
