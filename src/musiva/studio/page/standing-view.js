// @ts-check
/** The strip that tells how busy the server is, with the quality of the last minutes drawn. */

import { at } from "./dom.js";
import { inSeconds } from "./times.js";

/** @typedef {import("./api.js").Standing} Load */
/** @typedef {{at: number, quality: number | null}} Point at: by performance.now() */

const NOTHING = "–";
const HISTORY_MS = 180_000;
/** A longer pause between two points, in which nobody asked, is left out of the line. */
const GAP_MS = 8000;
const WIDTH = 180;
const HEIGHT = 32;
/** Of the scale; it begins lower where a quality does. */
const LOWEST = 50;

export class StandingView {
  /** @type {Point[]} */
  #history = [];

  hide() {
    at("standing").hidden = true;
  }

  /** @param {Load | null} load null when nobody knows */
  show(load) {
    if (load) at("standing").hidden = false;
    const now = performance.now();
    this.#history.push({ at: now, quality: load?.quality ?? null });
    while ((this.#history[0]?.at ?? now) < now - HISTORY_MS) this.#history.shift();
    for (const [name, text] of Object.entries(load ? inWords(load) : UNKNOWN)) {
      if (at(`standing-${name}`).textContent !== text) at(`standing-${name}`).textContent = text;
    }
    this.#draw(now, load);
  }

  /**
   * @param {number} now
   * @param {Load | null} load
   */
  #draw(now, load) {
    const known = this.#history.flatMap(({ quality }) => quality ?? []);
    const [low, high] = [Math.min(...known), Math.max(...known)].map(Math.round);
    const range = low === high ? low : `from ${low} to ${high}`;
    const words = known.length ? `Quality in use over the last 3 minutes: ${range}` : "No quality was in use in the last 3 minutes";
    const svg = at("standing-history");
    svg.setAttribute("aria-label", load && known.length ? `${words}, now ${quality(load)}` : words);
    svg.querySelector("path")?.setAttribute("d", path(this.#history, now, Math.min(LOWEST, ...known)));
  }
}

const UNKNOWN = {
  running: NOTHING, waiting: "", backlog: NOTHING, floor: "", attainment: NOTHING, goodput: "", refused: NOTHING, quality: NOTHING,
};

/**
 * @param {Load} load
 * @returns {typeof UNKNOWN}
 */
function inWords(load) {
  const { waiting, running, backlog_seconds: backlog, backlog_floor_seconds: floor, goodput, attainment, refused } = load;
  return {
    running: `${running} running`,
    waiting: `${waiting} waiting`,
    backlog: inSeconds(backlog),
    floor: inSeconds(floor) === inSeconds(backlog) ? "" : `at least ${inSeconds(floor)}`,
    attainment: attainment === null ? NOTHING : `${Math.round(100 * attainment)} %`,
    goodput: `${Number(goodput.toFixed(2))} a second`,
    refused: String(refused),
    quality: quality(load),
  };
}

/** @param {Load} load */
function quality({ quality: used }) {
  return used === null ? NOTHING : String(Math.round(used));
}

/**
 * A line from left, the longest ago, to right, now. Where nothing was in use there is none.
 *
 * @param {Point[]} points
 * @param {number} now
 * @param {number} lowest of the scale
 */
function path(points, now, lowest) {
  let [drawn, before] = ["", -Infinity];
  for (const { at: when, quality: used } of points) {
    if (used === null) before = -Infinity;
    else {
      const x = WIDTH * (1 - (now - when) / HISTORY_MS);
      const y = HEIGHT - ((HEIGHT - 4) * (used - lowest)) / (100 - lowest) - 2;
      // A point alone is a line of no length, which has round ends.
      drawn += `${when - before > GAP_MS ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}h0`;
      before = when;
    }
  }
  return drawn;
}
