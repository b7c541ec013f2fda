// The page: reads the token, follows the node's events, and draws the view that is open.

import { byId, label, setAttribute, setClass, setText, show } from "./dom.js";
import { Events, call, forgetToken, setToken, takeToken } from "./transport.js";
import { Model, isUnfinished } from "./model.js";
import { act, complain, toast } from "./dialogs.js";
import { drawSpark, forgetColours } from "./draw.js";
import { DownloadsView } from "./downloads.js";
import { FindView } from "./find.js";
import { NodeView } from "./node.js";
import { SharesView } from "./shares.js";
import * as format from "./format.js";

const SPARK_SECONDS = 120;
const VIEWS = ["downloads", "shares", "find", "node"];
/** A text that stands for certain files and is no name to look for. */
/** What means one file or folder, which is added without a search: a folder ends with a slash. */
const EXACT = /^(qshare:|id:|sha256:|name:|[0-9a-f]{64}$|\d+-[a-z]+-[a-z]+$|[a-z2-7]{52}\/|[^*?[\]{}]+\/$)/i;

class App {
  constructor() {
    this.model = new Model();
    this.drawing = false;
    this.view = null;
    this.views = {
      downloads: new DownloadsView(this),
      shares: new SharesView(this),
      find: new FindView(this),
      node: new NodeView(this),
    };
    this.events = new Events({
      connected: () => this.connected(),
      event: (name, body) => this.event(name, body),
      lost: (error) => this.lost(error),
    });
    addEventListener("hashchange", () => this.route());
    addEventListener("resize", () => this.redraw());
    document.addEventListener("visibilitychange", () => this.redraw());
    // The plots go on while nothing happens.
    setInterval(() => this.redraw(), 1000);
    this.listenToHead();
    this.listenToLogin();
  }

  start() {
    if (!takeToken()) return this.askForToken("");
    return this.enter();
  }

  enter() {
    this.entered = true;
    show(byId("view-login"), false);
    this.route();
    this.events.follow(this.model.chosen);
    this.loadRates();
  }

  async loadRates() {
    try {
      const rates = await call("GET", "rates?period=minutes");
      this.model.clockMs = rates.until - Date.now();
      this.model.rates.minutes.load(rates);
      this.redraw();
    } catch {
      // It is asked again with the next connection.
    }
  }

  // Connection

  connected() {
    this.model.beginStream();
    this.say("");
    if (this.wasLost) {
      this.wasLost = false;
      this.loadRates();
    }
  }

  lost(error) {
    this.wasLost = true;
    if (error.status === 401) {
      forgetToken();
      this.askForToken("The node does not accept this token. Open the address that it printed when it started.");
    } else if (error.status === 403) {
      this.say(error.message, true);
    } else {
      this.say("The node does not answer. This page connects again as soon as it runs.");
    }
    this.redraw();
  }

  event(name, body) {
    if (name === "download-gone") {
      location.hash = "#/downloads";
      toast("This download is not there any more");
    } else if (name === "notice") {
      if (body.level === "warning") toast(body.text, true);
    } else if (name === "stopping") {
      this.say("The node is stopping.");
    } else {
      this.model.apply(name, body);
    }
    this.redraw();
  }

  say(text, bad = false) {
    const banner = byId("banner");
    setText(banner, text);
    setClass(banner, "bad", bad);
    show(banner, text !== "");
  }

  askForToken(error) {
    this.events.stop();
    this.entered = false;
    for (const view of VIEWS) show(byId(`view-${view}`), false);
    show(byId("view-login"), true);
    setText(byId("login-error"), error);
    byId("login-token").focus();
  }

  // Navigation

  route() {
    if (/[#&]token=/.test(location.hash)) {
      // The printed address was opened in a tab that shows the page already.
      takeToken();
      this.events.stop();
      this.enter();
      return;
    }
    if (!this.entered) return;
    const [, name, id] = location.hash.split("/");
    const view = VIEWS.includes(name) ? name : "downloads";
    const chosen = view === "downloads" && id ? id : null;
    const opens = chosen !== null && this.model.chosen !== chosen;
    this.model.choose(chosen);
    for (const other of VIEWS) show(byId(`view-${other}`), other === view);
    for (const link of document.querySelectorAll(".tabs a")) {
      if (link.dataset.view === view) setAttribute(link, "aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const changed = this.view !== view;
    this.view = view;
    if (changed) {
      this.views[view].opened?.();
      scrollTo(0, 0);
    }
    this.events.follow(chosen);
    this.draw();
    if (opens) this.views.downloads.focusDetail();
  }

  // Drawing

  /** Draws with the next frame, so that many events in a row cost one drawing. */
  redraw() {
    if (this.drawing || !this.entered) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.draw();
    });
  }

  draw() {
    if (!this.view || !this.entered) return;
    const { model } = this;
    const { status, current } = model;
    setText(byId("rate-down"), status ? format.rate(current.down) : "–");
    setText(byId("rate-up"), status ? format.rate(current.up) : "–");
    const unfinished = [...model.downloads.values()].filter(isUnfinished);
    setText(byId("count-downloads"), unfinished.length > 0 ? format.integer(unfinished.length) : "");
    setText(byId("count-shares"), status?.shared_files > 0 ? format.integer(status.shared_files) : "");
    setText(byId("foot-text"), status ? `${format.count(status.peers, "node")} connected` : "");
    model.rates.minutes.advance(model.nodeNow() - 1500);
    drawSpark(byId("spark"), model.rates.minutes, SPARK_SECONDS);
    const title = this.titleOf(unfinished);
    if (document.title !== title) document.title = title;
    this.views[this.view].draw(model);
  }

  titleOf(unfinished) {
    if (unfinished.length === 0) return "qshare";
    const sum = (key) => unfinished.reduce((total, download) => total + download[key], 0);
    return `${format.percent(sum("verified_bytes"), sum("size_bytes"))} – qshare`;
  }

  // Head and login

  listenToHead() {
    const text = byId("omni-text");
    const submit = byId("omni").querySelector("button");
    text.addEventListener("input", () => {
      const value = text.value.trim();
      setText(submit, value === "" || EXACT.test(value) ? "Add" : "Find");
    });
    byId("omni").addEventListener("submit", async (event) => {
      event.preventDefault();
      const what = text.value.trim();
      if (!what) return text.focus();
      if (!EXACT.test(what)) {
        location.hash = "#/find";
        return this.views.find.findText(what);
      }
      const added = await act(submit, () => call("POST", "downloads", { what }));
      if (!added) return text.select();
      text.value = "";
      return this.tellOfAdded(added);
    });
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("input, textarea, select, [contenteditable]");
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        text.focus();
      } else if (event.key === "Escape" && !typing && this.model.chosen && !byId("dialog").open) {
        this.views.downloads.close();
      }
    });
    document.querySelector('[data-go="omni"]').addEventListener("click", () => text.focus());
    this.listenToTheme();
  }

  tellOfAdded({ downloads, skipped }) {
    if (skipped.length > 0) toast(`Not added: ${skipped.join(", ")}`, true);
    if (downloads.length === 1) location.hash = `#/downloads/${downloads[0].id}`;
    else location.hash = "#/downloads";
    if (downloads.length > 0) toast(downloads.length === 1 ? `Added ${downloads[0].name}` : `Added ${format.count(downloads.length, "download")}`);
  }

  listenToTheme() {
    const order = ["system", "light", "dark"];
    const chosen = () => localStorage.getItem("qshare-theme") ?? "system";
    const apply = () => {
      const theme = chosen();
      if (theme === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = theme;
      label(byId("theme"), `Colours: ${theme === "system" ? "as the system" : theme}`);
      forgetColours();
      this.redraw();
    };
    byId("theme").addEventListener("click", () => {
      localStorage.setItem("qshare-theme", order[(order.indexOf(chosen()) + 1) % order.length]);
      apply();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
    apply();
  }

  listenToLogin() {
    byId("login-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      setToken(byId("login-token").value.replace(/^.*#token=/, ""));
      try {
        await call("GET", "status");
        byId("login-token").value = "";
        this.enter();
      } catch (error) {
        if (error.status === 401) setText(byId("login-error"), "The node does not accept this token.");
        else complain(error);
      }
    });
  }
}

new App().start();
