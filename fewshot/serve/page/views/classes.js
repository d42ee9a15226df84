// Classes: all of them, one of them, and how good they are.

import { fill, h, button, counted, icon } from "../lib/dom.js";
import { state } from "../lib/state.js";
import { emptiness, heading, linkButton, segments, thumbnail } from "../parts/pieces.js";
import { CheckView } from "./check.js";
import { OneClass } from "./one_class.js";

//: Classes that are drawn at once.
const PAGE = 48;
const ORDERS = {
  name: (a, b) => new Intl.Collator(undefined, { numeric: true }).compare(a.name, b.name),
  fewest: (a, b) => a.examples - b.examples,
  most: (a, b) => b.examples - a.examples,
};

export class ClassesView {
  constructor() {
    this.page = PAGE;
    this.order = "name";
    this.search = h("input", { type: "search", placeholder: "Find a class", "aria-label": "Find a class", autocomplete: "off", oninput: () => { this.page = PAGE; this.drawGrid(); } });
    this.orderField = h("select", { "aria-label": "Order", onchange: (event) => { this.order = event.target.value; this.drawGrid(); } }, h("option", { value: "name" }, "By name"), h("option", { value: "fewest" }, "Fewest pictures first"), h("option", { value: "most" }, "Most pictures first"));
    this.grid = h("ul", { class: "class-grid" });
    this.more = h("div", { class: "row center more" });
    this.watcher = new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) this.grow(); }, { rootMargin: "600px" });
    this.watcher.observe(this.more);
    this.all = h("div", { class: "stack" }, h("div", { class: "toolbar" }, this.search, this.orderField), this.grid, this.more);
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
    else this.drawGrid();
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

  grow() {
    if (this.page >= this.found?.length || !this.all.isConnected) return;
    this.page += PAGE;
    this.drawGrid();
  }

  drawGrid() {
    const wanted = this.search.value.trim().toLocaleLowerCase();
    this.found = state.classes.filter(({ name }) => name.toLocaleLowerCase().includes(wanted)).sort(ORDERS[this.order]);
    const rest = this.found.length - this.page;
    fill(this.grid, this.found.slice(0, this.page).map((one) => h("li", {}, h("a", { class: "class-card", href: `#classes/${encodeURIComponent(one.name)}` },
      h("span", { class: "class-head" }, h("span", { class: "name" }, one.name), h("span", { class: "count" }, counted(one.examples, "picture"))),
      h("span", { class: "class-thumbs" }, one.thumbnails.slice(0, 8).map((id) => thumbnail(id)), one.thumbnails.length ? null : h("span", { class: "soft" }, icon("picture"), "No pictures kept"))))));
    fill(this.more, this.found.length ? null : h("p", { class: "soft" }, `No class has “${this.search.value}” in its name.`), rest > 0 ? button(`Show more of ${counted(this.found.length, "class", "classes")}`, () => this.grow()) : null);
  }
}
