// @ts-check
/**
 * The requests of this tab. Each is kept in session storage until its pictures are there, so that
 * after a reload, or when the server comes back, it is sent again; its seed makes it the same one.
 */

import { ApiError, ConnectionLost, generate } from "./api.js";
import { keep, load } from "./kept.js";
import { seedOf } from "./parameters.js";
import { fresh, indices, isRequest, missing, timeLeft } from "./request.js";
import { inSeconds } from "./times.js";

/** @typedef {import("./parameters.js").Parameters} Parameters */
/** @typedef {import("./api.js").PictureEvent} PictureEvent */
/** @typedef {import("./request.js").Request} Request */
/** @typedef {import("./request.js").Status} Status */
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

  /**
   * @param {Request} request a failed one
   * @param {Parameters} [parameters] others than before
   */
  retry(request, parameters = request.parameters) {
    Object.assign(request, fresh({ ...request, parameters, error: null, asked: Date.now() }));
    this.#changed();
    this.#pump();
  }

  /** @param {Request} request a refused one, to be sent again when the server said */
  retryLater(request) {
    const seconds = Math.max(((request.error?.refusal?.retryAt ?? 0) - Date.now()) / 1000, 0);
    Object.assign(request, { status: "later", retryAt: performance.now() + 1000 * seconds });
    this.#pumpIn(seconds);
    this.#changed();
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
    for (const request of this.#with("later")) {
      if (request.retryAt <= now) Object.assign(request, fresh({ ...request, error: null, asked: Date.now() }));
    }
    // A deadline counts from when it was asked for, wherever the request has been since.
    for (const request of this.#with("waiting")) {
      if ((timeLeft(request) ?? Infinity) <= 0) this.#refuse(request, "Its deadline passed before it could be sent.");
    }
    const free = IN_FLIGHT - this.#with("sent", "running").length;
    for (const request of this.#with("waiting").slice(0, Math.max(free, 0))) this.#send(request);
  }

  /** @param {number} seconds */
  #pumpIn(seconds) {
    setTimeout(() => this.#pump(), 1000 * seconds + 10);
  }

  /** @param {Request} request */
  async #send(request) {
    const wanted = missing(request);
    const [first = 0] = wanted;
    const n = (wanted.at(-1) ?? 0) - first + 1;
    const left = timeLeft(request);
    const given = left === null ? null : Math.ceil(1000 * left) / 1000;
    const parameters = { ...request.parameters, seed: seedOf(request.parameters, first), n, deadline: given ?? undefined };
    const controller = new AbortController();
    const before = { progress: new Map(), ahead: null, finishAt: null, given, started: performance.now() };
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
    const known = request.progress.get(index) ?? { evaluation: 0, evaluations: 0, preview: null, spent: null, active: null, quality: null };
    const { computed, share, tiles, active_tiles: active, predicted_seconds: predicted } = event;
    if (typeof predicted === "number") request.finishAt = performance.now() + 1000 * predicted;
    // OpenAI's word of the same name is another thing.
    if (typeof event.quality === "number") known.quality = event.quality;
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
    if (error instanceof ApiError && error.code === "deadline_unreachable") {
      const { predicted, retryAfter } = error;
      const retryAt = retryAfter === null ? null : Date.now() + 1000 * retryAfter;
      this.#refuse(request, unreachable(request, error), { predicted, retryAt });
    } else if (error instanceof ApiError && status === 429) {
      const seconds = error.retryAfter ?? BUSY_SECONDS;
      Object.assign(request, { status: "busy", retryAt: performance.now() + 1000 * seconds });
      this.#pumpIn(seconds);
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

  /**
   * @param {Request} request that cannot be there in time
   * @param {string} message
   * @param {import("./request.js").Refusal} [refusal]
   */
  #refuse(request, message, refusal = { predicted: null, retryAt: null }) {
    Object.assign(request, { status: "failed", error: { message, param: null, refusal } });
    this.listeners.onFailed(request);
    this.#changed();
  }

  #changed() {
    const stored = this.requests.map(({ id, parameters, done, error, asked }) => ({ id, parameters, done, error, asked }));
    this.kept = keep("tab", "queue", stored.length ? stored : null);
    this.listeners.onChange();
  }
}

/**
 * Why a request was refused, in words.
 *
 * @param {Request} request
 * @param {ApiError} error
 */
function unreachable({ given }, { predicted, message }) {
  if (given === null || predicted === null || predicted <= given) return `Refused: ${message}`;
  return `Refused: it would be there in about ${inSeconds(predicted)}, and has ${inSeconds(given)}.`;
}
