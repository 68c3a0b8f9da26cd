// @ts-check
/** Dark or light: as the system says, or as the user chose. Loaded before the first paint. */

import { keep, load } from "./kept.js";

const THEMES = /** @type {const} */ (["auto", "light", "dark"]);
/** @typedef {typeof THEMES[number]} Theme */
const WORDS = { auto: "as the system", light: "light", dark: "dark" };
const BARS = { light: "#f5f7f6", dark: "#0f1413" };

/** @returns {Theme} */
function chosen() {
  const found = load("browser", "theme");
  return THEMES.find((theme) => theme === found) ?? "auto";
}

/** @param {Theme} theme */
function show(theme) {
  document.documentElement.dataset.theme = theme;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  // The bars of a phone's browser follow the page.
  const meta = document.querySelector("meta[name=theme-color]");
  meta?.setAttribute("content", BARS[theme === "auto" ? system : theme]);
}

show(chosen());

/** @param {HTMLButtonElement} button goes through the themes */
export function themeButton(button) {
  let theme = chosen();
  const label = () => {
    button.title = `Theme: ${WORDS[theme]}`;
    button.setAttribute("aria-label", button.title);
  };
  label();
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "auto";
    keep("browser", "theme", theme);
    show(theme);
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(theme));
}
