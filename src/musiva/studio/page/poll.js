// @ts-check
/** A question that is asked again and again, while somebody looks. */

import { ApiError } from "./api.js";

/**
 * @template T
 * @typedef {Object} Options
 * @property {(options: {signal: AbortSignal, key: string | null}) => Promise<T>} read
 * @property {() => boolean} ready whether the server is there
 * @property {() => string | null} key
 * @property {(answer: T | null) => boolean | void} onAnswer null when it could not tell; false: that
 *   is all there will be, until `renew`
 * @property {() => void} onAbsent this server does not tell
 */

const PAUSE_MS = 2000;
const PATIENCE_MS = 6000;
/** Of a server that has no such route, or wants a key first. */
const ABSENT = [401, 403, 404, 405];

/** @template T */
export class Poll {
  /** @type {number | undefined} */
  #timer;
  #asking = false;
  #over = false;

  /** @param {Options<T>} options */
  constructor(options) {
    this.options = options;
    document.addEventListener("visibilitychange", () => this.#ask());
  }

  /** The server is there, again or as another one, or it has been given a key. */
  renew() {
    this.#over = false;
    this.#ask();
  }

  /** Unless a question is already out; `renew`, and coming to the front, go on where it pauses. */
  async #ask() {
    clearTimeout(this.#timer);
    const { read, ready, key, onAnswer, onAbsent } = this.options;
    if (this.#asking || this.#over || document.hidden || !ready()) return;
    this.#asking = true;
    try {
      const answer = await read({ signal: AbortSignal.timeout(PATIENCE_MS), key: key() });
      this.#over = onAnswer(answer) === false;
    } catch (error) {
      this.#over = error instanceof ApiError && ABSENT.includes(error.status);
      if (this.#over) onAbsent();
      else onAnswer(null);
    }
    this.#asking = false;
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#ask(), PAUSE_MS);
  }
}
