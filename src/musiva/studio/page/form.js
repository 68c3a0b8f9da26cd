// @ts-check
/** The form: what is asked for next, checked against the model's limits, kept while it is written. */

import { at } from "./dom.js";
import { pick } from "./examples.js";
import { CONTROLS, OTHER, YES, clearError, clearErrors, control, showErrors, write, written } from "./fields.js";
import { keep, load } from "./kept.js";
import { tell } from "./notices.js";
import { problems, randomSeed } from "./parameters.js";

/** @typedef {import("./api.js").Model} Model */
/** @typedef {import("./fields.js").Control} Control */
/** @typedef {import("./parameters.js").Parameters} Parameters */
/** @typedef {import("./parameters.js").Name} Name */

const SLIDERS = { steps: "steps-slider", quality: "quality-slider", guidance_scale: "guidance-slider" };
const QUALITY = "100";
const HINTS = {
  calibrated: "How near to the dense run, which is 100: 80 keeps 32 dB, for less than half of the work.",
  not: "100 is the dense run. This model is not calibrated for less.",
  rising: "At least this, and up to 100 while there is time. Made again, the picture may differ a little.",
};
/** What is asked about while there is no prompt yet. */
const STAND_IN = "a picture";

export class Form {
  /** @type {Model | null} */
  model = null;
  #locked = false;

  /**
   * @param {(parameters: Parameters) => void} onSubmit
   * @param {() => void} onEdit something may say another thing than before
   */
  constructor(onSubmit, onEdit) {
    this.onEdit = onEdit;
    const form = at("form", HTMLFormElement);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const parameters = this.read();
      if (parameters) onSubmit(parameters);
    });
    form.addEventListener("input", (event) => this.#edited(/** @type {Control} */ (event.target)));
    at("surprise").addEventListener("click", () => this.#surprise());
    at("seed-lock").addEventListener("click", () => this.#lock(!this.#locked));
    this.#write(/** @type {Record<string, string> | null} */ (load("tab", "form")) ?? {});
  }

  /**
   * Take over the limits and defaults of a model; what is written stays.
   *
   * @param {Model} model
   */
  setModel(model) {
    const written = this.#raw();
    this.model = model;
    const sizes = model.sizes.map((size) => new Option(size.replace("x", " × "), size));
    at("size").replaceChildren(...sizes, new Option("Other size…", OTHER));
    const samplers = model.samplers.map((name) => new Option(name, name));
    at("sampler").replaceChildren(...samplers);
    at("policies").replaceChildren(...model.policies.map((name) => new Option(name, name)));
    for (const [name, value] of Object.entries({ steps: model.steps, guidance_scale: model.guidance_scale })) {
      control(name).setAttribute("placeholder", String(value));
    }
    const [width = "", height = ""] = model.size.split("x");
    const basis = { size: model.size, width, height, sampler: model.sampler, quality: QUALITY, n: "1" };
    const numbers = { steps: String(model.steps), guidance_scale: String(model.guidance_scale) };
    const given = Object.fromEntries(Object.entries(written).filter(([, value]) => value !== ""));
    if (!model.calibrated) Object.assign(given, { quality: QUALITY, rise: "" });
    if (!model.fps) Object.assign(given, { frames: "" });
    for (const id of ["quality", "quality-slider", "rise"]) at(id, HTMLInputElement).disabled = !model.calibrated;
    this.#write({ ...basis, ...numbers, ...given });
    for (const id of ["width", "height"]) at(id).setAttribute("step", String(model.size_multiple));
    const limits = { n: model.max_images, steps: model.max_steps, guidance_scale: model.max_guidance_scale };
    for (const [id, limit] of Object.entries(limits)) at(id).setAttribute("max", String(limit));
    at("shift-field").hidden = model.shift === null;
    if (model.shift !== null) at("shift").setAttribute("placeholder", String(model.shift));
    at("frames-field").hidden = !model.fps;
    at("frames").setAttribute("placeholder", String(model.frames ?? 1));
  }

  /** The parameters if they are allowed; else null, with the reasons shown. */
  read() {
    const parameters = this.#parameters();
    clearErrors();
    const found = this.model ? problems(parameters, this.model) : {};
    if (Object.keys(found).length) {
      showErrors(found);
      return null;
    }
    if (!this.#locked) {
      control("seed").value = parameters.seed = randomSeed();
      this.#keep();
    }
    return parameters;
  }

  /** Whether there are qualities below 100. */
  get calibrated() {
    return this.model?.calibrated ?? false;
  }

  /** The parameters so far, for questions about them; null while they are not allowed. */
  draft() {
    const parameters = this.#parameters();
    if (!parameters.prompt.trim()) parameters.prompt = STAND_IN;
    return this.model && !Object.keys(problems(parameters, this.model)).length ? parameters : null;
  }

  /** @param {number} quality */
  setQuality(quality) {
    clearError("quality");
    this.#write({ quality: String(quality) });
  }

  /**
   * Take over the parameters of a picture, and its seed for good. What it does not say becomes the
   * model's default.
   *
   * @param {Parameters} parameters
   * @returns {() => void} puts back what was there before
   */
  fill(parameters) {
    const before = { ...this.#raw(), locked: this.#locked ? "yes" : "" };
    const [width = "", height = ""] = (parameters.size ?? this.model?.size ?? "").split("x");
    /** @type {Record<string, string>} */
    const texts = { width, height };
    for (const [name, value] of Object.entries(parameters)) if (value !== undefined) texts[name] = String(value);
    const listed = this.model?.sizes.includes(`${width}x${height}`);
    texts.size = listed ? `${width}x${height}` : OTHER;
    const { steps = "", guidance_scale = "", sampler = "" } = this.model ?? {};
    const defaults = { steps: String(steps), guidance_scale: String(guidance_scale), sampler };
    const empty = { negative_prompt: "", seed: "", quality: QUALITY, rise: "", deadline: "", spacing: "", shift: "", frames: "", policy: "", n: "1" };
    const { min_quality: floor, max_quality: ceiling = floor } = parameters;
    if (floor !== undefined) Object.assign(texts, { quality: String(floor), rise: ceiling === floor ? "" : YES });
    // It is what no policy means, and beside a quality it would be refused.
    if (texts.policy === "never") texts.policy = "";
    // The server would refuse it, and nobody could change it.
    if (!this.calibrated) Object.assign(texts, { quality: QUALITY, rise: "" });
    clearErrors();
    this.#write({ ...empty, ...defaults, ...texts, locked: parameters.seed === undefined ? "" : "yes" });
    if (parameters.negative_prompt || texts.policy) at("more", HTMLDetailsElement).open = true;
    return () => this.#write(before);
  }

  /**
   * Whether a field still says what a request said.
   *
   * @param {Parameters} parameters
   * @param {string} name
   */
  says(parameters, name) {
    const written = { ...this.#parameters(), seed: control("seed").value.trim() };
    return written[/** @type {Name} */ (name)] === parameters[/** @type {Name} */ (name)];
  }

  /** @returns {Parameters} as written, right or wrong */
  #parameters() {
    const raw = this.#raw();
    const size = raw.size === OTHER ? `${raw.width}x${raw.height}` : raw.size;
    const number = (/** @type {string | undefined} */ text) => (text ? Number(text) : undefined);
    const quality = raw.quality === QUALITY ? undefined : number(raw.quality);
    const rises = raw.rise === YES && quality !== undefined;
    /** @type {Parameters} */
    const parameters = {
      prompt: raw.prompt ?? "",
      negative_prompt: raw.negative_prompt || undefined,
      size: size || undefined,
      steps: number(raw.steps),
      quality: rises ? undefined : quality,
      min_quality: rises ? quality : undefined,
      max_quality: rises ? 100 : undefined,
      deadline: number(raw.deadline),
      seed: (this.#locked && raw.seed) || undefined,
      guidance_scale: number(raw.guidance_scale),
      sampler: raw.sampler || undefined,
      spacing: raw.spacing || undefined,
      shift: number(raw.shift),
      frames: number(raw.frames),
      policy: raw.policy || undefined,
      n: number(raw.n) ?? 1,
    };
    return parameters;
  }

  /** @returns {Record<string, string>} */
  #raw() {
    return Object.fromEntries(CONTROLS.map((name) => [name, written(control(name))]));
  }

  /** @param {Record<string, string>} texts */
  #write(texts) {
    for (const name of CONTROLS) {
      const text = texts[name];
      if (text === undefined) continue;
      const element = control(name);
      // A choice that this model does not offer is shown, so that it can be complained about.
      const known = !(element instanceof HTMLSelectElement) || [...element.options].some((o) => o.value === text);
      if (!known) element.append(new Option(text, text));
      write(element, text);
      if (name === "sampler") this.#offerSpacings(texts.spacing ?? "");
    }
    if (texts.locked !== undefined) this.#lock(texts.locked === "yes");
    this.#follow();
    this.#keep();
  }

  /** @param {string} wanted */
  #offerSpacings(wanted) {
    const names = this.model?.spacings[control("sampler").value] ?? [];
    const all = names.includes(wanted) || !wanted ? names : [...names, wanted];
    at("spacing").replaceChildren(new Option("the model's own", ""), ...all.map((name) => new Option(name, name)));
  }

  /** @param {Control} element that the user has changed */
  #edited(element) {
    const name = CONTROLS.find((one) => one === element.id);
    const slider = Object.entries(SLIDERS).find(([, id]) => id === element.id)?.[0];
    if (slider) control(slider).value = element.value;
    if (element.id === "sampler") this.#offerSpacings("");
    if (element.id === "seed") this.#lock(element.value.trim() !== "");
    clearError(["width", "height"].includes(element.id) ? "size" : (name ?? slider ?? ""));
    this.#follow();
    this.#keep();
  }

  /** What depends on other controls. */
  #follow() {
    at("other-size").hidden = control("size").value !== OTHER;
    for (const [name, id] of Object.entries(SLIDERS)) at(id, HTMLInputElement).value = control(name).value;
    const chosen = written(control("rise")) === YES ? HINTS.rising : HINTS.calibrated;
    at("quality-hint").textContent = this.model && (this.calibrated ? chosen : HINTS.not);
    this.onEdit();
  }

  #keep() {
    keep("tab", "form", { ...this.#raw(), locked: this.#locked ? "yes" : "" });
  }

  /** @param {boolean} locked */
  #lock(locked) {
    if (locked && control("seed").value.trim() === "") control("seed").value = randomSeed();
    this.#locked = locked;
    at("seed-lock").setAttribute("aria-pressed", String(locked));
    at("seed-state").textContent = locked ? "Locked" : "Random";
    this.#keep();
  }

  #surprise() {
    const before = control("prompt").value;
    const [prompt = ""] = pick(1, before);
    this.suggest(prompt);
    const undo = { label: "Undo", run: () => this.suggest(before) };
    if (before.trim()) tell("Your prompt was replaced.", { topic: "surprise", action: undo });
  }

  /** @param {string} prompt */
  suggest(prompt) {
    clearError("prompt");
    this.#write({ prompt });
    control("prompt").focus();
  }
}
