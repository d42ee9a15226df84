// Where a picture matches its class: both pictures, bright at the places that count. Asked for, as it takes a moment.

import { ask, form } from "../lib/api.js";
import { attempt } from "../lib/changes.js";
import { button, fill, fresh, h, sentence } from "../lib/dom.js";
import { waiting } from "./pieces.js";

//: Examples that are shown beside the picture.
const EXAMPLES = 3;

const bright = (picture, text, caption) => h("li", {}, h("img", { class: "thumb", src: `data:image/jpeg;base64,${picture}`, alt: text, width: 192, height: 192, decoding: "async" }), h("span", { class: "name" }, caption));

/** A button and what it shows; once opened, it stays open for the pictures that follow. */
export class Places {
  constructor() {
    this.area = h("div", { class: "places-area", id: fresh("places"), role: "group", "aria-label": "Where it matches", hidden: true });
    this.toggle = button("Show where it matches", () => this.turn(), { picture: "places", "aria-expanded": "false", "aria-controls": this.area.id });
    this.element = h("div", { class: "places" }, this.toggle, this.area);
  }

  turn() {
    this.area.hidden = !this.area.hidden;
    fill(this.toggle.lastChild, this.area.hidden ? "Show where it matches" : "Hide where it matches");
    this.toggle.setAttribute("aria-expanded", String(!this.area.hidden));
    this.draw();
  }

  /** Return the element, for {picture, answer}. */
  of(item) {
    this.item = item;
    this.draw();
    return this.element;
  }

  async draw() {
    const { item } = this;
    if (this.area.hidden || this.shown === item.answer) return;
    const { answer } = item;
    this.shown = answer;
    fill(this.area, waiting("Looking where it matches"));
    const found = await attempt(() => ask("POST", "predict", { query: { top: 2, matches: EXAMPLES }, body: form([item.picture]) }));
    if (this.shown !== answer) return; // another picture was chosen since
    if (!found) this.shown = null;
    fill(this.area, found && this.told(found));
  }

  told({ answers: [{ match, top, name }], notes }) {
    if (!match) return h("p", { class: "note" }, notes.map(sentence).join(" ") || "No picture of this class is kept.");
    const other = top[1] && h("span", {}, " rather than ", h("b", {}, top[1].label));
    return [h("p", { class: "soft" }, "Bright places speak for ", h("b", {}, match.label), other, "."),
      h("ul", { class: "thumbs captioned" }, bright(match.picture, `${name}, bright where it matches ${match.label}`, "This picture"),
        match.examples.map((one) => bright(one.picture, `${match.label}, bright where the picture matches it`, match.label)))];
  }
}
