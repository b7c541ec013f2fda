// Looks for files of others.

import { Rows, button, byId, label, make, setText, show } from "./dom.js";
import { act, describe, showStream, toast } from "./dialogs.js";
import { call } from "./transport.js";
import { nameOf } from "./model.js";
import * as format from "./format.js";

const LIMIT = 200;

class FoundRow {
  constructor(view, first) {
    this.file = first;
    this.name = make("span", { class: "name" });
    this.size = make("span");
    this.holders = make("span");
    this.id = make("span", { class: "mono" });
    this.here = make("span", { class: "badge good" }, "Here already");
    this.stream = button("Stream", "stream", (event) => act(event.currentTarget, () => showStream(this.file.name, this.file.content)), { bare: true });
    this.get = button("Download", "down", (event) => view.download(event.currentTarget, this.file), { classes: "shrink" });
    this.element = make(
      "li",
      { class: "item" },
      this.name,
      make("div", { class: "tools" }, this.stream, this.get),
      make("div", { class: "facts-line" }, this.here, this.size, this.holders, this.id),
    );
  }

  update(file) {
    this.file = file;
    const name = nameOf(file);
    setText(this.name, name);
    this.name.title = name;
    // The length of a folder is that of its list of files, which says little.
    setText(this.size, file.kind === "folder" ? "Folder" : format.bytes(file.size_bytes));
    const holders = [];
    if (file.complete > 0) holders.push(format.count(file.complete, "source"));
    if (file.partial > 0) holders.push(`${format.integer(file.partial)} partial`);
    setText(this.holders, holders.join(", "));
    setText(this.id, `id:${file.content.slice(0, 10)}`);
    show(this.here, file.here);
    show(this.get, !file.here);
    label(this.stream, `Stream ${name}`);
    this.get.setAttribute("aria-label", `Download ${name}`);
  }
}

/** The view of searches. */
export class FindView {
  constructor(app) {
    this.app = app;
    this.files = [];
    this.status = "Type a name or a pattern, or leave it empty to list what is shared: photos/** means everything in a folder.";
    this.run = 0;
    this.rows = new Rows(byId("find-rows"), (file) => new FoundRow(this, file));
    byId("find-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.find(byId("find-text").value.trim());
    });
  }

  /** Looks for a text that was typed elsewhere. */
  findText(text) {
    byId("find-text").value = text;
    this.find(text);
  }

  async find(text) {
    this.run += 1;
    const { run } = this;
    this.say("Asking trackers and the local network…");
    try {
      const found = await call("POST", "search", { query: text || "**", limit: LIMIT });
      if (run !== this.run) return;
      this.files = found.files;
      const near = found.near.length > 0 ? ` Similar names: ${found.near.join(", ")}.` : "";
      if (found.files.length === 0) this.say(`Nothing found.${near}`);
      else this.say(`${format.count(found.files.length, "file")} found${found.truncated ? "; there are more: use a narrower pattern" : ""}`);
    } catch (error) {
      if (run !== this.run) return;
      this.files = [];
      this.say(describe(error));
    }
  }

  say(text) {
    this.status = text;
    this.app.redraw();
  }

  async download(control, file) {
    const added = await act(control, () => call("POST", "downloads", { what: file.content, name: file.name }));
    if (!added) return;
    toast(`Added ${nameOf(file)}`);
    location.hash = `#/downloads/${added.downloads[0].id}`;
  }

  draw() {
    setText(byId("find-status"), this.status);
    this.rows.update(this.files, ({ content, name }) => `${content}/${name}`);
  }
}
