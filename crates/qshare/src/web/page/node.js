// The node itself: rates over time, trackers, limits, addresses for players.

import { Rows, button, byId, label, make, setAttribute, setText, show } from "./dom.js";
import { act, describe, toast } from "./dialogs.js";
import { drawPlot } from "./draw.js";
import { call } from "./transport.js";
import * as format from "./format.js";

const SPANS = [
  ["minutes", "10 minutes"],
  ["hours", "24 hours"],
];
const HOURS_RELOAD_MS = 60000;
const CAPS_RELOAD_MS = 15000;

const STATES = { connected: "Connected", away: "Not reachable", refused: "Refused" };

class TrackerRow {
  constructor() {
    this.name = make("span", { class: "grow" });
    this.badge = make("span", { class: "badge" });
    this.note = make("small");
    this.element = make("li", {}, this.name, this.badge, this.note);
  }

  update(tracker) {
    setText(this.name, tracker.tracker);
    setText(this.badge, STATES[tracker.state] ?? tracker.state);
    setAttribute(this.badge, "class", `badge ${{ connected: "good", away: "warn", refused: "bad" }[tracker.state] ?? ""}`);
    const notes = [];
    if (tracker.cause) notes.push(tracker.cause);
    if (tracker.seen_at) notes.push(`sees this node at ${tracker.seen_at}`);
    if (tracker.unlisted_entries > 0) notes.push(`is full and does not list ${format.count(tracker.unlisted_entries, "file")}`);
    setText(this.note, notes.join("; "));
    show(this.note, notes.length > 0);
  }
}

class CapabilityRow {
  constructor(view, first) {
    this.capability = first;
    this.name = make("span", { class: "grow" });
    this.note = make("small");
    this.end = button("Revoke", null, (event) => view.revoke(event.currentTarget, this.capability));
    this.element = make("li", {}, this.name, this.end, this.note);
  }

  update(capability) {
    this.capability = capability;
    setText(this.name, capability.name);
    setText(this.note, `${format.bytes(capability.size_bytes)}, until ${format.when(capability.expires_at)}`);
    label(this.end, `Revoke the address of ${capability.name}`);
  }
}

/** The view of the node. */
export class NodeView {
  constructor(app) {
    this.app = app;
    this.span = "minutes";
    this.pointer = null;
    this.capabilities = [];
    this.readAt = {};
    this.trackers = new Rows(byId("tracker-rows"), () => new TrackerRow());
    this.capRows = new Rows(byId("cap-rows"), (capability) => new CapabilityRow(this, capability));
    this.facts = new Map();
    this.canvas = byId("plot");
    this.chips = SPANS.map(([key, text]) => {
      const chip = make("button", { type: "button", onclick: () => this.choose(key) }, text);
      byId("plot-spans").append(chip);
      return { key, chip };
    });
    this.canvas.addEventListener("pointermove", (event) => {
      this.pointer = { x: event.offsetX };
      app.redraw();
    });
    this.canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      app.redraw();
    });
    for (const direction of ["down", "up"]) {
      byId(`limit-${direction}`).addEventListener("input", () => {
        this.edited = true;
      });
    }
    byId("limits-form").addEventListener("submit", (event) => this.applyLimits(event));
  }

  choose(span) {
    this.span = span;
    this.app.redraw();
  }

  /** Reads what no event carries, if the last reading is older than `ageMs`. */
  async read(what, ageMs, action) {
    if (performance.now() - (this.readAt[what] ?? -Infinity) < ageMs) return;
    this.readAt[what] = performance.now();
    try {
      await action();
      this.app.redraw();
    } catch {
      // The banner tells that the node does not answer. The next drawing tries again.
    }
  }

  async applyLimits(event) {
    event.preventDefault();
    const error = byId("limits-error");
    error.textContent = "";
    const change = {};
    for (const direction of ["down", "up"]) {
      const rate = format.parseRate(byId(`limit-${direction}`).value);
      if (Number.isNaN(rate)) {
        error.textContent = `The ${direction === "up" ? "upload" : "download"} limit is not a rate. Examples: 10MB, 1.5MiB, 80Mbit.`;
        byId(`limit-${direction}`).focus();
        return;
      }
      change[`${direction}_bytes_per_second`] = rate;
    }
    try {
      await call("PATCH", "limits", change);
      this.edited = false;
      toast("Limits are in force");
    } catch (cause) {
      error.textContent = describe(cause);
    }
  }

  async revoke(control, { capability, name }) {
    const done = await act(control, () => call("DELETE", `capabilities/${capability}`));
    if (!done) return;
    toast(`The address of ${name} is revoked`);
    this.readAt.capabilities = undefined;
    this.app.redraw();
  }

  /** Reads everything again when the view is opened. */
  opened() {
    this.readAt.capabilities = undefined;
    this.edited = false;
  }

  fact(name, text) {
    let entry = this.facts.get(name);
    if (!entry) {
      entry = { name: make("dt", {}, name), value: make("dd") };
      this.facts.set(name, entry);
      byId("node-facts").append(entry.name, entry.value);
    }
    setText(entry.value, text);
    if (name === "Node ID") entry.value.className = "mono";
    show(entry.name, text !== "");
    show(entry.value, text !== "");
  }

  draw(model) {
    const { status } = model;
    if (!status) return;
    this.read("hours", HOURS_RELOAD_MS, async () => model.rates.hours.load(await call("GET", "rates?period=hours")));
    this.read("capabilities", CAPS_RELOAD_MS, async () => {
      this.capabilities = (await call("GET", "capabilities")).capabilities;
    });
    this.drawPlot(model);
    this.fact("Node ID", status.node);
    this.fact("Version", status.version);
    this.fact("Running since", format.when(status.started_at));
    this.fact("Listens on", `${status.listen} (UDP)`);
    this.fact("Reachable at", (status.addresses ?? []).join(", "));
    this.fact("Port mapping", status.port_mapping.text);
    this.fact("Swarm", status.group ? "private group" : "open: everyone who can reach the tracker");
    this.fact("Shares", `${format.count(status.shared_files, "file")}, ${format.bytes(status.shared_bytes)}`);
    this.fact("Connected", `${format.count(status.peers, "node")}, ${format.count(status.lan_nodes, "node")} on the local network`);
    this.fact("Received", format.bytes(status.received_bytes));
    this.fact("Sent", format.bytes(status.sent_bytes));
    this.fact("Memory", status.memory_bytes ? format.bytes(status.memory_bytes) : "");
    this.fact("Shared folder", status.assets_dir ?? "");
    this.fact("Downloads go to", status.downloads_dir ?? "");
    this.trackers.update(status.trackers, ({ tracker }) => tracker);
    this.capRows.update(this.capabilities, ({ capability }) => capability);
    show(byId("caps-empty"), this.capabilities.length === 0);
    if (!this.edited) {
      for (const direction of ["down", "up"]) {
        const field = byId(`limit-${direction}`);
        const limit = status.limits?.[`${direction}_bytes_per_second`];
        const text = limit ? format.bytes(limit).replace(" ", "") : "";
        if (document.activeElement !== field && field.value !== text) field.value = text;
      }
    }
  }

  drawPlot(model) {
    const series = model.rates[this.span];
    for (const { key, chip } of this.chips) setAttribute(chip, "aria-pressed", String(this.span === key));
    if (this.span === "minutes") series.advance(model.nodeNow() - 1500);
    const read = drawPlot(this.canvas, series, this.pointer);
    const peak = (values) => format.rate(Math.max(0, ...values));
    setText(
      byId("plot-summary"),
      read
        ? `${new Date(read.at - model.clockMs).toLocaleTimeString()}: ${format.rate(read.down)} down, ${format.rate(read.up)} up`
        : `Peak ${peak(series.down)} down, ${peak(series.up)} up`,
    );
  }
}
