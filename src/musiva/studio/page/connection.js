// @ts-check
/** Whether the server is there, which one it is, and how busy: /healthz, asked again and again. */

import { ApiError, readHealth } from "./api.js";

/** @typedef {import("./api.js").Health} Health */
/**
 * @typedef {Object} State
 * @property {"connecting" | "ready" | "faulty" | "lost"} kind
 * @property {Health | null} health of the last good answer
 * @property {string} [message] of a faulty server
 */

const IDLE_MS = 8000;
const BUSY_MS = 2000;
const RETRY_MS = [300, 600, 1000, 2000, 3000];
const PATIENCE_MS = 6000;

export class Connection {
  /** @type {State} */
  state = { kind: "connecting", health: null };
  /** @type {number | undefined} */
  #timer;
  #failures = 0;
  #lastSign = -Infinity;
  #lostAt = -Infinity;
  /** @type {Promise<void> | null} */
  #asking = null;

  /**
   * @param {Object} options
   * @param {(state: State) => void} options.onState
   * @param {(restarted: boolean) => void} options.onReady the first answer, and each one after a
   *   pause; restarted: the server is another one than before
   * @param {() => boolean} options.busy whether requests of this tab are under way
   */
  constructor({ onState, onReady, busy }) {
    this.onState = onState;
    this.onReady = onReady;
    this.busy = busy;
    // A tab that comes to the front shows the truth at once, and one behind asks nothing.
    document.addEventListener("visibilitychange", () => this.check());
    addEventListener("online", () => this.check());
  }

  get ready() {
    return this.state.kind === "ready";
  }

  /** The server has just been heard from in another way. */
  sign() {
    this.#lastSign = performance.now();
  }

  /**
   * A request found the connection broken: nothing is sent until /healthz answers. A server that
   * goes away may still answer for a moment.
   */
  lost() {
    this.#lostAt = performance.now();
    this.#enter({ kind: "lost", health: this.state.health });
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.check(), RETRY_MS[0]);
  }

  /** Ask now, unless a question is already out. */
  check() {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
      clearTimeout(this.#timer);
      const idle = document.hidden && !this.busy() && this.ready;
      if (!idle) this.#timer = window.setTimeout(() => this.check(), this.#pause());
    });
    return this.#asking;
  }

  #pause() {
    if (!this.ready) return RETRY_MS[Math.min(this.#failures, RETRY_MS.length) - 1] ?? RETRY_MS[0];
    return this.busy() ? BUSY_MS : IDLE_MS;
  }

  async #ask() {
    const asked = performance.now();
    try {
      const health = await readHealth(AbortSignal.timeout(PATIENCE_MS));
      if (asked < this.#lostAt) return;
      this.#enter({ kind: "ready", health });
      this.#failures = 0;
    } catch (error) {
      this.#failures += 1;
      // Streams of other tabs may hold all connections; while ours bring events, all is well.
      if (this.ready && this.#lastSign > asked) return;
      const { health } = this.state;
      if (error instanceof ApiError) this.#enter({ kind: "faulty", health, message: error.message });
      else this.#enter({ kind: "lost", health });
    }
  }

  /** @param {State} next */
  #enter(next) {
    const before = this.state;
    this.state = next;
    this.onState(next);
    const { instance } = before.health ?? {};
    const restarted = instance !== undefined && instance !== next.health?.instance;
    if (next.kind === "ready" && (before.kind !== "ready" || restarted)) this.onReady(restarted);
  }
}
