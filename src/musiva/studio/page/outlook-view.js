// @ts-check
/** What a request would get now: in a line, and as a chart of all qualities to choose from. */

import { at, h, mayMove } from "./dom.js";
import { announce } from "./notices.js";
import { floorOf } from "./parameters.js";
import { inSeconds } from "./times.js";

/** @typedef {import("./api.js").Estimate} Estimate */
/** @typedef {import("./outlook.js").Prospect} Prospect */
/** @typedef {{row: HTMLElement, choose: HTMLButtonElement, bar: HTMLElement, seconds: HTMLElement, verdict: HTMLElement}} Row */

export class OutlookView {
  /** @type {Prospect | null} */
  #prospect = null;
  /** Whether the chart is wanted. */
  #open = false;
  /** By quality. @type {Map<number, Row>} */
  #rows = new Map();

  /** @param {(quality: number) => void} onChoose */
  constructor(onChoose) {
    this.onChoose = onChoose;
    const more = at("outlook-more");
    more.addEventListener("click", () => {
      this.#open = !this.#open;
      more.setAttribute("aria-expanded", String(this.#open));
      if (this.#prospect) this.show(this.#prospect);
      if (this.#open) at("outlook-floors").scrollIntoView({ behavior: mayMove() ? "smooth" : "auto", block: "nearest" });
    });
    at("outlook-offer").addEventListener("click", () => {
      const { best } = this.#prospect ?? {};
      if (best) this.onChoose(best.quality);
      at("quality").focus();
    });
  }

  /** @param {Prospect | null} prospect null when nobody knows */
  show(prospect) {
    const before = this.#prospect;
    this.#prospect = prospect;
    show("outlook", prospect !== null);
    if (!prospect) return;
    const refused = prospect.chosen.refusal !== null;
    const words = inWords(prospect);
    at("outlook-text").textContent = words;
    at("outlook-text").classList.toggle("bad", refused);
    show("outlook-offer", refused && prospect.best !== null);
    at("outlook-offer").textContent = `Set quality ${prospect.best?.quality}`;
    const choice = prospect.floors.length > 1;
    show("outlook-more", choice);
    show("outlook-floors", choice && this.#open);
    this.#chart(prospect);
    // Only what turns: the figures change all the time.
    const turned = refused !== ((before?.chosen.refusal ?? null) !== null);
    if (turned && at("form").contains(document.activeElement)) announce(words);
  }

  /** @param {Prospect} prospect */
  #chart({ floors, chosen, deadline }) {
    const qualities = floors.map(({ quality }) => quality);
    if (String(qualities) !== String([...this.#rows.keys()])) this.#build(qualities, chosen.quality);
    const longest = Math.max(deadline ?? 0, ...floors.map(({ finish_seconds }) => finish_seconds)) * 1.05 || 1;
    at("outlook-line").hidden = deadline === null;
    at("outlook-rows").classList.toggle("with-deadline", deadline !== null);
    at("outlook-rows").style.setProperty("--deadline", String((deadline ?? 0) / longest));
    for (const one of floors) {
      const verdict = one.refusal === null ? "" : deadline !== null && one.finish_seconds > deadline ? "too late" : "refused";
      this.#update(one, one.finish_seconds / longest, one === chosen, verdict);
    }
  }

  /**
   * @param {number[]} qualities
   * @param {number} chosen
   */
  #build(qualities, chosen) {
    const held = at("outlook-rows").contains(document.activeElement);
    this.#rows = new Map(qualities.map((quality) => [quality, this.#row(quality)]));
    at("outlook-rows").replaceChildren(...[...this.#rows.values()].map(({ row }) => row));
    if (held) this.#rows.get(chosen)?.choose.focus();
  }

  /**
   * @param {number} quality
   * @returns {Row}
   */
  #row(quality) {
    const choose = h("button", { type: "button", class: "floor", text: String(quality), "aria-label": `Set quality ${quality}`,
      click: () => this.onChoose(quality) });
    const bar = h("span", { class: "floor-bar" });
    const seconds = h("td", { class: "floor-seconds" });
    const verdict = h("td", { class: "floor-verdict" });
    const row = h("tr", { class: "floor-row" }, h("th", { scope: "row" }, choose), h("td", { class: "floor-place" }, bar), seconds, verdict);
    return { row, choose, bar, seconds, verdict };
  }

  /**
   * @param {Estimate} estimate
   * @param {number} share of the width
   * @param {boolean} chosen
   * @param {string} verdict empty for what would be let in
   */
  #update({ quality, finish_seconds: finish }, share, chosen, verdict) {
    const parts = this.#rows.get(quality);
    if (!parts) return;
    parts.choose.setAttribute("aria-pressed", String(chosen));
    parts.bar.style.setProperty("--share", String(share));
    parts.seconds.textContent = inSeconds(finish);
    parts.verdict.textContent = verdict;
    parts.row.classList.toggle("refused", verdict !== "");
  }
}

/**
 * @param {string} id
 * @param {boolean} visible
 */
function show(id, visible) {
  // Whoever was on what goes away stays in the form.
  if (!visible && at(id).contains(document.activeElement)) at("deadline").focus();
  at(id).hidden = !visible;
}

/** @param {Prospect} prospect */
function inWords({ parameters, deadline, floors, chosen, best }) {
  const { finish_seconds: finish, refusal } = chosen;
  if (refusal === null) {
    const more = parameters.max_quality === undefined || floorOf(parameters) === 100 ? "" : ", later where it can be better";
    const room = best && best !== chosen && deadline !== null ? ` Quality ${best.quality} would be in time too.` : "";
    return `Ready in about ${inSeconds(finish)}${deadline === null ? more : ", in time"}.${room}`;
  }
  const late = deadline !== null && finish > deadline;
  const why = late ? `it takes about ${inSeconds(finish)}` : refusal;
  const fastest = floors.at(-1);
  const none = best || !fastest || fastest === chosen ? "" : ` ${fastest.quality}, the lowest, takes about ${inSeconds(fastest.finish_seconds)}.`;
  return `It would be refused: ${why}.${none}`;
}
