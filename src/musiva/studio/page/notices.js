// @ts-check
/** What the page says: short messages that can be seen, and words for screen readers. */

import { at, button, h } from "./dom.js";

/** @typedef {{label: string, run: () => void}} Action */

const SECONDS = 6;
const SECONDS_TO_ACT = 20;

/** @type {Map<string, HTMLElement>} */
const shown = new Map();

/**
 * Have a screen reader say something when it is free to.
 *
 * @param {string} text
 */
export function announce(text) {
  const region = at("live");
  // The same words again are only said when the region was empty in between.
  region.textContent = "";
  setTimeout(() => (region.textContent = text), 50);
}

/**
 * Show a message. One of the same topic takes the place of the last.
 *
 * @param {string} text
 * @param {{topic?: string, action?: Action, bad?: boolean, stays?: boolean}} [options]
 *   stays: until it is dismissed
 */
export function tell(text, { topic = text, action, bad = false, stays = bad } = {}) {
  dismiss(topic);
  const close = button({ icon: "close", label: "Dismiss" }, () => dismiss(topic));
  const act = action && h("button", { type: "button", class: "link", text: action.label, click: () => {
    dismiss(topic);
    action.run();
  } });
  const toast = h("div", { class: bad ? "toast bad" : "toast" }, h("p", { text }), act ?? null, close);
  shown.set(topic, toast);
  at("toasts").append(toast);
  announce(text);
  if (!stays) leaveLater(toast, topic, action ? SECONDS_TO_ACT : SECONDS);
}

/** @param {string} topic */
export function dismiss(topic) {
  const toast = shown.get(topic);
  if (!toast) return;
  shown.delete(topic);
  // Whoever was on its button must not fall back to the top of the page.
  const held = toast.contains(document.activeElement);
  toast.remove();
  if (held) at("prompt").focus();
}

/**
 * @param {HTMLElement} toast
 * @param {string} topic
 * @param {number} seconds of which none run out while somebody points at it
 */
function leaveLater(toast, topic, seconds) {
  let timer = 0;
  const start = () => {
    clearTimeout(timer);
    timer = window.setTimeout(() => shown.get(topic) === toast && dismiss(topic), 1000 * seconds);
  };
  const stop = () => clearTimeout(timer);
  for (const event of ["pointerenter", "focusin"]) toast.addEventListener(event, stop);
  for (const event of ["pointerleave", "focusout"]) toast.addEventListener(event, start);
  start();
}
