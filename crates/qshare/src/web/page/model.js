// What the page knows of the node. Events change it; the views read it when they draw.

/** Returns the name as a person writes it: that of a folder ends with a slash. */
export const nameOf = ({ kind, name }) => (kind === "folder" ? `${name}/` : name);

const STEP_MS = { minutes: 1000, hours: 60000 };
const KEPT = { minutes: 600, hours: 1440 };

/** A series of rates that goes on by itself: no event means a rate of zero. */
class Series {
  constructor(period) {
    this.stepMs = STEP_MS[period];
    this.kept = KEPT[period];
    this.until = 0;
    this.up = [];
    this.down = [];
    this.loaded = false;
  }

  load({ until, up_bytes_per_second: up, down_bytes_per_second: down }) {
    this.until = until;
    this.up = up.slice(-this.kept);
    this.down = down.slice(-this.kept);
    this.loaded = true;
  }

  /** Adds a value whose period ended at `at`. */
  add(at, up, down) {
    if (!this.loaded || at <= this.until) return;
    this.advance(at - this.stepMs / 2);
    this.up.push(up);
    this.down.push(down);
    this.until = Math.max(at, this.until);
    this.trim();
  }

  /** Fills the time up to `now` with zeros. */
  advance(now) {
    if (!this.loaded) return;
    const missing = Math.min(Math.floor((now - this.until) / this.stepMs), this.kept);
    for (let i = 0; i < missing; i += 1) {
      this.up.push(0);
      this.down.push(0);
    }
    if (missing > 0) this.until += missing * this.stepMs;
    this.trim();
  }

  trim() {
    const excess = this.up.length - this.kept;
    if (excess > 0) {
      this.up.splice(0, excess);
      this.down.splice(0, excess);
    }
  }
}

/** The chunks of the chosen download. */
class Chunks {
  constructor() {
    this.reset(0, 0);
  }

  reset(count, bytes) {
    this.count = count;
    this.bytes = bytes;
    this.have = new Uint8Array(count);
    this.verified = 0;
    /** Chunks that were verified a moment ago, and when. */
    this.recent = new Map();
  }

  /** Takes over a map; the runs of later ones add to the first. */
  apply(map, now) {
    const begins = map.chunks !== this.count;
    if (begins) this.reset(map.chunks, map.chunk_bytes);
    for (let i = 0; i + 1 < map.verified.length; i += 2) {
      const end = Math.min(map.verified[i] + map.verified[i + 1], this.count);
      for (let chunk = map.verified[i]; chunk < end; chunk += 1) {
        if (this.have[chunk]) continue;
        this.have[chunk] = 1;
        this.verified += 1;
        if (!begins && this.recent.size < 2000) this.recent.set(chunk, now);
      }
    }
  }
}

export class Model {
  constructor() {
    this.status = null;
    /** Downloads by ID, oldest first. */
    this.downloads = new Map();
    this.chosen = null;
    this.detail = null;
    this.chunks = new Chunks();
    this.rates = { minutes: new Series("minutes"), hours: new Series("hours") };
    /** The node's clock minus this one's, in ms. */
    this.clockMs = 0;
    this.current = { up: 0, down: 0 };
  }

  nodeNow() {
    return Date.now() + this.clockMs;
  }

  /** Chooses the download whose details are followed. */
  choose(id) {
    if (this.chosen === id) return;
    this.chosen = id;
    this.detail = null;
    this.chunks.reset(0, 0);
  }

  /** Forgets the map before a stream begins, whose first map is complete. */
  beginStream() {
    this.chunks.reset(0, 0);
  }

  apply(name, body) {
    switch (name) {
      case "status":
        this.status = body;
        this.current = { up: body.up_bytes_per_second, down: body.down_bytes_per_second };
        break;
      case "downloads":
        if (body.snapshot) this.downloads.clear();
        for (const download of body.changed) this.downloads.set(download.id, download);
        for (const id of body.removed) this.downloads.delete(id);
        break;
      case "rates":
        this.clockMs = body.at - Date.now();
        this.current = { up: body.up_bytes_per_second, down: body.down_bytes_per_second };
        this.rates.minutes.add(body.at, this.current.up, this.current.down);
        break;
      case "download":
        if (body.download.id === this.chosen) {
          this.detail = body;
          this.downloads.set(body.download.id, body.download);
        }
        break;
      case "map":
        if (body.id === this.chosen) this.chunks.apply(body, performance.now());
        break;
      default:
    }
  }
}

export const isActive = ({ stage }) => ["recovering", "searching", "fetching", "finishing"].includes(stage);
export const isUnfinished = (download) => isActive(download) || download.stage === "queued";
export const canPause = isUnfinished;
export const canResume = ({ stage }) => stage === "paused" || stage === "failed";
