// @ts-check
/** The requests that are not done: how far each is, and a way to end it. */

import { at, button, count, h } from "./dom.js";
import { shareOf, timeLeft } from "./request.js";
import { inWholeSeconds } from "./times.js";

/** @typedef {import("./queue.js").Queue} Queue */
/** @typedef {import("./request.js").Request} Request */
/**
 * @typedef {Object} Actions
 * @property {(request: Request) => void} edit
 * @property {(request: Request) => void} lower try a refused one with a lower quality
 * @property {(request: Request) => boolean} mayLower whether there is one
 */
/**
 * @typedef {Object} Row
 * @property {HTMLElement} root
 * @property {HTMLElement} status
 * @property {HTMLProgressElement} bar
 * @property {HTMLElement} tools
 * @property {HTMLElement} offers
 * @property {HTMLButtonElement} again
 */

export class QueueView {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** @type {number | undefined} */
  #timer;

  /**
   * @param {Queue} queue
   * @param {Actions} actions
   */
  constructor(queue, actions) {
    this.queue = queue;
    this.actions = actions;
    at("cancel-all").addEventListener("click", () => this.#cancel(queue.requests));
  }

  show() {
    const { requests } = this.queue;
    at("queue").hidden = requests.length === 0;
    at("queue-heading").textContent = count(requests.length, "request");
    at("cancel-all").hidden = requests.length < 2;
    for (const [id, row] of this.#rows) {
      if (requests.some((request) => request.id === id)) continue;
      // Whoever was on the row of a request that has ended stays near it.
      if (row.root.contains(document.activeElement)) at("prompt").focus();
      row.root.remove();
      this.#rows.delete(id);
    }
    for (const request of requests) this.#update(request);
    clearTimeout(this.#timer);
    if (requests.some(countsDown)) this.#timer = window.setTimeout(() => this.show(), 1000);
  }

  /** @param {Request} request */
  #update(request) {
    const row = this.#rows.get(request.id) ?? this.#build(request);
    const { prompt } = request.parameters;
    const share = shareOf(request);
    if (request.status === "running") row.bar.value = share;
    else row.bar.removeAttribute("value");
    row.bar.hidden = !["sent", "running"].includes(request.status);
    row.root.dataset.status = request.status;
    const words = inWords(request);
    if (row.status.textContent !== words) row.status.textContent = words;
    say(row.again, againInWords(request), prompt);
    this.#offer(request, row);
  }

  /**
   * What can be done with a request, which changes when it fails.
   *
   * @param {Request} request
   * @param {Row} row
   */
  #offer(request, { tools, offers, again }) {
    const failed = request.status === "failed";
    const refused = failed && Boolean(request.error?.refusal);
    const kind = refused ? "refused" : String(failed);
    if (tools.dataset.kind === kind) return;
    tools.dataset.kind = kind;
    const held = tools.contains(document.activeElement) || offers.contains(document.activeElement);
    const { prompt, deadline, ...rest } = request.parameters;
    const cancel = button({ icon: "close", label: `${failed ? "Remove" : "Cancel"}: ${prompt}` }, () => this.#cancel([request]));
    const retry = button({ icon: "again", label: `Try again: ${prompt}` }, () => this.queue.retry(request));
    const edit = button({ icon: "edit", label: `Edit: ${prompt}` }, () => this.actions.edit(request));
    tools.replaceChildren(...(failed ? [edit, ...(refused ? [] : [retry]), cancel] : [cancel]));
    offers.hidden = !refused;
    const lower = link(() => this.actions.lower(request));
    say(lower, "Try a lower quality", prompt);
    const without = link(() => this.queue.retry(request, { prompt, ...rest }));
    say(without, "Try without deadline", prompt);
    lower.hidden = !this.actions.mayLower(request);
    without.hidden = deadline === undefined;
    offers.replaceChildren(lower, without, again);
    if (held) tools.querySelector("button")?.focus();
  }

  /** @param {Request} request */
  #build(request) {
    const { prompt, n = 1 } = request.parameters;
    const status = h("p", { class: "soft" });
    const bar = h("progress", { max: 1, "aria-label": `Progress: ${prompt}` });
    const tools = h("div", { class: "row-tools" });
    const offers = h("div", { class: "row-offers", hidden: true });
    const again = link(() => {
      if (secondsToRetry(request) > 0) this.queue.retryLater(request);
      else this.queue.retry(request);
    });
    const title = h("p", { class: "row-title", text: n > 1 ? `${prompt} (${count(n, "picture")})` : prompt });
    const root = h("li", { class: "row" }, h("div", { class: "row-text" }, title, status, bar, offers), tools);
    const row = { root, status, bar, tools, offers, again };
    this.#rows.set(request.id, row);
    at("queue-list").append(root);
    return row;
  }

  /** @param {Request[]} requests */
  #cancel(requests) {
    this.queue.cancel(requests);
    at("prompt").focus();
  }
}

/** @param {() => void} click */
function link(click) {
  return h("button", { type: "button", class: "link", click });
}

/**
 * The words of a button, and beside them, for those who hear it alone, which request it is about.
 *
 * @param {HTMLButtonElement} element
 * @param {string} text
 * @param {string} prompt
 */
function say(element, text, prompt) {
  if (element.textContent === text) return;
  element.textContent = text;
  element.setAttribute("aria-label", `${text}: ${prompt}`);
}

/** @param {Request} request a refused one */
function secondsToRetry({ error }) {
  return ((error?.refusal?.retryAt ?? 0) - Date.now()) / 1000;
}

/** @param {Request} request */
function againInWords(request) {
  const seconds = secondsToRetry(request);
  return seconds > 0 ? `Try again in ${inWholeSeconds(seconds)}` : "Try again";
}

/** @param {Request} request whether its row says another thing each second */
function countsDown(request) {
  if (request.status === "failed") return secondsToRetry(request) > 0;
  return request.status === "later" || request.finishAt !== null || request.parameters.deadline !== undefined;
}

/** @param {Request} request */
function inWords(request) {
  switch (request.status) {
    case "waiting":
      return `Waiting for its turn${timesInWords(request)}`;
    case "sent":
      return `At the server${request.ahead ? `, ${request.ahead} before it` : ""}${timesInWords(request)}`;
    case "running":
      return `${progressInWords(request)}${timesInWords(request)}`;
    case "lost":
      return "The connection is lost; it will be sent again";
    case "busy":
      return "The server is busy; it will be sent again soon";
    case "locked":
      return "Waits for an API key";
    case "later":
      return `Will be sent again in ${inWholeSeconds((request.retryAt - performance.now()) / 1000)}`;
    case "failed":
      return request.error?.message ?? "Failed";
  }
}

/** @param {Request} request */
function progressInWords({ parameters, done, progress }) {
  const { n = 1, max_quality: ceiling } = parameters;
  const going = [...progress.values()].find(({ evaluation, evaluations }) => evaluation < evaluations);
  if (n > 1) return `${done.length} of ${n} pictures done`;
  if (!going) return "Running";
  const quality = ceiling !== undefined && going.quality !== null ? ` at quality ${going.quality}` : "";
  return `Evaluation ${going.evaluation} of ${going.evaluations}${quality}`;
}

/** @param {Request} request when it should be there, and how long it may take */
function timesInWords(request) {
  const { finishAt } = request;
  const left = timeLeft(request);
  const ready = finishAt === null ? null : (finishAt - performance.now()) / 1000;
  const words = [];
  if (ready !== null) words.push(ready > 0 ? `ready in about ${inWholeSeconds(ready)}` : "ready soon");
  if (left !== null) words.push(left > 0 ? `deadline in ${inWholeSeconds(left)}` : `${inWholeSeconds(-left)} past its deadline`);
  return words.map((text) => ` · ${text}`).join("");
}
