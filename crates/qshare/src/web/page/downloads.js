// The list of downloads, and the details of one.

import { Rows, button, byId, icon, label, make, setAttribute, setClass, setIcon, setText, show } from "./dom.js";
import { act, askLimit, askRemove, showLink, showStream, toast } from "./dialogs.js";
import { canPause, canResume, isActive, isUnfinished, nameOf } from "./model.js";
import { drawChunks } from "./draw.js";
import { call } from "./transport.js";
import * as format from "./format.js";

const STAGES = {
  queued: "Queued",
  recovering: "Checking",
  searching: "Looking for sources",
  fetching: "Downloading",
  finishing: "Finishing",
  complete: "Complete",
  paused: "Paused",
  failed: "Failed",
};

const WHY = {
  "waiting-for-sources": "Waiting for sources",
  "upload-queues": "Queued at the sources, which serve others",
  "congestion-window": "The network path is full",
  "loss-recovery": "Lost packets are sent again",
  "flow-control": "This node takes no more at once",
  relay: "The relay is the bottleneck",
  "own-limit": "Your own rate limit",
  disk: "The disk",
  hashing: "Verifying",
  "nothing-to-ask": "Nothing left to ask for",
};

const FILTERS = [
  ["all", "All", () => true],
  ["active", "Active", isUnfinished],
  ["paused", "Paused", ({ stage }) => stage === "paused"],
  ["complete", "Finished", ({ stage }) => stage === "complete"],
  ["failed", "Failed", ({ stage }) => stage === "failed"],
];

/** Rows that the list begins with; more are shown on request. */
const ROWS_SHOWN = 200;

const pause = (control, download) => act(control, () => call("POST", `downloads/${download.id}/pause`));
const resume = (control, download) => act(control, () => call("POST", `downloads/${download.id}/resume`));

/** Returns a download's numbers as short texts: amount, rate, time left, sources. */
function numbers(download) {
  const { size_bytes: size, verified_bytes: verified } = download;
  const amount = download.stage === "complete" ? format.bytes(size) : `${format.percent(verified, size)} of ${format.bytes(size)}`;
  const moving = download.stage === "fetching";
  const files = download.files != null ? `, ${format.integer(download.complete_files)} of ${format.count(download.files, "file")}` : "";
  return {
    amount: amount + files,
    rate: moving ? format.rate(download.bytes_per_second) : "",
    left: moving && download.seconds_left != null ? `${format.duration(download.seconds_left)} left` : "",
    sources: isActive(download) && download.sources > 0 ? format.count(download.sources, "source") : "",
    limit: download.limit_bytes_per_second ? `limit ${format.rate(download.limit_bytes_per_second)}` : "",
    priority: download.priority === "normal" ? "" : `${download.priority} priority`,
  };
}

function makeBar() {
  const inner = make("div");
  const bar = make("div", { class: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, inner);
  let shown = -1;
  return {
    element: bar,
    update(part, whole, name) {
      const fraction = whole > 0 ? Math.min(1, part / whole) : 0;
      if (fraction === shown) return;
      shown = fraction;
      inner.style.transform = `scaleX(${fraction})`;
      setAttribute(bar, "aria-valuenow", String(Math.floor(fraction * 100)));
      setAttribute(bar, "aria-label", `Progress of ${name}`);
    },
  };
}

class DownloadRow {
  constructor(view, first) {
    this.download = first;
    this.name = make("button", { type: "button", class: "name", onclick: () => view.toggle(this.download.id, this.name) });
    this.badge = make("span", { class: "badge" });
    const part = () => make("span");
    this.parts = { amount: part(), rate: part(), left: part(), sources: part(), limit: part(), priority: part() };
    this.trouble = make("p", { class: "trouble" });
    this.toggle = button("Pause", "pause", () => this.pauseOrResume(), { bare: true });
    this.remove = button("Remove", "trash", () => askRemove(this.download, () => view.forget(this.download.id)), { bare: true });
    this.bar = makeBar();
    this.element = make(
      "li",
      { class: "item" },
      make("div", { class: "name" }, this.name),
      make("div", { class: "tools" }, this.toggle, this.remove),
      make("div", { class: "facts-line" }, this.badge, ...Object.values(this.parts)),
      this.trouble,
      this.bar.element,
    );
  }

  pauseOrResume() {
    return canPause(this.download) ? pause(this.toggle, this.download) : resume(this.toggle, this.download);
  }

  update(download) {
    if (this.last === download) return;
    this.last = download;
    this.download = download;
    const name = nameOf(download);
    setText(this.name, name);
    if (this.name.title !== name) this.name.title = name;
    setAttribute(this.element, "data-state", download.stage);
    setAttribute(this.element, "data-id", download.id);
    setAttribute(this.badge, "class", `badge ${download.stage}`);
    setText(this.badge, STAGES[download.stage] ?? download.stage);
    for (const [key, text] of Object.entries(numbers(download))) setText(this.parts[key], text);
    const trouble = download.error ?? download.trouble ?? "";
    setText(this.trouble, trouble);
    setClass(this.trouble, "bad", download.error != null);
    show(this.trouble, trouble !== "");
    const resumable = canResume(download);
    show(this.toggle, resumable || canPause(download));
    setIcon(this.toggle, resumable ? "play" : "pause");
    label(this.toggle, `${resumable ? "Resume" : "Pause"} ${name}`);
    label(this.remove, `Remove ${name}`);
    this.bar.update(download.verified_bytes, download.size_bytes, name);
  }

  choose(chosen) {
    setClass(this.element, "chosen", chosen);
    setAttribute(this.name, "aria-expanded", String(chosen));
  }
}

/** One row of the table of sources. */
class SourceRow {
  constructor() {
    const cell = (classes) => make("td", { class: classes });
    this.node = make("span", { class: "mono" });
    this.address = make("small");
    this.path = make("span", { class: "badge" });
    this.cells = {
      rtt: cell("number"),
      rate: cell("number"),
      received: cell("number"),
      chunks: cell("number"),
      state: cell(""),
    };
    const { rtt, rate, received, chunks, state } = this.cells;
    this.element = make(
      "tr",
      {},
      make("th", { scope: "row", class: "node" }, this.node, this.address),
      make("td", {}, this.path),
      rate,
      rtt,
      received,
      chunks,
      state,
    );
  }

  update(source) {
    setText(this.node, source.node.slice(0, 10));
    if (this.node.title !== source.node) this.node.title = source.node;
    setText(this.address, source.address);
    const path = { direct: "Direct", lan: "LAN", relay: "Relay" }[source.path] ?? source.path;
    setText(this.path, path);
    setAttribute(this.path, "class", `badge ${source.path === "relay" ? "warn" : "accent"}`);
    setText(this.cells.rtt, source.rtt_ms == null ? "–" : format.milliseconds(source.rtt_ms));
    setText(this.cells.rate, format.rate(source.bytes_per_second));
    setText(this.cells.received, format.bytes(source.received_bytes));
    setText(this.cells.chunks, `${format.integer(source.verified_chunks)} of ${format.integer(source.chunks)}`);
    setText(this.cells.state, this.stateOf(source));
    setClass(this.element, "dropped", source.dropped != null);
  }

  stateOf(source) {
    if (source.dropped != null) return `Dropped: ${source.dropped}`;
    if (source.asked_again_in_ms > 0) return `Asked again in ${format.duration(source.asked_again_in_ms / 1000)}`;
    if (source.answering > 0) return source.waiting > 0 ? `Sending, ${source.waiting} queued` : "Sending";
    if (source.waiting > 0) return `${source.waiting} queued behind ${format.bytes(source.queue_bytes)}`;
    return source.wanted_chunks > 0 ? "Idle" : "Has nothing that is missing here";
  }
}

class WhyRow {
  constructor() {
    this.key = make("span", { class: "key", "aria-hidden": "true" });
    this.text = make("span");
    this.share = make("span", { class: "end" });
    this.element = make("li", {}, this.key, this.text, this.share);
  }

  update({ cause, percent }) {
    setAttribute(this.key, "class", `key ${whyClass(cause)}`);
    setText(this.text, WHY[cause] ?? cause);
    setText(this.share, `${Math.round(percent)}%`);
  }
}

class WhyPart {
  constructor() {
    this.element = make("div");
  }

  update({ cause, percent }) {
    setAttribute(this.element, "class", whyClass(cause));
    const width = `${percent}%`;
    if (this.element.style.width !== width) this.element.style.width = width;
  }
}

const whyClass = (cause) => `c${Math.max(0, Object.keys(WHY).indexOf(cause))}`;

/** The details of the chosen download. */
class Detail {
  constructor(view) {
    this.view = view;
    this.element = byId("detail");
    const close = () => view.close();
    this.title = make("h2", { id: "detail-title", tabindex: "-1" });
    this.big = {};
    const bigNumbers = [
      ["amount", "done"],
      ["rate", "rate"],
      ["left", "left"],
      ["received", "received"],
    ].map(([key, text]) => {
      this.big[key] = make("strong");
      return make("div", {}, this.big[key], make("span", {}, text));
    });
    this.trouble = make("p", { class: "error", role: "status" });
    this.toggle = button("Pause", "pause", () => this.pauseOrResume());
    this.limit = button("Limit", "gauge", () => askLimit(this.download));
    this.link = button("Link", "link", (event) => this.passOn(event.currentTarget, showLink));
    this.stream = button("Stream", "stream", (event) => this.passOn(event.currentTarget, showStream));
    this.remove = button("Remove", "trash", () => askRemove(this.download, () => view.forget(this.download.id)), { classes: "danger" });
    this.map = make("canvas", { class: "map", role: "img" });
    this.mapKey = make("span", { class: "muted end" });
    this.mapSection = make(
      "section",
      {},
      make("h3", {}, "Chunks"),
      this.map,
      make(
        "p",
        { class: "legend" },
        make("span", { class: "key have" }),
        "verified",
        make("span", { class: "key asked" }),
        "just arrived",
        make("span", { class: "key held" }),
        "missing",
        this.mapKey,
      ),
    );
    this.whySentence = make("p", { class: "muted" });
    const whyBar = make("div", { class: "why-bar", "aria-hidden": "true" });
    const whyList = make("ul", { class: "why-list", "aria-label": "Share of the last seconds" });
    this.whyParts = new Rows(whyBar, () => new WhyPart());
    this.whyRows = new Rows(whyList, () => new WhyRow());
    this.whySection = make("section", {}, make("h3", {}, "What it waits for"), whyBar, whyList);
    const body = make("tbody");
    this.sources = new Rows(body, () => new SourceRow());
    const head = ["Node", "Path", "Rate", "RTT", "Received", "Chunks", "State"];
    const numeric = new Set(["Rate", "RTT", "Received", "Chunks"]);
    this.sourceTitle = make("h3", { id: "sources-title" }, "Sources");
    this.table = make(
      "div",
      { class: "scroll", role: "region", tabindex: "0", "aria-labelledby": "sources-title" },
      make(
        "table",
        { "aria-labelledby": "sources-title" },
        make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col", class: numeric.has(text) ? "number-head" : "" }, text)))),
        body,
      ),
    );
    this.sourceSection = make("section", {}, this.sourceTitle, this.table);
    this.factValues = {};
    const facts = make("dl", { class: "facts" });
    for (const [key, text] of [
      ["path", "Saved as"],
      ["content", "Content ID"],
      ["added", "Added"],
      ["ended", "Ended"],
      ["wasted", "Wasted"],
      ["possible", "Sources could give"],
    ]) {
      const value = make("dd", { class: key === "content" ? "mono" : "" });
      const name = make("dt", {}, text);
      this.factValues[key] = { value, name };
      facts.append(name, value);
    }
    this.element.replaceChildren(
      make(
        "div",
        { class: "detail-head" },
        button("Back to the list", "back", close, { bare: true, classes: "only-narrow" }),
        this.title,
        button("Close details", "close", close, { bare: true, classes: "only-wide" }),
      ),
      this.trouble,
      make("div", { class: "big-numbers" }, ...bigNumbers),
      make("div", { class: "actions" }, this.toggle, this.limit, this.link, this.stream, this.remove),
      this.mapSection,
      this.whySection,
      this.sourceSection,
      make("section", {}, make("h3", {}, "Facts"), facts),
    );
  }

  pauseOrResume() {
    return canPause(this.download) ? pause(this.toggle, this.download) : resume(this.toggle, this.download);
  }

  passOn(control, dialog) {
    return act(control, () => dialog(nameOf(this.download), this.download.content));
  }

  fact(key, text) {
    const { name, value } = this.factValues[key];
    setText(value, text);
    show(name, text !== "");
    show(value, text !== "");
  }

  draw(model) {
    const download = model.downloads.get(model.chosen);
    show(this.element, Boolean(download));
    if (!download) return;
    this.download = download;
    const detail = model.detail;
    setText(this.title, nameOf(download));
    const trouble = download.error ?? download.trouble ?? "";
    setText(this.trouble, trouble);
    show(this.trouble, trouble !== "");
    const { size_bytes: size, verified_bytes: verified } = download;
    setText(this.big.amount, format.percent(verified, size));
    setText(this.big.rate, download.stage === "fetching" ? format.rate(download.bytes_per_second) : "–");
    setText(this.big.left, download.stage === "fetching" && download.seconds_left != null ? format.duration(download.seconds_left) : "–");
    setText(this.big.received, format.bytes(detail?.received_bytes ?? verified));
    const resumable = canResume(download);
    show(this.toggle, resumable || canPause(download));
    setIcon(this.toggle, resumable ? "play" : "pause");
    setText(this.toggle.lastChild, resumable ? "Resume" : "Pause");
    show(this.limit, download.stage !== "complete");
    this.drawMap(model, detail);
    this.drawWhy(download);
    const sources = detail?.sources ?? [];
    show(this.sourceSection, sources.length > 0);
    setText(this.sourceTitle, sources.length > 0 ? format.count(sources.length, "source") : "Sources");
    this.sources.update(sources, (source) => source.node);
    this.fact("path", download.path);
    this.fact("content", download.content);
    this.fact("added", format.when(download.added_at));
    this.fact("ended", download.ended_at == null ? "" : format.when(download.ended_at));
    this.fact("wasted", detail && detail.wasted_bytes > 0 ? `${format.bytes(detail.wasted_bytes)} arrived twice or failed verification` : "");
    const possible = detail?.possible_bytes_per_second ?? 0;
    this.fact("possible", possible > 0 && isActive(download) ? format.rate(possible) : "");
  }

  drawMap(model, detail) {
    const { chunks } = model;
    show(this.mapSection, chunks.count > 0);
    if (chunks.count === 0) return;
    if (drawChunks(this.map, chunks)) setTimeout(() => this.view.redraw(), 120);
    const isFolder = model.downloads.get(model.chosen)?.kind === "folder";
    const parts = isFolder ? format.count(chunks.count, "file") : `${format.count(chunks.count, "chunk")} of ${format.bytes(chunks.bytes)}`;
    const summary = `${format.integer(chunks.verified)} of ${parts}`;
    const unheld = detail?.unheld_chunks > 0 ? `, ${format.integer(detail.unheld_chunks)} held by no connected node` : "";
    setText(this.mapKey, summary + unheld);
    setAttribute(this.map, "aria-label", `Chunk map: ${summary} verified${unheld}`);
  }

  drawWhy(download) {
    const why = isActive(download) ? (download.why ?? []) : [];
    show(this.whySection, why.length > 0);
    this.whyParts.update(why, ({ cause }) => cause);
    this.whyRows.update(why, ({ cause }) => cause);
  }
}

/** The view of downloads. */
export class DownloadsView {
  constructor(app) {
    this.app = app;
    this.filter = "all";
    this.limit = ROWS_SHOWN;
    this.rows = new Rows(byId("download-rows"), (download) => new DownloadRow(this, download));
    this.detail = new Detail(this);
    this.section = byId("view-downloads");
    this.chips = FILTERS.map(([key, text]) => {
      const chip = make("button", { type: "button", "aria-pressed": "false", onclick: () => this.choose(key) }, text);
      byId("download-filters").append(chip);
      return { key, text, chip };
    });
    const all = async (event, action, body, done) => {
      const changed = await act(event.currentTarget, () => call("POST", `downloads/${action}`, body));
      if (changed) toast(`${done} ${format.count(changed.changed, "download")}`);
    };
    const quiet = { classes: "quiet" };
    this.pauseAll = button("Pause all", "pause", (event) => all(event, "pause", { all: true }, "Paused"), quiet);
    this.resumeAll = button("Resume all", "play", (event) => all(event, "resume", { all: true }, "Resumed"), quiet);
    this.clear = button("Clear finished", "check", (event) => {
      const ids = [...app.model.downloads.values()].filter(({ stage }) => stage === "complete").map(({ id }) => id);
      return all(event, "remove", { ids }, "Cleared");
    }, quiet);
    this.section.querySelector(".view-head").append(make("div", { class: "bulk" }, this.pauseAll, this.resumeAll, this.clear));
    byId("downloads-more").addEventListener("click", () => {
      this.limit += ROWS_SHOWN;
      this.redraw();
    });
  }

  redraw() {
    this.app.redraw();
  }

  choose(filter) {
    this.filter = filter;
    this.limit = ROWS_SHOWN;
    this.redraw();
  }

  /** Opens the details of a download, or closes them. */
  toggle(id, from) {
    if (this.app.model.chosen === id) return this.close();
    this.openedFrom = from;
    location.hash = `#/downloads/${id}`;
    return undefined;
  }

  close() {
    location.hash = "#/downloads";
    const row = this.rows.get(this.app.model.chosen);
    requestAnimationFrame(() => requestAnimationFrame(() => row?.name.focus()));
  }

  forget(id) {
    if (this.app.model.chosen === id) location.hash = "#/downloads";
  }

  /** Moves the focus to the details after they were opened. */
  focusDetail() {
    this.detail.title.focus({ preventScroll: false });
  }

  draw(model) {
    const all = [...model.downloads.values()].reverse();
    const known = model.status !== null;
    for (const { key, text, chip } of this.chips) {
      const number = all.filter(FILTERS.find(([name]) => name === key)[2]).length;
      setText(chip, key === "all" || number === 0 ? text : `${text} ${format.integer(number)}`);
      setAttribute(chip, "aria-pressed", String(this.filter === key));
      show(chip, key === "all" || number > 0 || this.filter === key);
    }
    const matching = all.filter(FILTERS.find(([name]) => name === this.filter)[2]);
    this.rows.update(matching.slice(0, this.limit), ({ id }) => id);
    show(byId("downloads-more"), matching.length > this.limit);
    show(byId("downloads-none"), all.length > 0 && matching.length === 0);
    show(byId("downloads-empty"), known && all.length === 0);
    show(byId("download-filters"), all.length > 0);
    show(this.pauseAll, all.filter(canPause).length > 1);
    show(this.resumeAll, all.filter(canResume).length > 1);
    show(this.clear, all.some(({ stage }) => stage === "complete"));
    for (const [id, row] of this.rows.rowsByKey) row.choose(id === model.chosen);
    setClass(this.section, "open", model.chosen !== null && model.downloads.has(model.chosen));
    this.detail.draw(model);
  }
}
