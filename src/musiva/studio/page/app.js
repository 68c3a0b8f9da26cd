// @ts-check
/** The studio: wires the form, the queue, the pictures and the connection. */

import { ApiError, readModel } from "./api.js";
import { Compare } from "./compare.js";
import { Connection } from "./connection.js";
import { at, count, mayMove } from "./dom.js";
import { acceptPictures } from "./drop.js";
import { showErrors } from "./fields.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { listenToKeys } from "./keys.js";
import { Load } from "./load.js";
import { readParameters } from "./metadata.js";
import { announce, dismiss, tell } from "./notices.js";
import { LOWEST } from "./outlook.js";
import { floorOf, seedOf, withFloor } from "./parameters.js";
import { PictureStore } from "./pictures.js";
import { Queue } from "./queue.js";
import { QueueView } from "./queue-view.js";
import { reportOf } from "./report.js";
import { indices, shareOf } from "./request.js";
import { activeTilesButton, showSpent } from "./spent.js";
import { Stage, naturalSizeButton } from "./stage.js";
import { themeButton } from "./theme.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./api.js").PictureEvent} PictureEvent */
/** @typedef {import("./connection.js").State} State */
/** @typedef {import("./parameters.js").Parameters} Parameters */
/** @typedef {import("./pictures.js").Picture} Picture */
/** @typedef {import("./request.js").Request} Request */

const NEWS_MS = 5000;

class App {
  loaded = false;
  #version = "";
  #restart = { at: -Infinity, requests: 0 };

  constructor() {
    this.load = new Load({
      ready: () => this.connection.ready,
      key: () => this.queue.key,
      form: () => this.form,
      onSilence: () => this.connection.check(),
    });
    this.form = new Form((parameters) => this.generate(parameters), () => this.load.edited());
    this.store = new PictureStore(({ removed }) => this.showPictures(removed));
    this.connection = new Connection({
      onState: (state) => this.showState(state),
      onReady: (restarted) => this.resume(restarted),
      busy: () => this.queue.active.length > 0,
    });
    this.queue = new Queue(this.connection, {
      onPicture: (request, index, event) => this.keepPicture(request, index, event),
      onChange: () => this.showQueue(),
      onEnd: (request) => this.showEnd(request),
      onFailed: (request) => this.showFailure(request),
      onLocked: () => this.askForKey(),
    });
    const open = (/** @type {Picture} */ picture) => this.viewer.open(picture);
    const remove = (/** @type {Picture[]} */ pictures) => this.remove(pictures);
    this.compare = new Compare();
    const unit = () => this.form.model?.size_multiple ?? 1;
    this.stage = new Stage(this.store, { open, unit, suggest: (prompt) => this.form.suggest(prompt) });
    this.queueView = new QueueView(this.queue, {
      edit: (request) => this.edit(request),
      lower: (request) => this.lower(request),
      mayLower: ({ parameters }) => this.form.calibrated && !parameters.policy && floorOf(parameters) > LOWEST,
    });
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
    const { deadline } = asked;
    const parameters = { ...((await readParameters(bytes)) ?? asked), ...(deadline === undefined ? {} : { deadline }) };
    const [width = 1, height = 1] = (parameters.size ?? "1x1").split("x").map(Number);
    const seconds = (performance.now() - request.started) / 1000;
    const type = `image/${event.output_format ?? "png"}`;
    const identity = { id: pictureId(request, index), request: request.id, created: Date.now() };
    for (const warning of event.warnings ?? []) tell(warning, { topic: "warning" });
    const { computed, share, num_evaluations: evaluations } = event;
    const told = typeof computed === "number" && share !== undefined && evaluations !== undefined;
    const spent = told ? { computed, evaluations, share } : null;
    const report = reportOf(event, request.given);
    await this.store.put([{ ...identity, width, height, type, seconds, parameters, bytes, spent, report }]);
  }

  /**
   * @param {Parameters | undefined} parameters
   * @param {string} source
   */
  reuse(parameters, source) {
    if (!parameters) return;
    const undo = { label: "Undo", run: this.form.fill(parameters) };
    const { model, min_quality: floor = 100, max_quality: ceiling = floor } = parameters;
    const lower = floorOf(parameters) < 100 && !this.form.calibrated ? " This model is not calibrated: its quality is 100." : "";
    const higher = floor < ceiling && ceiling < 100 && !lower ? ` Its quality went up to ${ceiling} at most; here it may be 100.` : "";
    const other = model && this.form.model && model !== this.form.model.id ? ` It was made by the model "${model}".` : "";
    tell(`The form has the parameters of ${source}.${other}${lower}${higher}`, { topic: "drop", action: undo });
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
    const first = this.queue.active.find(({ status }) => status !== "later") ?? null;
    this.queueView.show();
    this.stage.show(first, this.loaded);
    showSpent(first);
    const share = first?.status === "running" ? `${Math.round(100 * shareOf(first))} % · ` : "";
    document.title = `${share}Musiva`;
  }

  /** @param {Request} request */
  showEnd(request) {
    const late = indices(request).some((index) => this.store.get(pictureId(request, index))?.report?.met === false);
    announce(`${late ? "Late, but ready" : "Ready"}: ${request.parameters.prompt}`);
  }

  /** @param {Request} request */
  showFailure(request) {
    const { message, param, refusal } = request.error ?? { message: "", param: null };
    announce(refusal ? message : `Failed: ${message}`);
    if (param && this.form.says(request.parameters, param)) showErrors({ [param]: message });
  }

  /** @param {Request} request a failed one, back into the form */
  edit(request) {
    this.queue.cancel([request]);
    this.form.fill(request.parameters);
    const { message, param } = request.error ?? {};
    if (param && message) showErrors({ [param]: message });
    else at("prompt").focus();
  }

  /** @param {Request} request a refused one, again with the highest quality that would be in time */
  async lower(request) {
    try {
      const best = await this.load.best(request.parameters);
      if (request.status !== "failed") return;
      if (best === null) return tell("No quality would be in time now.", { topic: "lower" });
      const floor = Math.min(best, floorOf(request.parameters));
      this.queue.retry(request, withFloor(request.parameters, floor));
      tell(`Sent again with quality ${floor}.`, { topic: "lower" });
    } catch (error) {
      tell(String(/** @type {Error} */ (error).message), { topic: "lower", bad: true });
    }
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
    if (kind === "ready") return dismiss("lost");
    this.load.lost();
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
      this.load.renew();
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
    if (this.form.model) this.load.renew();
    else this.readLimits();
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
