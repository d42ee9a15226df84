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

const step = (path, done) => () =>
  attempt(async () => {
    await ask("POST", path, { match: state.model.version });
    await state.refresh();
    say(done);
  });

export const undo = step("undo", "Undone.");
export const redo = step("redo", "Done again.");
