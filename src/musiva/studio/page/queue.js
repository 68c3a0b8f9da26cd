// @ts-check
/**
 * The requests of this tab. Each is kept in session storage until its pictures are there, so that
 * after a reload, or when the server comes back, it is sent again; its seed makes it the same one.
 */

import { ApiError, ConnectionLost, generate } from "./api.js";
import { keep, load } from "./kept.js";
import { seedOf } from "./parameters.js";

/** @typedef {import("./parameters.js").Parameters} Parameters */
/** @typedef {import("./api.js").PictureEvent} PictureEvent */
/**
 * @typedef {"waiting" | "sent" | "running" | "lost" | "busy" | "locked" | "failed"} Status
 *   waiting: not sent yet. lost: the connection broke. busy: the server said to come back later.
 *   locked: the server wants an API key.
 */
/**
 * @typedef {Object} Request
 * @property {string} id
 * @property {Parameters} parameters with a seed and the number of pictures
 * @property {number[]} done indices of the pictures that are there
 * @property {Status} status
 * @property {{message: string, param: string | null} | null} error of a failed request
 * @property {number} attempts that the connection broke since the server last finished a picture
 * @property {number} started by performance.now()
 * @property {number | null} ahead requests before it in the server's queue
 * @property {number} retryAt of a busy one, by performance.now()
 * @property {Map<number, Progress>} progress by index of the picture
 * @property {AbortController | null} controller
 */
/** @typedef {{rows: number, columns: number, tiles: number[]}} Active tiles: 1 for those computed, row by row */
/**
 * @typedef {Object} Progress
 * @property {number} evaluation
 * @property {number} evaluations
 * @property {string | null} preview an address
 * @property {{computed: number, share: number} | null} spent so far, where the server tells
 * @property {Active | null} active at the last evaluation, where the policy has tiles
 */
/**
 * @typedef {Object} Listeners
 * @property {(request: Request, index: number, event: PictureEvent) => Promise<void>} onPicture
 *   returns when the picture is kept
 * @property {() => void} onChange
 * @property {(request: Request) => void} onEnd all its pictures are there
 * @property {(request: Request) => void} onFailed
 * @property {() => void} onLocked
 */

/** The server packs requests of all users; a browser has six connections for all tabs. */
const IN_FLIGHT = 2;
const MAX_ATTEMPTS = 6;
const BUSY_SECONDS = 5;

export class Queue {
  /** @type {Request[]} */
  requests = [];
  /** The API key, once the server wanted one. @type {string | null} */
  key = /** @type {string | null} */ (load("tab", "key"));
  /** Whether a reload loses nothing. */
  kept = true;

  /**
   * @param {import("./connection.js").Connection} connection
   * @param {Listeners} listeners
   */
  constructor(connection, listeners) {
    this.connection = connection;
    this.listeners = listeners;
  }

  get active() {
    return this.requests.filter((request) => request.status !== "failed");
  }

  /**
   * @param {Parameters} parameters
   * @returns {Request}
   */
  add(parameters) {
    const id = [...crypto.getRandomValues(new Uint8Array(9))].map((byte) => byte.toString(36)).join("");
    const request = fresh({ id, parameters, done: [], error: null });
    this.requests.push(request);
    this.#changed();
    this.#pump();
    return request;
  }

  /** @param {Request[]} requests */
  cancel(requests) {
    this.requests = this.requests.filter((request) => !requests.includes(request));
    for (const request of requests) request.controller?.abort();
    this.#changed();
    this.#pump();
  }

  /** @param {Request} request a failed one */
  retry(request) {
    Object.assign(request, fresh({ ...request, error: null }));
    this.#changed();
    this.#pump();
  }

  /** @param {string} key */
  unlock(key) {
    this.key = key;
    keep("tab", "key", key);
    for (const request of this.#with("locked")) request.status = "waiting";
    this.#changed();
    this.#pump();
  }

  /**
   * Bring back what an earlier life of this tab left. @returns {number} how many will be sent again
   *
   * @param {(request: Request, index: number) => boolean} isThere whether a picture was kept
   */
  restore(isThere) {
    const found = load("tab", "queue");
    for (const one of Array.isArray(found) ? found.filter(isRequest) : []) {
      const request = fresh(one);
      request.done = indices(request).filter((index) => isThere(request, index));
      if (missing(request).length) this.requests.push(request);
    }
    this.#changed();
    return this.active.length;
  }

  /** The server answers: send what the broken connection took along. @returns {number} how many */
  resume() {
    const lost = this.#with("lost");
    for (const request of lost) request.status = "waiting";
    this.#changed();
    this.#pump();
    return lost.length;
  }

  /** @param {Status[]} statuses */
  #with(...statuses) {
    return this.requests.filter((request) => statuses.includes(request.status));
  }

  #pump() {
    const now = performance.now();
    const rested = this.#with("busy").every((request) => request.retryAt <= now);
    if (!this.connection.ready || !rested || this.#with("locked").length) return;
    for (const request of this.#with("busy")) request.status = "waiting";
    const free = IN_FLIGHT - this.#with("sent", "running").length;
    for (const request of this.#with("waiting").slice(0, Math.max(free, 0))) this.#send(request);
  }

  /** @param {Request} request */
  async #send(request) {
    const wanted = missing(request);
    const [first = 0] = wanted;
    const n = (wanted.at(-1) ?? 0) - first + 1;
    const parameters = { ...request.parameters, seed: seedOf(request.parameters, first), n };
    const controller = new AbortController();
    const before = { progress: new Map(), ahead: null, started: performance.now() };
    Object.assign(request, before, { status: "sent", controller });
    this.#changed();
    try {
      for await (const event of generate(parameters, { signal: controller.signal, key: this.key })) {
        this.connection.sign();
        await this.#enter(request, first + (event.index ?? 0), event);
      }
      this.requests = this.requests.filter((one) => one !== request);
      this.listeners.onEnd(request);
    } catch (error) {
      if (!controller.signal.aborted) this.#failed(request, error);
    } finally {
      this.#changed();
      this.#pump();
    }
  }

  /**
   * @param {Request} request
   * @param {number} index
   * @param {PictureEvent} event
   */
  async #enter(request, index, event) {
    const known = request.progress.get(index) ?? { evaluation: 0, evaluations: 0, preview: null, spent: null, active: null };
    const { computed, share, tiles, active_tiles: active } = event;
    if (typeof computed === "number" && share !== undefined) known.spent = { computed, share };
    const [rows, columns] = tiles ?? [];
    if (rows && columns && active) known.active = { rows, columns, tiles: active };
    if (event.type === "image_generation.completed") {
      if (!request.done.includes(index)) {
        await this.listeners.onPicture(request, index, event);
        request.done.push(index);
      }
      known.evaluation = known.evaluations;
      request.attempts = 0;
    } else {
      request.ahead = event.waiting ?? null;
      if (request.ahead === null) request.status = "running";
      known.evaluation = event.evaluation ?? known.evaluation;
      known.evaluations = event.num_evaluations ?? known.evaluations;
      if (event.b64_json) known.preview = `data:image/${event.output_format ?? "png"};base64,${event.b64_json}`;
    }
    request.progress.set(index, known);
    this.#changed();
  }

  /**
   * @param {Request} request
   * @param {unknown} error
   */
  #failed(request, error) {
    const status = error instanceof ApiError ? error.status : null;
    const broken = error instanceof ConnectionLost || [502, 503, 504].includes(status ?? 0);
    if (error instanceof ApiError && status === 429) {
      const seconds = error.retryAfter ?? BUSY_SECONDS;
      Object.assign(request, { status: "busy", retryAt: performance.now() + 1000 * seconds });
      setTimeout(() => this.#pump(), 1000 * seconds + 10);
    } else if (status === 401) {
      request.status = "locked";
      this.listeners.onLocked();
    } else if (broken && ++request.attempts < MAX_ATTEMPTS) {
      request.status = "lost";
      this.connection.lost();
    } else {
      const message = broken ? `The connection broke ${MAX_ATTEMPTS} times.` : String(/** @type {Error} */ (error).message);
      request.status = "failed";
      request.error = { message, param: error instanceof ApiError ? error.param : null };
      this.listeners.onFailed(request);
    }
  }

  #changed() {
    const stored = this.requests.map(({ id, parameters, done, error }) => ({ id, parameters, done, error }));
    this.kept = keep("tab", "queue", stored.length ? stored : null);
    this.listeners.onChange();
  }
}

/**
 * @param {Pick<Request, "id" | "parameters" | "done" | "error">} kept
 * @returns {Request}
 */
function fresh({ id, parameters, done, error }) {
  const status = error ? "failed" : "waiting";
  const idle = { attempts: 0, started: 0, ahead: null, retryAt: 0, progress: new Map(), controller: null };
  return { id, parameters, done, error, status, ...idle };
}

/** @param {Request} request */
export function indices(request) {
  return Array.from({ length: request.parameters.n ?? 1 }, (_, index) => index);
}

/** @param {Request} request */
function missing(request) {
  return indices(request).filter((index) => !request.done.includes(index));
}

/**
 * Whether session storage held a request, and not something of another version.
 *
 * @param {any} one
 * @returns {one is Request}
 */
function isRequest(one) {
  return typeof one?.id === "string" && typeof one.parameters?.prompt === "string" && Array.isArray(one.done);
}
