// What this node shares, and files that are copied to it.

import { Rows, button, byId, label, make, setClass, setText, show } from "./dom.js";
import { act, askPath, complain, describe, showLink, showStream, toast } from "./dialogs.js";
import { call, upload } from "./transport.js";
import * as format from "./format.js";

const PAGE = 100;
const FILTER_DELAY_MS = 200;
/** While files are being hashed the list changes many times a second. */
const RELOAD_EVERY_MS = 1000;
/** A longer text is matched as it is written, since a glob has a maximal length. */
const ANY_CASE_MAX = 40;

/**
 * Returns the glob for names that contain a text, in any case. A text with wildcards is a glob
 * already.
 */
export function globOf(text) {
  if (/[*?[{]/.test(text)) return text;
  const letters = [...text].map((letter) => {
    const [low, high] = [letter.toLowerCase(), letter.toUpperCase()];
    return low !== high && [...low].length === 1 && [...high].length === 1 ? `[${low}${high}]` : letter;
  });
  const any = letters.length <= ANY_CASE_MAX ? letters.join("") : text;
  return `{**/*${any}*,**/*${any}*/**}`;
}

/** What names a share in requests: its share ID if it was handed over, else its content. */
function keyOf(share) {
  return share.id ?? share.content;
}

/** What there is to say about a share beside its size. */
function partOf(share) {
  if (share.error) return `Cannot be read: ${share.error}`;
  if (share.state === "hashing" || share.state === "changed") {
    const part = share.size_bytes > 0 ? (share.hashed_bytes ?? 0) / share.size_bytes : 0;
    return `Hashing, ${Math.floor(Math.min(part, 1) * 100)} %`;
  }
  if (share.receivers > 0) return format.count(share.receivers, "receiver");
  if (share.received > 0) return `${format.count(share.received, "receiver")} done`;
  return share.complete ? "" : "incomplete";
}

/** Makes an address to stream a share. A private one is named by its link. */
async function streamShare(share) {
  if (!share.private) return showStream(share.name, share.content);
  const { link } = await call("GET", `shares/${keyOf(share)}/link`);
  return showStream(share.name, link);
}

class ShareRow {
  constructor(view, first) {
    this.share = first;
    this.name = make("span", { class: "name" });
    this.size = make("span");
    this.kind = make("span", { class: "badge" });
    this.code = make("span");
    this.part = make("span");
    this.link = button("Link", "link", (event) => act(event.currentTarget, () => showLink(this.share.name, keyOf(this.share), this.share.private, this.share.command)), { bare: true });
    this.stream = button("Stream", "stream", (event) => act(event.currentTarget, () => streamShare(this.share)), { bare: true });
    this.end = button("Stop sharing", "close", (event) => view.unshare(event.currentTarget, this.share), { bare: true });
    this.element = make(
      "li",
      { class: "item" },
      this.name,
      make("div", { class: "tools" }, this.link, this.stream, this.end),
      make("div", { class: "facts-line" }, this.kind, this.size, this.code, this.part),
    );
  }

  update(share) {
    this.share = share;
    setText(this.name, share.name);
    this.name.title = share.path ?? share.name;
    setText(this.size, format.bytes(share.size_bytes));
    const kinds = [share.kind === "folder" ? "Folder" : null, share.private ? "Only with the link" : "Listed"];
    setText(this.kind, kinds.filter(Boolean).join(" · "));
    setClass(this.kind, "private", share.private);
    setText(this.code, share.code ? `code ${share.code}` : "");
    setText(this.part, partOf(share));
    label(this.link, `Link to ${share.name}`);
    label(this.stream, `Stream ${share.name}`);
    label(this.end, `Stop sharing ${share.name}`);
    show(this.end, share.removable);
    show(this.link, Boolean(share.content));
    show(this.stream, share.kind !== "folder" && Boolean(share.content));
  }
}

class UploadRow {
  constructor(view, job) {
    this.name = make("span", { class: "name" });
    this.state = make("span");
    this.inner = make("div");
    this.end = button(`Cancel ${job.name}`, "close", () => view.cancel(job), { bare: true });
    this.element = make(
      "li",
      { class: "item" },
      this.name,
      make("div", { class: "tools" }, this.end),
      make("div", { class: "facts-line" }, this.state),
      make("div", { class: "bar" }, this.inner),
    );
  }

  update(job) {
    setText(this.name, job.name);
    const share = job.file.size > 0 ? job.sent / job.file.size : 0;
    setText(this.state, job.error ?? (job.begun ? `${format.percent(job.sent, job.file.size)} of ${format.bytes(job.file.size)} copied` : "Waiting"));
    setClass(this.element, "bad", job.error);
    this.inner.style.transform = `scaleX(${share})`;
  }
}

/** The view of shares. */
export class SharesView {
  constructor(app) {
    this.app = app;
    this.shares = [];
    this.next = null;
    this.revision = null;
    this.filter = "";
    this.loading = false;
    this.jobs = [];
    this.rows = new Rows(byId("share-rows"), (share) => new ShareRow(this, share));
    this.uploads = new Rows(byId("upload-rows"), (job) => new UploadRow(this, job));
    byId("shares-more").addEventListener("click", (event) => act(event.currentTarget, () => this.loadMore()));
    byId("share-path").addEventListener("click", () => askPath(() => this.reload()));
    const input = byId("file-input");
    byId("choose-files").addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.copy([...input.files]);
      input.value = "";
    });
    let timer = 0;
    byId("share-filter").addEventListener("submit", (event) => event.preventDefault());
    byId("share-filter-text").addEventListener("input", (event) => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        this.filter = event.target.value.trim();
        this.reload();
      }, FILTER_DELAY_MS);
    });
    this.listenToDrops();
  }

  listenToDrops() {
    const overlay = byId("drop-overlay");
    const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    let depth = 0;
    const end = () => {
      depth = 0;
      show(overlay, false);
    };
    addEventListener("dragenter", (event) => {
      if (!hasFiles(event)) return;
      depth += 1;
      show(overlay, true);
    });
    addEventListener("dragleave", () => {
      depth -= 1;
      if (depth <= 0) end();
    });
    addEventListener("dragover", (event) => {
      if (hasFiles(event)) event.preventDefault();
    });
    addEventListener("drop", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      end();
      this.copy([...event.dataTransfer.files]);
    });
  }

  /** Copies files to the node, one after the other. */
  copy(files) {
    if (files.length === 0) return;
    location.hash = "#/shares";
    for (const file of files) this.jobs.push({ key: {}, name: file.name, file, sent: 0, begun: false, abort: null, error: null });
    this.app.redraw();
    if (!this.copying) this.copyAll();
  }

  async copyAll() {
    this.copying = true;
    for (;;) {
      const job = this.jobs.find(({ begun }) => !begun);
      if (!job) break;
      await this.copyOne(job);
    }
    this.copying = false;
    this.reload();
  }

  async copyOne(job) {
    job.begun = true;
    const { done, abort } = upload(job.name, job.file, (sent) => {
      job.sent = sent;
      this.app.redraw();
    });
    job.abort = abort;
    try {
      const stored = await done;
      toast(`Shared ${stored.name}`);
      this.drop(job);
    } catch (error) {
      if (error.code === "aborted") return;
      job.error = describe(error);
      this.app.redraw();
    }
  }

  cancel(job) {
    job.abort?.();
    this.drop(job);
  }

  drop(job) {
    this.jobs = this.jobs.filter((other) => other !== job);
    this.app.redraw();
  }

  async unshare(control, share) {
    const ended = await act(control, () => call("DELETE", `shares/${keyOf(share)}`));
    if (!ended) return;
    toast(`${share.name} is no longer shared`);
    this.reload();
  }

  page(after, limit) {
    const query = new URLSearchParams({ limit });
    if (after) query.set("after", after);
    if (this.filter) query.set("match", globOf(this.filter));
    return call("GET", `shares?${query}`);
  }

  /** Reads the pages again that are shown. */
  async reload() {
    if (this.loading) {
      this.again = true;
      return;
    }
    this.loading = true;
    try {
      const page = await this.page(null, Math.min(1000, Math.max(PAGE, this.shares.length)));
      this.shares = page.shares;
      this.next = page.next ?? null;
      this.loaded = true;
    } catch (error) {
      if (error.code !== "unreachable") complain(error);
    }
    this.loading = false;
    this.app.redraw();
    if (this.again) {
      this.again = false;
      this.reload();
    }
  }

  async loadMore() {
    const page = await this.page(this.next, PAGE);
    this.shares = this.shares.concat(page.shares);
    this.next = page.next ?? null;
    this.app.redraw();
  }

  draw(model) {
    const revision = model.status?.shares_revision;
    const isDue = performance.now() - (this.reloadedAt ?? -Infinity) >= RELOAD_EVERY_MS;
    if (revision !== undefined && revision !== this.revision && isDue) {
      this.reloadedAt = performance.now();
      this.revision = revision;
      this.reload();
    }
    if (model.status?.assets_dir) setText(byId("drop-text"), `They are copied to ${model.status.assets_dir} on the node, and listed for the swarm.`);
    this.uploads.update(this.jobs, (job) => job.key);
    this.rows.update(this.shares, (share) => `${keyOf(share)}/${share.name}`);
    show(byId("shares-more"), this.next !== null);
    show(byId("shares-empty"), Boolean(this.loaded) && this.shares.length === 0 && !this.filter && this.next === null);
    show(byId("shares-none"), this.shares.length === 0 && this.filter !== "" && this.next === null);
  }
}
