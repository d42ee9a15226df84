// Classes: all of them, one of them, and how good they are.

import { ask } from "../lib/api.js";
import { attempt } from "../lib/changes.js";
import { fill, h, button, counted, icon, whenNear } from "../lib/dom.js";
import { state } from "../lib/state.js";
import { emptiness, heading, linkButton, segments, thumbnail } from "../parts/pieces.js";
import { CheckView } from "./check.js";
import { OneClass } from "./one_class.js";

//: Classes that are drawn at once.
const PAGE = 48;
//: Milliseconds after the last key until classes are looked up.
const PAUSE = 120;

export class ClassesView {
  constructor() {
    this.found = [];
    this.search = h("input", { type: "search", placeholder: "Find a class", "aria-label": "Find a class", autocomplete: "off", oninput: () => { clearTimeout(this.timer); this.timer = setTimeout(() => this.load(), PAUSE); } });
    this.order = h("select", { "aria-label": "Order", onchange: () => this.load() }, h("option", { value: "name" }, "By name"), h("option", { value: "fewest" }, "Fewest pictures first"), h("option", { value: "most" }, "Most pictures first"));
    this.grid = h("ul", { class: "class-grid" });
    this.rest = h("div", { class: "row center more" });
    this.lookAgain = whenNear(this.rest, () => this.more());
    this.all = h("div", { class: "stack" }, h("div", { class: "toolbar" }, this.search, this.order), this.grid, this.rest);
    this.check = new CheckView();
    this.tabs = segments("What to see", [["all", "Pictures", "classes"], ["check", "How good", "check"]], (tab) => { location.hash = tab === "all" ? "#classes" : "#classes//check"; });
    this.place = h("div", {});
    this.top = h("div", { class: "stack" }, heading("Classes", "What the classifier knows, and how well."), this.tabs);
    this.element = h("div", { class: "view" });
  }

  show([name, tab] = []) {
    if (state.isEmpty) return fill(this.element, heading("Classes"), emptiness("classes", "No classes yet", "What you teach appears here, with its pictures.", state.readOnly ? null : linkButton("Teach a class", "#teach", "main", "teach")));
    if (name) {
      if (!this.one || this.one.name !== name) this.one = new OneClass(name);
      return this.put(this.one.element, this.one.show());
    }
    this.one = null;
    const isCheck = tab === "check";
    this.tabs.querySelector(`input[value=${isCheck ? "check" : "all"}]`).checked = true;
    this.put(this.top, null, this.place);
    if (isCheck) this.check.show();
    else if (this.version !== state.model.version) this.load(this.found.length);
    const wanted = isCheck ? this.check.element : this.all;
    if (this.place.firstChild !== wanted) fill(this.place, wanted);
    return undefined;
  }

  put(first, _, ...others) {
    if (this.element.firstChild !== first) fill(this.element, first, ...others);
  }

  /** Pictures dropped on the page of a class are more of it. */
  get receive() {
    return this.one && !state.readOnly ? (files) => this.one.receive(files) : undefined;
  }

  key(event) {
    this.one?.key(event);
  }

  /** Look at the classes again, from the first one on. */
  async load(again = 0) {
    this.version = state.model.version;
    this.next = null;
    await this.part(Math.min(Math.max(PAGE, again), 1000), []);
  }

  /** Look at the classes that follow. */
  async more() {
    if (this.next && !this.loading && this.all.isConnected) await this.part(PAGE, this.found);
  }

  async part(limit, before) {
    const query = { limit, thumbnails: 8, order: this.order.value, search: this.search.value.trim(), after: this.next };
    const asked = (this.loading = JSON.stringify([query, this.version]));
    const answer = await attempt(() => ask("GET", "classes", { query }));
    if (this.loading !== asked) return; // something else was asked meanwhile
    this.loading = null;
    if (!answer) return;
    this.next = answer.next;
    this.found = [...before, ...answer.classes];
    const cards = answer.classes.map((one) => h("li", {}, h("a", { class: "class-card", href: `#classes/${encodeURIComponent(one.name)}` },
      h("span", { class: "class-head" }, h("span", { class: "name" }, one.name), h("span", { class: "count" }, counted(one.examples, "picture"))),
      h("span", { class: "class-thumbs" }, one.thumbnails.map((id) => thumbnail(id)), one.thumbnails.length ? null : h("span", { class: "soft" }, icon("picture"), "No pictures kept")))));
    if (before.length) this.grid.append(...cards);
    else fill(this.grid, cards);
    fill(this.rest, this.found.length ? null : h("p", { class: "soft" }, `No class has “${query.search}” in its name.`),
      this.next ? button(`Show more of ${counted(answer.total, "class", "classes")}`, () => this.more()) : null);
    this.lookAgain();
  }
}
