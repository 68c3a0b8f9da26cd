// @ts-check
/** The workers of the server: who has what to do, and what they find of each other's. */

import { at, h } from "./dom.js";
import { inSeconds } from "./times.js";

/** @typedef {import("./api.js").Worker} Worker */

const MIB = 2 ** 20;

export class WorkersView {
  /** @param {Worker[]} workers none hides it */
  show(workers) {
    at("workers").hidden = workers.length === 0;
    const most = Math.max(...workers.map(({ work_seconds: work }) => work), 1);
    at("workers-rows").replaceChildren(...workers.map((worker) => row(worker, most)));
    // Of workers without a cache nothing is found, and nothing sent.
    const cached = workers.some((one) => one.found + one.not_found > 0);
    at("workers").classList.toggle("without-cache", !cached);
  }
}

/**
 * @param {Worker} worker
 * @param {number} most seconds of work that any of them has left
 */
function row(worker, most) {
  const { worker: number, phase, life, requests, waiting, work_seconds: work, steps } = worker;
  const bar = h("span", { class: "work-bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", String(work / most));
  const asked = worker.found + worker.not_found;
  const sent = `${inMib(worker.fetched_bytes)} in, ${inMib(worker.served_bytes)} out`;
  return h(
    "tr",
    { "data-phase": phase },
    h("th", { scope: "row", text: life > 1 ? `${number} (life ${life})` : String(number) }),
    h("td", { text: phase }),
    h("td", { text: waiting ? `${requests}, ${waiting} waiting` : String(requests) }),
    h("td", {}, bar, inSeconds(work)),
    h("td", { text: String(steps) }),
    h("td", { text: inMib(worker.store_bytes) }),
    h("td", { class: "of-cache", text: asked ? `${worker.found} of ${asked}` : "–" }),
    h("td", { class: "of-cache", text: sent }),
  );
}

/** @param {number} bytes */
function inMib(bytes) {
  return bytes ? `${(bytes / MIB).toFixed(1)} MiB` : "0";
}
