// Take it away: the classifier as files, answers as a table; load another one.

import { attempt, change } from "../lib/changes.js";
import { save } from "../lib/csv.js";
import { button, counted, fill, h, icon, sentence } from "../lib/dom.js";
import { choose } from "../lib/pictures.js";
import { state } from "../lib/state.js";
import { confirm } from "../parts/dialogs.js";
import { showHistory } from "../parts/history.js";
import { heading, waiting } from "../parts/pieces.js";
import { say } from "../parts/toasts.js";
import { answered, saveAnswers } from "./try.js";

const card = (picture, title, text, ...actions) => h("li", { class: "card away" }, h("span", { class: "away-icon" }, icon(picture)), h("div", {}, h("h2", {}, title), h("p", { class: "soft" }, text)), h("div", { class: "row" }, actions));

export class ModelView {
  constructor() {
    this.ways = h("ul", { class: "ways" });
    this.facts = h("section", { class: "card facts" });
    this.element = h("div", { class: "view" }, heading("Take away", "Everything you taught is yours: a folder that all fewshot commands read."), this.ways, this.facts);
  }

  show() {
    const { model } = state;
    const off = { disabled: state.isEmpty };
    fill(this.ways,
      card("model", "Classifier", "A zip file of the folder. Unzip it first to use it with the fewshot commands or from Python, or load the zip file here again.", button("Download", () => this.fetch("model/download", "classifier.zip"), { kind: "main", picture: "model", ...off })),
      card("chip", "For devices", "The same classifier without torch, for small computers. It still learns there.", button("Download", () => this.fetch("model/device", "device.zip"), { picture: "model", ...off })),
      card("table", "Answers", answered.length ? `The ${counted(answered.length, "answer")} of your last try, as a CSV table.` : "What you tried last, as a CSV table. Try some pictures first.", button("Save as CSV", () => this.saveAnswers(), { picture: "model", disabled: !answered.length })),
      state.readOnly ? null : card("upload", "Load", "Replace this classifier by one from a zip file. Undo brings this one back, while the folder keeps it.", button("Choose a zip file", () => this.pick(), { picture: "upload" })));
    const rows = [["Name", model.name], ["Classes", model.classes.toLocaleString("en")], ["Pictures", model.examples.toLocaleString("en")], ["Network", model.backbone ?? "none; it takes embeddings"], ["Length of embeddings", model.d ?? "not known yet"], ["fewshot", model.fewshot]];
    fill(this.facts, h("div", { class: "strip-head" }, h("h2", {}, "About this classifier"), button("History", showHistory, { kind: "quiet", picture: "history" })),
      h("dl", {}, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "name" }, String(value))))),
      h("p", { class: "soft" }, "Programs use the same service: ", h("a", { href: "v1/openapi.json" }, "description of the API"), "."));
  }

  /** Save the answers, those of an earlier version asked again. */
  async saveAnswers() {
    const bar = waiting("Answering again");
    this.ways.before(bar);
    await attempt(saveAnswers);
    bar.remove();
  }

  /** Download, with failures as sentences. */
  async fetch(path, name) {
    const bar = waiting("Packing");
    this.ways.before(bar);
    try {
      const response = await fetch(`v1/${path}`, { credentials: "same-origin" });
      if (!response.ok) throw new Error((await response.json()).error.message);
      const given = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "");
      save(given?.[1] ?? name, await response.blob());
    } catch (error) {
      say(sentence(error.message), { kind: "bad" });
    } finally {
      bar.remove();
    }
  }

  async pick() {
    const [chosen] = await choose({ accept: ".zip,application/zip", multiple: false });
    if (chosen) this.load(chosen.file);
  }

  async receive(files) {
    const zip = files.map(({ file }) => file).find((file) => /\.zip$/i.test(file.name));
    if (zip && !state.readOnly) await this.load(zip);
    else say("Here, drop a zip file of a classifier.", { kind: "bad" });
  }

  async load(file) {
    if (!state.isEmpty && !(await confirm("Replace the classifier?", `${file.name} takes the place of ${counted(state.model.classes, "class", "classes")}. Undo brings them back while the folder keeps them: for the next 100 changes, fewer if it is large.`, "Replace"))) return;
    await change("POST", "model/load", { body: file, type: "application/zip", match: true }, "The classifier is loaded.");
  }
}

