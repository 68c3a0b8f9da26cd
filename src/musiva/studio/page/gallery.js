// @ts-check
/** The finished pictures as a grid, with arrow keys, and two of them to compare. */

import { addressOf, forgetAddress } from "./addresses.js";
import { at, button, count, h } from "./dom.js";
import { MAX_PICTURES } from "./pictures.js";
import { lateInShort } from "./report.js";
import { inShort } from "./spent.js";

/** @typedef {import("./pictures.js").Picture} Picture */
/** @typedef {import("./pictures.js").PictureStore} PictureStore */
/**
 * @typedef {Object} Actions
 * @property {(picture: Picture) => void} open
 * @property {(pictures: Picture[]) => void} remove
 * @property {(a: Picture, b: Picture) => void} compare
 */

const SHOWN_AT_ONCE = 60;
export const PICTURE_TYPE = "application/x-musiva-picture";
const TROUBLE = {
  forbidden: "This browser keeps nothing for this page: pictures are gone when the tab closes. Download what you want to keep.",
  refused: "The browser refused to store new pictures, perhaps for lack of room: they are gone when the tab closes. Download them, or delete old ones.",
};

export class Gallery {
  /** @type {Map<string, HTMLElement>} */
  #tiles = new Map();
  #limit = SHOWN_AT_ONCE;
  /** Ids of at most two pictures. @type {string[]} */
  #chosen = [];

  /**
   * @param {PictureStore} store
   * @param {Actions} actions
   */
  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
    at("gallery").addEventListener("keydown", (event) => this.#key(event));
    at("gallery").addEventListener("focusin", () => this.#rove(this.#current()));
    at("show-more").addEventListener("click", () => this.#showMore());
    at("delete-all").addEventListener("click", () => actions.remove(store.all()));
    at("compare-start").addEventListener("click", () => this.#compare());
    at("compare-clear").addEventListener("click", () => this.#choose([]));
  }

  /** @param {string[]} [removed] ids of pictures that are gone */
  show(removed = []) {
    const all = this.store.all();
    const held = /** @type {HTMLElement | null} */ (document.activeElement?.closest(".tile") ?? null);
    const place = held ? [...at("gallery").children].indexOf(held) : -1;
    for (const id of removed) {
      this.#tiles.get(id)?.remove();
      this.#tiles.delete(id);
      forgetAddress(id);
    }
    const tiles = all.slice(0, this.#limit).map((picture) => this.#tiles.get(picture.id) ?? this.#build(picture));
    tiles.forEach((tile, index) => {
      if (at("gallery").children[index] !== tile) at("gallery").insertBefore(tile, at("gallery").children[index] ?? null);
    });
    while (at("gallery").children.length > tiles.length) at("gallery").lastElementChild?.remove();
    if (held && !held.isConnected) this.#focus(Math.min(place, tiles.length - 1));
    this.#choose(this.#chosen.filter((id) => this.store.get(id)));
    this.#describe(all.length);
  }

  /** @param {number} number */
  #describe(number) {
    at("gallery-count").textContent = number ? String(number) : "";
    at("gallery-section").hidden = number === 0 && !this.store.trouble;
    at("show-more").hidden = number <= this.#limit;
    at("delete-all").hidden = number === 0;
    const { trouble } = this.store;
    at("gallery-note").classList.toggle("bad", trouble !== null);
    at("gallery-note").textContent = trouble
      ? TROUBLE[trouble]
      : `Kept in this browser only. Of more than ${MAX_PICTURES} pictures the oldest leave.`;
    this.#rove(this.#current());
  }

  /** @param {Picture} picture */
  #build(picture) {
    const { prompt, seed } = picture.parameters;
    const image = h("img", {
      class: "picture", src: addressOf(picture), alt: prompt, loading: "lazy", width: picture.width, height: picture.height,
    });
    const open = h("button", { type: "button", class: "tile-open", title: `${prompt} · seed ${seed}`, click: () => this.actions.open(picture) }, image);
    const choose = button({ icon: "compare", label: `Compare: ${prompt}`, class: "tile-choose" }, () => this.toggle(picture));
    const late = picture.report ? lateInShort(picture.report) : null;
    const note = h("p", { class: "tile-note soft" }, inShort(picture), late && h("span", { class: "bad", text: ` · ${late}` }));
    const tile = h("li", { class: "tile", draggable: "true" }, open, choose, note);
    tile.dataset.id = picture.id;
    tile.addEventListener("dragstart", (event) => event.dataTransfer?.setData(PICTURE_TYPE, picture.id));
    this.#tiles.set(picture.id, tile);
    return tile;
  }

  #showMore() {
    const first = this.#limit;
    this.#limit += SHOWN_AT_ONCE;
    this.show();
    this.#focus(first);
  }

  /** @param {Picture} picture choose it for comparing, or no longer */
  toggle({ id }) {
    const others = this.#chosen.filter((one) => one !== id);
    // Of three, the one chosen first gives way.
    this.#choose(others.length < this.#chosen.length ? others : [...others, id].slice(-2));
  }

  /** @param {string[]} ids */
  #choose(ids) {
    this.#chosen = ids;
    for (const [id, tile] of this.#tiles) {
      const pressed = ids.includes(id);
      tile.classList.toggle("chosen", pressed);
      tile.querySelector(".tile-choose")?.setAttribute("aria-pressed", String(pressed));
    }
    at("compare-bar").hidden = ids.length === 0;
    at("compare-count").textContent = ids.length === 1 ? "Choose a second picture to compare." : `${count(ids.length, "picture")} chosen.`;
    at("compare-start", HTMLButtonElement).disabled = ids.length < 2;
  }

  #compare() {
    const [a, b] = this.#chosen.map((id) => this.store.get(id));
    this.#choose([]);
    if (a && b) this.actions.compare(a, b);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const index = this.#current();
    const tiles = at("gallery").children;
    const picture = this.store.get(/** @type {HTMLElement} */ (tiles[index])?.dataset.id ?? "");
    if (!picture || event.ctrlKey || event.metaKey || event.altKey) return;
    const columns = getComputedStyle(at("gallery")).gridTemplateColumns.split(" ").length;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -index, End: tiles.length - 1 - index };
    const move = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (move !== undefined) {
      if (tiles[index + move]) this.#focus(index + move);
    } else if (event.key === "Delete") this.actions.remove([picture]);
    else return;
    event.preventDefault();
  }

  /** The tile that has the focus, or that Tab reaches. */
  #current() {
    const tiles = [...at("gallery").children];
    const focused = tiles.findIndex((tile) => tile.contains(document.activeElement));
    return focused >= 0 ? focused : Math.max(tiles.findIndex((tile) => tile.classList.contains("current")), 0);
  }

  /** @param {number} index */
  #focus(index) {
    const tile = at("gallery").children[index];
    const target = tile?.querySelector("button") ?? at("prompt");
    this.#rove(index);
    target.focus();
  }

  /** @param {number} index the only tile that Tab stops at; arrow keys reach the others */
  #rove(index) {
    [...at("gallery").children].forEach((tile, i) => {
      tile.classList.toggle("current", i === index);
      for (const one of tile.querySelectorAll("button")) one.tabIndex = i === index ? 0 : -1;
    });
  }
}
