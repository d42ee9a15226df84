// Small parts of views.

import { fill, fresh, h, icon, percent } from "../lib/dom.js";
import { state } from "../lib/state.js";

const missing = (className, text) => h("span", { class: `${className} missing`, ...(text ? { role: "img", "aria-label": text } : {}) }, icon("picture"));

/** Return the picture of an example. */
export function thumbnail(id, text = "", className = "thumb") {
  if (!id) return missing(className, "");
  const image = h("img", { class: className, loading: "lazy", decoding: "async", width: 96, height: 96, alt: text,
    src: `v1/examples/${encodeURIComponent(id)}/thumbnail` });
  image.addEventListener("error", () => image.replaceWith(missing(className, text)));
  return image;
}

/** Return a picture that the page itself holds. */
export function local(picture, className = "thumb", text = picture.name) {
  const image = h("img", { class: className, src: picture.url, alt: text, decoding: "async", width: 96, height: 96 });
  image.addEventListener("error", () => image.replaceWith(missing(className, text)));
  return image;
}

/** Return a bar of a share; what it says stands beside it. */
export function bar(share, className = "") {
  const node = h("span", { class: `bar ${className}`, "aria-hidden": "true" }, h("i"));
  node.firstChild.style.setProperty("--share", Math.max(0, Math.min(1, share)));
  return node;
}

/** Return a row of a name, a bar and per cent. */
export function barRow(name, share, className = "") {
  return h("li", { class: `bar-row ${className}` }, h("span", { class: "name", title: name }, name), bar(share), h("span", { class: "share" }, percent(share)));
}

/** Return what a view shows while it has nothing. */
export function emptiness(picture, title, text, ...actions) {
  return h("div", { class: "empty" }, h("span", { class: "empty-icon" }, icon(picture)), h("h2", {}, title), h("p", {}, text), actions.length ? h("div", { class: "row center" }, actions) : null);
}

/** Return a link that looks like a button. */
export function linkButton(text, href, kind = "plain", picture) {
  return h("a", { class: `button ${kind}`, href }, picture && icon(picture), h("span", {}, text));
}

/** Return a choice of a few, as radio buttons that look like one control. */
export function segments(legend, options, onchange, value = options[0][0]) {
  const name = fresh("choice");
  const inputs = options.map(([key, text, picture]) => {
    const input = h("input", { type: "radio", name, value: key, checked: key === value, onchange: () => onchange(key) });
    return h("label", {}, input, h("span", {}, picture && icon(picture), text));
  });
  return h("fieldset", { class: "segments" }, h("legend", { class: "unseen" }, legend), inputs);
}

/** Return a field for the name of a class, known or new, and a note that tells a class whose name is nearly the same. */
export function classField(text, { placeholder = "such as heron", hidden = false } = {}) {
  const id = fresh("field");
  const input = h("input", { id, type: "text", list: "class-names", maxlength: 200, placeholder, autocomplete: "off", autocapitalize: "off", spellcheck: "false", enterkeyhint: "done", oninput: () => { look(); state.suggest(input.value.trim()).then(look); } });
  const field = h("div", { class: "field" }, h("label", { for: id, class: hidden ? "unseen" : null }, text), input);
  const note = h("p", { class: "hint", role: "status", hidden: true });
  const look = () => {
    const name = input.value.trim();
    const twin = name && !state.knows(name) ? state.twin(name) : null;
    fill(note, twin ? `There is “${twin}” already; this makes another class.` : "");
    note.hidden = !twin;
  };
  return { field, input, note, get value() { return input.value.trim(); }, set value(name) { input.value = name; look(); } };
}

/** Return a field with a list to choose from. */
export function select(text, options, value, onchange) {
  const id = fresh("select");
  const input = h("select", { id, onchange: () => onchange(input.value) }, options.map(([key, shown]) => h("option", { value: key }, shown)));
  input.value = value;
  return { field: h("div", { class: "field inline" }, h("label", { for: id }, text), input), input };
}

/** Return known classes as buttons. */
export function chips(onclick, most = 12, current = "") {
  return state.names.slice(0, most).map((name) => h("button", { type: "button", class: "chip", "aria-pressed": String(name === current), onclick: () => onclick(name) }, name));
}

/** Return how far something is. */
export function progress(text) {
  const words = h("span", {}, text);
  const meter = h("progress", { max: 1, "aria-label": text });
  const node = h("div", { class: "progress", role: "status" }, words, meter);
  return { node, set(share, said) { meter.value = share; if (said) words.textContent = said; } };
}

/** Return a sign that something is on its way. */
export function waiting(text) {
  return h("div", { class: "waiting", role: "status" }, h("span", { class: "spinner", "aria-hidden": "true" }), text);
}

/** Return a title of a view with a sentence below. */
export function heading(title, text) {
  return h("div", { class: "heading" }, h("h1", { tabindex: "-1" }, title), text && h("p", { class: "lead" }, text));
}
