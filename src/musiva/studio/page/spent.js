// @ts-check
/** What of pictures was computed: in words, as a bar that fills, and as tiles over a preview. */

import { at, button } from "./dom.js";
import { floorOf } from "./parameters.js";
import { indices } from "./request.js";

/** @typedef {import("./pictures.js").Picture} Picture */
/** @typedef {import("./request.js").Progress} Progress */
/** @typedef {import("./request.js").Request} Request */
/**
 * @typedef {Object} Spent
 * @property {number} computed evaluations that were computed in full
 * @property {number} evaluations of the dense run
 * @property {number} share of the dense run that was computed
 */

/** @param {Spent} spent */
export function inWords({ computed, evaluations, share }) {
  return `${computed} of ${evaluations} evaluations (${percent(share)})`;
}

/** @param {number} share */
export function percent(share) {
  return `${Math.round(100 * share)} %`;
}

/**
 * What chose how much is computed, and how much that was, in a few letters.
 *
 * @param {Picture} picture
 */
export function inShort({ parameters, spent, report }) {
  const quality = report?.used ?? floorOf(parameters);
  const [name] = (parameters.policy ?? "never").split(":");
  const chosen = quality < 100 || name === "never" ? `Quality ${quality}` : name;
  return spent ? `${chosen} · ${percent(spent.share)}` : chosen;
}

/**
 * Of all pictures of a request so far.
 *
 * @param {Request} request
 * @returns {Spent | null} null where the server tells nothing of it
 */
function spentOn(request) {
  const pictures = indices(request).map((index) => request.progress.get(index));
  const [known] = pictures.filter((one) => one?.spent && one.evaluations);
  if (!known) return null;
  const total = { computed: 0, evaluations: known.evaluations * pictures.length, share: 0 };
  for (const one of pictures) {
    total.computed += one?.spent?.computed ?? 0;
    total.share += (one?.spent?.share ?? 0) / pictures.length;
  }
  return total;
}

/** @param {Request | null} request the one under way */
export function showSpent(request) {
  const spent = request && spentOn(request);
  at("spent").hidden = !spent;
  if (!spent) return;
  const words = `Computed ${inWords(spent)}`;
  if (at("spent-text").textContent !== words) at("spent-text").textContent = words;
  at("spent-bar", HTMLProgressElement).value = spent.share;
}

/**
 * Mark the tiles that an evaluation computed. A tile is a whole number of tokens, so that those at
 * the far edges may be smaller.
 *
 * @param {HTMLCanvasElement} canvas over a preview
 * @param {Progress["active"]} active
 * @param {string} size of the picture, "WIDTHxHEIGHT"
 * @param {number} unit pixels of a token
 */
export function drawActive(canvas, active, size, unit) {
  canvas.hidden = !active;
  const drawn = active ? `${active.rows} ${active.columns} ${active.tiles.join("")}` : "";
  if (canvas.dataset.active === drawn) return;
  canvas.dataset.active = drawn;
  if (!active) return;
  const [width = 1, height = 1] = size.split("x").map(Number);
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  if (!pen) return;
  const wide = Math.ceil(width / unit / active.columns) * unit;
  const high = Math.ceil(height / unit / active.rows) * unit;
  pen.fillStyle = pen.strokeStyle = getComputedStyle(canvas).color;
  active.tiles.forEach((there, tile) => {
    if (!there) return;
    const [x, y] = [(tile % active.columns) * wide, Math.floor(tile / active.columns) * high];
    const box = /** @type {const} */ ([x, y, Math.min(wide, width - x), Math.min(high, height - y)]);
    pen.globalAlpha = 0.3;
    pen.fillRect(...box);
    pen.globalAlpha = 0.9;
    pen.strokeRect(box[0] + 0.5, box[1] + 0.5, box[2] - 1, box[3] - 1);
  });
}

/** The switch that shows these tiles over previews. */
export function activeTilesButton() {
  const toggle = button({ icon: "tiles", label: "Show the tiles that are computed" }, () => {
    const shown = document.documentElement.toggleAttribute("data-tiles");
    toggle.setAttribute("aria-pressed", String(shown));
  });
  toggle.id = "active-tiles";
  toggle.setAttribute("aria-pressed", "false");
  return toggle;
}
