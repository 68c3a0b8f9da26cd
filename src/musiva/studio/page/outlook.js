// @ts-check
/** What a request would get now, at each quality: /v1/estimates, asked while the form is written. */

import { ApiError, readEstimates } from "./api.js";
import { floorOf } from "./parameters.js";

/** @typedef {import("./api.js").Estimate} Estimate */
/** @typedef {import("./api.js").Estimates} Estimates */
/** @typedef {import("./parameters.js").Parameters} Parameters */
/**
 * @typedef {Object} Prospect
 * @property {Parameters} parameters that were asked about
 * @property {number | null} deadline seconds
 * @property {Estimate[]} floors one for each quality, the most exact first
 * @property {Estimate} chosen what is written now would get
 * @property {Estimate | null} best the most exact that would not be refused
 */
/**
 * @typedef {Object} Options
 * @property {() => Parameters | null} read what is written now; null while it is not allowed
 * @property {() => boolean} calibrated whether there are qualities to choose from
 * @property {() => boolean} ready whether the server is there
 * @property {() => string | null} key
 * @property {(prospect: Prospect | null) => void} onAnswer null when nobody knows
 */

/** The lowest quality that is offered. */
export const LOWEST = 50;
const PAUSE_MS = 400;
/** Of a server that has no such route, or wants a key first. */
const ABSENT = [401, 403, 404, 405];

export class Outlook {
  /** @type {number | null} */
  #timer = null;
  /** Of the question that is out. @type {AbortController | null} */
  #asking = null;
  #absent = false;

  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    document.addEventListener("visibilitychange", () => this.refresh());
  }

  /** The server is there, again or as another one, or it has been given a key. */
  renew() {
    this.#absent = false;
    this.refresh();
  }

  /** Something else is written: an answer that is still to come is about the past. */
  edited() {
    this.#asking?.abort();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => {
      this.#timer = null;
      this.#ask();
    }, PAUSE_MS);
  }

  /** The same question again, because the load is another one. */
  refresh() {
    if (this.#timer === null && this.#asking === null) this.#ask();
  }

  async #ask() {
    const { read, ready, onAnswer } = this.options;
    if (this.#absent || document.hidden || !ready()) return;
    const parameters = read();
    if (!parameters) return onAnswer(null);
    const controller = new AbortController();
    this.#asking = controller;
    try {
      onAnswer(await this.about(parameters, controller.signal));
    } catch (error) {
      this.#absent = error instanceof ApiError && ABSENT.includes(error.status);
      if (!controller.signal.aborted) onAnswer(null);
    }
    if (this.#asking === controller) this.#asking = null;
  }

  /**
   * What a request would get at its own quality, and at all others. Raises what `readEstimates` does.
   *
   * @param {Parameters} parameters
   * @param {AbortSignal} signal
   * @returns {Promise<Prospect>}
   */
  async about(parameters, signal) {
    const { calibrated, key } = this.options;
    const floor = floorOf(parameters);
    const answer = await readEstimates(question(parameters, floor, calibrated()), { signal, key: key() });
    return prospect(parameters, floor, answer);
  }
}

/**
 * The same request with all qualities to choose from, where there are any.
 *
 * @param {Parameters} parameters
 * @param {number} floor
 * @param {boolean} calibrated
 * @returns {Parameters}
 */
function question({ quality: _, min_quality, max_quality, ...rest }, floor, calibrated) {
  if (!calibrated || rest.policy) return rest;
  return { ...rest, min_quality: Math.min(floor, LOWEST), max_quality: 100 };
}

/**
 * @param {Parameters} parameters
 * @param {number} floor
 * @param {Estimates} answer
 * @returns {Prospect}
 */
function prospect(parameters, floor, { deadline, estimates }) {
  // Of several ways to keep a quality the last one is the cheapest.
  const floors = estimates.filter(({ quality }, index) => quality !== estimates[index + 1]?.quality);
  const keeping = floors.filter(({ quality }) => quality >= floor);
  const chosen = keeping.at(-1) ?? /** @type {Estimate} */ (floors[0]);
  const best = floors.find(({ refusal }) => refusal === null) ?? null;
  return { parameters, deadline, floors, chosen, best };
}
