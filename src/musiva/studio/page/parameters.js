// @ts-check
/** The parameters of a picture: what they are called, what is allowed, and as JSON. */

/** @typedef {import("./api.js").Model} Model */
/**
 * @typedef {Object} Parameters a body of POST /v1/images/generations
 * @property {string} prompt
 * @property {string} [negative_prompt]
 * @property {string} [size] "WIDTHxHEIGHT" in pixels
 * @property {number} [frames] of a clip; 1 is a picture
 * @property {number} [fps] of them a second
 * @property {number} [n]
 * @property {number} [steps]
 * @property {number} [quality] 100 is the dense run
 * @property {number} [min_quality] instead of it the least, and beside it
 * @property {number} [max_quality] the most, between which load chooses
 * @property {number} [deadline] seconds, by which all pictures have to be there
 * @property {string} [seed] digits: a seed may have more of them than a JavaScript number
 * @property {number} [guidance_scale]
 * @property {string} [sampler]
 * @property {string} [spacing]
 * @property {number} [shift]
 * @property {string} [policy]
 * @property {string} [model]
 */
/** @typedef {keyof Parameters} Name */

export const MAX_SEED = 2n ** 63n - 1n;
export const MAX_PROMPT = 32_000;
const MAX_DEADLINE = 86_400;

/** In the order of every list. @type {Record<Name, string>} */
export const LABELS = {
  prompt: "Prompt",
  negative_prompt: "Not in the picture",
  size: "Size",
  frames: "Frames",
  fps: "Frames a second",
  steps: "Steps",
  quality: "Quality",
  min_quality: "Quality, at least",
  max_quality: "Quality, at most",
  deadline: "Deadline",
  seed: "Seed",
  guidance_scale: "Guidance",
  sampler: "Sampler",
  spacing: "Spacing",
  shift: "Shift",
  policy: "Policy",
  n: "Pictures",
  model: "Model",
};
export const NAMES = /** @type {Name[]} */ (Object.keys(LABELS));
const TEXTS = new Set(["prompt", "negative_prompt", "size", "sampler", "spacing", "policy", "model"]);

/**
 * Parameters as JSON, the seed as a number with all its digits.
 *
 * @param {Parameters & Record<string, unknown>} parameters
 * @param {number} [indent]
 */
export function toJson({ seed, ...rest }, indent = 0) {
  const text = JSON.stringify(rest, null, indent);
  if (seed === undefined) return text;
  const separator = indent ? `,\n${" ".repeat(indent)}"seed": ` : `,"seed":`;
  return `${text.slice(0, indent ? -2 : -1)}${separator}${seed}${indent ? "\n}" : "}"}`;
}

/**
 * Parameters from JSON, as pictures carry them. Fields with another name or type are not taken.
 *
 * @param {string} text
 * @returns {Parameters | null} null if it is no JSON object with a prompt
 */
export function fromJson(text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof found?.prompt !== "string") return null;
  /** @type {Record<string, string | number>} */
  const taken = {};
  for (const name of NAMES) {
    const value = found[name];
    if (name === "seed") {
      if (Number.isInteger(value)) taken.seed = allDigits(text, value);
    } else if (typeof value === (TEXTS.has(name) ? "string" : "number")) taken[name] = value;
  }
  if (taken.negative_prompt === "") delete taken.negative_prompt;
  return /** @type {Parameters} */ (/** @type {unknown} */ (taken));
}

/**
 * @param {string} text
 * @param {number} seed what JSON.parse made of it
 */
function allDigits(text, seed) {
  if (Number.isSafeInteger(seed)) return String(seed);
  const written = [...text.matchAll(/"seed"\s*:\s*(\d+)/g)].map((match) => match[1] ?? "");
  return written.find((digits) => Number(digits) === seed) ?? BigInt(seed).toString();
}

/**
 * The quality that is kept at least.
 *
 * @param {Parameters} parameters
 */
export function floorOf({ quality = 100, min_quality = quality }) {
  return min_quality;
}

/**
 * The same request with another quality at least.
 *
 * @param {Parameters} parameters
 * @param {number} floor
 * @returns {Parameters}
 */
export function withFloor(parameters, floor) {
  return { ...parameters, [parameters.min_quality === undefined ? "quality" : "min_quality"]: floor };
}

/** A seed of 32 random bits. */
export function randomSeed() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0]);
}

/**
 * The seed of one picture of a request.
 *
 * @param {Parameters} parameters
 * @param {number} index
 */
export function seedOf(parameters, index) {
  return (BigInt(parameters.seed ?? 0) + BigInt(index)).toString();
}

/**
 * What is wrong with the parameters, by field, as the server would say it.
 *
 * @param {Parameters} parameters
 * @param {Model} model
 * @returns {Partial<Record<Name, string>>}
 */
export function problems(parameters, model) {
  /** @type {Partial<Record<Name, string>>} */
  const found = {};
  const { prompt, negative_prompt: negative = "", seed } = parameters;
  if (!prompt.trim()) found.prompt = "Say what the picture should show.";
  if (prompt.length > MAX_PROMPT) found.prompt = tooLong(prompt);
  if (negative.length > MAX_PROMPT) found.negative_prompt = tooLong(negative);
  const size = sizeProblem(parameters.size ?? model.size, model);
  if (size) found.size = size;
  number("steps", 1, model.max_steps, true);
  number("quality", 1, 100, true);
  number("min_quality", 1, 100, true);
  number("deadline", 0.01, MAX_DEADLINE, false);
  number("n", 1, model.max_images, true);
  number("guidance_scale", 0, model.max_guidance_scale, false);
  number("shift", 0.01, 100, false);
  if (seed !== undefined && !(/^\d{1,19}$/.test(seed) && BigInt(seed) <= MAX_SEED)) {
    found.seed = `A whole number from 0 to ${MAX_SEED}, or empty for a random one.`;
  }
  if (floorOf(parameters) < 100) {
    if (!model.calibrated) found.quality = "100 for this model, which is not calibrated.";
    else if (parameters.policy) found.policy = "None beside a quality below 100, which chooses what is computed.";
  }
  const { frames } = parameters;
  const { min_frames: least = 1, max_frames: most = 1, frame_step: apart = 1 } = model;
  if (frames !== undefined && !(frames >= least && frames <= most && (frames - least) % apart === 0)) {
    found.frames = most > least ? `From ${least} to ${most}, in steps of ${apart}.` : `${least} with this model.`;
  }
  const { sampler = model.sampler, spacing } = parameters;
  const spacings = model.spacings[sampler];
  if (!spacings) found.sampler = `This model has no sampler "${sampler}".`;
  else if (spacing !== undefined && !spacings.includes(spacing)) {
    found.spacing = `The sampler "${sampler}" has no spacing "${spacing}".`;
  }
  return found;

  /**
   * @param {"steps" | "quality" | "min_quality" | "deadline" | "n" | "guidance_scale" | "shift"} name
   * @param {number} low
   * @param {number} high
   * @param {boolean} whole
   */
  function number(name, low, high, whole) {
    const value = parameters[name];
    if (value === undefined || (value >= low && value <= high && (!whole || Number.isInteger(value)))) return;
    found[name] = `A ${whole ? "whole " : ""}number from ${low} to ${high}.`;
  }
}

/** @param {string} text */
function tooLong(text) {
  return `${text.length} characters are too many; ${MAX_PROMPT} are allowed.`;
}

/**
 * @param {string} size
 * @param {Model} model
 */
function sizeProblem(size, model) {
  const { min_side: low, max_side: high, size_multiple: unit } = model;
  const sides = /^(\d+)x(\d+)$/.exec(size)?.slice(1).map(Number) ?? [];
  const fits = sides.length === 2 && sides.every((side) => side >= low && side <= high && side % unit === 0);
  return fits ? null : `Width and height: multiples of ${unit} from ${low} to ${high} pixels.`;
}

/**
 * The same on two sides, as a person reads it.
 *
 * @param {Name} name
 * @param {Parameters} parameters
 */
export function shown(name, parameters) {
  const value = parameters[name];
  if (value === undefined || value === "") return "–";
  if (name === "deadline") return `${value} s`;
  return name === "size" ? String(value).replace("x", " × ") : String(value);
}
