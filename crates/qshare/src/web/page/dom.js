// Small helpers that build and update elements. Text is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";

/** Returns the element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Makes an element. Properties whose names begin with "on" are listeners, "class" is the class
 * list, true and false set and leave out an attribute. Children are nodes or texts.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Makes an icon of the sprite in index.html. */
export function icon(name, classes = "icon") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", classes);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Exchanges the icon of a button. */
export function setIcon(button, name) {
  const use = button.querySelector("use");
  const href = `#i-${name}`;
  if (use.getAttribute("href") !== href) use.setAttribute("href", href);
}

/** Makes a button with an icon and a text, or with an icon alone that is labelled by the text. */
export function button(text, iconName, onclick, { bare = false, classes = "" } = {}) {
  const made = make("button", { type: "button", class: `button ${bare ? "round" : ""} ${classes}`, onclick });
  if (iconName) made.append(icon(iconName));
  if (bare) label(made, text);
  else made.append(make("span", {}, text));
  return made;
}

/** Labels a button that shows only an icon. */
export function label(element, text) {
  if (element.getAttribute("aria-label") === text) return;
  element.setAttribute("aria-label", text);
  element.title = text;
}

/** Sets the text of an element in place, and only if it has changed. */
export function setText(element, text) {
  const first = element.firstChild;
  if (first && first.nodeType === Node.TEXT_NODE && !first.nextSibling) {
    if (first.data !== text) first.data = text;
  } else {
    element.textContent = text;
  }
}

/** Shows or hides an element. */
export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

/** Sets a class by a condition, and an attribute only if its value has changed. */
export const setClass = (element, name, on) => element.classList.toggle(name, Boolean(on));
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Keeps the children of a list in step with items: makes a row for a new key, updates those that
 * stay, removes the others, and moves an element only if the order has changed. An element with
 * the focus keeps it.
 */
export class Rows {
  constructor(list, makeRow) {
    this.list = list;
    this.makeRow = makeRow;
    this.rowsByKey = new Map();
  }

  update(items, keyOf) {
    const seen = new Set();
    let next = this.list.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      if (seen.has(key)) continue;
      seen.add(key);
      let row = this.rowsByKey.get(key);
      if (!row) {
        row = this.makeRow(item);
        this.rowsByKey.set(key, row);
      }
      row.update(item);
      if (row.element === next) next = next.nextElementSibling;
      else this.list.insertBefore(row.element, next);
    }
    for (const [key, row] of this.rowsByKey) {
      if (seen.has(key)) continue;
      row.element.remove();
      this.rowsByKey.delete(key);
    }
  }

  get(key) {
    return this.rowsByKey.get(key);
  }
}
