// Changes: do one, look again, say what happened and offer to undo it.

import { ask, Refusal } from "./api.js";
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

/** Change something, and offer to undo it. Return the answer, or undefined if it was refused. */
export async function change(method, path, options, said) {
  return attempt(async () => {
    const answer = await ask(method, path, options);
    await state.refresh();
    const text = typeof said === "function" ? said(answer) : said;
    if (text) say(text, { action: state.model.can_undo ? ["Undo", undo] : null });
    return answer;
  });
}

//: Most earlier versions that a folder keeps, and so most changes that can be undone.
const KEPT = 10;

/** Return an offer to undo what was done last, in `n` changes, or null; nothing is undone once another change followed. */
export function undoing(n) {
  if (!n || n > KEPT) return null;
  let match = state.model.version;
  const act = async () => {
    try {
      for (let done = 0; done < n; done += 1) ({ version: match } = await ask("POST", "undo", { match }));
    } finally {
      await state.refresh();
    }
    say("Undone.");
  };
  return ["Undo", () => attempt(act)];
}

const step = (path, done) => () =>
  attempt(async () => {
    await ask("POST", path, { match: state.model.version });
    await state.refresh();
    say(done);
  });

export const undo = step("undo", "Undone.");
export const redo = step("redo", "Done again.");
