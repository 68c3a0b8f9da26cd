// @ts-check
/** One picture with its parameters, and everything that can be done with it. */

import { addressOf } from "./addresses.js";
import { openDialog, prepareDialog } from "./dialogs.js";
import { at, button, h } from "./dom.js";
import { announce, tell } from "./notices.js";
import { NAMES, LABELS, shown } from "./parameters.js";
import { fileName, snippet } from "./snippets.js";
import { deadlineInWords, qualityInWords } from "./report.js";
import { inWords } from "./spent.js";
import { naturalSizeButton } from "./stage.js";
import { timeBar } from "./times.js";

/** @typedef {import("./pictures.js").Picture} Picture */
/** @typedef {import("./pictures.js").PictureStore} PictureStore */
/**
 * @typedef {Object} Actions
 * @property {(picture: Picture) => void} reuse
 * @property {(pictures: Picture[]) => void} remove
 * @property {(picture: Picture) => void} choose for comparing
 */

export class Viewer {
  /** @type {Picture | null} */
  #picture = null;
  /** @type {import("./snippets.js").Language} */
  #language = "curl";

  /**
   * @param {PictureStore} store
   * @param {Actions} actions
   */
  constructor(store, actions) {
    this.store = store;
    this.dialog = at("viewer", HTMLDialogElement);
    prepareDialog(this.dialog);
    const reuse = button({ icon: "reuse", label: "Use parameters", text: true, class: "button primary" }, () => this.#leaving(actions.reuse));
    this.download = h("a", { class: "button" });
    this.download.append(at("viewer-download-face", HTMLTemplateElement).content.cloneNode(true));
    const compare = button({ icon: "compare", label: "Compare with…", text: true }, () => this.#leaving(actions.choose));
    const remove = button({ icon: "delete", label: "Delete", text: true, class: "button danger" }, () => this.#remove(actions.remove));
    at("viewer-actions").append(reuse, this.download, compare, remove);
    at("viewer-tools").prepend(naturalSizeButton());
    at("viewer-previous").addEventListener("click", () => this.#step(-1));
    at("viewer-next").addEventListener("click", () => this.#step(1));
    at("viewer-copy").addEventListener("click", () => this.#copy());
    at("viewer-languages").addEventListener("change", (event) => {
      this.#language = /** @type {any} */ (event.target).value;
      this.#write();
    });
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
  }

  /** @param {Picture} picture */
  open(picture) {
    this.#picture = picture;
    this.#write();
    openDialog(this.dialog);
  }

  /** Pictures were removed, perhaps this one, perhaps in another tab. */
  refresh() {
    if (!this.dialog.open || !this.#picture || this.store.get(this.#picture.id)) return this.#write();
    const older = this.store.all().find((one) => one.created <= (this.#picture?.created ?? 0)) ?? this.store.all().at(-1);
    if (!older) return this.dialog.close();
    this.#picture = older;
    this.#write();
  }

  #write() {
    const picture = this.#picture;
    if (!picture) return;
    const { parameters } = picture;
    const image = at("viewer-image", HTMLImageElement);
    image.src = addressOf(picture);
    image.alt = parameters.prompt;
    at("viewer-prompt").textContent = parameters.prompt;
    const { report = null, spent } = picture;
    const given = NAMES.filter((name) => name !== "prompt" && name !== "n" && parameters[name] !== undefined);
    const facts = /** @type {[string, string | null | undefined][]} */ ([
      ...given.map((name) => [LABELS[name], shown(name, parameters)]),
      ["Quality kept", report && qualityInWords(report)],
      ["Came", report && deadlineInWords(report)],
      ["Computed", spent && inWords(spent)],
      ["Made", `${new Date(picture.created).toLocaleString()}, in ${picture.seconds.toFixed(1)} s`],
    ]);
    const told = facts.filter(([, text]) => text);
    at("viewer-facts").replaceChildren(...told.flatMap(([name, text]) => [h("dt", { text: name }), h("dd", { text })]));
    at("viewer-times").replaceChildren(...(report ? [timeBar(report.seconds)] : []));
    this.download.href = image.src;
    this.download.download = `${fileName(parameters)}.${picture.type.slice("image/".length)}`;
    at("viewer-code").textContent = snippet(this.#language, parameters, location.origin);
    const all = this.store.all();
    const index = all.findIndex((one) => one.id === picture.id);
    at("viewer-position").textContent = `Picture ${index + 1} of ${all.length}`;
    at("viewer-previous", HTMLButtonElement).disabled = index <= 0;
    at("viewer-next", HTMLButtonElement).disabled = index + 1 >= all.length;
  }

  /** @param {number} by */
  #step(by) {
    const all = this.store.all();
    const next = all[all.findIndex((one) => one.id === this.#picture?.id) + by];
    if (!next) return;
    this.#picture = next;
    this.#write();
    announce(next.parameters.prompt);
    // A button that has just been disabled loses the focus.
    const other = at(by > 0 ? "viewer-previous" : "viewer-next");
    if (!this.dialog.contains(document.activeElement) || document.activeElement?.matches(":disabled")) other.focus();
  }

  /** @param {(picture: Picture) => void} action that goes on outside of the dialog */
  #leaving(action) {
    const picture = this.#picture;
    this.dialog.close();
    if (picture) action(picture);
  }

  /** @param {(pictures: Picture[]) => void} remove */
  #remove(remove) {
    if (this.#picture) remove([this.#picture]);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    // In the code and among the languages, arrows have a meaning already.
    const busy = /** @type {HTMLElement} */ (event.target).closest("input, pre");
    if (busy || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") this.#step(-1);
    else if (event.key === "ArrowRight") this.#step(1);
    else return;
    event.preventDefault();
  }

  async #copy() {
    const code = at("viewer-code");
    if (await copied(code)) return tell("Copied.", { topic: "copy" });
    tell("The browser forbids copying. The text is selected: press Ctrl+C.", { topic: "copy" });
  }
}

/**
 * @param {HTMLElement} element whose text goes to the clipboard; it is left selected if that fails
 */
async function copied(element) {
  try {
    // Only over HTTPS and on this machine's own address.
    await navigator.clipboard.writeText(element.textContent ?? "");
    return true;
  } catch {
    getSelection()?.selectAllChildren(element);
    return document.execCommand("copy");
  }
}
