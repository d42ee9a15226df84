// What was changed, and undo and redo.

import { ask } from "../lib/api.js";
import { attempt, redo, undo } from "../lib/changes.js";
import { button, counted, h, sentence } from "../lib/dom.js";
import { state } from "../lib/state.js";
import { dialog } from "./dialogs.js";

const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function when(at) {
  const date = new Date(typeof at === "number" ? at * 1000 : at);
  return Number.isNaN(date.getTime()) ? String(at) : day.format(date);
}

/** Show what was changed, the latest first. */
export async function showHistory() {
  const found = await attempt(() => ask("GET", "history"));
  if (!found) return;
  const again = (act, close) => async () => { close(); await act(); showHistory(); };
  dialog("History", (close) => {
    const versions = found.versions.toSorted((a, b) => b.number - a.number);
    const rows = versions.map((one) => h("li", { "aria-current": one.is_current ? "step" : null },
      h("span", { class: "history-note" }, one.note ? sentence(one.note).replace(/\.$/, "") : "Saved"),
      one.is_current && h("span", { class: "badge" }, "now"),
      h("span", { class: "soft" }, [when(one.at), counted(one.n_classes, "class", "classes"), counted(one.n_support, "picture")].map((part) => part.replaceAll(" ", "\u00a0")).join(" · "))));
    if (rows.length && state.isEmpty) rows.push(h("li", { "aria-current": "step" }, h("span", { class: "history-note" }, "Nothing taught"), h("span", { class: "badge" }, "now")));
    return [
      state.readOnly ? null : h("div", { class: "row" },
        button("Undo", again(undo, close), { picture: "undo", disabled: !state.model.can_undo }),
        button("Redo", again(redo, close), { picture: "redo", disabled: !state.model.can_redo })),
      rows.length ? h("ol", { class: "history" }, rows) : h("p", { class: "soft" }, "Nothing was taught yet."),
    ].filter(Boolean);
  });
}
