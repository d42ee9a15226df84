// Label next: a batch of pictures in the order in which labels help most, one key a label.

import { ask, form } from "../lib/api.js";
import { sentInParts } from "../lib/batches.js";
import { attempt, saving, undo } from "../lib/changes.js";
import { named } from "../lib/corrections.js";
import { csv, save } from "../lib/csv.js";
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
//: Of a batch of so many pictures, about one in EVERY is drawn at random and tells how good the classifier is: the others
//: are chosen because they are hard. The last RECENT of them count.
const MANY = 20;
const EVERY = 5;
const RECENT = 30;

/** Return Wilson's interval of 95 % for a share. */
function interval(right, n) {
  const [share, z] = [right / n, 1.96 ** 2 / n];
  const half = 1.96 * Math.sqrt((share * (1 - share)) / n + z / (4 * n));
  return [(share + z / 2 - half) / (1 + z), (share + z / 2 + half) / (1 + z)];
}

export class NextView {
  constructor() {
    this.pool = [];
    this.queue = [];
    this.keys = [];
    this.labelled = 0;
    this.past = []; // labels that can be undone: what was shown, {name, learned, before, after, right}, the versions around each
    this.turn = Promise.resolve(true);
    this.reading = Promise.resolve();
    this.zone = dropzone("Drop pictures that have no label yet", "A folder of hundreds is fine. They stay on this computer until you name them.", (files) => this.receive(files));
    this.start = h("section", { class: "card" }, this.zone);
    this.name = classField("Another class", { placeholder: "name, then Enter" });
    this.form = h("form", { class: "field-row", onsubmit: (event) => { event.preventDefault(); if (this.name.value) this.label(this.name.value, true); } }, this.name.field, h("button", { type: "submit", class: "button" }, h("span", {}, "Label")));
    this.stage = h("div", { class: "stage" });
    this.file = h("p", { class: "soft file" });
    this.about = h("div", { class: "about" });
    this.choices = h("div", { class: "keys" });
    this.bar = progress("Labelled");
    this.note = h("p", { class: "hint", role: "status" });
    this.measured = h("p", { class: "soft" });
    this.coming = h("div", { class: "coming" });
    this.work = h("section", { class: "card label-work" }, h("div", { class: "label-left" }, this.stage, this.file, this.coming),
      h("div", { class: "stack" }, this.bar.node, this.measured, this.note, this.about, this.choices, this.form, this.name.note, h("div", { class: "row" },
        button("Skip", () => this.skip(), { kind: "quiet", "aria-keyshortcuts": "s" }), button("Undo", () => this.back(), { kind: "quiet", "aria-keyshortcuts": "u" }), button("Stop", () => this.stop(), { kind: "quiet" })),
        h("p", { class: "hint wide-only" }, "Keys: the one beside a class, Enter for the guess, N for another name, S to skip, U to undo.")));
    this.place = h("div", {}, this.start);
    this.element = h("div", { class: "view" }, heading("Label next", "Drop a batch. The pictures whose labels help most come first."), this.place);
  }

  show() {
    if (!state.model.takes_images) fill(this.place, emptiness("chip", "This classifier takes embeddings", "Programs label through the API."));
    else if (!this.busy && this.takeBack()) this.inTurn(() => this.next()); // undone elsewhere on the page
    else if (this.current && !this.busy) this.draw();
  }

  /** Do something after what is under way here; it gets whether that was done, and resolves to whether it was itself. */
  inTurn(act) {
    this.busy = (this.busy ?? 0) + 1;
    this.work.setAttribute("aria-busy", "true");
    fill(this.note);
    this.turn = this.turn.then((wasDone) => attempt(() => act(wasDone))).then((done) => {
      this.busy -= 1;
      if (!this.busy) this.work.removeAttribute("aria-busy");
      return done;
    });
    return this.turn;
  }

  /** Say that a key or button was not taken, because the picture that it is for is not shown yet. */
  tellBusy(what) {
    fill(this.note, `${what} was not taken: the next picture was not shown yet.`);
  }

  /** Look at pictures after those that came before. */
  receive(files) {
    const { pictures, others } = picturesAmong(files);
    if (!pictures.length) return void say("There is no picture among these files.", { kind: "bad" });
    sayLeftOut(others);
    if (this.isReading) say("These pictures are looked at after the ones before.");
    this.isReading = (this.isReading ?? 0) + 1;
    this.reading = this.reading.then(() => this.turn).then(() => attempt(() => this.read(pictures))).then(() => {
      this.isReading -= 1;
      return this.inTurn(() => this.next());
    });
    return this.reading;
  }

  async read(pictures) {
    const bar = progress("Reading pictures");
    fill(this.place, h("section", { class: "card" }, bar.node));
    const fresh = pictures.map(({ file, path }) => ({ file, path, row: null, done: false }));
    const finished = await attempt(() => this.embed(fresh, (n) => bar.set(n / fresh.length, `Looked at ${n} of ${counted(fresh.length, "picture")}`)));
    const usable = fresh.filter(({ row }) => row);
    for (const item of usable) item.drawn = usable.length >= MANY && Math.random() < 1 / EVERY;
    this.pool.push(...usable);
    if (usable.length < fresh.length && finished) say(unread(fresh.filter(({ row }) => !row).map(({ file, why }) => ({ name: file.name, message: why }))), { kind: "bad" });
    if (this.pool.length) await attempt(() => this.order());
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

  /** The pictures that have neither a label nor were skipped. */
  get left() {
    return this.pool.filter(({ done, skipped }) => !done && !skipped);
  }

  /** Put the pictures that are left into the order of the service, and one drawn at random after each few of them. */
  async order() {
    const { left } = this;
    const drawn = left.filter((item) => item.drawn).sort((a, b) => Number(Boolean(a.copy)) - Number(Boolean(b.copy)));
    this.queue = await this.suggested(left.filter((item) => !item.drawn));
    const place = new Map(drawn.map((item, number) => [item, number]));
    const measuring = (await this.suggested(drawn.slice(0, AHEAD / EVERY))).sort((a, b) => place.get(a.item) - place.get(b.item));
    const waited = this.past.findLastIndex(({ item }) => item.drawn); // the label since which none was drawn
    let at = Math.max(0, EVERY - this.past.length + waited);
    for (const one of measuring) {
      this.queue.splice(at, 0, { ...one, reason: "drawn at random, to measure how good it is" });
      at += EVERY;
    }
    this.since = 0;
    return true;
  }

  /** Return pictures in the order in which labels help most, with the present answers. */
  async suggested(items) {
    if (!items.length) return [];
    const most = Math.max(50, Math.floor((state.model.limits.body_bytes * 0.8) / (12 * items[0].row.length)));
    const pool = items.length > most ? items.toSorted(() => Math.random() - 0.5).slice(0, most) : items;
    const { order } = await ask("POST", "suggest", { query: { k: AHEAD }, json: { embeddings: pool.map(({ row }) => row) } });
    for (const item of pool) item.copy = order.length < Math.min(AHEAD, pool.length) && !order.some((one) => pool[one.index] === item);
    return order.map((one) => ({ item: pool[one.index], label: one.label, likeliest: one.likeliest, probability: one.probability, reason: one.reason }));
  }

  /** Return how many of those drawn at random were known before they were named; empty if too few were. */
  get measure() {
    const recent = this.past.filter(({ right }) => right !== undefined).slice(-RECENT);
    const n = recent.filter(({ right }) => right).length;
    const [low, high] = interval(n, recent.length);
    return recent.length < EVERY ? "" : `It knew ${n} of the last ${recent.length} pictures drawn at random before you named them: ${percent(n / recent.length)} (${percent(low)} to ${percent(high)}).`;
  }

  /** Show the next picture. */
  async next() {
    if (this.isReading) return true; // what is read is seen until all is in order
    this.queue = this.queue.filter(({ item }) => !item.done && !item.skipped);
    if (!this.queue.length && !(await attempt(() => this.order()))) this.queue = this.left.map((item) => ({ item, label: null, likeliest: null, probability: 0, reason: "" })); // what was said is no reason to stop
    this.current = this.queue[0] ?? null;
    if (!this.current) this.finish();
    else {
      if (this.picture) released([this.picture]);
      this.picture = await prepared(this.current.item.file);
      this.draw();
    }
    return true;
  }

  draw() {
    if (this.isReading) return;
    if (this.place.firstChild !== this.work) fill(this.place, this.work);
    for (const name of state.names) if (!this.keys.includes(name) && this.keys.length < KEYS.length) this.keys.push(name);
    const { label, likeliest, probability, reason } = this.current;
    const left = this.left.length;
    this.bar.set(this.labelled / Math.max(1, this.labelled + left), `${counted(this.labelled, "picture")} labelled, ${left.toLocaleString("en")} left`);
    fill(this.measured, this.measure);
    fill(this.stage, local(this.picture, "stage-picture"));
    const { file, path } = this.current.item;
    fill(this.file, file.name);
    this.file.title = path || file.name;
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

  async label(name, typed = false) {
    if (this.busy) return this.tellBusy(`“${name}”`);
    const { current } = this;
    if (!current) return undefined;
    return this.inTurn(async () => {
      const before = state.model.version;
      // Of a class that it did not know, no answer could be right.
      const right = current.item.drawn && current.likeliest !== null && state.knows(name) ? current.likeliest === name : undefined;
      const found = await saving(async () => {
        const answer = await ask("POST", "classes", { body: form([this.picture], { name }) });
        this.past.push({ ...current, name, learned: answer.learned, before, after: answer.version, right });
        return answer;
      });
      if (!found) return false;
      if (typed && this.name.value === name) this.name.value = ""; // not what was typed meanwhile
      if (typed && document.activeElement === this.name.input && !this.name.value) this.name.input.blur();
      current.item.done = true;
      named(current.item.file, name);
      this.labelled += 1;
      this.since = (this.since ?? 0) + 1;
      if (this.since >= AGAIN || found.new) await attempt(() => this.order());
      return this.next();
    });
  }

  skip() {
    if (this.busy) return this.tellBusy("“Skip”");
    if (!this.current) return undefined;
    this.current.item.skipped = true;
    return this.inTurn(() => this.next());
  }

  /** Undo the last label: the one under way, once it is saved. */
  back() {
    const waits = this.busy > 0;
    return this.inTurn(async (wasDone) => {
      const last = this.past.at(-1);
      if (waits && !wasDone) return void say("Nothing was undone: what was under way was not done.", { kind: "bad" });
      if (!last) return void say("No label of this batch is left to undo.", { kind: "bad" });
      if (last.learned) {
        if (last.after !== state.model.version) return void say("Something else was changed since this label. Undo beside the name of the classifier takes that back first.", { kind: "bad" });
        if (!(await undo())) return false;
      }
      if (!last.learned || !this.takeBack()) this.unlabel(this.past.length - 1);
      return this.next();
    });
  }

  /** Take back the labels that the present version does not hold, if one before them was returned to. */
  takeBack() {
    const from = this.past.findIndex(({ learned, before }) => learned && before === state.model.version);
    if (from >= 0) this.unlabel(from);
    return from >= 0;
  }

  unlabel(from) {
    for (const shown of this.past.splice(from).reverse()) {
      shown.item.done = false;
      named(shown.item.file, null);
      this.labelled -= 1;
      this.queue.unshift(shown);
    }
  }

  key(event) {
    if (event.repeat) return; // a key that is held would name pictures unseen
    const isWork = this.place.firstChild === this.work;
    const key = event.key.toLowerCase();
    if (!isWork && !(key === "u" && this.past.length && !this.isReading)) return;
    const name = this.keys[KEYS.indexOf(key)];
    const isControl = event.target.closest?.("button, a, label");
    const guess = this.current?.label ?? null;
    if (key === "enter" && !isControl && this.busy) this.tellBusy("Enter");
    else if (key === "enter" && !isControl && guess !== null) this.label(guess);
    else if (key === "enter" && !isControl) fill(this.note, "There is no guess to take: name this picture.");
    else if (key === "s") this.skip();
    else if (key === "u") this.back();
    else if (key === "n") this.name.input.focus();
    else if (KEYS.includes(key) && name !== undefined && state.knows(name)) this.label(name);
    else return;
    event.preventDefault();
  }

  finish() {
    const skipped = this.pool.filter((item) => item.skipped && !item.done).length;
    fill(this.place, emptiness("next", this.labelled ? "All labelled" : "Nothing left to label", `${counted(this.labelled, "picture")} labelled${skipped ? `, ${skipped} skipped` : ""}. Pictures that it knows already are left out. ${this.measure}`,
      button("Another batch", () => this.stop(), { kind: "main" }), this.past.length ? button("Save labels as CSV", () => this.saveLabels(), { kind: "plain", picture: "table" }) : null, linkButton("Try it", "#try", "plain", "try"), this.past.length ? button("Undo the last label", () => this.back(), { kind: "quiet", "aria-keyshortcuts": "u" }) : null));
  }

  /** What was labelled, as CSV. */
  get labels() {
    return csv([["image", "label"], ...this.past.map(({ item, name }) => [item.path || item.file.name, name])]);
  }

  saveLabels() {
    save("labels.csv", this.labels);
  }

  /** Begin anew; a label under way is saved first. */
  stop() {
    return this.inTurn(() => {
      if (this.past.length) {
        const labels = this.labels;
        say(`${counted(this.labelled, "picture")} labelled and learned.`, { action: ["Save as CSV", () => save("labels.csv", labels)] });
      }
      [this.pool, this.queue, this.past, this.current, this.labelled] = [[], [], [], null, 0];
      fill(this.place, this.start);
      return true;
    });
  }
}
