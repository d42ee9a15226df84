// Elements without HTML: every text becomes a text node, so that no name of a class or file can become markup.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "srcObject", "textContent", "indeterminate"]);

/** Return an element; properties beginning with `on` are listeners, the other ones attributes. */
export function h(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (PROPERTIES.has(name)) node[name] = value ?? "";
    else if (value === undefined || value === null || value === false) continue;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Put other children into an element. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const ICONS = {
  teach: "M12 5v14M5 12h14",
  try: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14M20 20l-4-4",
  classes: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  next: "M4 6h9M4 12h6M4 18h6M14 14l3 3 5-6",
  model: "M12 3v12M7 10l5 5 5-5M4 20h16",
  undo: "M9 14L4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
  redo: "M15 14l5-5-5-5M20 9H10a6 6 0 0 0 0 12h3",
  history: "M12 7v5l3 2M4.5 8A8.5 8.5 0 1 1 3.6 13M4 4v4h4",
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 10a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9h.01",
  folder: "M3 6h6l2 2h10v11H3z",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 12.5l4.5 4.5L19 7",
  alert: "M12 8v5M12 16.5h.01M12 3l9.5 17h-19z",
  doubt: "M4 9.500c2.700-3.200 5.300-3.200 8 0s5.300 3.200 8 0M4 16c2.700-3.200 5.300-3.200 8 0s5.300 3.200 8 0",
  unknown: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5h.01",
  places: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6",
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  pen: "M4 20l1-5L16 4l4 4L9 19z",
  merge: "M6 4v4a6 6 0 0 0 6 6v6M18 4v4a6 6 0 0 1-6 6M8 17l4 4 4-4",
  back: "M15 5l-7 7 7 7",
  arrow: "M5 12h14M13 6l6 6-6 6",
  both: "M4 9h15M15 5l4 4-4 4M20 16H5M9 12l-4 4 4 4",
  key: "M14 10a4 4 0 1 0-3.5 4L12 15.500h2v2h2v2h3v-3l-5-5",
  flip: "M4 12a8 8 0 0 1 14-5l2 2M20 4v5h-5M20 12a8 8 0 0 1-14 5l-2-2M4 20v-5h5",
  chip: "M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4",
  table: "M4 5h16v14H4zM4 10h16M4 14.500h16M10 5v14",
  upload: "M12 16V4M7 9l5-5 5 5M4 20h16",
};

/** Return a small drawing, hidden from screen readers: what it says stands beside it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" }))
    svg.setAttribute(key, value);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * Call `act` when an element comes near what is seen of the page. Returns what looks again: an element that stays near
 * while things are added before it does not come anew.
 */
export function whenNear(element, act) {
  const watcher = new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) act(); }, { rootMargin: "600px" });
  const look = () => { watcher.unobserve(element); watcher.observe(element); };
  look();
  return look;
}

/** Return a button; `kind` is main, quiet, danger or tool. */
export function button(text, onclick, { kind = "plain", picture, ...rest } = {}) {
  return h("button", { type: "button", class: `button ${kind}`, onclick, ...rest }, picture && icon(picture), text && h("span", {}, text));
}

/** Return a button that shows only a drawing. */
export function tool(label, onclick, picture, rest = {}) {
  return h("button", { type: "button", class: "button tool", "aria-label": label, title: label, onclick, ...rest }, icon(picture));
}

let last = 0;

/** Return an id that no element has. */
export const fresh = (name) => `${name}-${(last += 1)}`;

/** Return "1 picture" or "3 pictures". */
export function counted(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** Return a share as per cent, never 100 % unless it is all. */
export function percent(share) {
  const rounded = Math.round(share * 100);
  if (rounded === 100 && share < 1) return share < 0.9995 ? `${(Math.floor(share * 1000) / 10).toFixed(1)} %` : "100 %";
  return rounded === 0 && share > 0 ? "<1 %" : `${rounded} %`;
}

/** Return a time in words. */
export function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.max(1, Math.round(milliseconds))} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

/** Return text without the digests that make names of files the names of examples. */
export const withoutDigests = (text) => String(text).replace(/ [0-9a-f]{16}\b/g, "");

//: Files that a message names.
const NAMED = 3;

/** Return the first names of a list, for a message. */
export function listed(names) {
  const more = names.length - NAMED;
  return `${names.slice(0, NAMED).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}

/** Say which files of `unreadable` ({name, message}) could not be read, and why: each reason once. */
export function unread(unreadable) {
  if (!unreadable.length) return "";
  const byReason = new Map();
  for (const { name, message } of unreadable) {
    const why = String(message ?? "").trim().replace(/^image \d+, .+?(, (?=is |has )|: )/i, "").replace(/[.]$/, "");
    byReason.set(why, [...(byReason.get(why) ?? []), name]);
  }
  const told = [...byReason].slice(0, NAMED).map(([why, names]) => {
    if (!why) return `${listed(names)}.`;
    return `${listed(names)}${names.length === 1 && /^(is|has|cannot) /.test(why) ? "" : ":"} ${why}.`;
  });
  return `${counted(unreadable.length, "file")} could not be read. ${told.join(" ")}`;
}

/** Say which of the learned pictures ({name, class}) other classes hold too, and where the wrong ones are removed. */
export function heldElsewhere(pictures) {
  if (!pictures.length) return "";
  const classes = [...new Set(pictures.map((one) => one.class))].map((name) => `“${name}”`);
  const is = pictures.length === 1 ? ["is", "it", "it is"] : ["are", "them", "they are"];
  return `${counted(pictures.length, "picture")} ${is[0]} in ${listed(classes)} too: remove ${is[1]} in Classes where ${is[2]} wrong.`;
}

/** Return a message as a sentence; an image is told by its name alone, as the page has no other number. */
export function sentence(text) {
  const trimmed = String(text).trim().replace(/^image \d+, (.+?), (?=is |has )/i, "“$1” ");
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}
