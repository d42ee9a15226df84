// Try: pictures or the live camera, and what the classifier makes of them.

import { ask } from "../lib/api.js";
import { sentInParts } from "../lib/batches.js";
import { attempt, change, settled } from "../lib/changes.js";
import { named, nameOf } from "../lib/corrections.js";
import { csv, save } from "../lib/csv.js";
import { button, counted, fill, h, percent } from "../lib/dom.js";
import { picturesAmong, preparedAll, released } from "../lib/pictures.js";
import { state } from "../lib/state.js";
import { AnswerPanel, doubt, predict, verdict } from "../parts/answer.js";
import { Camera } from "../parts/camera.js";
import { dropzone } from "../parts/dropzone.js";
import { emptiness, heading, linkButton, local, progress, segments, select } from "../parts/pieces.js";
import { say, sayLeftOut } from "../parts/toasts.js";

const COVERAGES = [["", "no set"], ["0.8", "80 %"], ["0.9", "90 %"], ["0.95", "95 %"], ["0.99", "99 %"]];
const UNKNOWNS = [["off", "never"], ["auto", "automatic"], ["balanced", "balanced"], ["0.01", "1 % of unknown pass"], ["0.05", "5 % of unknown pass"], ["0.1", "10 % of unknown pass"]];
//: Pictures of one request, and answers that are listed at once.
const PART = 32;
const PAGE = 60;
//: Milliseconds between answers to the camera, at least.
const EVERY = 250;

//: Share of the known pictures from which on a rule that refuses fewer is named.
const MOST = 0.5;

const SAVED = "“Say unknown” is saved with the classifier, for everyone who asks it.";

/** Answers so far, for the file that is taken away; `renew` asks for those of another version again. */
export const answered = Object.assign([], { version: null, renew: () => {} });

//: The file that is on its way.
let saved = null;
//: A change or another question may come while the pictures are answered again.
const TRIES = 3;

/** Save the answers of the present version as CSV, after what is under way; pressed again meanwhile, it is one file. */
export function saveAnswers() {
  return (saved ??= saveRenewed().finally(() => { saved = null; }));
}

async function saveRenewed() {
  await settled();
  if (answered.version !== state.model.version) say("The pictures are answered again first; the table follows.");
  for (let tries = 0; tries < TRIES && answered.version !== state.model.version; tries += 1) await answered.renew();
  if (answered.version !== state.model.version) throw new Error("The answers are not of the present version yet; save them again in a moment.");
  save("answers.csv", answersAsCsv());
}

function answersAsCsv() {
  const head = ["image", "label", "unknown", "likeliest", "probability", "set", "doubtful", "corrected", "error"];
  return csv([head, ...answered.map(({ answer, path, picture }) => [path || answer.name, answer.label ?? (answer.error ? "" : state.model.unknown_label ?? ""), answer.unknown && !answer.error ? "yes" : "no", answer.likeliest ?? "", answer.error ? "" : Number(answer.probability.toFixed(6)), answer.unknown ? "" : (answer.set ?? []).join(" | "), answer.doubtful ? "yes" : "no", nameOf(picture.file), answer.error?.message ?? ""])]);
}

//: Kinds of answers beside the classes, which begin with another character; what is doubtful has its class, too.
const [ALL, DOUBTFUL, UNKNOWN, UNREAD] = ["*", "~", "?", "!"];

const kindsOf = (answer) => [ALL, answer.error ? UNREAD : answer.unknown ? UNKNOWN : `=${answer.label}`, ...(answer.doubtful ? [DOUBTFUL] : [])];

/** Return how many answers there are of each kind, all first, then what needs a look, then classes, the most frequent first. */
function kindsAmong(items) {
  const counts = new Map();
  for (const kind of items.flatMap(({ answer }) => kindsOf(answer))) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  const rank = (kind) => [DOUBTFUL, UNREAD, UNKNOWN, ALL].indexOf(kind);
  const kinds = [...counts].sort(([a, n], [b, m]) => rank(b) - rank(a) || m - n);
  const text = { [ALL]: "All", [DOUBTFUL]: "Doubtful", [UNKNOWN]: "Unknown", [UNREAD]: "Cannot be read" };
  return new Map(kinds.map(([kind, n]) => [kind, { text: text[kind] ?? kind.slice(1), n }]));
}

const unreadable = ({ name }, { code, message }) => ({ name, label: null, unknown: false, doubtful: false, likeliest: null, probability: 0, top: [], set: null, neighbours: [], error: { code, message } });

/** Say the ends of an interval of shares, in 100; nothing if they are not known. */
const ends = ([low, high]) => (low === null ? "" : ` (${Math.round(100 * low)} to ${Math.round(100 * high)})`);

export class TryView {
  constructor() {
    this.items = [];
    this.page = PAGE;
    this.kind = ALL;
    this.coverage = "0.9";
    answered.renew = () => (this.running && this.version === state.model.version ? this.running : this.answerAll());
    this.camera = new Camera();
    this.camera.onstart = () => this.watch();
    this.panel = new AnswerPanel({ onlearned: (item, name) => this.again(item, name), onfocus: () => this.live && this.freeze() });
    this.zone = dropzone("Drop a picture here", "Or paste one. Many at once, or a folder, work too.", (files) => this.receive(files));
    this.frozen = button("Freeze", () => (this.live ? this.freeze() : this.watch()), { kind: "plain" });
    this.cameraBox = h("div", { class: "stack", hidden: true }, this.camera.element, h("div", { class: "row center" }, this.frozen));
    this.set = select("Set of classes at", COVERAGES, this.coverage, (value) => { this.coverage = value; this.answerAll(); });
    this.unknown = select("Say unknown", UNKNOWNS, "off", (value) => this.reject(value));
    this.cost = h("p", { id: "unknown-cost", class: "soft cost", "aria-live": "polite" });
    this.unknown.input.setAttribute("aria-describedby", this.cost.id);
    this.list = h("section", { class: "card results", hidden: true, "aria-label": "Answers" });
    this.source = h("section", { class: "card stack", "aria-label": "Picture" }, segments("Pictures from", [["files", "Files", "picture"], ["camera", "Live camera", "camera"]], (kind) => this.choose(kind)), this.zone, this.cameraBox,
      h("div", { class: "settings" }, this.set.field, this.unknown.field, this.cost));
    this.work = h("div", { class: "columns try-columns" }, this.source, this.panel.element, this.list);
    this.nothing = emptiness("try", "Nothing to try yet", "The classifier knows no class. Teach it the first ones with a few pictures each.", linkButton("Teach a class", "#teach", "main", "teach"));
    this.place = h("div", {});
    this.element = h("div", { class: "view" }, heading("Try", "Show a new picture and see what it is taken for, and why."), this.place);
  }

  show() {
    const usable = !state.isEmpty && state.model.takes_images;
    if (!state.model.takes_images) fill(this.place, emptiness("chip", "This classifier takes embeddings", "It has no network of its own to see pictures with. Programs ask it through the API."));
    else if (state.isEmpty) fill(this.place, this.nothing);
    else if (this.place.firstChild !== this.work) fill(this.place, this.work);
    this.drawUnknown();
    if (!usable) return this.leave();
    if (!this.cameraBox.hidden && !this.camera.isOn && !this.camera.wanted) this.camera.start();
    if (this.items.length && this.version !== state.model.version) this.answerAll();
    return undefined;
  }

  leave() {
    this.freeze();
    this.camera.stop();
  }

  drawUnknown() {
    const rule = state.model.rejection;
    const value = rule === null ? "off" : /%$/.test(rule) ? String(parseFloat(rule) / 100) : String(rule);
    const { input } = this.unknown;
    if (![...input.options].some((option) => option.value === value)) input.append(h("option", { value }, String(rule)));
    input.value = value;
    this.unknown.field.hidden = this.cost.hidden = state.readOnly;
    if (!state.isEmpty && !state.readOnly) this.drawCost(value);
  }

  /** Say that the choice is saved, and what it costs this version. */
  async drawCost(value) {
    const { version } = state.model;
    if (this.costOf === version) return;
    this.costOf = version;
    fill(this.cost, SAVED);
    if (value === "off") return;
    const costs = await this.costsOf(value);
    const refused = costs?.known_refused ?? null;
    if (refused === null || this.costOf !== version) return;
    const milder = refused > MOST && value !== "balanced" ? await this.costsOf("balanced") : null;
    if (this.costOf !== version) return;
    const fewer = milder && milder.known_refused < refused ? ` With “balanced” about ${Math.round(100 * milder.known_refused)}${ends(milder.known_refused_interval)}, while ${percent(milder.unknown_accepted)} of unknown ones slip through.` : "";
    fill(this.cost, `${SAVED} Of 100 known pictures, about ${Math.round(100 * refused)}${ends(costs.known_refused_interval)} would be answered unknown, while ${percent(costs.unknown_accepted)} of unknown ones slip through.${fewer}`);
  }

  /** Return what a rule costs; null if that cannot be told now. */
  async costsOf(reject) {
    const found = await ask("GET", "rejection", { query: { reject } }).catch(() => null);
    return found?.costs ?? null;
  }

  async reject(value) {
    const rate = Number(value);
    const reject = value !== "" && Number.isFinite(rate) ? rate : value;
    await change("PUT", "rejection", { json: { reject } }, reject === "off" ? "Every picture gets a class." : "Pictures like no class are answered as unknown.");
    this.drawUnknown();
  }

  choose(kind) {
    const live = kind === "camera";
    this.cameraBox.hidden = !live;
    this.zone.hidden = live;
    this.source.classList.toggle("live", live);
    this.list.hidden = live || this.items.length < 2;
    if (live) {
      this.panel.show(null);
      this.camera.start();
    } else {
      this.leave();
      this.select(this.selected ?? null);
    }
  }

  async receive(files) {
    const { pictures, others } = picturesAmong(files);
    sayLeftOut(others);
    if (!pictures.length || state.isEmpty) return undefined;
    if (!this.cameraBox.hidden) this.element.querySelector("input[value=files]").click();
    const bar = progress("Reading pictures");
    this.list.hidden = false;
    fill(this.list, bar.node);
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const made = await preparedAll(pictures.map(({ file }) => file), (n, all) => bar.set(n / all));
    if (turn !== this.turn) return released(made); // other pictures came since
    released(this.items.map(({ picture }) => picture));
    this.items = made.map((picture, place) => ({ picture, path: pictures[place].path, answer: null }));
    this.page = PAGE;
    this.kind = ALL;
    return this.answerAll();
  }

  /** Ask again for all pictures, because something changed. */
  answerAll() {
    const running = this.answerEach().finally(() => {
      if (this.running === running) this.running = null;
    });
    return (this.running = running);
  }

  async answerEach() {
    const run = (this.run = (this.run ?? 0) + 1);
    this.version = state.model.version;
    if (!this.items.length) return;
    const byPicture = new Map(this.items.map((item) => [item.picture, item]));
    let done = 0;
    const bar = progress("Answering");
    this.bar?.remove();
    if (this.items.length > PART) {
      this.list.hidden = false;
      if (this.items.some(({ answer }) => answer)) this.list.prepend(bar.node); // earlier answers stay while they are asked again
      else fill(this.list, bar.node);
      this.bar = bar.node;
    }
    const { coverage } = this;
    const send = (part) => {
      if (run !== this.run) throw new DOMException("a later question is on its way", "AbortError");
      return predict(part, { coverage });
    };
    const onpart = (n) => bar.set((done += n) / this.items.length, `Answered ${done} of ${counted(this.items.length, "picture")}`);
    const found = await attempt(() => sentInParts([...byPicture.keys()], state.model.limits, send, { most: PART, onpart }));
    if (run !== this.run) return;
    this.bar?.remove();
    for (const { pictures, answer, error } of found ?? []) {
      const { answers, notes } = error ? { answers: [unreadable(pictures[0], error)], notes: [] } : answer;
      pictures.forEach((picture, place) => Object.assign(byPicture.get(picture), { answer: answers[place], notes, coverage }));
    }
    this.items = this.items.filter(({ answer }) => answer);
    answered.splice(0, Infinity, ...this.items);
    answered.version = found ? this.version : null;
    const isNew = !this.items.includes(this.selected);
    this.select(isNew ? this.items[0] ?? null : this.selected);
    this.drawList();
    if (isNew) this.panel.element.scrollIntoView({ block: "nearest" });
  }

  select(item) {
    this.selected = item;
    this.panel.show(item);
    this.source.classList.toggle("done", Boolean(item));
    for (const node of this.list.querySelectorAll("[aria-pressed]")) node.setAttribute("aria-pressed", String(node.item === item));
  }

  drawList() {
    this.list.hidden = this.items.length < 2;
    if (this.list.hidden) return;
    const kinds = kindsAmong(this.items);
    if (!kinds.has(this.kind)) this.kind = ALL;
    const shown = this.items.filter(({ answer }) => kindsOf(answer).includes(this.kind));
    const rest = shown.length - this.page;
    fill(this.list,
      h("div", { class: "strip-head" }, h("h2", {}, counted(this.items.length, "answer")), button("Save as CSV", () => attempt(saveAnswers), { kind: "quiet", picture: "table" })),
      kinds.size > 2 ? h("div", { class: "chips kinds", role: "group", "aria-label": "Show" }, [...kinds].map(([kind, { text, n }]) => h("button", { type: "button", class: "chip", "aria-pressed": String(kind === this.kind), onclick: () => this.only(kind) }, h("span", { class: "name" }, text), " ", h("span", { class: "count" }, n.toLocaleString("en"))))) : null,
      h("ul", { class: "answer-grid" }, shown.slice(0, this.page).map((item) => {
        const node = h("button", { type: "button", class: "answer-card", "aria-pressed": String(item === this.selected), onclick: () => { this.select(item); this.panel.element.scrollIntoView({ block: "nearest" }); } }, local(item.picture, "thumb", ""), h("span", { class: "answer-card-words" }, verdict(item.answer), h("span", { class: "answer-card-foot" }, doubt(item.answer), h("span", { class: "soft file", title: item.path || null }, nameOf(item.picture.file) ? `corrected · ${item.answer.name}` : item.answer.name))));
        node.item = item;
        return h("li", {}, node);
      })),
      rest > 0 ? h("div", { class: "row center" }, button(`Show ${Math.min(rest, PAGE)} more`, () => { this.page += PAGE; this.drawList(); })) : null);
  }

  /** List the answers of one kind. */
  only(kind) {
    this.kind = kind;
    this.page = PAGE;
    this.drawList();
    this.list.querySelector(".kinds [aria-pressed=true]")?.focus();
  }

  /** Answer what the camera shows, until it is frozen. */
  async watch() {
    if (this.live || !this.camera.isOn) return;
    this.live = true;
    this.camera.video.play();
    fill(this.frozen, h("span", {}, "Freeze"));
    let before = null;
    while (this.live && this.camera.isOn) {
      const start = performance.now();
      const picture = await this.camera.frame();
      const found = picture && (await attempt(() => predict([picture], { coverage: this.coverage })));
      if (!found) {
        if (picture) return this.freeze();
      } else if (this.live) {
        if (before) released([before]);
        before = picture;
        this.panel.show({ picture, answer: found.answers[0], notes: found.notes, coverage: this.coverage }, true);
      }
      await new Promise((done) => setTimeout(done, Math.max(50, EVERY - (performance.now() - start))));
    }
    return undefined;
  }

  freeze() {
    if (!this.live) return;
    this.live = false;
    this.camera.video.pause();
    if (this.panel.item) this.panel.show(this.panel.item); // the picture that was answered, and all that takes a moment
    fill(this.frozen, h("span", {}, "Go on"));
  }

  /** After a correction: answer again, what was corrected first. */
  async again(item, name) {
    if (item.picture.file) named(item.picture.file, name, state.model.version);
    if (!this.cameraBox.hidden) return this.watch();
    const { coverage } = this;
    const found = await attempt(() => predict([item.picture], { coverage }));
    if (found) Object.assign(item, { answer: found.answers[0], notes: found.notes, coverage });
    if (item === this.selected) this.panel.show(item);
    if (!this.bar?.isConnected) this.drawList();
    await this.answerAll();
    return undefined;
  }
}

