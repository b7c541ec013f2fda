// Dialogs and short messages.

import { byId, button, icon, make } from "./dom.js";
import { nameOf } from "./model.js";
import { call, qrCode } from "./transport.js";
import * as format from "./format.js";

const TOAST_MS = 4500;
const TOAST_ERROR_MS = 9000;

/** Shows a message for a few seconds; screen readers announce it. */
export function toast(text, bad = false) {
  const shown = make("div", { class: bad ? "toast bad" : "toast" }, text);
  byId("toasts").append(shown);
  setTimeout(() => shown.remove(), bad ? TOAST_ERROR_MS : TOAST_MS);
}

/** Says what went wrong and what to do about it. */
export const describe = (error) => [error.message, error.hint].filter(Boolean).join(". ");
export const complain = (error) => toast(describe(error), true);

/** Runs an action of a button: blocks the button meanwhile, and tells of an error. */
export async function act(control, action) {
  if (control) control.disabled = true;
  try {
    return await action();
  } catch (error) {
    complain(error);
    return undefined;
  } finally {
    if (control) control.disabled = false;
  }
}

/** Opens the dialog with a title and a content. The focus returns to where it was. */
function open(title, ...content) {
  const dialog = byId("dialog");
  const close = button("Close", "close", () => dialog.close(), { bare: true, classes: "close" });
  dialog.replaceChildren(make("h2", { id: "dialog-title" }, title), ...content, close);
  if (!dialog.open) dialog.showModal();
  return dialog;
}

export const closeDialog = () => byId("dialog").close();

/** A form in the dialog. `submit` may throw an error, which is shown there. */
function form(title, fields, action, submit, { danger = false } = {}) {
  const error = make("p", { class: "error", role: "alert" });
  const go = make("button", { type: "submit", class: danger ? "button danger" : "button primary" }, action);
  const onsubmit = async (event) => {
    event.preventDefault();
    go.disabled = true;
    error.textContent = "";
    try {
      await submit();
    } catch (cause) {
      error.textContent = describe(cause);
    }
    go.disabled = false;
  };
  const cancel = button("Cancel", null, closeDialog);
  open(title, make("form", { onsubmit }, ...fields, error, make("div", { class: "actions" }, cancel, go)));
}

async function copy(area) {
  try {
    await navigator.clipboard.writeText(area.value);
  } catch {
    // Plain HTTP from another machine is no secure context, which the clipboard asks for.
    area.select();
    if (!document.execCommand("copy")) return toast("Press Ctrl+C to copy", true);
  }
  return toast("Copied");
}

/** Shows a text to pass on: selectable, to copy, and as QR code. */
export function showText(title, text, note, more = []) {
  const area = make("textarea", { class: "text-box", readonly: true, "aria-label": title, spellcheck: "false" });
  area.value = text;
  const copyButton = button("Copy", "copy", () => copy(area), { classes: "primary" });
  const picture = make("img", { class: "qr", alt: "QR code of the text above", hidden: true });
  const dialog = open(
    title,
    note ? make("p", { class: "muted" }, note) : null,
    area,
    make("div", { class: "actions" }, ...more, copyButton),
    picture,
  );
  copyButton.focus();
  qrCode(text).then(
    (blob) => {
      picture.src = URL.createObjectURL(blob);
      picture.hidden = false;
      dialog.addEventListener("close", () => URL.revokeObjectURL(picture.src), { once: true });
    },
    () => {
      // A text that is too long for a QR code is shown as text alone.
    },
  );
}

/** Shows the link of a content that this node has. */
export async function showLink(name, share, isPrivate, command = null) {
  const { link } = await call("GET", `shares/${share}/link`);
  const code = command ? `On the other machine: ${command}. ` : "";
  const note = isPrivate
    ? code + "Whoever has this link can fetch the file, from this node and from all others that have it."
    : "Open it in a page like this one, or with: qshare get LINK";
  showText(`Link to ${name}`, link, note);
}

/** Makes an address under which a player or browser reads the file, and shows it. */
export async function showStream(name, what) {
  const { path, expires_at: end } = await call("POST", "capabilities", { what });
  const address = new URL(path, location.origin).href;
  const visit = make(
    "a",
    { class: "button", href: address, target: "_blank", rel: "noopener noreferrer" },
    icon("stream"),
    make("span", {}, "Open"),
  );
  const note = `For a player, a browser or curl. Whoever has this address can read the file until ${format.when(end)}; it can be revoked under Node.`;
  showText(`Stream ${name}`, address, note, [visit]);
}

/** Asks before a download is removed. */
export function askRemove(download, removed) {
  const complete = download.stage === "complete";
  const check = make("input", { type: "checkbox" });
  check.checked = !complete;
  const isFolder = download.kind === "folder";
  const what = complete ? `Also delete ${isFolder ? "its files" : "the file"}` : "Also delete what was fetched so far";
  const text = complete
    ? "It leaves the list. The file stays where it is and goes on being shared."
    : "It stops. What was fetched can be used again if it is kept.";
  form(
    `Remove ${nameOf(download)}?`,
    [make("p", { class: "muted" }, text), make("label", { class: "check" }, check, make("span", {}, what))],
    "Remove",
    async () => {
      await call("DELETE", `downloads/${download.id}?files=${check.checked}`);
      closeDialog();
      toast("Removed");
      removed();
    },
    { danger: true },
  );
}

const PRIORITIES = [
  ["low", "Low"],
  ["normal", "Normal"],
  ["high", "High"],
];

/** Asks for the rate limit and the priority of a download. */
export function askLimit(download) {
  const field = make("input", { id: "limit-field", class: "field", type: "text", placeholder: "no limit, or 10MB, 80Mbit", autocomplete: "off" });
  const current = download.limit_bytes_per_second;
  field.value = current ? format.bytes(current).replace(" ", "") : "";
  const select = make("select", { id: "priority-field", class: "field" });
  for (const [value, text] of PRIORITIES) select.append(make("option", { value }, text));
  select.value = download.priority;
  form(
    `Limit ${nameOf(download)}`,
    [
      make("label", { for: "limit-field" }, "Bytes per second"),
      field,
      make("label", { for: "priority-field" }, "Priority"),
      select,
    ],
    "Apply",
    async () => {
      const change = { limit_bytes_per_second: format.parseRate(field.value) };
      if (Number.isNaN(change.limit_bytes_per_second)) throw new Error("This is not a rate. Examples: 10MB, 1.5MiB, 80Mbit");
      if (change.limit_bytes_per_second === (current ?? 0)) delete change.limit_bytes_per_second;
      if (select.value !== download.priority) change.priority = select.value;
      if (Object.keys(change).length > 0) await call("PATCH", `downloads/${download.id}`, change);
      closeDialog();
    },
  );
}

/** Asks for a path on the node's machine to share. */
export function askPath(shared) {
  const path = make("input", { id: "path-field", class: "field", type: "text", placeholder: "/home/me/film.webm", required: true, autocomplete: "off", spellcheck: "false" });
  const name = make("input", { id: "name-field", class: "field", type: "text", placeholder: "as the file is called", autocomplete: "off", spellcheck: "false" });
  const all = make("input", { type: "checkbox" });
  form(
    "Share a path on the node",
    [
      make("label", { for: "path-field" }, "File or folder, on the machine of the node"),
      path,
      make("label", { for: "name-field" }, "Name for others"),
      name,
      make("label", { class: "check" }, all, make("span", {}, "List it for the whole swarm. Otherwise only those who have the link can find it.")),
    ],
    "Share",
    async () => {
      const body = { path: path.value, public: all.checked };
      if (name.value.trim()) body.name = name.value.trim();
      const share = await call("POST", "shares", body);
      shared();
      const code = share.command ? `On the other machine: ${share.command}` : null;
      if (share.link) showText(`Link to ${share.name}`, share.link, code);
      else closeDialog();
    },
  );
}
