// @ts-check
/** The same request for people who write programs: curl, our client, and OpenAI's. */

import { NAMES, toJson } from "./parameters.js";

/** @typedef {import("./parameters.js").Parameters} Parameters */
/** @typedef {"curl" | "musiva" | "openai"} Language */

/** Fields that OpenAI's client names; it takes the others as `extra_body`. */
const OPENAI = new Set(["prompt", "model", "size", "n"]);

/**
 * @param {Language} language
 * @param {Parameters} parameters of one picture
 * @param {string} origin of the server
 */
export function snippet(language, parameters, origin) {
  return { curl, musiva, openai }[language](parameters, origin);
}

/** @param {Parameters} parameters */
export function fileName(parameters) {
  const words = parameters.prompt.toLowerCase().match(/[a-z0-9]+/g) ?? [];
  return [...words.slice(0, 6), parameters.seed ?? ""].filter(Boolean).join("-") || "picture";
}

/**
 * The same with the end that the server's file has.
 *
 * @param {Parameters} parameters
 */
function file(parameters) {
  return `${fileName(parameters)}.${(parameters.frames ?? 1) > 1 ? "webp" : "png"}`;
}

/** @param {string} text */
function shellQuoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** @type {(parameters: Parameters, origin: string) => string} */
function curl(parameters, origin) {
  return `curl -sS ${origin}/v1/images/generations \\
  -H 'Content-Type: application/json' \\
  -d ${shellQuoted(toJson(parameters))} \\
  | sed 's/.*"b64_json": *"\\([^"]*\\)".*/\\1/' | base64 --decode > ${file(parameters)}
`;
}

/**
 * A Python literal. JSON's strings and numbers are Python's too.
 *
 * @param {Parameters} parameters
 * @param {string} name
 */
function literal(parameters, name) {
  return name === "seed" ? parameters.seed : JSON.stringify(parameters[/** @type {"prompt"} */ (name)]);
}

/** @type {(parameters: Parameters, origin: string) => string} */
function musiva(parameters, origin) {
  const words = { guidance_scale: "guidance", n: "num_images" };
  const given = NAMES.filter((name) => name !== "prompt" && parameters[name] !== undefined);
  const lines = given.map((name) => {
    const value = name === "size" ? `(${parameters.size?.replace("x", ", ")})` : literal(parameters, name);
    return `        ${words[/** @type {"n"} */ (name)] ?? name}=${value},\n`;
  });
  return `from musiva.client import Client

with Client(${JSON.stringify(origin)}) as client:
    pictures = client.generate(
        ${literal(parameters, "prompt")},
${lines.join("")}    )
    pictures[0].save("${file(parameters)}")
`;
}

/** @type {(parameters: Parameters, origin: string) => string} */
function openai(parameters, origin) {
  const given = NAMES.filter((name) => parameters[name] !== undefined);
  const own = given.filter((name) => OPENAI.has(name)).map((name) => `    ${name}=${literal(parameters, name)},\n`);
  const extra = given.filter((name) => !OPENAI.has(name));
  const body = extra.map((name) => `        "${name}": ${literal(parameters, name)},\n`);
  return `import base64
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(`${origin}/v1`)}, api_key="none")
answer = client.images.generate(
${own.join("")}    response_format="b64_json",
    extra_body={
${body.join("")}    },
)
Path("${file(parameters)}").write_bytes(base64.b64decode(answer.data[0].b64_json))
`;
}
