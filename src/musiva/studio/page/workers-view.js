// @ts-check
/** The workers of the server: who has what to do, what they find of each other's, what they send. */

import { at, h } from "./dom.js";
import { inSeconds } from "./times.js";

/** @typedef {import("./api.js").Worker} Worker */
/** @typedef {import("./api.js").Link} Link */

const NAMES = { server: "this server", ranks: "its rank", host: "host" };

export class WorkersView {
  /** @param {Worker[]} workers none hides it */
  show(workers) {
    at("workers").hidden = workers.length === 0;
    const most = Math.max(...workers.map(({ work_seconds: work }) => work), 1);
    at("workers-rows").replaceChildren(...workers.map((worker) => row(worker, most)));
    const links = workers.flatMap(({ worker, links }) => links.map((link) => linkRow(worker, link)));
    at("links-rows").replaceChildren(...links);
    // Of workers without a cache nothing is found.
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
  return h(
    "tr",
    { "data-phase": phase },
    h("th", { scope: "row", text: life > 1 ? `${number} (life ${life})` : String(number) }),
    h("td", { text: phase }),
    h("td", { text: waiting ? `${requests}, ${waiting} waiting` : String(requests) }),
    h("td", {}, bar, inSeconds(work)),
    h("td", { text: String(steps) }),
    h("td", { text: inBytes(worker.store_bytes) }),
    h("td", { class: "of-cache", text: asked ? `${worker.found} of ${asked}` : "–" }),
    h("td", { text: worker.host ?? "–" }),
  );
}

/**
 * @param {number} worker
 * @param {Link} link
 */
function linkRow(worker, link) {
  const { kind, other, seconds, bytes_per_second: speed } = link;
  return h(
    "tr",
    {},
    h("th", { scope: "row", text: String(worker) }),
    h("td", { text: kind === "server" ? NAMES.server : `${NAMES[kind]} ${other}` }),
    h("td", { text: inBytes(link.sent_bytes) }),
    h("td", { text: inBytes(link.received_bytes) }),
    h("td", { text: String(link.transfers) }),
    // Nobody waits for messages.
    h("td", { text: kind === "server" ? "–" : inSeconds(seconds) }),
    h("td", { text: speed === null ? "–" : `${inBytes(speed)}/s` }),
  );
}

/** @param {number} bytes */
function inBytes(bytes) {
  if (!bytes) return "0";
  const [power, unit] = bytes >= 2 ** 30 ? [30, "GiB"] : bytes >= 2 ** 20 ? [20, "MiB"] : [10, "KiB"];
  return `${(bytes / 2 ** Number(power)).toFixed(1)} ${unit}`;
}
