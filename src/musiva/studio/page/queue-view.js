// @ts-check
/** The requests that are not done: how far each is, and a way to end it. */

import { at, button, count, h } from "./dom.js";

/** @typedef {import("./queue.js").Queue} Queue */
/** @typedef {import("./queue.js").Request} Request */
/**
 * @typedef {Object} Row
 * @property {HTMLElement} root
 * @property {HTMLElement} status
 * @property {HTMLProgressElement} bar
 * @property {HTMLElement} tools
 */

export class QueueView {
  /** @type {Map<string, Row>} */
  #rows = new Map();

  /**
   * @param {Queue} queue
   * @param {(request: Request) => void} onEdit
   */
  constructor(queue, onEdit) {
    this.queue = queue;
    this.onEdit = onEdit;
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
    const failed = request.status === "failed";
    if (row.tools.dataset.failed === String(failed)) return;
    row.tools.dataset.failed = String(failed);
    const cancel = button({ icon: "close", label: `${failed ? "Remove" : "Cancel"}: ${prompt}` }, () => this.#cancel([request]));
    const retry = button({ icon: "again", label: `Try again: ${prompt}` }, () => this.queue.retry(request));
    const edit = button({ icon: "edit", label: `Edit: ${prompt}` }, () => this.onEdit(request));
    row.tools.replaceChildren(...(failed ? [edit, retry, cancel] : [cancel]));
  }

  /** @param {Request} request */
  #build(request) {
    const { prompt, n = 1 } = request.parameters;
    const status = h("p", { class: "soft" });
    const bar = h("progress", { max: 1, "aria-label": `Progress: ${prompt}` });
    const tools = h("div", { class: "row-tools" });
    const title = h("p", { class: "row-title", text: n > 1 ? `${prompt} (${count(n, "picture")})` : prompt });
    const root = h("li", { class: "row" }, h("div", { class: "row-text" }, title, status, bar), tools);
    const row = { root, status, bar, tools };
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

/** @param {Request} request */
function inWords(request) {
  const { n = 1 } = request.parameters;
  const going = [...request.progress.values()].find(({ evaluation, evaluations }) => evaluation < evaluations);
  switch (request.status) {
    case "waiting":
      return "Waiting for its turn";
    case "sent":
      return request.ahead ? `At the server, ${request.ahead} before it` : "At the server";
    case "running":
      if (n > 1) return `${request.done.length} of ${n} pictures done`;
      return going ? `Evaluation ${going.evaluation} of ${going.evaluations}` : "Running";
    case "lost":
      return "The connection is lost; it will be sent again";
    case "busy":
      return "The server is busy; it will be sent again soon";
    case "locked":
      return "Waits for an API key";
    case "failed":
      return request.error?.message ?? "Failed";
  }
}
