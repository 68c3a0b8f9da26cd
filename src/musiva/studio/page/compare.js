// @ts-check
/** Two pictures over each other with a wipe, or side by side, and how their parameters differ. */

import { addressOf } from "./addresses.js";
import { openDialog, prepareDialog } from "./dialogs.js";
import { at, h } from "./dom.js";
import { LABELS, NAMES, shown } from "./parameters.js";

/** @typedef {import("./pictures.js").Picture} Picture */

export class Compare {
  constructor() {
    this.dialog = at("compare", HTMLDialogElement);
    prepareDialog(this.dialog);
    const wipe = at("compare-wipe", HTMLInputElement);
    const show = () => at("compare-view").style.setProperty("--wipe", `${wipe.value}%`);
    wipe.addEventListener("input", show);
    wipe.addEventListener("change", show);
    at("compare-modes").addEventListener("change", (event) => {
      at("compare-view").dataset.mode = /** @type {any} */ (event.target).value;
    });
    at("compare-swap").addEventListener("click", () => this.#b && this.#a && this.open(this.#b, this.#a));
  }

  /** @type {Picture | null} */
  #a = null;
  /** @type {Picture | null} */
  #b = null;

  /**
   * @param {Picture} a
   * @param {Picture} b
   */
  open(a, b) {
    [this.#a, this.#b] = [a, b];
    for (const [id, picture] of /** @type {const} */ ([["compare-a", a], ["compare-b", b]])) {
      const image = at(id, HTMLImageElement);
      image.src = addressOf(picture);
      image.alt = `${id === "compare-a" ? "A" : "B"}: ${picture.parameters.prompt}`;
    }
    at("compare-view").style.setProperty("--ratio", String(Math.max(a.width / a.height, b.width / b.height)));
    const names = NAMES.filter((name) => name !== "n" && (a.parameters[name] ?? b.parameters[name]) !== undefined);
    const rows = names.map((name) => row(LABELS[name], shown(name, a.parameters), shown(name, b.parameters)));
    // What differs is what people look for.
    rows.sort((one, two) => Number(two.differs) - Number(one.differs));
    at("compare-rows").replaceChildren(...rows.map(({ element }) => element));
    openDialog(this.dialog);
  }
}

/**
 * @param {string} label
 * @param {string} a
 * @param {string} b
 */
function row(label, a, b) {
  const differs = a !== b;
  const sign = h("td", { text: differs ? "differs" : "same", class: "sign" });
  const element = h("tr", { class: differs ? "differs" : "same" },
    h("th", { scope: "row", text: label }), h("td", { text: a }), h("td", { text: b }), sign);
  return { differs, element };
}
