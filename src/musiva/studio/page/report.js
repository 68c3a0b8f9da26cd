// @ts-check
/** How a finished picture fared: how near to the dense run it is, and whether it came in time. */

import { inSeconds } from "./times.js";

/** @typedef {import("./api.js").PictureEvent} PictureEvent */
/**
 * @typedef {Object} Report
 * @property {number} promised quality
 * @property {number} used the lowest quality of any moment
 * @property {boolean | null} met the deadline; null without one
 * @property {number} late seconds; below 0 those that were left, 0 without a deadline
 * @property {import("./api.js").Seconds} seconds
 */

/**
 * @param {PictureEvent} event of a finished picture
 * @param {number | null} deadline seconds that the server was given
 * @returns {Report | null} null where it tells nothing of it
 */
export function reportOf({ quality_promised: promised, quality_used: used, deadline_met: met = null, seconds }, deadline) {
  if (promised === undefined || used === undefined || !seconds) return null;
  return { promised, used, met, late: deadline === null ? 0 : seconds.total - deadline, seconds };
}

/** @param {Report} report */
export function qualityInWords({ promised, used }) {
  return used === promised ? `${used}, as promised` : `${used}, and ${promised} was promised`;
}

/**
 * @param {Report} report
 * @returns {string | null} null without a deadline
 */
export function deadlineInWords({ met, late }) {
  if (met === null) return null;
  return met ? `In time, with ${inSeconds(Math.max(-late, 0))} to spare` : `Late by ${inSeconds(Math.max(late, 0))}`;
}

/**
 * @param {Report} report
 * @returns {string | null} null of one that was in time, or had no deadline
 */
export function lateInShort({ met, late }) {
  return met === false ? `${inSeconds(Math.max(late, 0))} late` : null;
}
