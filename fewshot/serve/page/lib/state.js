// What the service holds, as last seen; views listen to "change".

import { ask } from "./api.js";
import { h, fill } from "./dom.js";

class State extends EventTarget {
  model = null;
  classes = [];

  get readOnly() {
    return !this.model || this.model.read_only;
  }

  get names() {
    return this.classes.map((one) => one.name);
  }

  get isEmpty() {
    return this.classes.length === 0;
  }

  /** Look again, and tell the views if something is new. */
  async refresh() {
    const [model, listed] = await Promise.all([ask("GET", "model"), ask("GET", "classes", { query: { thumbnails: 12 } })]);
    const before = JSON.stringify([this.model, this.classes]);
    this.model = model;
    this.classes = listed.classes;
    if (JSON.stringify([model, listed.classes]) === before) return;
    fill(document.getElementById("class-names"), this.names.slice(0, 2000).map((name) => h("option", { value: name })));
    this.dispatchEvent(new Event("change"));
  }
}

export const state = new State();
