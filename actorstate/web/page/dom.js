// Elements as values, and the least change that makes the page look like them: focus, selection, scrolling
// and opened details stay where the reader has them. Text is only ever set as text.

import { plain } from "./text.js";

const LEFT_TO_THE_READER = new Set(["open"]);

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  const there = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  node.append(...there.map((child) => (child instanceof Node ? child : plain(child))));
  return node;
}

export function show(place, ...children) {
  const wanted = el("div", {}, children);
  matchChildren(place, wanted);
  // Widths go through the CSS object model: the policy of the page allows no style attributes.
  for (const part of place.querySelectorAll("[data-width]")) part.style.width = `${part.dataset.width}%`;
}

function matchChildren(place, wanted) {
  const keyed = new Map();
  for (const child of place.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
  let here = place.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = next.nodeType === Node.ELEMENT_NODE ? next.dataset.key : undefined;
    const known = key ? keyed.get(key) : undefined;
    if (known && known !== here && known.tagName === next.tagName) {
      place.insertBefore(known, here);
      here = known;
    }
    if (here && sameKind(here, next, key)) {
      matchNode(here, next);
      here = here.nextSibling;
    } else {
      place.insertBefore(next, here);
    }
  }
  while (here) {
    const gone = here;
    here = here.nextSibling;
    gone.remove();
  }
}

function sameKind(here, next, key) {
  if (here.nodeType !== next.nodeType || here.nodeName !== next.nodeName) return false;
  return here.nodeType !== Node.ELEMENT_NODE || here.dataset.key === key;
}

function matchNode(here, next) {
  if (here.nodeType === Node.TEXT_NODE) {
    if (here.data !== next.data) here.data = next.data;
    return;
  }
  for (const { name } of [...here.attributes]) {
    if (!next.hasAttribute(name) && name !== "style" && !LEFT_TO_THE_READER.has(name)) here.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (here.getAttribute(name) !== value && !LEFT_TO_THE_READER.has(name)) here.setAttribute(name, value);
  }
  matchChildren(here, next);
}
