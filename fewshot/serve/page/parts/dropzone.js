// A place for pictures: drop, choose or paste.

import { button, h, icon } from "../lib/dom.js";
import { choose } from "../lib/pictures.js";

//: Nothing is dropped where fingers point.
const canDrop = !matchMedia("(hover: none)").matches;

/** Return a place for pictures; `onfiles` takes a list of {file, path}. */
export function dropzone(title, hint, onfiles, { folder = true } = {}) {
  const pick = async (options) => {
    const files = await choose(options);
    if (files.length) onfiles(files);
  };
  return h("div", { class: "dropzone" },
    h("span", { class: "drop-icon" }, icon("picture")),
    h("p", { class: "drop-title" }, canDrop ? title : title.replace(/^Drop /, "Add ").replace(/ here$/, "")),
    h("div", { class: "row center" },
      button("Choose pictures", () => pick({}), { kind: "plain", picture: "picture" }),
      folder && button("Choose a folder", () => pick({ folder: true }), { kind: "plain folder-choice", picture: "folder" })),
    h("p", { class: "hint" }, hint));
}
