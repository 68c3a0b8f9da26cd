// @ts-check
/** How busy the server is: /v1/standing, asked while somebody looks. */

import { ApiError, readStanding } from "./api.js";

/** @typedef {import("./api.js").Standing} Load */
/**
 * @typedef {Object} Options
 * @property {() => boolean} ready whether the server is there
 * @property {() => string | null} key
 * @property {(load: Load | null) => void} onAnswer null when it could not tell
 * @property {() => void} onAbsent this server does not tell
 */

const PAUSE_MS = 2000;
const PATIENCE_MS = 6000;
/** Of a server that has no such route, or wants a key first. */
const ABSENT = [401, 403, 404, 405];

export class Standing {
  /** @type {number | undefined} */
  #timer;
  #asking = false;
  #absent = false;

  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    document.addEventListener("visibilitychange", () => this.#ask());
  }

  /** The server is there, again or as another one, or it has been given a key. */
  renew() {
    this.#absent = false;
    this.#ask();
  }

  /** Unless a question is already out; `renew`, and coming to the front, go on where it pauses. */
  async #ask() {
    clearTimeout(this.#timer);
    const { ready, key, onAnswer, onAbsent } = this.options;
    if (this.#asking || this.#absent || document.hidden || !ready()) return;
    this.#asking = true;
    try {
      onAnswer(await readStanding({ signal: AbortSignal.timeout(PATIENCE_MS), key: key() }));
    } catch (error) {
      this.#absent = error instanceof ApiError && ABSENT.includes(error.status);
      if (this.#absent) onAbsent();
      else onAnswer(null);
    }
    this.#asking = false;
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#ask(), PAUSE_MS);
  }
}
