// @ts-check
/** Spans of time in words, and as a bar of what they were spent on. */

import { h } from "./dom.js";

/** @typedef {import("./api.js").Seconds} Seconds */

/** In the order in which they come. */
const PARTS = /** @type {const} */ ([["queue", "Waiting"], ["encode", "Prompt"], ["denoise", "Drawing"], ["decode", "Decoding"]]);

/**
 * "0 s", "0.42 s", "4.2 s", "42 s", "2 min 5 s".
 *
 * @param {number} number
 */
export function inSeconds(number) {
  if (number >= 99.5) return `${Math.floor(Math.round(number) / 60)} min ${Math.round(number) % 60} s`;
  if (number >= 9.95 || number < 0.005) return `${Math.round(number)} s`;
  return `${number.toFixed(number >= 0.995 ? 1 : 2)} s`;
}

/**
 * For what is still to come and counted down.
 *
 * @param {number} number
 */
export function inWholeSeconds(number) {
  const whole = Math.max(Math.ceil(number), 0);
  return whole < 100 ? `${whole} s` : inSeconds(whole);
}

/**
 * Where the time of a picture went.
 *
 * @param {Seconds} seconds
 */
export function timeBar(seconds) {
  const bar = h("div", { class: "time-bar", "aria-hidden": "true" });
  const legend = h("ul", { class: "time-parts" });
  for (const [name, label] of PARTS) {
    const part = h("span", { class: `time-${name}` });
    part.style.setProperty("flex-grow", String(seconds[name]));
    bar.append(part);
    const sign = h("span", { class: `time-sign time-${name}`, "aria-hidden": "true" });
    legend.append(h("li", {}, sign, `${label} ${inSeconds(seconds[name])}`));
  }
  return h("div", { class: "times", role: "group", "aria-label": "Where the time went" }, bar, legend);
}
