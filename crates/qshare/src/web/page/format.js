// Numbers as people read them. Sizes are powers of ten, as in the terminal.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/** "1.2 GB": bytes with three significant digits at most. */
export function bytes(count) {
  let value = Math.max(0, Number(count) || 0);
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** "3.4 MB/s". */
export const rate = (bytesPerSecond) => `${bytes(bytesPerSecond)}/s`;

/** "1:02:03", "2:03", "3 days". */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole >= 172800) return `${Math.round(whole / 86400)} days`;
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** "12%", "1.2%"; 100% only at the end. */
export function percent(part, whole) {
  if (part >= whole) return "100%";
  const value = (part / whole) * 100;
  return value < 10 ? `${(Math.floor(value * 10) / 10).toFixed(1)}%` : `${Math.floor(value)}%`;
}

/** "1 source", "2 sources"; thousands are grouped. */
export function count(number, one, many = `${one}s`) {
  return `${integer(number)} ${number === 1 ? one : many}`;
}

const GROUPED = new Intl.NumberFormat("en", { useGrouping: true });
/** "12,345". */
export const integer = (number) => GROUPED.format(number);

const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
/** A time of the clock, given in milliseconds since 1970. */
export const when = (milliseconds) => WHEN.format(new Date(milliseconds));

/** "24 ms", "0.4 ms". */
export function milliseconds(value) {
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

/**
 * Reads a rate as the command line does: "10MB", "1.5 MiB", "80Mbit", "0" or "" for none. Returns
 * bytes per second, 0 for none, NaN if the text is not a rate.
 */
export function parseRate(text) {
  const clean = text.trim().replace(/\/s$/i, "");
  if (clean === "") return 0;
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b|bit)?$/i.exec(clean);
  if (!match) return NaN;
  const power = ["", "k", "m", "g", "t"].indexOf(match[2].toLowerCase());
  if (match[3] && power === 0) return NaN;
  const value = Number(match[1]) * (match[3] ? 1024 : 1000) ** power;
  return Math.round((match[4] || "").toLowerCase() === "bit" ? value / 8 : value);
}
