// @ts-check
/** The studio: wires the form, the queue, the pictures and the connection. */

import { ApiError, readModel } from "./api.js";
import { Compare } from "./compare.js";
import { Connection } from "./connection.js";
import { at, count, mayMove } from "./dom.js";
import { acceptPictures } from "./drop.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { listenToKeys } from "./keys.js";
import { readParameters } from "./metadata.js";
import { announce, dismiss, tell } from "./notices.js";
import { seedOf } from "./parameters.js";
import { PictureStore } from "./pictures.js";
import { Queue } from "./queue.js";
import { QueueView, shareOf } from "./queue-view.js";
import { activeTilesButton, showSpent } from "./spent.js";
import { Stage, naturalSizeButton } from "./stage.js";
import { themeButton } from "./theme.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./api.js").PictureEvent} PictureEvent */
/** @typedef {import("./connection.js").State} State */
/** @typedef {import("./parameters.js").Parameters} Parameters */
/** @typedef {import("./pictures.js").Picture} Picture */
/** @typedef {import("./queue.js").Request} Request */

const NEWS_MS = 5000;

class App {
  loaded = false;
  #version = "";
  #restart = { at: -Infinity, requests: 0 };

  constructor() {
    this.form = new Form((parameters) => this.generate(parameters));
    this.store = new PictureStore(({ removed }) => this.showPictures(removed));
    this.connection = new Connection({
      onState: (state) => this.showState(state),
      onReady: (restarted) => this.resume(restarted),
      busy: () => this.queue.active.length > 0,
    });
    this.queue = new Queue(this.connection, {
      onPicture: (request, index, event) => this.keepPicture(request, index, event),
      onChange: () => this.showQueue(),
      onEnd: (request) => announce(`Ready: ${request.parameters.prompt}`),
      onFailed: (request) => this.showFailure(request),
      onLocked: () => this.askForKey(),
    });
    const open = (/** @type {Picture} */ picture) => this.viewer.open(picture);
    const remove = (/** @type {Picture[]} */ pictures) => this.remove(pictures);
    this.compare = new Compare();
    const unit = () => this.form.model?.size_multiple ?? 1;
    this.stage = new Stage(this.store, { open, unit, suggest: (prompt) => this.form.suggest(prompt) });
    this.queueView = new QueueView(this.queue, (request) => this.edit(request));
    this.gallery = new Gallery(this.store, { open, remove, compare: (a, b) => this.compare.open(a, b) });
    this.viewer = new Viewer(this.store, {
      remove,
      reuse: (picture) => this.reuse(picture.parameters, "the picture"),
      choose: (picture) => this.gallery.toggle(picture),
    });
  }

  async start() {
    themeButton(at("theme", HTMLButtonElement));
    at("stage-tools").append(activeTilesButton(), naturalSizeButton());
    listenToKeys();
    acceptPictures({
      onParameters: (parameters, name) => this.reuse(parameters, `"${name}"`),
      onPicture: (id) => this.reuse(this.store.get(id)?.parameters, "the picture"),
    });
    at("key-form").addEventListener("submit", (event) => this.unlock(event));
    addEventListener("beforeunload", (event) => {
      if (this.queue.active.length && !this.queue.kept) event.preventDefault();
    });
    await this.store.open();
    this.loaded = true;
    const left = this.queue.restore((request, index) => this.store.get(pictureId(request, index)) !== null);
    if (left) tell(`The page was left before ${count(left, "request")} had ended: sent again.`, { topic: "connection" });
    this.showQueue();
    this.connection.check();
  }

  /** @param {Parameters} parameters */
  generate(parameters) {
    this.queue.add(parameters);
    const before = this.queue.active.length - 1;
    announce(before ? `In the queue, ${before} before it.` : "Started.");
    const behavior = mayMove() ? "smooth" : "auto";
    if (at("stage").getBoundingClientRect().top > innerHeight) at("stage").scrollIntoView({ behavior, block: "center" });
  }

  /**
   * @param {Request} request
   * @param {number} index
   * @param {PictureEvent} event
   */
  async keepPicture(request, index, event) {
    const bytes = Uint8Array.from(atob(event.b64_json ?? ""), (letter) => letter.charCodeAt(0));
    // The file knows best what it was made with; what was asked for is the next best.
    const { n: _, ...asked } = { ...request.parameters, seed: seedOf(request.parameters, index) };
    const parameters = (await readParameters(bytes)) ?? asked;
    const [width = 1, height = 1] = (parameters.size ?? "1x1").split("x").map(Number);
    const seconds = (performance.now() - request.started) / 1000;
    const type = `image/${event.output_format ?? "png"}`;
    const identity = { id: pictureId(request, index), request: request.id, created: Date.now() };
    for (const warning of event.warnings ?? []) tell(warning, { topic: "warning" });
    const { computed, share, num_evaluations: evaluations } = event;
    const told = typeof computed === "number" && share !== undefined && evaluations !== undefined;
    const spent = told ? { computed, evaluations, share } : null;
    await this.store.put([{ ...identity, width, height, type, seconds, parameters, bytes, spent }]);
  }

  /**
   * @param {Parameters | undefined} parameters
   * @param {string} source
   */
  reuse(parameters, source) {
    if (!parameters) return;
    const undo = { label: "Undo", run: this.form.fill(parameters) };
    const { model, quality = 100 } = parameters;
    const lower = quality < 100 && !this.form.model?.calibrated ? " This model is not calibrated: its quality is 100." : "";
    const other = model && this.form.model && model !== this.form.model.id ? ` It was made by the model "${model}".` : "";
    tell(`The form has the parameters of ${source}.${other}${lower}`, { topic: "drop", action: undo });
    at("prompt").focus();
  }

  /** @param {Picture[]} pictures */
  remove(pictures) {
    this.store.remove(pictures.map((picture) => picture.id));
    const undo = { label: "Undo", run: () => this.store.put(pictures) };
    tell(`${count(pictures.length, "picture")} deleted.`, { topic: "deleted", action: undo });
  }

  /** @param {string[]} removed */
  showPictures(removed) {
    this.gallery.show(removed);
    this.viewer.refresh();
    this.showQueue();
  }

  showQueue() {
    const [first = null] = this.queue.active;
    this.queueView.show();
    this.stage.show(first, this.loaded);
    showSpent(first);
    const share = first?.status === "running" ? `${Math.round(100 * shareOf(first))} % · ` : "";
    document.title = `${share}Musiva`;
  }

  /** @param {Request} request */
  showFailure(request) {
    const { message, param } = request.error ?? { message: "", param: null };
    announce(`Failed: ${message}`);
    if (param && this.form.says(request.parameters, param)) this.form.showErrors({ [param]: message });
  }

  /** @param {Request} request a failed one, back into the form */
  edit(request) {
    this.queue.cancel([request]);
    this.form.fill(request.parameters);
    const { message, param } = request.error ?? {};
    if (param && message) this.form.showErrors({ [param]: message });
    else at("prompt").focus();
  }

  /** @param {State} state */
  showState({ kind, health, message }) {
    at("server").dataset.kind = kind;
    const { model = "", waiting = 0, running = 0 } = health ?? {};
    const load = running + waiting ? `${running} running, ${waiting} waiting` : "ready";
    const words = { connecting: "Connecting…", lost: "Reconnecting…", faulty: message ?? "", ready: load };
    at("server-model").textContent = kind === "ready" ? model : "";
    at("server-state").textContent = words[kind];
    if (kind === "lost" && health) tell("The server does not answer. Trying again…", { topic: "lost", stays: true });
    if (kind === "ready") dismiss("lost");
  }

  /** @param {boolean} restarted */
  async resume(restarted) {
    const version = this.connection.state.health?.version ?? "";
    const renewed = this.#version !== "" && version !== this.#version;
    this.#version = version;
    this.readLimits();
    const sent = this.queue.resume();
    const now = performance.now();
    // Two connections may break one after the other because of one restart.
    const same = now - this.#restart.at < NEWS_MS;
    if (restarted || same) {
      this.#restart = { at: restarted ? now : this.#restart.at, requests: sent + (same ? this.#restart.requests : 0) };
    }
    const { requests } = this.#restart;
    const what = restarted || same ? "The server was restarted" : "The connection was lost for a moment";
    const number = restarted || same ? requests : sent;
    const action = renewed ? { label: "Load the new page", run: () => location.reload() } : undefined;
    if (number) tell(`${what}: your ${count(number, "request")} ${number === 1 ? "was" : "were"} sent again.`, { topic: "connection", stays: true, action });
    else if (restarted) tell("The server was restarted.", { topic: "connection", action });
  }

  async readLimits() {
    try {
      this.form.setModel(await readModel(this.queue.key));
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) this.askForKey();
      else if (error instanceof ApiError) tell(error.message, { topic: "model", bad: true });
      else this.connection.lost();
    }
  }

  askForKey() {
    at("key-form").hidden = false;
    at("key").focus();
    announce("The server asks for an API key.");
  }

  /** @param {Event} event */
  unlock(event) {
    event.preventDefault();
    at("key-form").hidden = true;
    this.queue.unlock(at("key", HTMLInputElement).value.trim());
    if (!this.form.model) this.readLimits();
    at("prompt").focus();
  }
}

/**
 * @param {Request} request
 * @param {number} index
 */
function pictureId(request, index) {
  return `${request.id}-${index}`;
}

new App().start();
