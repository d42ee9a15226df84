// Short messages that go by themselves; failures stay longer and are read at once.

import { button, counted, h, icon, listed, tool } from "../lib/dom.js";

const SECONDS = { good: 6, bad: 12 };

/** Show a message; `action` is a text and what it does. */
export function say(text, { kind = "good", action } = {}) {
  const close = () => toast.remove();
  const toast = h("div", { class: `toast ${kind}`, role: kind === "bad" ? "alert" : null },
    icon(kind === "bad" ? "alert" : "check"),
    h("p", {}, text),
    action && button(action[0], () => { close(); action[1](); }, { kind: "quiet" }),
    tool("Close", close, "close"));
  const all = document.getElementById("toasts");
  for (const before of all.querySelectorAll(".good")) before.remove(); // it is no longer the last that happened
  all.append(toast);
  while (all.childElementCount > 3) all.firstElementChild.remove();
  const wait = () => setTimeout(() => (toast.matches(":hover, :focus-within") ? wait() : close()), SECONDS[kind] * 1000);
  wait();
}

/** Say which of the files that were chosen are no pictures. */
export function sayLeftOut(names) {
  if (names.length) say(`${counted(names.length, "file")} ${names.length === 1 ? "is" : "are"} no picture and ${names.length === 1 ? "was" : "were"} left out: ${listed(names)}.`, { kind: "bad" });
}
