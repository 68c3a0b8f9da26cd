// @ts-check
/** The controls of the form: what is written in them, and what is wrong with it. */

import { at } from "./dom.js";

/** @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Control */

/** The control of each field; its message is in #NAME-error. */
export const CONTROLS = /** @type {const} */ ([
  "prompt", "size", "width", "height", "steps", "quality", "rise", "deadline", "seed", "sampler", "guidance_scale",
  "negative_prompt", "n", "spacing", "shift", "frames", "policy",
]);
/** The choice among the sizes that lets width and height be written. */
export const OTHER = "other";
/** Of a box that is ticked. */
export const YES = "yes";
/** Fields of a request that have the control of another one. @type {Record<string, string>} */
const PLACES = { min_quality: "quality", max_quality: "quality" };

/**
 * @param {string} name
 * @returns {Control}
 */
export function control(name) {
  return /** @type {Control} */ (at(name));
}

/** @param {Control} element whose text is taken to the letter where it is a prompt */
export function written(element) {
  if (isBox(element)) return element.checked ? YES : "";
  // Letters in a number field have no value, but they are not nothing.
  if (element.validity.badInput) return "not a number";
  return element instanceof HTMLTextAreaElement ? element.value : element.value.trim();
}

/**
 * @param {Control} element
 * @param {string} text
 */
export function write(element, text) {
  if (isBox(element)) element.checked = text === YES;
  else element.value = text;
}

/**
 * @param {Control} element
 * @returns {element is HTMLInputElement}
 */
function isBox(element) {
  return element.type === "checkbox";
}

/** @param {Partial<Record<string, string>>} errors by field; those of no field of ours are left out */
export function showErrors(errors) {
  const told = Object.fromEntries(Object.entries(errors).map(([name, text]) => [PLACES[name] ?? name, text]));
  /** @type {HTMLElement | null} */
  let first = null;
  for (const name of CONTROLS) {
    const place = document.getElementById(`${name}-error`);
    const message = told[name];
    if (!place || !message) continue;
    place.textContent = message;
    place.hidden = false;
    const shown = name === "size" && control("size").value === OTHER ? control("width") : control(name);
    shown.setAttribute("aria-invalid", "true");
    first ??= shown;
  }
  const more = at("more", HTMLDetailsElement);
  if (first && more.contains(first)) more.open = true;
  first?.focus();
}

export function clearErrors() {
  for (const name of CONTROLS) clearError(name);
}

/** @param {string} name */
export function clearError(name) {
  const place = document.getElementById(`${name}-error`);
  if (!place) return;
  place.hidden = true;
  place.textContent = "";
  const elements = name === "size" ? [control("size"), control("width"), control("height")] : [control(name)];
  for (const element of elements) element.removeAttribute("aria-invalid");
}
