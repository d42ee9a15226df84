// One class: its pictures; rename, merge, remove.

import { ask } from "../lib/api.js";
import { attempt, change, saving, undoing } from "../lib/changes.js";
import { button, counted, fill, h, icon, tool, whenNear, withoutDigests } from "../lib/dom.js";
import { choose, picturesAmong, preparedAll, released } from "../lib/pictures.js";
import { state } from "../lib/state.js";
import { ask as askText, confirm, dialog } from "../parts/dialogs.js";
import { classField, emptiness, linkButton, thumbnail } from "../parts/pieces.js";
import { say, sayLeftOut } from "../parts/toasts.js";
import { teach, told } from "./teach.js";

//: Pictures of one request.
const PAGE = 100;

const place = (name) => `#classes/${encodeURIComponent(name)}`;

/** Show a picture, and let it be moved or removed. */
export function showExample(example) {
  return dialog(example.class, (close) => {
    const to = classField("Move to", { placeholder: "another class" });
    const act = async (method, options, said) => { if (await change(method, `examples/${encodeURIComponent(example.id)}`, { match: true, ...options }, said)) close(true); };
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
    this.selected = new Set();
    this.selecting = false;
    this.loading = null;
    this.bar = h("div", { class: "selection" });
    this.count = h("p", { class: "lead" });
    this.grid = h("ul", { class: "thumbs big" });
    this.more = h("div", { class: "row center more" });
    this.lookAgain = whenNear(this.more, () => this.load());
    this.actions = h("div", { class: "row actions" });
    this.element = h("div", { class: "stack" }, h("a", { class: "back", href: "#classes" }, "‹ All classes"),
      h("div", { class: "title-row" }, h("div", { class: "heading" }, h("h1", { tabindex: "-1", class: "name" }, name), this.count), this.actions), this.bar, this.grid, this.more);
  }

  show() {
    const known = state.find(this.name);
    if (known === undefined) return;
    if (!known) {
      this.version = this.loading = null;
      this.examples = [];
      this.selecting = false;
      this.drawBar();
      fill(this.actions);
      fill(this.count);
      fill(this.grid);
      fill(this.more, emptiness("classes", "No such class", "It may have been renamed or removed.", linkButton("All classes", "#classes", "main")));
      return;
    }
    this.count.textContent = counted(known.examples, "picture");
    fill(this.actions, state.readOnly ? [] : [
      button("Add pictures", async () => this.receive(await choose()), { kind: "main", picture: "teach" }),
      button("Select", () => this.select(!this.selecting), { picture: "check", disabled: !known.examples, "aria-pressed": String(this.selecting) }),
      button("Rename", () => this.rename(), { picture: "pen" }),
      button("Merge", () => this.merge(), { picture: "merge", disabled: state.model.classes < 2 }),
      button("Remove", () => this.remove(), { kind: "danger", picture: "bin" })]);
    if (this.version === state.model.version) return;
    const again = Math.max(PAGE, this.examples.length);
    this.version = state.model.version;
    this.selected.clear();
    this.last = null;
    this.drawBar();
    this.examples = [];
    this.loading = null;
    this.total = Infinity;
    this.load(Math.min(again, 1000));
  }

  async load(limit = PAGE) {
    if (this.loading || this.examples.length >= this.total || !this.version) return;
    const shown = (this.loading = this.examples);
    const found = await attempt(() => ask("GET", "examples", { query: { class: this.name, offset: shown.length, limit } }));
    if (this.examples !== shown) return; // all is looked at anew meanwhile
    this.loading = null;
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
    this.lookAgain();
  }

  tile(one) {
    if (this.selecting) {
      const pressed = this.selected.has(one.id);
      return h("li", {}, h("button", { type: "button", class: "tile", "aria-pressed": String(pressed), "aria-label": `Picture ${withoutDigests(one.name)}`, onclick: (event) => this.toggle(one, event.shiftKey) },
        thumbnail(one.id), h("span", { class: "tick" }, icon("check"))));
    }
    return h("li", {}, h("button", { type: "button", class: "tile", "aria-label": `Picture ${withoutDigests(one.name)}`, onclick: () => showExample(one) }, thumbnail(one.id)),
      state.readOnly ? null : tool(`Remove ${withoutDigests(one.name)}`, () => this.drop(one), "close", { class: "button tool corner" }));
  }

  /** Begin or end to select pictures. */
  select(on) {
    this.selecting = on;
    this.selected.clear();
    this.last = null;
    this.redraw();
    this.show();
    (on ? this.grid.querySelector("button") : [...this.actions.children].find((one) => one.hasAttribute("aria-pressed")))?.focus();
  }

  redraw() {
    fill(this.grid, this.examples.map((one) => this.tile(one)));
    this.drawBar();
  }

  /** Select a picture or not; with shift, all from the last one on. */
  toggle(one, isRange) {
    const [from, to] = [this.examples.indexOf(this.last ?? one), this.examples.indexOf(one)].sort((a, b) => a - b);
    const on = !this.selected.has(one.id);
    for (const { id } of isRange ? this.examples.slice(from, to + 1) : [one]) this.selected[on ? "add" : "delete"](id);
    this.last = one;
    this.mark();
  }

  selectAll(on) {
    for (const { id } of this.examples) this.selected[on ? "add" : "delete"](id);
    this.mark();
  }

  mark() {
    this.examples.forEach(({ id }, place) => this.grid.children[place]?.querySelector(".tile").setAttribute("aria-pressed", String(this.selected.has(id))));
    this.drawBar();
  }

  drawBar() {
    if (!this.selecting) return fill(this.bar);
    const n = this.selected.size;
    if (!this.bar.firstChild) {
      this.to = classField("Move to", { placeholder: "another class" });
      this.says = h("p", { role: "status" });
      this.all = button("", () => this.selectAll(this.selected.size < this.examples.length), { kind: "quiet" });
      this.acts = [h("button", { type: "submit", class: "button" }, h("span", {}, "Move")), button("Remove selected", () => this.removeSelected(), { kind: "danger", picture: "bin" })];
      fill(this.bar, this.says, this.all, h("form", { class: "field-row", onsubmit: (event) => { event.preventDefault(); this.moveSelected(this.to.value); } }, this.to.field, this.acts[0]), this.acts[1], button("Done", () => this.select(false), { kind: "quiet" }));
    }
    this.says.textContent = n ? `${counted(n, "picture")} selected` : "Select pictures";
    fill(this.all, h("span", {}, n && n === this.examples.length ? "None" : "All"));
    for (const one of this.acts) one.disabled = !n;
    return undefined;
  }

  /** Keys while pictures are selected. */
  key(event) {
    if (!this.selecting) return;
    if (event.key === "Escape") this.select(false);
    else if (event.key === "a") this.selectAll(this.selected.size < this.examples.length);
    else if (event.key === "Delete" && this.selected.size) this.removeSelected();
    else return;
    event.preventDefault();
  }

  async changeSelected(path, json, said) {
    this.place = this.examples.findIndex(({ id }) => this.selected.has(id));
    const examples = [...this.selected];
    if (!(await change("POST", `examples/${path}`, { json: { examples, ...json }, match: true }, said(counted(examples.length, "picture"))))) this.place = undefined;
  }

  async moveSelected(name) {
    if (name && name !== this.name && this.selected.size) await this.changeSelected("move", { class: name }, (pictures) => `${pictures} moved to ${name}.`);
  }

  async removeSelected() {
    await this.changeSelected("remove", {}, (pictures) => `${pictures} removed.`);
  }

  /** Remove a picture; the focus goes on to the next one. */
  async drop(one) {
    this.place = this.examples.indexOf(one);
    await change("DELETE", `examples/${encodeURIComponent(one.id)}`, {}, "Picture removed.");
  }

  async receive(files) {
    const { pictures, others } = picturesAmong(files);
    sayLeftOut(others);
    if (!pictures.length || state.readOnly) return;
    const made = await preparedAll(pictures.map(({ file }) => file));
    const found = await saving(() => teach(this.name, made));
    released(made);
    if (found) say(told(this.name, found), { kind: found.unreadable.length || found.elsewhere.length ? "bad" : "good", action: undoing(found.changes) });
  }

  async rename() {
    const name = await askText("Rename", "New name", this.name, "Rename", {});
    if (!name || name === this.name) return;
    if (await attempt(() => state.get(name))) await this.mergeInto(name);
    else await this.patch(name, false, `Renamed to ${name}.`);
  }

  async merge() {
    const name = await askText("Merge", "Into which class", "", "Merge", { list: "class-names", text: `All pictures of ${this.name} become pictures of that class.` });
    if (!name || name === this.name) return;
    if ((await attempt(() => state.get(name))) === null) say(`There is no class ${name}.`, { kind: "bad" });
    else await this.mergeInto(name);
  }

  async mergeInto(name) {
    if (await confirm(`Merge into ${name}?`, `${name} gets the ${counted(state.find(this.name)?.examples ?? 0, "picture")} of ${this.name}, which goes. Undo brings it back.`, "Merge"))
      await this.patch(name, true, `${this.name} is part of ${name} now.`);
  }

  async patch(name, merge, said) {
    const done = await change("PATCH", "classes", { query: { name: this.name, merge: merge || null }, json: { name }, match: true }, said);
    if (done) location.replace(place(name));
  }

  async remove() {
    if (!(await confirm(`Remove ${this.name}?`, `The class goes with its ${counted(this.total ?? 0, "picture")}. Undo brings it back.`, "Remove"))) return;
    const done = await change("DELETE", "classes", { query: { name: this.name }, match: true }, `${this.name} is removed.`);
    if (done) location.hash = "#classes";
  }
}
