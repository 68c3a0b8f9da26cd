// @ts-check
/** The server's HTTP API: JSON answers, and pictures as server-sent events. */

import { toJson } from "./parameters.js";

/** @typedef {import("./parameters.js").Parameters} Parameters */
/**
 * @typedef {Object} Model what /v1/models tells: defaults and limits
 * @property {string} id
 * @property {string} size
 * @property {string[]} sizes
 * @property {number} size_multiple
 * @property {number} min_side
 * @property {number} max_side
 * @property {number} max_images
 * @property {number} steps
 * @property {number} max_steps
 * @property {number} guidance_scale
 * @property {number} max_guidance_scale
 * @property {string} sampler
 * @property {string[]} samplers
 * @property {Record<string, string[]>} spacings of each sampler
 * @property {number | null} shift null where a shift has no meaning
 * @property {number} [frames] of a clip by default
 * @property {number} [min_frames]
 * @property {number} [max_frames]
 * @property {number} [frame_step] between two counts that are allowed
 * @property {number | null} [fps] null for a model of pictures
 * @property {string[]} policies
 * @property {boolean} [calibrated] whether qualities below 100 may be asked for
 */
/**
 * @typedef {Object} Health
 * @property {string} status
 * @property {string} model
 * @property {number} waiting
 * @property {number} running
 * @property {string} instance a new one at each start of the server
 * @property {string} version
 */
/**
 * @typedef {Object} Standing how busy the server is
 * @property {number} waiting requests
 * @property {number} running
 * @property {number} backlog_seconds of work, done as exactly as now
 * @property {number} backlog_floor_seconds with all requests at their lowest qualities
 * @property {number} goodput pictures a second that were on time, of the last minute
 * @property {number | null} attainment their share of all that ended or was refused then
 * @property {number} refused requests of that minute
 * @property {number | null} quality mean of what is used now
 */
/**
 * @typedef {Object} Worker one of the server's
 * @property {number} worker its place, from 0
 * @property {"starting" | "ready" | "draining" | "gone"} phase
 * @property {number} life which of the workers that had its place, from 1
 * @property {number} requests
 * @property {number} waiting those of them that have not begun
 * @property {number} work_seconds that are left
 * @property {number} steps that it has made
 * @property {number} store_bytes of the pages that it keeps
 * @property {number} found pages of the cluster that it asked for
 * @property {number} not_found
 * @property {string | null} host the machine that it is on
 * @property {Link[]} links what it sends, and to whom
 */
/**
 * @typedef {Object} Link
 * @property {"server" | "ranks" | "host"} kind to this server, between its ranks, to a host with pages
 * @property {string} other what is at the other end
 * @property {number} sent_bytes
 * @property {number} received_bytes
 * @property {number} transfers messages, exchanges, or pages
 * @property {number} seconds that were waited for them
 * @property {number | null} latency seconds of something small
 * @property {number | null} bytes_per_second of what is large
 */
/** @typedef {{quality: number, finish_seconds: number, work_seconds: number, refusal: string | null}} Estimate */
/** @typedef {{deadline: number | null, estimates: Estimate[]}} Estimates for each lowest quality, the most exact first */
/** @typedef {{queue: number, encode: number, denoise: number, decode: number, total: number}} Seconds */
/**
 * @typedef {Object} PictureEvent
 * @property {string} type
 * @property {string} [b64_json]
 * @property {string} [output_format]
 * @property {number} [index] which picture of the request
 * @property {number} [evaluation]
 * @property {number} [num_evaluations]
 * @property {number | boolean} [computed] evaluations computed in full; of a partial image whether
 *   the model ran at its evaluation
 * @property {number} [share] of the dense run that was computed so far
 * @property {number[] | null} [tiles] [rows, columns], null where the policy has none
 * @property {number[] | null} [active_tiles] 1 for each that the evaluation computed, row by row
 * @property {number | null} [waiting] requests before it, null once it runs
 * @property {number | string | null} [quality] of progress a number, that is used now
 * @property {number | null} [predicted_seconds] until all its pictures should be there, at the beginning
 * @property {number} [quality_promised] of a finished picture, as all that follows
 * @property {number} [quality_used] the lowest
 * @property {boolean | null} [deadline_met] null without one
 * @property {Seconds} [seconds] where the time went
 * @property {string[]} [warnings]
 * @property {ErrorDetail} [error]
 */
/**
 * @typedef {Object} ErrorDetail
 * @property {string} [message]
 * @property {string} [type]
 * @property {string | null} [code]
 * @property {string | null} [param] the field that it is about
 * @property {number | null} [predicted_seconds] after which the pictures would have been there
 * @property {number | null} [retry_seconds] after which to ask again
 */

export const PREVIEWS = 6;
const JSON_BODY = { "Content-Type": "application/json" };

/** The server answered, and the answer is an error. retryAfter: seconds, where it told. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {ErrorDetail} error
   * @param {number | null} retryAfter seconds
   */
  constructor(status, error, retryAfter = null) {
    super(error.message ?? `The server answered ${status}.`);
    this.status = status;
    this.code = error.code ?? null;
    this.param = error.param ?? null;
    this.predicted = error.predicted_seconds ?? null;
    this.retryAfter = error.retry_seconds ?? retryAfter;
  }
}

/** There was no answer, or it broke off. */
export class ConnectionLost extends Error {}

/**
 * @param {string} path
 * @param {RequestInit} options
 * @param {string | null} key
 * @returns {Promise<Response>} one that is ok; raises ApiError, ConnectionLost, AbortError
 */
async function ask(path, options, key) {
  const headers = new Headers(options.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    throw lost(error);
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  throw new ApiError(response.status, answer?.error ?? {}, retryAfter(response.headers));
}

/**
 * @template T
 * @param {string} path
 * @param {RequestInit} options
 * @param {string | null} key
 * @returns {Promise<T>}
 */
async function readJson(path, options, key) {
  const response = await ask(path, options, key);
  try {
    return await response.json();
  } catch (error) {
    throw lost(error);
  }
}

/**
 * @param {AbortSignal} signal
 * @returns {Promise<Health>}
 */
export function readHealth(signal) {
  return readJson("/healthz", { signal }, null);
}

/**
 * @param {string | null} key
 * @returns {Promise<Model>}
 */
export async function readModel(key) {
  const { data } = await readJson("/v1/models", {}, key);
  return data[0];
}

/**
 * @param {{signal: AbortSignal, key: string | null}} options
 * @returns {Promise<Standing>}
 */
export function readStanding({ signal, key }) {
  return readJson("/v1/standing", { signal }, key);
}

/**
 * @param {{signal: AbortSignal, key: string | null}} options
 * @returns {Promise<{workers: Worker[]}>}
 */
export function readCluster({ signal, key }) {
  return readJson("/v1/cluster", { signal }, key);
}

/**
 * What a request would get that came now.
 *
 * @param {Parameters} parameters
 * @param {{signal: AbortSignal, key: string | null}} options
 * @returns {Promise<Estimates>}
 */
export function readEstimates(parameters, { signal, key }) {
  return readJson("/v1/estimates", { method: "POST", headers: JSON_BODY, body: toJson(parameters), signal }, key);
}

/**
 * Ask for pictures, and give what happens to them. Raises ApiError, ConnectionLost when the events
 * end before the last picture is there or the connection breaks, AbortError when `signal` says so.
 *
 * @param {Parameters} parameters
 * @param {{signal: AbortSignal, key: string | null}} options
 * @returns {AsyncGenerator<PictureEvent>}
 */
export async function* generate(parameters, { signal, key }) {
  // A JPEG is made in a fifteenth of a PNG's time.
  const previews = { partial_images: PREVIEWS, partial_format: "jpeg" };
  const more = { stream: true, progress: true, ...previews };
  const headers = { ...JSON_BODY, Accept: "text/event-stream" };
  const body = toJson({ ...parameters, ...more });
  const response = await ask("/v1/images/generations", { method: "POST", headers, body, signal }, key);
  if (!response.body) throw new ConnectionLost("no answer");
  let missing = parameters.n ?? 1;
  for await (const text of messages(response.body)) {
    /** @type {PictureEvent} */
    const event = JSON.parse(text);
    if (event.type === "error") throw new ApiError(streamStatus(event), event.error ?? {});
    yield event;
    if (event.type === "image_generation.completed") missing -= 1;
  }
  if (missing > 0) throw new ConnectionLost("the answer ended early");
}

/**
 * The data of server-sent events (HTML standard, 9.2), as they arrive in pieces of any length.
 *
 * @param {ReadableStream<Uint8Array>} stream
 * @returns {AsyncGenerator<string>}
 */
export async function* messages(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  /** @type {string[]} */
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } catch (error) {
    throw lost(error);
  } finally {
    // Leaving early closes the connection, which is how the server learns of it.
    reader.cancel().catch(() => {});
  }
}

/** @param {PictureEvent} event */
function streamStatus(event) {
  if (event.error?.type === "rate_limit_error") return 429;
  if (event.error?.code === "unavailable") return 503;
  return event.error?.type === "server_error" ? 500 : 400;
}

/** @param {Headers} headers */
function retryAfter(headers) {
  const text = headers.get("Retry-After");
  if (text === null) return null;
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(seconds, 0) : null;
}

/** @param {unknown} error */
function lost(error) {
  if (error instanceof DOMException && error.name === "AbortError") return error;
  return error instanceof TypeError ? new ConnectionLost(error.message) : error;
}
