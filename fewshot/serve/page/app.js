// The page: which view is shown, what is dropped and pasted into it, undo and redo, the token.

import { ask, onReadOnly, onToken, Refusal } from "./lib/api.js";
import { attempt, redo, undo } from "./lib/changes.js";
import { button, counted, fill, h, icon, sentence, tool } from "./lib/dom.js";
import { dropped } from "./lib/pictures.js";
import { state } from "./lib/state.js";
import { ask as askText } from "./parts/dialogs.js";
import { showHistory } from "./parts/history.js";
import { emptiness, waiting } from "./parts/pieces.js";
import { say } from "./parts/toasts.js";
import { ClassesView } from "./views/classes.js";
import { ModelView } from "./views/model.js";
import { NextView } from "./views/next.js";
import { TeachView } from "./views/teach.js";
import { TryView } from "./views/try.js";

//: Name, text, class, and whether it is for teachers only.
const VIEWS = [
  ["teach", "Teach", TeachView, true],
  ["try", "Try", TryView, false],
  ["classes", "Classes", ClassesView, false],
  ["next", "Label next", NextView, true],
  ["model", "Take away", ModelView, false],
];

const main = document.getElementById("main");
const made = new Map();
let shown = null;

const allowed = () => VIEWS.filter(([, , , teaches]) => !teaches || !state.readOnly);

function route() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  const found = allowed().find(([key]) => key === name) ?? allowed()[0];
  return { found, rest: rest.map((part) => { try { return decodeURIComponent(part); } catch { return part; } }) };
}

function show(moved) {
  if (!state.model) return; // it comes, and is drawn then
  const { found: [name, text, View], rest } = route();
  if (!made.has(name)) made.set(name, new View());
  const view = made.get(name);
  if (shown !== view) shown?.leave?.();
  shown = view;
  view.show(rest);
  if (main.firstElementChild !== view.element) fill(main, view.element);
  document.title = `${text} · ${state.model.name} · fewshot`;
  drawNav(name);
  if (moved) {
    scrollTo(0, 0);
    view.element.querySelector("h1")?.focus({ preventScroll: true });
  }
}

const links = new Map(VIEWS.map(([name, text]) => [name, h("a", { href: `#${name}` }, icon(name), h("span", {}, text))]));
const back = tool("Undo", undo, "undo");
const forth = tool("Redo", redo, "redo");

function drawNav(current) {
  for (const [name, link] of links) {
    link.hidden = !allowed().some(([key]) => key === name);
    if (name === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function drawFrame() {
  const { model } = state;
  fill(document.getElementById("model-name"), h("span", { class: "unseen" }, "Classifier "), model.name);
  fill(document.getElementById("side-foot"),
    h("p", {}, counted(model.classes, "class", "classes"), ", ", counted(model.examples, "picture")),
    state.readOnly ? h("p", { class: "badge" }, "Read-only") : null);
  for (const [node, can] of [[back, model.can_undo], [forth, model.can_redo]]) Object.assign(node, { hidden: state.readOnly, disabled: !can });
  const tools = document.getElementById("tools");
  if (!tools.childElementCount) { // they stay from then on, and keep the focus
    tools.append(back, forth, tool("History", showHistory, "history"));
    document.getElementById("nav").append(...links.values());
  }
}

function redraw() {
  drawFrame();
  show(false);
}

const isField = (target) => target instanceof Element && target.matches("input:not([type=radio], [type=checkbox]), textarea, select");

function listen() {
  addEventListener("hashchange", () => show(true));
  state.addEventListener("change", redraw);
  document.addEventListener("visibilitychange", () => document.hidden || state.refresh().catch(() => {}));
  let depth = 0;
  const over = (on) => document.body.classList.toggle("dropping", on);
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragenter", (event) => { if (hasFiles(event)) { depth += 1; over(Boolean(shown?.receive)); } });
  addEventListener("dragleave", (event) => { if (hasFiles(event)) { depth -= 1; if (depth <= 0) { depth = 0; over(false); } } });
  addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
  addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    over(false);
    receive(await dropped(event.dataTransfer));
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    receive(files.map((file) => ({ file, path: "" })));
  });
  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !isField(event.target) && !state.readOnly) {
      event.preventDefault();
      (event.shiftKey ? redo : undo)();
    } else if (!event.ctrlKey && !event.metaKey && !event.altKey && !isField(event.target)) shown?.key?.(event);
  });
}

function receive(files) {
  if (!files.length || !state.model || document.querySelector("dialog[open]")) return;
  if (!state.model.takes_images) say("This classifier learns and answers embeddings, which programs send to the API.", { kind: "bad" });
  else if (shown?.receive) attempt(async () => shown.receive(files));
  else say("Pictures are taken at Teach, Try and Label next.", { kind: "bad" });
}

let asking = null;

async function signIn() {
  let text = "This service is protected. The token is in the file that it was started with.";
  for (;;) {
    const token = await askText("Token", "Token", "", "Sign in", { type: "password", text });
    if (!token) return false;
    try {
      await ask("POST", "session", { headers: { Authorization: `Bearer ${token.replace(/[^\x21-\x7e]/g, "")}` } });
      return true;
    } catch (error) {
      text = error.code === "token" ? "This is not the token. Look at the file again." : sentence(error.message);
    }
  }
}

async function start() {
  fill(main, waiting("Looking at the classifier"));
  try {
    await state.refresh();
  } catch (error) {
    if (!(error instanceof Refusal)) console.error(error);
    fill(main, emptiness("alert", error.code === "token" ? "Not signed in" : "The service does not answer",
      sentence(error.message), button("Try again", start, { kind: "main" })));
    return;
  }
  if (state.model.trouble) say(sentence(state.model.trouble), { kind: "bad" });
}

onToken(() => (asking ??= signIn().finally(() => { asking = null; })));
onReadOnly(() => state.refresh().catch(() => {}));
listen();
start();
