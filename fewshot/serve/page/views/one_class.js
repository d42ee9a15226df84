// One class: its pictures; rename, merge, remove.

import { ask } from "../lib/api.js";
import { attempt, change, undo } from "../lib/changes.js";
import { button, counted, fill, h, tool, withoutDigests } from "../lib/dom.js";
import { choose, picturesAmong, preparedAll, released } from "../lib/pictures.js";
import { state } from "../lib/state.js";
import { ask as askText, confirm, dialog } from "../parts/dialogs.js";
import { classField, emptiness, linkButton, thumbnail } from "../parts/pieces.js";
import { say } from "../parts/toasts.js";
import { teach, told } from "./teach.js";

//: Pictures of one request.
const PAGE = 100;

const place = (name) => `#classes/${encodeURIComponent(name)}`;

/** Show a picture, and let it be moved or removed. */
export function showExample(example) {
  return dialog(example.class, (close) => {
    const to = classField("Move to", { placeholder: "another class" });
    const act = async (method, options, said) => { if (await change(method, `examples/${encodeURIComponent(example.id)}`, { match: state.model.version, ...options }, said)) close(true); };
    return h("div", { class: "stack" }, thumbnail(example.id, example.name, "example-picture"), h("p", { class: "soft file" }, withoutDigests(example.name)),
      state.readOnly ? null : [
        h("form", { class: "field-row", onsubmit: (event) => { event.preventDefault(); if (to.value) act("PATCH", { json: { class: to.value } }, `Moved to ${to.value}.`); } }, to.field, h("button", { type: "submit", class: "button" }, h("span", {}, "Move"))),
        h("div", { class: "row end" }, button("Remove this picture", () => act("DELETE", {}, "Picture removed."), { kind: "danger", picture: "bin" }))]);
  }, "narrow");
}

export class OneClass {
  constructor(name) {
    this.name = name;
    this.examples = [];
    this.count = h("p", { class: "lead" });
    this.grid = h("ul", { class: "thumbs big" });
    this.more = h("div", { class: "row center more" });
    this.watcher = new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) this.load(); }, { rootMargin: "600px" });
    this.watcher.observe(this.more);
    this.actions = h("div", { class: "row actions" });
    this.element = h("div", { class: "stack" }, h("a", { class: "back", href: "#classes" }, "‹ All classes"),
      h("div", { class: "title-row" }, h("div", { class: "heading" }, h("h1", { tabindex: "-1", class: "name" }, name), this.count), this.actions), this.grid, this.more);
  }

  show() {
    const known = state.classes.find((one) => one.name === this.name);
    if (!known) {
      this.version = null;
      fill(this.actions);
      fill(this.count);
      fill(this.grid);
      fill(this.more, emptiness("classes", "No such class", "It may have been renamed or removed.", linkButton("All classes", "#classes", "main")));
      return;
    }
    this.count.textContent = counted(known.examples, "picture");
    fill(this.actions, state.readOnly ? [] : [
      button("Add pictures", async () => this.receive(await choose()), { kind: "main", picture: "teach" }),
      button("Rename", () => this.rename(), { picture: "pen" }),
      button("Merge", () => this.merge(), { picture: "merge", disabled: state.classes.length < 2 }),
      button("Remove", () => this.remove(), { kind: "danger", picture: "bin" })]);
    if (this.version === state.model.version) return;
    const again = Math.max(PAGE, this.examples.length);
    this.version = state.model.version;
    this.examples = [];
    this.total = Infinity;
    this.load(Math.min(again, 1000));
  }

  async load(limit = PAGE) {
    if (this.loading || this.examples.length >= this.total || !this.version) return;
    this.loading = true;
    const found = await attempt(() => ask("GET", "examples", { query: { class: this.name, offset: this.examples.length, limit } }));
    this.loading = false;
    if (!found) return;
    const before = this.examples.length;
    this.total = found.total;
    this.examples.push(...found.examples);
    const nodes = found.examples.map((one) => this.tile(one));
    if (before) this.grid.append(...nodes);
    else fill(this.grid, nodes);
    if (this.place !== undefined) nodes[Math.min(this.place, nodes.length - 1)]?.querySelector("button").focus();
    this.place = undefined;
    const rest = found.total - this.examples.length;
    fill(this.more, rest > 0 ? button(`Show more of ${counted(found.total, "picture")}`, () => this.load()) : null,
      found.total ? null : h("p", { class: "soft" }, "No pictures of this class were kept."));
  }

  tile(one) {
    return h("li", {}, h("button", { type: "button", class: "tile", "aria-label": `Picture ${withoutDigests(one.name)}`, onclick: () => showExample(one) }, thumbnail(one.id)),
      state.readOnly ? null : tool(`Remove ${withoutDigests(one.name)}`, () => this.drop(one), "close", { class: "button tool corner" }));
  }

  /** Remove a picture; the focus goes on to the next one. */
  async drop(one) {
    this.place = this.examples.indexOf(one);
    await change("DELETE", `examples/${encodeURIComponent(one.id)}`, {}, "Picture removed.");
  }

  async receive(files) {
    const { pictures } = picturesAmong(files);
    if (!pictures.length || state.readOnly) return;
    const made = await preparedAll(pictures.map(({ file }) => file));
    const found = await attempt(() => teach(this.name, made));
    released(made);
    await attempt(() => state.refresh());
    if (found) say(told(this.name, found), { action: found.learned ? ["Undo", undo] : null });
  }

  async rename() {
    const name = await askText("Rename", "New name", this.name, "Rename", {});
    if (!name || name === this.name) return;
    if (state.names.includes(name)) await this.mergeInto(name);
    else await this.patch(name, false, `Renamed to ${name}.`);
  }

  async merge() {
    const name = await askText("Merge", "Into which class", "", "Merge", { list: "class-names", text: `All pictures of ${this.name} become pictures of that class.` });
    if (!name || name === this.name) return;
    if (!state.names.includes(name)) say(`There is no class ${name}.`, { kind: "bad" });
    else await this.mergeInto(name);
  }

  async mergeInto(name) {
    if (await confirm(`Merge into ${name}?`, `${name} gets the ${counted(state.classes.find((one) => one.name === this.name)?.examples ?? 0, "picture")} of ${this.name}, which goes. Undo brings it back.`, "Merge"))
      await this.patch(name, true, `${this.name} is part of ${name} now.`);
  }

  async patch(name, merge, said) {
    const done = await change("PATCH", "classes", { query: { name: this.name, merge: merge || null }, json: { name }, match: state.model.version }, said);
    if (done) location.replace(place(name));
  }

  async remove() {
    if (!(await confirm(`Remove ${this.name}?`, `The class goes with its ${counted(this.total ?? 0, "picture")}. Undo brings it back.`, "Remove"))) return;
    const done = await change("DELETE", "classes", { query: { name: this.name }, match: state.model.version }, `${this.name} is removed.`);
    if (done) location.hash = "#classes";
  }
}
