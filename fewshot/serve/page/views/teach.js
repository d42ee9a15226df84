// Teach: pictures and a name, and the class is known.

import { ask, form } from "../lib/api.js";
import { OF_PICTURE, sentInParts } from "../lib/batches.js";
import { saving, undoing } from "../lib/changes.js";
import { button, counted, duration, fill, h, heldElsewhere, icon, tool, unread } from "../lib/dom.js";
import { byFolder, picturesAmong, prepared, preparedAll, released } from "../lib/pictures.js";
import { state } from "../lib/state.js";
import { burstButton, Camera } from "../parts/camera.js";
import { dropzone } from "../parts/dropzone.js";
import { chips, classField, emptiness, heading, linkButton, local, progress, segments, thumbnail } from "../parts/pieces.js";
import { say, sayLeftOut } from "../parts/toasts.js";

//: Most pictures of the tray that are shown.
const SHOWN = 60;
//: Folders whose first pictures are shown before they are taught.
const DRAWN = 24;

/** Teach pictures of a class, in as many requests as it needs; return what was learned. */
export async function teach(name, pictures, onpart = () => {}) {
  const all = { learned: 0, copies: 0, changes: 0, elsewhere: [], unreadable: [], milliseconds: 0, new: false };
  const send = (part) => ask("POST", "classes", { body: form(part, { name }) });
  let lastly = null;
  for (const { pictures: [first], answer, error } of await sentInParts(pictures, state.model.limits, send, { onpart })) {
    if (error) {
      lastly = error;
      all.unreadable.push({ name: first.name, message: error.message });
      continue;
    }
    all.new ||= answer.new;
    all.changes += answer.learned ? 1 : 0;
    all.unreadable.push(...answer.unreadable);
    all.elsewhere.push(...answer.elsewhere);
    for (const key of ["learned", "copies", "milliseconds"]) all[key] += answer[key];
  }
  if (lastly && all.unreadable.length === pictures.length) throw lastly;
  return all;
}

/** Say what was learned. */
export function told(name, found) {
  const said = found.learned ? `${name}: ${counted(found.learned, "picture")} learned in ${duration(found.milliseconds)}.` : `${name}: nothing new.`;
  const copies = found.copies ? ` ${counted(found.copies, "picture")} it knew already.` : "";
  return [said + copies, heldElsewhere(found.elsewhere), unread(found.unreadable)].filter(Boolean).join(" ");
}

export class TeachView {
  constructor() {
    this.tray = [];
    this.camera = new Camera();
    this.name = classField("Name of the class");
    this.name.input.addEventListener("input", () => this.drawName());
    this.trayBox = h("div", { class: "tray", "aria-live": "polite" });
    this.zone = dropzone("Drop pictures here", "Or paste them. A folder of folders teaches a class for each folder.", (files) => this.receive(files));
    this.cameraBox = h("div", { class: "stack", hidden: true }, this.camera.element, h("div", { class: "row center" }, burstButton(this.camera, (picture) => this.add([picture]))));
    this.source = h("div", { class: "stack" }, segments("Pictures from", [["files", "Files", "picture"], ["camera", "Camera", "camera"]], (kind) => this.choose(kind)), this.zone, this.cameraBox, this.trayBox);
    this.submit = h("button", { type: "submit", class: "button main wide" });
    this.known = h("div", { class: "chips" });
    this.result = h("div", { class: "result", role: "status" });
    this.form = h("form", { class: "stack", onsubmit: (event) => { event.preventDefault(); this.teachTray(); } }, this.name.field, this.name.note, this.known, this.submit, this.result);
    this.single = h("div", { class: "columns teach-columns" },
      h("section", { class: "card", "aria-labelledby": "teach-show" }, h("h2", { id: "teach-show", class: "step" }, h("span", { class: "step-n" }, "1"), "Show it"), this.source),
      h("section", { class: "card", "aria-labelledby": "teach-name" }, h("h2", { id: "teach-name", class: "step" }, h("span", { class: "step-n" }, "2"), "Name it"), this.form));
    this.bulk = h("section", { class: "card", hidden: true });
    this.strip = h("section", { class: "strip" });
    this.element = h("div", { class: "view" }, heading("Teach", "Show a few pictures, name them, and the class is known at once."), this.single, this.bulk, this.strip);
  }

  show() {
    if (this.resultOf && this.resultOf !== state.model.version) this.clearResult(); // something else happened since
    this.drawTray();
    this.drawName();
    this.drawStrip();
    if (!state.model.takes_images) {
      fill(this.element, heading("Teach"), emptiness("chip", "This classifier takes embeddings", "It has no network of its own to see pictures with. Programs teach it through the API."));
    } else if (!this.cameraBox.hidden && !this.camera.isOn && !this.camera.wanted) this.camera.start();
  }

  leave() {
    this.camera.stop();
  }

  choose(kind) {
    const live = kind === "camera";
    this.cameraBox.hidden = !live;
    this.zone.hidden = live;
    if (live) this.camera.start();
    else this.camera.stop();
  }

  async receive(files) {
    const { pictures, others } = picturesAmong(files);
    sayLeftOut(others);
    if (!pictures.length) return;
    const groups = byFolder(pictures);
    if (groups) {
      if (this.bulkRun) say("These folders are shown once the ones before are taught.");
      await this.bulkRun;
      this.showBulk(groups);
    }
    else {
      const bar = progress("Reading pictures");
      if (pictures.length > SHOWN) fill(this.result, bar.node);
      this.add(await preparedAll(pictures.map(({ file }) => file), (n, all) => bar.set(n / all)));
    }
  }

  clearResult() {
    this.resultOf = null;
    fill(this.result);
  }

  add(pictures) {
    this.tray.push(...pictures);
    if (!this.busy) this.clearResult();
    this.drawTray();
    this.drawName();
    if (!this.name.value && this.cameraBox.hidden) this.name.input.focus();
  }

  drawTray() {
    const more = this.tray.length - SHOWN;
    fill(this.trayBox, this.tray.length ? [
      h("div", { class: "tray-head" }, h("strong", {}, counted(this.tray.length, "picture")), button("Clear", () => this.clear(), { kind: "quiet" })),
      h("ul", { class: "thumbs" }, this.tray.slice(-SHOWN).reverse().map((picture) => h("li", {}, local(picture), tool(`Leave out ${picture.name}`, () => this.leaveOut(picture), "close", { class: "button tool corner" })))),
      more > 0 ? h("p", { class: "soft" }, `and ${more.toLocaleString("en")} more`) : null,
    ] : []);
  }

  leaveOut(picture) {
    this.tray = this.tray.filter((one) => one !== picture);
    released([picture]);
    this.drawTray();
    this.drawName();
  }

  clear() {
    released(this.tray);
    this.tray = [];
    this.drawTray();
    this.drawName();
  }

  drawName() {
    const name = this.name.value;
    const knows = state.knows(name);
    fill(this.known, state.isEmpty ? [] : [h("span", { class: "soft chips-label" }, "Or more of"), chips((known) => { this.name.value = known; this.drawName(); }, 8, name)]);
    const what = this.tray.length ? counted(this.tray.length, "picture") : "";
    fill(this.submit, icon(knows ? "teach" : "check"), h("span", {}, knows ? `Add ${what} to ${name}` : `Teach ${what || "it"}`));
    this.submit.disabled = this.busy || !this.tray.length || !name;
  }

  async teachTray() {
    const [name, pictures] = [this.name.value, [...this.tray]]; // what is added meanwhile stays for the next class
    if (!name || !pictures.length || this.busy) return;
    this.busy = true;
    this.drawName();
    const bar = progress("Learning");
    this.clearResult();
    this.result.append(bar.node);
    let done = 0;
    const found = await saving(() => teach(name, pictures, (n) => bar.set((done += n) / pictures.length)));
    this.busy = false;
    fill(this.result);
    if (found) {
      released(pictures);
      this.tray = this.tray.filter((picture) => !pictures.includes(picture));
      if (this.name.value === name) this.name.value = "";
      this.drawResult(name, found);
    }
    this.drawTray();
    this.drawName();
  }

  drawResult(name, found) {
    const offer = undoing(found.changes);
    this.resultOf = state.model.version;
    const hint = state.model.classes === 1 ? "Teach a second class, so that it has a choice." : null;
    fill(this.result, h("div", { class: "learned" }, h("span", { class: "learned-mark" }, icon("check")),
      h("div", {}, h("strong", { class: "name" }, found.new ? `${name} is known` : name), h("p", { class: "soft" }, told(name, found).replace(`${name}: `, "").replace(/^./, (c) => c.toUpperCase())), hint && h("p", {}, hint),
        h("div", { class: "row" }, linkButton("Try it", "#try", "plain", "try"), offer && button(...offer, { kind: "quiet", picture: "undo" })))));
  }

  showBulk(groups) {
    const rows = [...groups].map(([name, files]) => ({ name: classField(`Name of the class of folder ${name}`, { hidden: true }), files, folder: name }));
    const list = h("ul", { class: "bulk" });
    const actions = h("div", { class: "row end" });
    const close = () => { this.bulk.hidden = true; this.single.hidden = false; fill(this.bulk); };
    const draw = () => {
      if (!rows.length) return close();
      const n = rows.reduce((sum, row) => sum + row.files.length, 0);
      fill(actions, button("Cancel", close), button(`Teach ${counted(rows.length, "class", "classes")}, ${counted(n, "picture")}`, () => { this.bulkRun = this.teachBulk(rows, list, actions, close).finally(() => { this.bulkRun = null; }); }, { kind: "main", picture: "check" }));
      return undefined;
    };
    fill(list, rows.map((row, place) => {
      row.name.value = row.folder;
      row.name.field.append(row.name.note);
      const some = h("span", { class: "bulk-thumbs" });
      for (const { file } of place < DRAWN ? row.files.slice(0, 4) : []) prepared(file).then((picture) => some.append(local(picture, "thumb small", "")));
      row.state = h("span", { class: "soft bulk-count" }, counted(row.files.length, "picture"));
      row.node = h("li", {}, some, row.name.field, row.state, tool(`Leave out ${row.folder}`, () => { rows.splice(rows.indexOf(row), 1); row.node.remove(); draw(); }, "close"));
      return row.node;
    }));
    fill(this.bulk, h("h2", {}, counted(rows.length, "folder"), ": a class each"), h("p", { class: "soft" }, "Change the names if you like. Folders of the same name join one class."), list, actions);
    this.single.hidden = true;
    this.bulk.hidden = false;
    draw();
  }

  async teachBulk(rows, list, actions, close) {
    const total = rows.reduce((sum, row) => sum + row.files.length, 0);
    const bar = progress("Learning");
    let [done, stopped] = [0, false];
    list.inert = true;
    fill(actions, bar.node, button("Stop", () => { stopped = true; }));
    const all = { learned: 0, copies: 0, changes: 0, elsewhere: [], unreadable: [], milliseconds: 0 };
    let refused = null;
    const finished = await saving(async () => {
      for (const row of rows) {
        if (stopped) break;
        const pictures = await preparedAll(row.files.map(({ file }) => file));
        const found = await teach(row.name.value || row.folder, pictures, (n) => bar.set((done += n) / total, `Learning: ${done} of ${counted(total, "picture")}`)).catch((error) => {
          if (!OF_PICTURE.has(error.status)) throw error;
          refused = error; // none of this folder can be read; the others may
          return { learned: 0, copies: 0, changes: 0, elsewhere: [], milliseconds: 0, unreadable: pictures.map(({ name }) => ({ name, message: error.message })) };
        });
        released(pictures);
        for (const key of ["learned", "copies", "changes", "milliseconds"]) all[key] += found[key];
        all.unreadable.push(...found.unreadable);
        all.elsewhere.push(...found.elsewhere);
        const isRead = found.learned + found.copies > 0;
        fill(row.state, icon(isRead ? "check" : "alert"), isRead ? duration(found.milliseconds) : "cannot be read");
        row.node.classList.toggle("done", isRead);
      }
      if (refused && !all.learned && !all.copies) throw refused;
      return true;
    });
    close();
    list.inert = false;
    if (finished) say(told(stopped ? "Stopped" : counted(rows.length, "class", "classes"), all), { kind: all.unreadable.length || all.elsewhere.length ? "bad" : "good", action: undoing(all.changes) });
  }

  drawStrip() {
    const { classes, model } = state;
    if (!classes.length) return fill(this.strip);
    return fill(this.strip, h("div", { class: "strip-head" }, h("h2", {}, "Known so far"), h("a", { href: "#classes" }, model.classes > 8 ? `All ${counted(model.classes, "class", "classes")}` : "See classes")),
      h("ul", { class: "class-grid compact" }, classes.slice(0, 8).map((one) => h("li", {}, h("a", { class: "class-card", href: `#classes/${encodeURIComponent(one.name)}` },
        h("span", { class: "class-head" }, h("span", { class: "name" }, one.name), h("span", { class: "count" }, counted(one.examples, "picture"))),
        h("span", { class: "class-thumbs" }, one.thumbnails.slice(0, 4).map((id) => thumbnail(id))))))));
  }
}

