// An answer to a picture: what it is, how sure, why, and "no, this is ...".

import { ask, form } from "../lib/api.js";
import { saving, undoing } from "../lib/changes.js";
import { fill, h, heldElsewhere, icon, listed, percent, sentence } from "../lib/dom.js";
import { state } from "../lib/state.js";
import { dialog } from "./dialogs.js";
import { barRow, classField, local, thumbnail } from "./pieces.js";
import { Places } from "./places.js";
import { say } from "./toasts.js";

/** Ask for answers to pictures; `coverage` is text, empty for no set. */
export function predict(pictures, { coverage, neighbours = 6, signal } = {}) {
  return ask("POST", "predict", { query: { top: 5, coverage: coverage || null, neighbours: state.model.keeps_examples ? neighbours : 0 }, body: form(pictures), signal });
}

/** Show all of a picture, as large as its file and the window allow; a browser that cannot read the file shows what was sent. */
async function seeWhole(picture) {
  const url = URL.createObjectURL(picture.file ?? picture.blob);
  const image = h("img", { class: "whole-picture", src: url, alt: picture.name });
  image.addEventListener("error", () => { image.src = picture.url; }, { once: true });
  await dialog(picture.name, () => image, "wide");
  URL.revokeObjectURL(url);
}

/** Return a short form of an answer, for lists. */
export function verdict(answer) {
  if (answer.error) return h("span", { class: "verdict failed" }, icon("alert"), "Cannot be read");
  if (answer.unknown) return h("span", { class: "verdict unknown" }, icon("unknown"), "Unknown");
  return h("span", { class: "verdict" }, h("span", { class: "name" }, answer.label), h("span", { class: "share" }, percent(answer.probability)));
}

/** Return the mark of an answer that should be looked at; null of one that is sure. */
export const doubt = (answer) => answer.doubtful && h("span", { class: "badge doubt" }, icon("doubt"), "Doubtful");

/** Say what else a doubtful answer could be. */
function otherwise({ label, set, top }) {
  const others = set && set.length !== 1 ? set.filter((name) => name !== label) : [top[1].label];
  return others.length ? `It could be ${listed(others)} as well.` : "It fits none of the classes well.";
}

/** Shows one answer at a time; the field for a correction stays while answers change. */
export class AnswerPanel {
  constructor({ onlearned, onfocus }) {
    this.onlearned = onlearned;
    this.busy = false;
    this.places = new Places();
    this.body = h("div", { class: "answer-body", "aria-live": "polite" });
    this.right = classField("No, this is …", { placeholder: "the right class" });
    this.right.input.addEventListener("focus", () => onfocus?.());
    this.right.input.addEventListener("input", () => this.drawChips());
    this.known = h("div", { class: "chips" });
    this.submit = h("button", { type: "submit", class: "button main" }, h("span", {}, "Correct"));
    this.form = h("form", { class: "correct", onsubmit: (event) => { event.preventDefault(); this.correct(this.right.value); } }, h("div", { class: "field-row" }, this.right.field, this.submit), this.right.note, this.known);
    this.element = h("section", { class: "card answer", "aria-label": "Answer" }, this.body, this.form);
    this.show(null);
  }

  /** Show {picture, answer, notes}; null for none. */
  show(item, live = false) {
    this.item = item;
    this.body.setAttribute("aria-live", live ? "off" : "polite");
    const answer = item?.answer;
    this.form.hidden = !answer || Boolean(answer.error) || state.readOnly;
    this.element.classList.toggle("is-unknown", Boolean(answer?.unknown));
    this.element.classList.toggle("is-doubtful", Boolean(answer?.doubtful));
    if (!answer) return fill(this.body, h("div", { class: "answer-none" }, h("span", { class: "empty-icon" }, icon("try")), h("p", {}, "The answer appears here.")));
    this.drawChips();
    const picture = live ? null : h("button", { type: "button", class: "see-whole", title: "See the whole picture", "aria-label": `See the whole picture ${item.picture.name}`, onclick: () => seeWhole(item.picture) }, local(item.picture, "answer-picture", ""));
    if (answer.error) return fill(this.body, h("div", { class: "answer-head" }, picture, h("div", {}, h("p", { class: "eyebrow failed" }, "Cannot be read"), h("p", { class: "answer-label" }, answer.name), h("p", {}, sentence(answer.error.message)))));
    const head = answer.unknown
      ? [h("p", { class: "eyebrow" }, "Answer"), h("p", { class: "answer-label unknown" }, icon("unknown"), "Unknown"), h("p", { class: "soft" }, "Like no class that it knows.")]
      : [h("p", { class: "eyebrow" }, "Answer ", doubt(answer)), h("p", { class: "answer-label" }, answer.label), h("p", { class: "answer-share" }, `Probability ${percent(answer.probability)}`), answer.doubtful && h("p", { class: "answer-doubt" }, otherwise(answer))];
    return fill(this.body, h("div", { class: "answer-head" }, picture, h("div", { class: "answer-words" }, head)),
      answer.unknown ? h("p", { class: "small-title" }, "If it had to be one") : null,
      h("ul", { class: "bars", "aria-label": "Probability of each class" }, answer.top.map((one) => barRow(one.label, one.probability, one.label === answer.label ? "best" : ""))),
      this.setOf(item), this.nearest(answer), state.model.compares_places && !live ? this.places.of(item) : null);
  }

  setOf({ answer, notes, coverage }) {
    if (!coverage || answer.unknown) return null; // a set of classes would contradict "like no class"
    if (!answer.set) return notes?.length ? h("p", { class: "note" }, notes.map(sentence).join(" ")) : null;
    const share = percent(Number(coverage));
    const title = answer.set.length ? (answer.set.length === 1 ? "Only this one" : "One of these") : "None of the classes";
    return h("div", { class: "answer-set" }, h("p", { class: "small-title" }, title, h("span", { class: "soft" }, ` · right ${share} of the time, on average over pictures like those taught`)),
      h("ul", { class: "chips" }, answer.set.slice(0, 20).map((name) => h("li", { class: "chip still" }, name)), answer.set.length > 20 && h("li", { class: "soft" }, `and ${answer.set.length - 20} more`)));
  }

  nearest(answer) {
    if (!answer.neighbours.length) return null;
    return h("div", { class: "nearest" }, h("p", { class: "small-title" }, answer.neighbours[0].label === answer.label ? "Because it looks like these" : "The most similar pictures"),
      h("ul", { class: "thumbs captioned" }, answer.neighbours.map((near) => h("li", {}, thumbnail(near.id, near.name), h("span", { class: "name" }, near.label)))));
  }

  drawChips() {
    const name = this.right.value;
    const answer = this.item?.answer;
    const others = (answer?.top ?? []).map((one) => one.label).filter((label) => answer.unknown || label !== answer.label).slice(0, 5);
    fill(this.known, (others.length ? others : []).map((label) => h("button", { type: "button", class: "chip", disabled: this.busy, onclick: () => this.correct(label) }, label)));
    fill(this.submit, h("span", {}, this.busy ? "Learning" : name && !state.knows(name) ? "Teach as new" : "Correct"));
    this.submit.disabled = this.busy;
  }

  async correct(name) {
    const { item } = this;
    if (!name || !item?.picture || this.busy) return;
    this.busy = true;
    const typed = this.right.value;
    this.drawChips();
    const found = await saving(() => ask("POST", "classes", { body: form([item.picture], { name }) }));
    this.busy = false;
    if (found && this.right.value === typed) this.right.value = ""; // not what was typed meanwhile
    this.drawChips();
    if (!found) return;
    say([found.learned ? `Learned: this is ${name}.` : `It knew this picture as ${name} already.`, heldElsewhere(found.elsewhere)].filter(Boolean).join(" "), { action: undoing(found.learned ? 1 : 0) });
    this.onlearned?.(item, name);
  }
}

