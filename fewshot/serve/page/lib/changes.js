// Changes: do one, look again, say what happened and offer to undo it.

import { ask, Refusal } from "./api.js";
import { redid, undid } from "./corrections.js";
import { sentence } from "./dom.js";
import { state } from "./state.js";
import { say } from "../parts/toasts.js";

/** Run something that may be refused; return its result, or undefined after saying why not. */
export async function attempt(act) {
  try {
    return await act();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (!(error instanceof Refusal)) console.error(error);
    if (error.code === "changed") {
      await state.refresh().catch(() => {});
      say("Someone else has changed the classifier. Nothing was done; look again.", { kind: "bad" });
    } else say(sentence(error.message || "Something went wrong"), { kind: "bad" });
    return undefined;
  }
}

//: What this page is changing now, oldest first: promises of what `attempt` returns.
const underWay = new Set();

/** Wait for the changes that are under way now, whether they are made or refused. */
export const settled = () => Promise.all([...underWay]);

//: What is told of something that waits, and after how many milliseconds.
const WAITS = "This is done as soon as the change before is saved.";
const PATIENCE = 400;

/** Make a change at once, then look again; what follows in turn waits for both. Return what `attempt` does. */
export function saving(act) {
  return during(async () => {
    try {
      const found = await act();
      await attempt(() => state.refresh());
      return found;
    } catch (error) {
      await state.refresh().catch(() => {}); // of several parts, the first ones may be saved
      throw error;
    }
  });
}

function during(act) {
  const mine = attempt(act);
  underWay.add(mine);
  document.body.classList.add("saving");
  return mine.finally(() => {
    underWay.delete(mine);
    document.body.classList.toggle("saving", underWay.size > 0);
  });
}

/** Make a change after those under way; `act` gets whether the last of them was made, or true. */
function inTurn(act, waiting) {
  const before = [...underWay];
  return during(async () => {
    const timer = before.length && setTimeout(() => say(waiting), PATIENCE);
    const done = await Promise.all(before);
    clearTimeout(timer);
    return act(done.length === 0 || done.at(-1) !== undefined);
  });
}

//: Changes by `change` that are under way, by what they ask for.
const asked = new Map();

/**
 * Change something, and offer to undo it. Return the answer, or undefined if it was refused. `match: true` in the options
 * is the version that the page shows, after its own changes under way; the same again, such as a second click, is one.
 */
export function change(method, path, { match, ...options }, said) {
  const key = options.body ?? JSON.stringify([method, path, options.query, options.json]);
  if (!asked.has(key)) asked.set(key, changed(method, path, match, options, said).finally(() => asked.delete(key)));
  return asked.get(key);
}

function changed(method, path, match, options, said) {
  return inTurn(async () => {
    const answer = await ask(method, path, { ...options, match: match && state.model.version });
    await state.refresh();
    const text = typeof said === "function" ? said(answer) : said;
    if (text) say(text, { action: state.model.can_undo ? ["Undo", undo] : null });
    return answer;
  }, WAITS);
}

//: Most earlier versions that a folder keeps, and so most changes that can be undone.
const KEPT = 100;

/** Return an offer to undo what was done last, in `n` changes, or null; nothing is undone once another change followed. */
export function undoing(n) {
  if (!n || n > KEPT) return null;
  let match = state.model.version;
  const act = async () => {
    try {
      for (let done = 0; done < n; done += 1) {
        const { version } = await ask("POST", "undo", { match });
        undid(match);
        match = version;
      }
    } finally {
      await state.refresh();
    }
    say("Undone.");
    return true;
  };
  return ["Undo", () => inTurn(act, WAITS)];
}

/** Return a function that undoes or redoes after what is under way; a refused change takes the undo of it along. */
const step = (path, done, can) => () =>
  inTurn(async (wasMade) => {
    if (!wasMade) return say(`The change before was not made, so there is nothing to ${path}.`, { kind: "bad" });
    if (!state.model[can]) return say(`There is nothing to ${path}.`, { kind: "bad" });
    const { version } = state.model;
    const answer = await ask("POST", path, { match: version });
    if (path === "undo") undid(version);
    else redid(answer.version);
    await state.refresh();
    say(done);
    return answer;
  }, WAITS);

export const undo = step("undo", "Undone.", "can_undo");
export const redo = step("redo", "Done again.", "can_redo");
