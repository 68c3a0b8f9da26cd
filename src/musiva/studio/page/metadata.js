// @ts-check
/**
 * Parameters out of picture files: the text chunk "musiva" of a PNG (PNG specification, 11.3.3),
 * the EXIF UserComment of a WebP or JPEG (Exif 2.32, 4.6.3).
 */

import { fromJson } from "./parameters.js";

/** @typedef {import("./parameters.js").Parameters} Parameters */
/** @typedef {"png" | "webp" | "jpeg"} Format */

export const MAX_BYTES = 64 * 2 ** 20;
const KEYWORD = "musiva";
const EXIF_POINTER = 0x8769;
const USER_COMMENT = 0x9286;
const utf8 = new TextDecoder();

/**
 * Text in Latin-1, which is not what TextDecoder calls by that name.
 *
 * @param {Uint8Array} bytes
 */
function latin1(bytes) {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

/**
 * @param {Uint8Array} bytes
 * @returns {Format | null} null for what is no picture of these kinds
 */
export function formatOf(bytes) {
  const head = latin1(bytes.subarray(0, 12));
  if (head.startsWith("\x89PNG\r\n\x1a\n")) return "png";
  if (head.startsWith("RIFF") && head.endsWith("WEBP")) return "webp";
  return bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff ? "jpeg" : null;
}

/**
 * @param {Uint8Array} bytes a whole file
 * @returns {Promise<Parameters | null>} null if it carries none, or is cut short before them
 */
export async function readParameters(bytes) {
  try {
    const text = await readers[formatOf(bytes) ?? "none"](bytes);
    return text === null ? null : fromJson(text.replace(/[\0 ]+$/, ""));
  } catch (error) {
    // A file that ends early, or lies about its lengths.
    if (error instanceof RangeError || error instanceof TypeError) return null;
    throw error;
  }
}

/** @type {Record<Format | "none", (bytes: Uint8Array) => string | null | Promise<string | null>>} */
const readers = { png: pngText, webp: webpComment, jpeg: jpegComment, none: () => null };

/** @param {Uint8Array} bytes */
function view(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** @param {Uint8Array} bytes */
async function pngText(bytes) {
  const numbers = view(bytes);
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = numbers.getUint32(at);
    const type = latin1(bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    const end = data.indexOf(0);
    if (["tEXt", "zTXt", "iTXt"].includes(type) && latin1(data.subarray(0, end)) === KEYWORD) {
      return chunkText(type, data.subarray(end + 1));
    }
    at += 12 + length;
  }
  return null;
}

/**
 * @param {string} type
 * @param {Uint8Array} data what follows the keyword
 */
async function chunkText(type, data) {
  if (type === "tEXt") return latin1(data);
  if (type === "zTXt") return latin1(await inflate(data.subarray(1)));
  // Flag and method of compression, then language and translated keyword, each ended by a zero.
  const language = data.indexOf(0, 2);
  const text = data.subarray(data.indexOf(0, language + 1) + 1);
  return utf8.decode(data[0] ? await inflate(text) : text);
}

/** @param {Uint8Array} bytes */
async function inflate(bytes) {
  const stream = new Blob([/** @type {BlobPart} */ (bytes)]).stream();
  const plain = stream.pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(plain).arrayBuffer());
}

/** @param {Uint8Array} bytes */
function webpComment(bytes) {
  const numbers = view(bytes);
  for (let at = 12; at + 8 <= bytes.length; ) {
    const length = numbers.getUint32(at + 4, true);
    if (latin1(bytes.subarray(at, at + 4)) === "EXIF") {
      return userComment(bytes.subarray(at + 8, at + 8 + length));
    }
    at += 8 + length + (length % 2);
  }
  return null;
}

/** @param {Uint8Array} bytes */
function jpegComment(bytes) {
  const numbers = view(bytes);
  // Segments up to the start of the scan.
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff && bytes[at + 1] !== 0xda; ) {
    const length = numbers.getUint16(at + 2);
    const segment = bytes.subarray(at + 4, at + 2 + length);
    if (bytes[at + 1] === 0xe1 && latin1(segment.subarray(0, 6)) === "Exif\0\0") {
      return userComment(segment);
    }
    at += 2 + length;
  }
  return null;
}

/** @param {Uint8Array} block a TIFF structure, after "Exif\0\0" or bare */
function userComment(block) {
  const tiff = latin1(block.subarray(0, 6)) === "Exif\0\0" ? block.subarray(6) : block;
  const little = tiff[0] === 0x49;
  const numbers = view(tiff);
  const main = entries(numbers.getUint32(4, little));
  const pointer = main.get(EXIF_POINTER);
  const found = pointer === undefined ? main : entries(numbers.getUint32(pointer + 8, little));
  const entry = found.get(USER_COMMENT) ?? main.get(USER_COMMENT);
  if (entry === undefined) return null;
  const length = numbers.getUint32(entry + 4, little);
  const start = length > 4 ? numbers.getUint32(entry + 8, little) : entry + 8;
  const charset = latin1(tiff.subarray(start, start + 8));
  const text = tiff.subarray(start + 8, start + length);
  if (!charset.startsWith("UNICODE")) return utf8.decode(text);
  return new TextDecoder(little ? "utf-16le" : "utf-16be").decode(text);

  /**
   * Where the entry of each tag is.
   *
   * @param {number} at
   * @returns {Map<number, number>}
   */
  function entries(at) {
    const number = numbers.getUint16(at, little);
    const places = Array.from({ length: number }, (_, i) => at + 2 + 12 * i);
    return new Map(places.map((place) => [numbers.getUint16(place, little), place]));
  }
}
