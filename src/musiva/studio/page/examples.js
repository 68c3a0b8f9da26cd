// @ts-check
/** Prompts to begin with, of the kind that the default model knows. */

export const EXAMPLES = [
  "a fox left of a pine tree on snow",
  "a red apple",
  "an octopus on a blue background",
  "a rocket right of a full moon on a starry night sky",
  "smiling face with sunglasses",
  "a cactus on the left and a camel on the right on sand",
  "a slice of pizza on a yellow background",
  "a penguin left of a snowman on snow",
  "a hot air balloon above a house on a cloudy sky",
  "a strawberry on a wooden table",
  "a whale above a crab on water",
  "a cat right of a birthday cake on a pink background",
  "a ladybug left of a four leaf clover on a meadow",
  "a robot on a gradient from yellow to pink",
  "a guitar on a brick wall",
  "an owl in the middle on a sunset",
];

/**
 * Some of them, by chance.
 *
 * @param {number} number
 * @param {string} [except]
 */
export function pick(number, except) {
  const others = EXAMPLES.filter((one) => one !== except);
  const keyed = others.map((one) => /** @type {const} */ ([Math.random(), one]));
  return keyed.sort(([a], [b]) => a - b).slice(0, number).map(([, one]) => one);
}
