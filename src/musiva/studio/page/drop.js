// @ts-check
/** Parameters out of a picture that is dropped on the page, pasted, or chosen. */

import { at } from "./dom.js";
import { PICTURE_TYPE } from "./gallery.js";
import { MAX_BYTES, formatOf, readParameters } from "./metadata.js";
import { tell } from "./notices.js";

/** @typedef {import("./parameters.js").Parameters} Parameters */
/**
 * @typedef {Object} Options
 * @property {(parameters: Parameters, name: string) => void} onParameters
 * @property {(id: string) => void} onPicture one of the gallery
 */

/** @param {Options} options */
export function acceptPictures({ onParameters, onPicture }) {
  const veil = at("drop-veil");
  const holds = (/** @type {DragEvent} */ event) =>
    event.dataTransfer?.types.some((type) => type === "Files" || type === PICTURE_TYPE) ?? false;

  addEventListener("dragover", (event) => {
    if (!holds(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    // It leaves every element that it passes; only the window counts.
    if (event.relatedTarget === null) veil.hidden = true;
  });
  addEventListener("dragend", () => (veil.hidden = true));
  addEventListener("drop", (event) => {
    veil.hidden = true;
    if (!holds(event)) return;
    // Else the browser would leave the page to show the file.
    event.preventDefault();
    const id = event.dataTransfer?.getData(PICTURE_TYPE);
    if (id) onPicture(id);
    else take(event.dataTransfer?.files);
  });
  addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    take(event.clipboardData.files);
  });
  const chooser = at("file", HTMLInputElement);
  at("choose-file").addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", async () => {
    await take(chooser.files);
    // So that the same file can be chosen again.
    chooser.value = "";
  });

  /** @param {FileList | null | undefined} files */
  async function take(files) {
    const [file] = files ?? [];
    if (!file) return;
    const alone = files && files.length > 1 ? `Of ${files.length} files the first was read. ` : "";
    const problem = await read(file);
    if (problem) tell(`${alone}${problem} The form stays as it is.`, { topic: "drop", bad: true });
  }

  /**
   * @param {File} file
   * @returns {Promise<string | null>} what is wrong with it
   */
  async function read(file) {
    if (file.size > MAX_BYTES) return `"${file.name}" is larger than ${MAX_BYTES >> 20} MB.`;
    let bytes;
    try {
      bytes = new Uint8Array(await file.arrayBuffer());
    } catch {
      return `"${file.name}" cannot be read.`;
    }
    if (formatOf(bytes) === null) return `"${file.name}" is no PNG, WebP or JPEG picture.`;
    const parameters = await readParameters(bytes);
    if (!parameters) return `"${file.name}" carries no parameters: it was not made by Musiva, or another program removed them.`;
    onParameters(parameters, file.name);
    return null;
  }
}
