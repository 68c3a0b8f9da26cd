// @ts-check
/** The large view: the request that runs, with its previews, or the pictures made last. */

import { addressOf } from "./addresses.js";
import { at, button, h, icon } from "./dom.js";
import { pick } from "./examples.js";
import { shown } from "./parameters.js";
import { deadlineInWords } from "./report.js";
import { indices } from "./request.js";
import { drawActive, inShort } from "./spent.js";
import { timeBar } from "./times.js";

/** @typedef {import("./pictures.js").Picture} Picture */
/** @typedef {import("./pictures.js").PictureStore} PictureStore */
/** @typedef {import("./request.js").Request} Request */
/** @typedef {import("./request.js").Progress} Progress */
/** @typedef {{prompt: string, size: string, address: string | null, picture: Picture | null, active: Progress["active"]}} Cell */

const SKELETON_TILES = 36;
const EXAMPLES_SHOWN = 4;

export class Stage {
  /** What is shown, so that nothing is built anew for each preview. */
  #shape = "";

  /**
   * @param {PictureStore} store
   * @param {{open: (picture: Picture) => void, suggest: (prompt: string) => void, unit: () => number}} actions
   *   unit: pixels of a token
   */
  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
  }

  /**
   * @param {Request | null} request the one under way
   * @param {boolean} loaded whether it is known that there are no pictures
   */
  show(request, loaded) {
    const cells = request ? this.#cellsOf(request) : this.#latest();
    // A request keeps its cells when it ends.
    const id = request?.id ?? cells[0]?.picture?.request ?? `nothing ${loaded}`;
    const shape = `${id}: ${cells.map((cell) => cell.size)}`;
    const box = at("stage");
    if (shape !== this.#shape) {
      this.#shape = shape;
      box.replaceChildren(...(cells.length || !loaded ? cells.map((cell) => this.#build(cell)) : [this.#empty()]));
      box.dataset.cells = String(cells.length);
      box.dataset.shape = cells.length || !loaded ? "pictures" : "empty";
    }
    cells.forEach((cell, index) => this.#update(/** @type {HTMLElement} */ (box.children[index]), cell));
    const picture = request ? null : (cells[0]?.picture ?? null);
    at("stage-caption").textContent = picture ? describe(picture, cells.length) : "";
    showTimes(cells.length === 1 ? picture : null);
  }

  /**
   * @param {Request} request
   * @returns {Cell[]}
   */
  #cellsOf(request) {
    return indices(request).map((index) => {
      const picture = this.store.get(`${request.id}-${index}`);
      const { preview = null, active = null } = request.progress.get(index) ?? {};
      const { prompt, size = "1x1" } = request.parameters;
      return { prompt, size, address: picture ? addressOf(picture) : preview, picture, active: picture ? null : active };
    });
  }

  /** @returns {Cell[]} the pictures of the newest request */
  #latest() {
    const all = this.store.all();
    const pictures = all.filter((picture) => picture.request === all[0]?.request);
    pictures.sort((a, b) => a.id.localeCompare(b.id, "en", { numeric: true }));
    return pictures.map((picture) => {
      const size = `${picture.width}x${picture.height}`;
      return { prompt: picture.parameters.prompt, size, address: addressOf(picture), picture, active: null };
    });
  }

  /** @param {Cell} cell */
  #build(cell) {
    const skeleton = h("div", { class: "skeleton", "aria-hidden": "true" });
    skeleton.append(...Array.from({ length: SKELETON_TILES }, () => h("span")));
    const image = h("img", { class: "picture", alt: "", hidden: true });
    const active = h("canvas", { class: "picture active-tiles", "aria-hidden": "true", hidden: true });
    const open = h("button", { type: "button", class: "stage-cell", disabled: true }, skeleton, image, active);
    open.style.setProperty("aspect-ratio", cell.size.replace("x", " / "));
    const [width = 1, height = 1] = cell.size.split("x").map(Number);
    open.style.setProperty("--ratio", String(width / height));
    return open;
  }

  /**
   * @param {HTMLElement} element
   * @param {Cell} cell
   */
  #update(element, { prompt, size, address, picture, active }) {
    const image = element.querySelector("img");
    const canvas = element.querySelector("canvas");
    if (canvas) drawActive(canvas, active, size, this.actions.unit());
    if (!image || !(element instanceof HTMLButtonElement)) return;
    if (address && image.getAttribute("src") !== address) image.src = address;
    image.hidden = !address;
    image.alt = picture ? prompt : `Preview: ${prompt}`;
    element.classList.toggle("is-preview", !picture && Boolean(address));
    element.disabled = !picture;
    element.title = picture ? "Show all about this picture" : "";
    element.onclick = picture && (() => this.actions.open(picture));
  }

  #empty() {
    const chips = pick(EXAMPLES_SHOWN).map((prompt) =>
      h("button", { type: "button", class: "chip", text: prompt, click: () => this.actions.suggest(prompt) }),
    );
    const mark = icon("mark");
    mark.classList.add("large-mark");
    return h("div", { class: "empty" }, mark,
      h("p", { class: "empty-title", text: "What should the picture show?" }),
      h("p", { class: "soft", text: "Write a prompt and generate, or begin with one of these." }),
      h("div", { class: "chips" }, ...chips));
  }
}

/** @param {Picture | null} picture */
function showTimes(picture) {
  const { id = "", report = null } = picture ?? {};
  if (at("stage-times").dataset.of === id) return;
  at("stage-times").dataset.of = id;
  at("stage-times").replaceChildren(...(report ? [timeBar(report.seconds)] : []));
}

/**
 * @param {Picture} picture
 * @param {number} number
 */
function describe(picture, number) {
  const { parameters, seconds, report } = picture;
  const facts = [shown("size", parameters), `${parameters.steps ?? "?"} steps`, `${seconds.toFixed(1)} s`];
  if (number === 1) facts.splice(2, 0, `seed ${parameters.seed}`);
  if (number === 1) facts.push(`${inShort(picture).toLowerCase()}${picture.spent ? " computed" : ""}`);
  const inTime = report && deadlineInWords(report);
  if (number === 1 && inTime) facts.push(inTime.toLowerCase());
  return `${parameters.prompt} · ${facts.join(" · ")}`;
}

/** The switch between enlarged pictures and their natural size, for all views. */
export function naturalSizeButton() {
  const toggle = button({ icon: "natural", label: "Natural size" }, () => {
    const natural = document.documentElement.toggleAttribute("data-natural");
    for (const one of document.querySelectorAll(".natural-size")) one.setAttribute("aria-pressed", String(natural));
  });
  toggle.classList.add("natural-size");
  toggle.setAttribute("aria-pressed", "false");
  return toggle;
}
