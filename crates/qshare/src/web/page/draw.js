// Drawings: the chunk map and the plots of rates.

import * as format from "./format.js";

let colours = null;

/** Forgets the colours after the theme has changed. */
export const forgetColours = () => {
  colours = null;
};

function palette() {
  if (colours) return colours;
  // A property gives "light-dark(…)"; only the colour of an element is computed.
  const probe = document.body.appendChild(document.createElement("i"));
  const read = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  colours = Object.fromEntries(["accent", "up", "asked", "held", "line", "muted", "text"].map((name) => [name, read(name)]));
  probe.remove();
  return colours;
}

/** Fits the bitmap of a canvas to its size on the screen. Returns the context and that size. */
function prepare(canvas, height) {
  const width = canvas.clientWidth;
  const scale = Math.min(window.devicePixelRatio || 1, 3);
  const wanted = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== wanted[0] || canvas.height !== wanted[1]) [canvas.width, canvas.height] = wanted;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

const MAP_HEIGHT_MAX = 200;
const FRESH_MS = 900;

/** Chooses the size of the cells, so that the map is not higher than MAP_HEIGHT_MAX. */
function layOut(count, width) {
  for (const size of [14, 12, 10, 8, 7, 6, 5]) {
    const columns = Math.max(1, Math.floor(width / size));
    const rows = Math.ceil(count / columns);
    if (rows * size <= MAP_HEIGHT_MAX || size === 5) {
      const shown = Math.min(rows, Math.floor(MAP_HEIGHT_MAX / size));
      const cells = Math.min(count, shown * columns);
      return { size, columns, cells, height: Math.max(size, shown * size) };
    }
  }
  return null;
}

/** Draws the chunks of a download. Returns whether some were verified so recently that they fade. */
export function drawChunks(canvas, chunks) {
  const width = canvas.clientWidth;
  if (width === 0 || chunks.count === 0) return false;
  const { size, columns, cells, height } = layOut(chunks.count, width);
  if (canvas.style.height !== `${height}px`) canvas.style.height = `${height}px`;
  const { context } = prepare(canvas, height);
  const { accent, held, asked } = palette();
  const now = performance.now();
  const fresh = new Map();
  const cellOf = (chunk) => Math.floor((chunk * cells) / chunks.count);
  for (const [chunk, at] of chunks.recent) {
    if (now - at > FRESH_MS) chunks.recent.delete(chunk);
    else fresh.set(cellOf(chunk), 1 - (now - at) / FRESH_MS);
  }
  const gap = size >= 8 ? 2 : 1;
  for (let cell = 0; cell < cells; cell += 1) {
    const first = Math.ceil((cell * chunks.count) / cells);
    const end = Math.max(first + 1, Math.ceil(((cell + 1) * chunks.count) / cells));
    let have = 0;
    for (let chunk = first; chunk < end && chunk < chunks.count; chunk += 1) have += chunks.have[chunk];
    const x = (cell % columns) * size;
    const y = Math.floor(cell / columns) * size;
    const paint = (colour, alpha) => {
      context.globalAlpha = alpha;
      context.fillStyle = colour;
      context.fillRect(x, y, size - gap, size - gap);
    };
    if (have < end - first) paint(held, 0.6);
    if (have > 0) paint(accent, have / (end - first));
    if (fresh.has(cell)) paint(asked, fresh.get(cell));
  }
  context.globalAlpha = 1;
  return chunks.recent.size > 0;
}

/** Rounds up to a value at which an axis may end. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10].map((factor) => factor * power).find((end) => end >= value);
}

/** Reduces a series to one value for each of `count` places by the highest in its range. */
function thin(values, count) {
  if (values.length <= count) return values;
  const thinned = new Array(count).fill(0);
  values.forEach((value, index) => {
    const place = Math.floor((index * count) / values.length);
    if (value > thinned[place]) thinned[place] = value;
  });
  return thinned;
}

function trace(context, values, total, area, top) {
  const step = area.width / Math.max(1, total - 1);
  const begin = area.left + area.width - (values.length - 1) * step;
  const point = (index) => [begin + index * step, area.top + area.height * (1 - Math.min(1, values[index] / top))];
  context.beginPath();
  values.forEach((_, index) => {
    const [x, y] = point(index);
    if (index === 0) context.moveTo(x, y);
    else context.lineTo(x, y);
  });
  return { begin, end: area.left + area.width };
}

function drawSeries(context, values, total, area, top, colour, filled) {
  if (values.length < 2) return;
  context.lineJoin = "round";
  if (filled) {
    const { begin, end } = trace(context, values, total, area, top);
    context.lineTo(end, area.top + area.height);
    context.lineTo(begin, area.top + area.height);
    context.closePath();
    context.globalAlpha = 0.16;
    context.fillStyle = colour;
    context.fill();
    context.globalAlpha = 1;
  }
  trace(context, values, total, area, top);
  context.strokeStyle = colour;
  context.lineWidth = 1.75;
  context.stroke();
}

/** Draws up and down rates without axes. */
export function drawSpark(canvas, series, seconds) {
  if (canvas.clientWidth === 0) return;
  const { context, width, height } = prepare(canvas, 40);
  const { accent, up, line } = palette();
  const [downs, ups] = [series.down.slice(-seconds), series.up.slice(-seconds)];
  const top = Math.max(1000, ...downs, ...ups);
  const area = { left: 0, top: 2, width, height: height - 4 };
  context.fillStyle = line;
  context.fillRect(0, height - 1, width, 1);
  drawSeries(context, downs, seconds, area, top, accent, true);
  drawSeries(context, ups, seconds, area, top, up, false);
}

/**
 * Draws up and down rates over time with axes. `pointer` is the place of the pointer in the canvas
 * or null. Returns the values under the pointer.
 */
export function drawPlot(canvas, series, pointer) {
  if (canvas.clientWidth === 0) return null;
  const { context, width, height } = prepare(canvas, canvas.clientHeight);
  const { accent, up, line, muted, text } = palette();
  const area = { left: 68, top: 10, width: width - 72, height: height - 34 };
  const places = Math.min(series.kept, Math.max(60, Math.floor(area.width / 2)));
  const perPlace = series.kept / places;
  const shown = Math.ceil(series.down.length / perPlace);
  const [downs, ups] = [thin(series.down, shown), thin(series.up, shown)];
  const top = roundUp(Math.max(1000, ...downs, ...ups));
  context.font = '12px system-ui, "DejaVu Sans", sans-serif';
  context.textBaseline = "middle";
  for (let part = 0; part <= 4; part += 1) {
    const y = Math.round(area.top + area.height * (1 - part / 4)) + 0.5;
    context.strokeStyle = line;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(area.left, y);
    context.lineTo(area.left + area.width, y);
    context.stroke();
    if (part % 2 === 0) {
      context.fillStyle = muted;
      context.textAlign = "right";
      context.fillText(part === 0 ? "0" : format.rate((top * part) / 4), area.left - 8, y);
    }
  }
  const spanMs = series.kept * series.stepMs;
  const stepMs = spanMs / (width < 480 ? 2 : 5);
  context.fillStyle = muted;
  context.textBaseline = "alphabetic";
  for (let back = 0; back <= spanMs; back += stepMs) {
    const x = area.left + area.width * (1 - back / spanMs);
    context.textAlign = back === 0 ? "right" : back >= spanMs ? "left" : "center";
    const ago = back >= 3600000 ? `${Math.round(back / 360000) / 10} h` : `${Math.round(back / 6000) / 10} min`;
    context.fillText(back === 0 ? "now" : `${ago} ago`, x, height - 6);
  }
  drawSeries(context, downs, places, area, top, accent, true);
  drawSeries(context, ups, places, area, top, up, false);
  if (!pointer || pointer.x < area.left) return null;
  const fraction = Math.min(1, (pointer.x - area.left) / area.width);
  const back = Math.round((1 - fraction) * (series.kept - 1));
  const index = series.down.length - 1 - back;
  if (index < 0) return null;
  context.strokeStyle = text;
  context.globalAlpha = 0.5;
  context.beginPath();
  context.moveTo(Math.round(pointer.x) + 0.5, area.top);
  context.lineTo(Math.round(pointer.x) + 0.5, area.top + area.height);
  context.stroke();
  context.globalAlpha = 1;
  return { at: series.until - back * series.stepMs, up: series.up[index], down: series.down[index] };
}
