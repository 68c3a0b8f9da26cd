// @ts-check
/** Addresses under which the page shows the files that it holds. */

/** @typedef {import("./pictures.js").Picture} Picture */

/** @type {Map<string, string>} */
const addresses = new Map();

/** @param {Picture} picture */
export function addressOf(picture) {
  const known = addresses.get(picture.id);
  if (known) return known;
  const made = URL.createObjectURL(new Blob([picture.bytes], { type: picture.type }));
  addresses.set(picture.id, made);
  return made;
}

/** @param {string} id of a picture that is not shown any more */
export function forgetAddress(id) {
  const known = addresses.get(id);
  if (known) URL.revokeObjectURL(known);
  addresses.delete(id);
}
