// @ts-check
/** Small things kept in the browser as JSON; where that is forbidden or full, they are not kept. */

/** @typedef {"tab" | "browser"} Reach kept for this tab, or for all of them */

/**
 * @param {Reach} reach
 * @returns {Storage}
 */
function storage(reach) {
  // Reading the property itself throws where storage is switched off.
  return reach === "tab" ? sessionStorage : localStorage;
}

/**
 * @param {Reach} reach
 * @param {string} name
 * @returns {unknown} null when there is none
 */
export function load(reach, name) {
  try {
    return JSON.parse(storage(reach).getItem(`musiva.${name}`) ?? "null");
  } catch {
    return null;
  }
}

/**
 * @param {Reach} reach
 * @param {string} name
 * @param {unknown} value null forgets it
 * @returns {boolean} whether it is kept
 */
export function keep(reach, name, value) {
  try {
    if (value === null) storage(reach).removeItem(`musiva.${name}`);
    else storage(reach).setItem(`musiva.${name}`, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
