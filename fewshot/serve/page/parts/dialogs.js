// Dialogs: ask for a text, ask whether, and show something.

import { button, fresh, h, tool } from "../lib/dom.js";
import { state } from "../lib/state.js";

/** Open a dialog; `build` gets a function that closes it with a value. Resolves to that value, or undefined. */
export function dialog(title, build, className = "") {
  return new Promise((done) => {
    let value;
    const id = fresh("dialog");
    const close = (found) => { value = found; node.close(); };
    const node = h("dialog", { class: `dialog ${className}`, "aria-labelledby": id,
      onclose: () => { node.remove(); done(value); },
      onclick: (event) => event.target === node && node.close() });
    node.append(h("div", { class: "dialog-body" }, h("div", { class: "dialog-head" }, h("h2", { id }, title), tool("Close", () => node.close(), "close")), ...[build(close)].flat()));
    document.body.append(node);
    node.showModal();
    node.querySelector("[data-first]")?.focus();
  });
}

/** Ask whether to do something. */
export function confirm(title, text, yes) {
  return dialog(title, (close) => [
    h("p", {}, text),
    h("div", { class: "row end" }, button("Cancel", () => close(false)), button(yes, () => close(true), { kind: "danger", "data-first": true })),
  ]);
}

/** Ask for a text. */
export function ask(title, label, value, yes, { list, text, type = "text" } = {}) {
  return dialog(title, (close) => {
    const id = fresh("asked");
    const input = h("input", { id, type, value, list, maxlength: 500, autocomplete: "off", spellcheck: "false", "data-first": true, oninput: () => list && state.suggest(input.value.trim()) });
    return h("form", { class: "stack", onsubmit: (event) => { event.preventDefault(); if (input.value.trim()) close(input.value.trim()); } },
      text && h("p", {}, text),
      h("div", { class: "field" }, h("label", { for: id }, label), input),
      h("div", { class: "row end" }, button("Cancel", () => close()), h("button", { type: "submit", class: "button main" }, h("span", {}, yes))));
  });
}
