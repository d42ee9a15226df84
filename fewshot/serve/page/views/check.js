// How good: accuracy on what was taught, confused pairs, which class needs more, suspects beside their neighbours.

import { ask } from "../lib/api.js";
import { attempt, change } from "../lib/changes.js";
import { button, counted, fill, h, icon, percent, sentence, withoutDigests } from "../lib/dom.js";
import { state } from "../lib/state.js";
import { bar, emptiness, linkButton, thumbnail, waiting } from "../parts/pieces.js";
import { showExample } from "./one_class.js";

//: Parts of a long list that are drawn at once.
const SHOWN = 6;

const link = (name) => h("a", { class: "name", href: `#classes/${encodeURIComponent(name)}` }, name);

/** Return a list of cards; a long one grows when asked. */
function cards(all, draw, kind = "") {
  const list = h("ul", { class: `cards ${kind}` }, all.slice(0, SHOWN).map(draw));
  const more = button(`Show ${all.length - SHOWN} more`, () => {
    const rest = all.slice(SHOWN).map(draw);
    list.append(...rest);
    more.remove();
    rest[0].querySelector("a, button")?.focus();
  }, { kind: "quiet" });
  return [list, all.length > SHOWN ? h("div", { class: "row center" }, more) : null];
}

export class CheckView {
  constructor() {
    this.element = h("div", { class: "stack check" });
  }

  async show() {
    const { version } = state.model;
    if (this.version === version) return;
    this.version = version;
    fill(this.element, waiting("Answering each picture as if it had not been taught"));
    const tell = (path) => ask("GET", path).catch((error) => ({ error }));
    const [check, suspects] = await Promise.all([tell("check"), tell("suspects")]);
    if (this.version !== version) return;
    fill(this.element, check.error ? this.problem(check.error) : this.checked(check), suspects.error || !suspects.suspects ? null : this.suspects(suspects.suspects));
  }

  problem(error) {
    if (error.status !== 409) this.version = null;
    return emptiness(error.status === 409 ? "classes" : "alert", error.status === 409 ? "Too little to judge yet" : "This did not work", sentence(error.message), state.readOnly ? null : linkButton("Teach more", "#teach", "main", "teach"));
  }

  checked(found) {
    const [low, high] = found.interval;
    const meter = h("span", { class: "range", "aria-hidden": "true" }, h("i"), h("b"));
    for (const [key, value] of Object.entries({ "--low": low, "--high": high, "--at": found.accuracy })) meter.style.setProperty(key, value);
    return [
      h("section", { class: "card accuracy" }, h("div", { class: "figure" }, h("strong", {}, percent(found.accuracy)), h("span", {}, found.refused ? `right if every picture were answered; ${percent(found.refused)} are refused as unknown` : "right on pictures it had not seen")), meter,
        h("p", { class: "soft" }, `Between ${percent(low)} and ${percent(high)}, from ${counted(found.images, "picture")}, each answered as if it had not been taught.${found.balanced_accuracy === null ? "" : ` If all classes come equally often, ${percent(found.balanced_accuracy)}.`} Label next picks hard pictures: with many of those, it is better than this on others.`)),
      this.confused(found.confused), this.needs(found), this.mistakes(found.mistakes), this.duplicates(found.duplicates),
    ];
  }

  thumbs(name) {
    const one = state.find(name);
    return h("span", { class: "pair-thumbs" }, (one?.thumbnails ?? []).slice(0, 4).map((id) => thumbnail(id)));
  }

  confused(pairs) {
    if (!pairs.length) return null;
    return h("section", {}, h("h2", {}, "Confused pairs"), cards(pairs, (pair) => h("li", { class: "card pair" },
      h("div", { class: "pair-says" }, [[pair.as_other, pair.class, pair.other], [pair.images - pair.as_other, pair.other, pair.class]].filter(([n]) => n).map(([n, one, other]) => h("p", {}, `${counted(n, "picture")} of ${one} taken for ${other}`))),
      h("div", { class: "pair-sides" }, h("div", {}, this.thumbs(pair.class), link(pair.class)), icon("both"), h("div", {}, this.thumbs(pair.other), link(pair.other))))));
  }

  needs(found) {
    const weak = found.classes.filter((one) => one.accuracy !== null && one.accuracy < 1).slice(0, 4 * SHOWN);
    const { alone } = found;
    if (!weak.length && !alone.length) return null;
    return h("section", {}, h("h2", {}, "Would gain from more pictures"),
      weak.length ? h("p", { class: "soft" }, "How many new pictures to expect right. A few pictures say little, so their class is drawn towards the mean of all.") : null,
      alone.length ? h("p", { class: "note" }, `With one picture only, and so not judged: `, alone.slice(0, 12).flatMap((name, place) => [place ? ", " : "", link(name)]), alone.length > 12 ? ` and ${alone.length - 12} more` : "", ".") : null,
      weak.length ? h("div", { class: "card scroll", tabindex: "0", role: "region", "aria-label": "Classes that would gain" }, h("table", {}, h("thead", {}, h("tr", {}, ["Class", "Pictures", "Expected now", "With twice as many"].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, weak.map((one) => h("tr", {}, h("th", { scope: "row" }, link(one.class)), h("td", {}, String(one.images)),
          h("td", { class: "with-bar" }, bar(one.accuracy), percent(one.accuracy)), h("td", {}, one.with_twice === null ? "" : percent(one.with_twice))))))) : null);
  }

  mistakes(all) {
    if (!all.length) return null;
    return h("section", {}, h("h2", {}, "Pictures it gets wrong"), h("p", { class: "soft" }, "Each beside the pictures that misled it."),
      cards(all, (one) => h("li", { class: "card beside" },
        this.picture(one.example, one.class), icon("arrow"), h("div", { class: "thumbs tight" }, one.neighbours.slice(0, 4).map((id) => thumbnail(id))),
        h("p", {}, "Taught as ", link(one.class), ", taken for ", link(one.answer), ` (${percent(one.probability)}).`))));
  }

  duplicates(pairs) {
    if (!pairs.length) return null;
    return h("section", {}, h("h2", {}, "Nearly the same picture twice"), h("p", { class: "soft" }, "A copy adds little and makes the accuracy look better than it is; exact ones count once."),
      cards(pairs, (pair) => h("li", { class: "card twins" }, pair.map((id) => this.picture(id, ""))), "small"));
  }

  suspects(all) {
    if (!all.length) return h("section", {}, h("h2", {}, "Suspects"), h("p", { class: "fine" }, icon("check"), "No picture looks as if it were in the wrong class."));
    return h("section", {}, h("h2", {}, "Suspects"), h("p", { class: "soft" }, "Pictures that may be in the wrong class, each beside the neighbour that makes it suspect."),
      cards(all, (one) => h("li", { class: "card suspect" },
        h("div", { class: "suspect-pair" }, h("figure", {}, this.picture(one.id, one.class, one.name), h("figcaption", {}, link(one.class))), icon("arrow"), h("figure", {}, thumbnail(one.neighbour), h("figcaption", {}, one.neighbour_class ? link(one.neighbour_class) : "no neighbour"))),
        h("p", {}, sentence(withoutDigests(one.reason))),
        state.readOnly ? null : h("div", { class: "row" },
          one.taken_for && one.taken_for !== one.class ? button(`Move to ${one.taken_for}`, () => change("PATCH", `examples/${encodeURIComponent(one.id)}`, { json: { class: one.taken_for } }, `Moved to ${one.taken_for}.`)) : null,
          button("Remove", () => attempt(() => change("DELETE", `examples/${encodeURIComponent(one.id)}`, {}, "Picture removed.")), { kind: "quiet", picture: "bin" })))));
  }

  picture(id, name, file = "") {
    return h("button", { type: "button", class: "tile", "aria-label": `Picture of ${name || "a class"}`, onclick: () => showExample({ id, class: name || "Picture", name: file }) }, thumbnail(id));
  }
}
