// Sort tables; sort, filter and search cards; narrow tables of results. Without this script, all of it is there, in the order of the page.
"use strict";

(() => {
  const FEW = 5; // cards that need no tools
  const KINDS = { unknown: "Unknown", doubtful: "Doubtful", told: "Sure", right: "Right", wrong: "Wrong" };
  const elsewhere = JSON.parse(document.getElementById("elsewhere")?.textContent ?? "[]"); // cards of other parts
  const parts = [...(document.querySelector("nav.parts")?.querySelectorAll("a") ?? [])];
  const asked = new URLSearchParams(location.hash.slice(1)); // by a link from another part
  const order = new Intl.Collator("en", { numeric: true });

  function make(tag, facts = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(facts)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  function field(label, input) {
    return make("label", { class: "field" }, make("span", {}, label), input);
  }

  function choice(options) {
    return make("select", {}, ...options.map(([value, text]) => make("option", { value }, text)));
  }

  /** Put tools above cards. */
  function equip(list) {
    const cards = [...list.querySelectorAll(":scope > .query")];
    const others = elsewhere.filter(([, run]) => String(run) === list.dataset.run)
      .map(([part, , kind, label, text]) => ({ part, kind, label, text }));
    if (cards.length + others.length <= FEW) return;
    const named = (card) => card.querySelector(".name")?.title ?? "";
    const facts = cards.map((card, place) => ({
      card, place, kind: card.dataset.kind, label: card.dataset.label, share: Number(card.dataset.share ?? NaN),
      name: named(card), text: `${named(card)} ${card.textContent}`.toLowerCase(),
    }));
    const count = (kind) => [...facts, ...others].filter((one) => one.kind === kind).length;
    const kinds = Object.keys(KINDS).filter(count);
    const labels = [...new Set([...facts, ...others].map((one) => one.label))].sort(order.compare);
    const hasShares = facts.some((one) => !Number.isNaN(one.share));
    const search = make("input", { type: "search", placeholder: "Name or class", autocomplete: "off" });
    const total = cards.length + others.length;
    const kind = choice([["", `All ${total}`], ...kinds.map((one) => [one, `${KINDS[one]} (${count(one)})`])]);
    const label = choice([["", "Every answer"], ...(labels.length < total ? labels : []).map((one) => [one, one])]);
    const sort = choice([["place", "As given"], ["name", "By name"], ["label", "By answer"],
      ...(hasShares ? [["least", "Least sure first"], ["most", "Surest first"]] : [])]);
    const told = make("output", { class: "told-count" });
    const links = make("p", { class: "other-parts", role: "status" });
    const by = {
      place: (a, b) => a.place - b.place, name: (a, b) => order.compare(a.name, b.name),
      label: (a, b) => order.compare(a.label, b.label), least: (a, b) => a.share - b.share, most: (a, b) => b.share - a.share,
    };

    function show() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const fits = (one) => (!kind.value || one.kind === kind.value) && (!label.value || one.label === label.value) &&
        words.every((word) => one.text.includes(word));
      let n = 0;
      for (const one of facts) {
        one.card.hidden = !fits(one);
        n += !one.card.hidden;
      }
      const here = others.length ? " in this part" : "";
      told.textContent = n === cards.length ? `${n} images${here}` : `${n} of ${cards.length} images${here}`;
      lead(others.filter(fits), words.length || kind.value || label.value);
    }

    /** Link to what fits in other parts. */
    function lead(found, isNarrowed) {
      const counts = new Map();
      for (const { part } of found) counts.set(part, (counts.get(part) ?? 0) + 1);
      const query = new URLSearchParams({ run: list.dataset.run, search: search.value, kind: kind.value, label: label.value });
      const shown = [...counts].map(([part, n]) =>
        make("a", { href: `${parts[part].getAttribute("href")}#${query}` }, `${n} in part ${part + 1}`));
      const all = found.length ? "Also " : `None of the ${others.length} images in other parts fits.`;
      links.replaceChildren(...(isNarrowed && others.length ? [all, ...shown.flatMap((one, i) => (i ? [", ", one] : [one]))] : []));
    }

    function reorder() {
      list.append(...[...facts].sort((a, b) => by[sort.value](a, b) || a.place - b.place).map((one) => one.card));
    }

    search.addEventListener("input", show);
    kind.addEventListener("change", show);
    label.addEventListener("change", show);
    sort.addEventListener("change", reorder);
    list.before(make("div", { class: "tools" }, field("Search", search), ...(kinds.length > 1 ? [field("Show", kind)] : []),
      ...(labels.length > 1 && labels.length < total ? [field("Answer", label)] : []), field(others.length ? "Order in this part" : "Order", sort), told), links);
    if (asked.get("run") === list.dataset.run) {
      search.value = asked.get("search");
      kind.value = asked.get("kind");
      label.value = asked.get("label");
      list.previousElementSibling.previousElementSibling.scrollIntoView();
    }
    show();
  }

  const number = (text) => {
    const found = /^[<>~+]?\s*(-?[\d,]*\.?\d+(?:e[-+]?\d+)?)/i.exec(text.trim());
    return found ? Number(found[1].replaceAll(",", "")) : NaN;
  };

  /** Let the headings of a table sort it. */
  function sortable(table) {
    const body = table.tBodies[0];
    if (body.rows.length < 3) return;
    const before = [...body.rows];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", { type: "button", title: "Sort", onclick: () => {
        const up = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
        const texts = new Map(before.map((row) => [row, row.cells[column].dataset.sort ?? row.cells[column].textContent]));
        const numbers = new Map(before.map((row) => [row, number(texts.get(row))]));
        const areNumbers = column > 0 && before.every((row) => !texts.get(row).trim() || !Number.isNaN(numbers.get(row)));
        const value = (row) => (Number.isNaN(numbers.get(row)) ? -Infinity : numbers.get(row));
        body.append(...[...before].sort((a, b) => (areNumbers ? up * (value(a) - value(b) || 0) : -up * order.compare(texts.get(a), texts.get(b)))));
      } });
      button.append(...head.childNodes);
      head.append(button);
    });
  }

  /** Put tools above tables of results, which narrow all of them at once. */
  function narrowable(tables) {
    if (!tables.length) return;
    const sections = tables.map((table) => table.closest("section"));
    const title = (section) => section.querySelector("h2").textContent;
    const rows = tables.flatMap((table, i) => [...table.tBodies[0].rows].map((row) =>
      ({ row, section: title(sections[i]), text: `${title(sections[i])} ${row.textContent}`.toLowerCase() })));
    const value = (one, column) => (column < 0 ? one.section : one.row.cells[column].dataset.value ?? one.row.cells[column].textContent);
    const heads = [...tables[0].tHead.rows[0].cells].map((head, column) => [head.dataset.filter, column]).filter(([name]) => name);
    const filters = [["Data", -1], ...heads].map(([name, column]) => {
      const values = [...new Set(rows.map((one) => value(one, column)))];
      if (column >= 0) values.sort(order.compare);
      return { name, column, select: choice([["", "All"], ...values.map((one) => [one, one])]), n: values.length };
    }).filter(({ n }) => n > 1);
    const search = make("input", { type: "search", placeholder: "Method, file", autocomplete: "off" });
    const told = make("output", { class: "told-count" });

    function show() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      for (const one of rows) {
        one.row.hidden = !(filters.every(({ column, select }) => !select.value || value(one, column) === select.value) &&
          words.every((word) => one.text.includes(word)));
        n += !one.row.hidden;
      }
      for (const section of sections) section.hidden = ![...section.querySelectorAll("tbody tr")].some((row) => !row.hidden);
      told.textContent = n === rows.length ? `${n} results` : `${n} of ${rows.length} results`;
      dispatchEvent(new Event("resize")); // tables may now fit
    }

    search.addEventListener("input", show);
    for (const { select } of filters) select.addEventListener("change", show);
    sections[0].before(make("div", { class: "tools all" }, field("Search", search), ...filters.map(({ name, select }) => field(name, select)), told));
    show();
  }

  /** Show where a wide chart or table goes on, which no scroll bar says on a phone. */
  function revealed(box) {
    const hint = make("p", { class: "more-hint", "aria-hidden": "true" }, "more to the right →");
    const update = () => {
      const isMore = box.scrollLeft + box.clientWidth < box.scrollWidth - 2;
      box.classList.toggle("more", isMore);
      hint.hidden = !isMore;
    };
    box.after(hint);
    box.addEventListener("scroll", update, { passive: true });
    addEventListener("resize", update);
    update();
  }

  document.querySelectorAll(".scroll").forEach(revealed);
  document.querySelectorAll(".queries").forEach(equip);
  document.querySelectorAll("table").forEach(sortable);
  narrowable([...document.querySelectorAll("table.listing")]);
})();
