"use strict";

// Shows status.json, and asks for it again every two seconds. Names of files come from strangers:
// they are written as text, never as markup.

const INTERVAL_MS = 2000;
const LISTED_MAX = 100;

const element = (id) => document.getElementById(id);

function write(id, text) {
  const node = element(id);
  if (node.textContent !== text) node.textContent = text;
}

function count(number) {
  return number.toLocaleString("en-US");
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${bytes < 10 && unit > 0 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

function duration(seconds) {
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor((seconds % 86400) / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min` : `${seconds} s`;
}

// The rate of a counter between neighbouring samples.
function rates(samples, value) {
  const result = [];
  for (let at = 1; at < samples.length; at += 1) {
    const seconds = samples[at].at_seconds - samples[at - 1].at_seconds;
    const change = value(samples[at]) - value(samples[at - 1]);
    result.push(seconds > 0 ? Math.max(0, change / seconds) : 0);
  }
  return result;
}

function plot(id, values) {
  const svg = element(id);
  const most = Math.max(...values, 0);
  const step = values.length > 1 ? 600 / (values.length - 1) : 600;
  const height = (value) => 118 - (most > 0 ? (value / most) * 112 : 0);
  const points = values.map((value, at) => `${(at * step).toFixed(1)},${height(value).toFixed(1)}`);
  svg.querySelector("polyline").setAttribute("points", points.join(" "));
  const text = `at most ${most < 10 ? most.toFixed(1) : count(Math.round(most))}`;
  svg.parentElement.querySelector(".most").textContent = values.length > 1 ? text : "collecting…";
}

function showFiles(report) {
  element("files-section").hidden = report.is_private;
  element("files").hidden = report.files.length === 0;
  element("files-none").hidden = report.files.length > 0;
  element("files-more").hidden = report.files.length < LISTED_MAX;
  const rows = report.files.map((file) => {
    const row = document.createElement("tr");
    for (const text of [file.name, size(file.bytes), count(file.complete), count(file.partial)]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  });
  element("files").tBodies[0].replaceChildren(...rows);
}

function showRegistry(registry) {
  element("registry-section").hidden = !registry;
  if (!registry) return;
  const away = "Redis does not answer. Nodes of this tracker are served; others are found for a while.";
  const refused = registry.refuses_writes;
  const connected = refused
    ? `Redis refuses writes: ${refused}. Other trackers do not find what is announced here now.`
    : "Redis answers.";
  write("registry-state", registry.is_connected ? connected : away);
  element("registry-state").classList.toggle("lost", !registry.is_connected || Boolean(refused));
  write("registry-siblings", count(registry.siblings));
  write("registry-operations", count(registry.operations));
  write("registry-errors", count(registry.errors));
  const nodes = registry.queued_nodes > 0 ? ` and ${count(registry.queued_nodes)} nodes` : "";
  write("registry-queued", count(registry.queued_entries) + nodes);
}

function show(report) {
  write("id", report.id);
  const kind = report.is_private ? "private group" : "open swarm";
  write("state", `${kind}, running for ${duration(report.uptime_seconds)}, version ${report.version}`);
  element("state").classList.remove("lost");
  for (const id of ["sessions", "nodes", "contents", "entries", "watches", "relay_pairs"]) {
    write(id, count(report[id]));
  }
  write("relayed_bytes", size(report.relayed_bytes));
  const requests = rates(report.samples, (sample) => sample.requests);
  const rate = requests.at(-1) ?? 0;
  write("rate", rate < 10 ? rate.toFixed(1) : count(Math.round(rate)));
  plot("plot-sessions", report.samples.map((sample) => sample.sessions));
  plot("plot-requests", requests);
  plot("plot-relayed", rates(report.samples, (sample) => (sample.relayed_bytes * 8) / 1e6));
  showRegistry(report.registry);
  showFiles(report);
}

async function update() {
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
  } catch {
    write("state", "the tracker does not answer; trying again");
    element("state").classList.add("lost");
  }
  setTimeout(update, INTERVAL_MS);
}

update();
