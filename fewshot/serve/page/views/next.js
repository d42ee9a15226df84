// Label next: a batch of pictures in the order in which labels help most, one key a label.

import { ask, form } from "../lib/api.js";
import { sentInParts } from "../lib/batches.js";
import { attempt, undo } from "../lib/changes.js";
import { button, counted, fill, h, percent, sentence, unread, withoutDigests } from "../lib/dom.js";
import { picturesAmong, prepared, preparedAll, released } from "../lib/pictures.js";
import { state } from "../lib/state.js";
import { dropzone } from "../parts/dropzone.js";
import { classField, emptiness, heading, linkButton, local, progress } from "../parts/pieces.js";
import { say, sayLeftOut } from "../parts/toasts.js";

//: Keys of classes; s skips, u undoes, n is for a new name.
const KEYS = [..."1234567890abcdefghijklmopqrtvwxyz"];
//: Pictures of a request, pictures of an order, and labels after which the order is made again.
const PART = 64;
const AHEAD = 40;
const AGAIN = 5;

export class NextView {
  constructor() {
    this.pool = [];
    this.queue = [];
    this.keys = [];
    this.labelled = 0;
    this.zone = dropzone("Drop pictures that have no label yet", "A folder of hundreds is fine. They stay on this computer until you name them.", (files) => this.receive(files));
    this.start = h("section", { class: "card" }, this.zone);
    this.name = classField("Another class", { placeholder: "name, then Enter" });
    this.form = h("form", { class: "field-row", onsubmit: (event) => { event.preventDefault(); if (this.name.value) this.label(this.name.value); } }, this.name.field, h("button", { type: "submit", class: "button" }, h("span", {}, "Label")));
    this.stage = h("div", { class: "stage" });
    this.about = h("div", { class: "about" });
    this.choices = h("div", { class: "keys" });
    this.bar = progress("Labelled");
    this.coming = h("div", { class: "coming" });
    this.work = h("section", { class: "card label-work" }, h("div", { class: "label-left" }, this.stage, this.coming),
      h("div", { class: "stack" }, this.bar.node, this.about, this.choices, this.form, this.name.note, h("div", { class: "row" },
        button("Skip", () => this.skip(), { kind: "quiet", "aria-keyshortcuts": "s" }), button("Undo", () => this.back(), { kind: "quiet", "aria-keyshortcuts": "u" }), button("Stop", () => this.stop(), { kind: "quiet" })),
        h("p", { class: "hint wide-only" }, "Keys: the one beside a class, Enter for the guess, N for another name, S to skip, U to undo.")));
    this.place = h("div", {}, this.start);
    this.element = h("div", { class: "view" }, heading("Label next", "Drop a batch. The pictures whose labels help most come first."), this.place);
  }

  show() {
    if (!state.model.takes_images) fill(this.place, emptiness("chip", "This classifier takes embeddings", "Programs label through the API."));
    else if (this.current) this.draw();
  }

  async receive(files) {
    const { pictures, others } = picturesAmong(files);
    if (pictures.length) sayLeftOut(others);
    else return say("There is no picture among these files.", { kind: "bad" });
    const bar = progress("Reading pictures");
    fill(this.place, h("section", { class: "card" }, bar.node));
    const fresh = pictures.map(({ file }) => ({ file, row: null, done: false }));
    const finished = await attempt(() => this.embed(fresh, (n) => bar.set(n / fresh.length, `Looked at ${n} of ${counted(fresh.length, "picture")}`)));
    const usable = fresh.filter(({ row }) => row);
    this.pool.push(...usable);
    if (usable.length < fresh.length && finished) say(unread(fresh.filter(({ row }) => !row).map(({ file, why }) => ({ name: file.name, message: why }))), { kind: "bad" });
    if (this.pool.length) await attempt(() => this.order());
    return this.next();
  }

  async embed(items, onprogress) {
    let done = 0;
    for (let from = 0; from < items.length; from += PART) {
      const some = items.slice(from, from + PART);
      const made = await preparedAll(some.map(({ file }) => file));
      const itemOf = new Map(made.map((picture, place) => [picture, some[place]]));
      const found = await sentInParts(made, state.model.limits, (part) => ask("POST", "embed", { body: form(part) }), { onpart: (n) => onprogress((done += n)) });
      for (const { pictures, answer, error } of found)
        pictures.forEach((picture, place) => {
          const item = itemOf.get(picture);
          item.row = answer?.embeddings[place]?.map((value) => Number(value.toPrecision(6))) ?? null;
          item.why = error?.message ?? answer.errors.find(({ index }) => index === place)?.message;
        });
      released(made);
    }
    return true;
  }

  /** Put the pictures that are left into the order of the service. */
  async order() {
    const left = this.pool.filter(({ done, skipped }) => !done && !skipped);
    if (!left.length) return;
    const most = Math.max(50, Math.floor((state.model.limits.body_bytes * 0.8) / (12 * left[0].row.length)));
    const pool = left.length > most ? left.toSorted(() => Math.random() - 0.5).slice(0, most) : left;
    const { order } = await ask("POST", "suggest", { query: { k: AHEAD }, json: { embeddings: pool.map(({ row }) => row) } });
    this.queue = order.map((one) => ({ item: pool[one.index], label: one.label, likeliest: one.likeliest, probability: one.probability, reason: one.reason }));
    for (const item of pool) item.copy = order.length < Math.min(AHEAD, pool.length) && !order.some((one) => pool[one.index] === item);
    this.since = 0;
  }

  /** Show the next picture. */
  async next() {
    this.queue = this.queue.filter(({ item }) => !item.done && !item.skipped);
    if (!this.queue.length) await attempt(() => this.order());
    this.current = this.queue[0] ?? null;
    if (!this.current) return this.finish();
    if (this.picture) released([this.picture]);
    this.picture = await prepared(this.current.item.file);
    return this.draw();
  }

  draw() {
    if (this.place.firstChild !== this.work) fill(this.place, this.work);
    for (const name of state.names) if (!this.keys.includes(name) && this.keys.length < KEYS.length) this.keys.push(name);
    const { label, likeliest, probability, reason } = this.current;
    const left = this.pool.filter(({ done, skipped }) => !done && !skipped).length;
    this.bar.set(this.labelled / Math.max(1, this.labelled + left), `${counted(this.labelled, "picture")} labelled, ${left.toLocaleString("en")} left`);
    fill(this.stage, local(this.picture, "stage-picture"));
    const guess = label !== null && state.knows(label);
    fill(this.about, guess ? [h("p", { class: "eyebrow" }, "Guess"), h("button", { type: "button", class: "guess", onclick: () => this.label(label) }, h("span", { class: "name" }, label), h("span", { class: "soft" }, percent(probability)), h("kbd", {}, "Enter"))] : h("p", { class: "soft" }, likeliest && state.knows(likeliest) ? `Like no class: ${likeliest} comes closest, ${percent(probability)}.` : "No guess yet: name this one."),
      reason ? h("p", { class: "soft" }, reason === "stands for itself" ? "Like no other of these pictures." : sentence(withoutDigests(reason))) : null);
    fill(this.choices, this.keys.map((name, place) => state.knows(name) ? h("button", { type: "button", class: "key", onclick: () => this.label(name), "aria-keyshortcuts": KEYS[place] }, h("kbd", {}, KEYS[place].toUpperCase()), h("span", { class: "name" }, name)) : null));
    this.drawComing();
  }

  drawComing() {
    const next = this.queue.slice(1, 6);
    const nodes = next.map(({ item }) => {
      const node = h("span", { class: "thumb small" });
      prepared(item.file).then((picture) => { const shown = local(picture, "thumb small", ""); shown.addEventListener("load", () => released([picture]), { once: true }); node.replaceWith(shown); });
      return node;
    });
    fill(this.coming, nodes.length ? [h("span", { class: "soft" }, "Next"), nodes] : []);
  }

  async label(name) {
    if (this.busy || !this.current) return;
    this.busy = true;
    const { item } = this.current;
    const found = await attempt(() => ask("POST", "classes", { body: form([this.picture], { name }) }));
    this.busy = false;
    if (!found) return;
    this.name.value = "";
    if (document.activeElement === this.name.input) this.name.input.blur();
    Object.assign(item, { done: true });
    this.labelled += 1;
    this.past = [...(this.past ?? []), { item, learned: found.learned }];
    this.current = null;
    await attempt(() => state.refresh());
    if ((this.since = (this.since ?? 0) + 1) >= AGAIN || found.new) await attempt(() => this.order());
    await this.next();
  }

  async skip() {
    if (this.busy || !this.current) return;
    this.current.item.skipped = true;
    await this.next();
  }

  async back() {
    const last = this.past?.pop();
    if (!last || this.busy) return;
    if (last.learned) await undo();
    last.item.done = false;
    this.labelled -= 1;
    this.queue.unshift({ item: last.item, label: null, probability: 0, reason: "" });
    await this.next();
  }

  key(event) {
    if (!this.current || this.place.firstChild !== this.work) return;
    const key = event.key.toLowerCase();
    const name = this.keys[KEYS.indexOf(key)];
    const isControl = event.target.closest?.("button, a, label");
    if (key === "enter" && !isControl && this.current.label !== null) this.label(this.current.label);
    else if (key === "s") this.skip();
    else if (key === "u") this.back();
    else if (key === "n") this.name.input.focus();
    else if (KEYS.includes(key) && name !== undefined && state.knows(name)) this.label(name);
    else return;
    event.preventDefault();
  }

  finish() {
    const skipped = this.pool.filter((item) => item.skipped && !item.done).length;
    fill(this.place, emptiness("next", this.labelled ? "All labelled" : "Nothing left to label", `${counted(this.labelled, "picture")} labelled${skipped ? `, ${skipped} skipped` : ""}. Pictures that it knows already are left out.`,
      button("Another batch", () => this.stop(), { kind: "main" }), linkButton("Try it", "#try", "plain", "try")));
  }

  stop() {
    this.pool = [];
    this.queue = [];
    this.current = null;
    this.labelled = 0;
    this.past = [];
    fill(this.place, this.start);
  }
}
