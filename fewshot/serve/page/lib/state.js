// What the service holds, as last seen; views listen to "change". Of many classes, only the first ones are held.

import { ask } from "./api.js";
import { fill, h } from "./dom.js";

//: Classes that are held; of more, names are looked up as they are needed.
const MOST = 200;
//: Milliseconds after the last key until names are looked up.
const PAUSE = 150;

/** Return a name without case, accents and the number of its blanks; a single letter keeps its accent. */
function folded(name) {
  const plain = name.normalize("NFC").toLowerCase().trim().replace(/\s+/g, " ");
  return plain.length < 2 ? plain : plain.normalize("NFD").replace(/[\u0300-\u036f]/g, "");
}

class State extends EventTarget {
  model = null;
  classes = [];
  known = new Map();
  looking = new Set();
  offered = [];
  seen = 0;

  get readOnly() {
    return !this.model || this.model.read_only;
  }

  get names() {
    return this.classes.map((one) => one.name);
  }

  get isEmpty() {
    return this.classes.length === 0;
  }

  get isWhole() {
    return this.classes.length >= (this.model?.classes ?? 0);
  }

  /** Look again, and tell the views if something is new. */
  async refresh() {
    const turn = (this.asked = (this.asked ?? 0) + 1);
    const [model, listed] = await Promise.all([ask("GET", "model"), ask("GET", "classes", { query: { thumbnails: 12, limit: MOST } })]);
    if (turn < this.seen) return; // what was asked for later is here already
    this.seen = turn;
    const before = JSON.stringify([this.model, this.classes]);
    this.model = model;
    this.classes = listed.classes;
    if (JSON.stringify([model, listed.classes]) === before) return;
    this.known = new Map(this.classes.map((one) => [one.name, one]));
    this.looking = new Set();
    this.offer(this.names);
    this.dispatchEvent(new Event("change"));
  }

  /** Return a class, null if there is none of this name, or undefined while it is looked up: "change" follows. */
  find(name) {
    const found = this.known.get(name);
    if (found !== undefined || this.isWhole || !name) return found ?? null;
    if (!this.looking.has(name)) this.get(name).then(() => this.dispatchEvent(new Event("change")), () => {});
    return undefined;
  }

  /** Return a class, or null if there is none of this name. */
  async get(name) {
    const { known, looking } = this;
    if (known.has(name) || this.isWhole) return known.get(name) ?? null;
    looking.add(name);
    const { classes: [one] } = await ask("GET", "classes", { query: { name, thumbnails: 12 } });
    known.set(name, one ?? null);
    return one ?? null;
  }

  knows(name) {
    return Boolean(this.find(name));
  }

  /** Offer the classes whose names have this text, where names are typed. */
  async suggest(text) {
    if (this.isWhole) return;
    this.typed = text;
    await new Promise((done) => setTimeout(done, PAUSE));
    if (this.typed !== text) return;
    const found = await ask("GET", "classes", { query: { search: text, thumbnails: 0, limit: 50 } }).catch(() => null);
    if (found && this.typed === text) this.offer(found.classes.map((one) => one.name));
  }

  /** Return a class, among those offered, whose name differs from this one only in case, blanks or accents. */
  twin(name) {
    return this.offered.find((other) => other !== name && folded(other) === folded(name));
  }

  offer(names) {
    this.offered = names;
    fill(document.getElementById("class-names"), names.map((name) => h("option", { value: name })));
  }
}

export const state = new State();
