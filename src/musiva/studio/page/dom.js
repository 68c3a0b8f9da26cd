// @ts-check
/** Elements without markup in strings: text is always text. */

/**
 * @typedef {Record<string, string | number | boolean | null | undefined
 *   | ((event: any) => void)>} Properties
 */

/**
 * A new element. A property that is a function listens, "text" is its text, true sets an empty
 * attribute, false and null leave it out, and everything else is an attribute.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Properties} [properties]
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "text") element.textContent = String(value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * One of the symbols at the top of index.html, for the eye only.
 *
 * @param {string} name
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.classList.add("icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/**
 * A button with an icon; without `text` its label is only read and shown as a tooltip.
 *
 * @param {{icon: string, label: string, text?: boolean, class?: string}} look
 * @param {(event: MouseEvent) => void} onclick
 * @returns {HTMLButtonElement}
 */
export function button(look, onclick) {
  const named = look.text ? {} : { "aria-label": look.label, title: look.label };
  const style = look.class ?? (look.text ? "button" : "icon-button");
  const words = look.text ? look.label : null;
  return h("button", { type: "button", class: style, ...named, click: onclick }, icon(look.icon), words);
}

/**
 * An element that index.html holds.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [type]
 * @returns {T}
 */
export function at(id, type) {
  const found = document.getElementById(id);
  if (!found || (type && !(found instanceof type))) throw new Error(`index.html lacks #${id}`);
  return /** @type {T} */ (found);
}

/**
 * "1 picture", "2 pictures".
 *
 * @param {number} number
 * @param {string} noun
 */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** Whether the user lets things move. */
export function mayMove() {
  return !matchMedia("(prefers-reduced-motion: reduce)").matches;
}
