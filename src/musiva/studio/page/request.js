// @ts-check
/** One request of this tab: its pictures, how far each is, and how much time it has. */

/** @typedef {import("./parameters.js").Parameters} Parameters */
/**
 * @typedef {"waiting" | "sent" | "running" | "lost" | "busy" | "locked" | "later" | "failed"} Status
 *   waiting: not sent yet. lost: the connection broke. busy: the server said to come back later.
 *   locked: the server wants an API key. later: refused, and to be sent again at `retryAt`.
 */
/**
 * @typedef {Object} Request
 * @property {string} id
 * @property {Parameters} parameters with a seed and the number of pictures
 * @property {number[]} done indices of the pictures that are there
 * @property {number} asked when, from where its deadline counts, in milliseconds since 1970
 * @property {Status} status
 * @property {Failure | null} error of a failed request
 * @property {number} attempts that the connection broke since the server last finished a picture
 * @property {number} started by performance.now()
 * @property {number | null} ahead requests before it in the server's queue
 * @property {number | null} finishAt when the server thinks that it is done, by performance.now()
 * @property {number | null} given seconds until its deadline when it was sent
 * @property {number} retryAt of a busy one and of one for later, by performance.now()
 * @property {Map<number, Progress>} progress by index of the picture
 * @property {AbortController | null} controller
 */
/** @typedef {{message: string, param: string | null, refusal?: Refusal | null}} Failure */
/**
 * @typedef {Object} Refusal of what would not be in time, or would make something else late
 * @property {number | null} predicted seconds that it would have taken
 * @property {number | null} retryAt when it should be possible, in milliseconds since 1970
 */
/** @typedef {{rows: number, columns: number, tiles: number[]}} Active tiles: 1 for those computed, row by row */
/**
 * @typedef {Object} Progress
 * @property {number} evaluation
 * @property {number} evaluations
 * @property {string | null} preview an address
 * @property {{computed: number, share: number} | null} spent so far, where the server tells
 * @property {Active | null} active at the last evaluation, where the policy has tiles
 * @property {number | null} quality that is used now, where the server tells
 */

/**
 * @param {Pick<Request, "id" | "parameters" | "done" | "error"> & {asked?: number}} kept
 * @returns {Request}
 */
export function fresh({ id, parameters, done, error, asked = Date.now() }) {
  const status = error ? "failed" : "waiting";
  const told = { ahead: null, finishAt: null, given: null, retryAt: 0 };
  const idle = { attempts: 0, started: 0, ...told, progress: new Map(), controller: null };
  return { id, parameters, done, asked, error, status, ...idle };
}

/** @param {Request} request */
export function indices(request) {
  return Array.from({ length: request.parameters.n ?? 1 }, (_, index) => index);
}

/** @param {Request} request */
export function missing(request) {
  return indices(request).filter((index) => !request.done.includes(index));
}

/**
 * Seconds until its deadline.
 *
 * @param {Request} request
 * @returns {number | null} null without one
 */
export function timeLeft({ parameters, asked }) {
  return parameters.deadline === undefined ? null : parameters.deadline - (Date.now() - asked) / 1000;
}

/**
 * How much of a request is done, from 0 to 1.
 *
 * @param {Request} request
 */
export function shareOf(request) {
  const { n = 1 } = request.parameters;
  let done = request.done.length;
  for (const [index, { evaluation, evaluations }] of request.progress) {
    if (!request.done.includes(index) && evaluations) done += evaluation / evaluations;
  }
  return done / n;
}

/**
 * Whether session storage held a request, and not something of another version.
 *
 * @param {any} one
 * @returns {one is Request}
 */
export function isRequest(one) {
  return typeof one?.id === "string" && typeof one.parameters?.prompt === "string" && Array.isArray(one.done);
}
