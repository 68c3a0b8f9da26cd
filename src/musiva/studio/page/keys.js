// @ts-check
/** Keys for the whole page. Single letters can be switched off (WCAG 2.1, 2.1.4). */

import { openDialog, prepareDialog } from "./dialogs.js";
import { at } from "./dom.js";
import { keep, load } from "./kept.js";

export function listenToKeys() {
  const help = at("help", HTMLDialogElement);
  prepareDialog(help);
  at("help-button").addEventListener("click", () => openDialog(help));
  const single = at("single-keys", HTMLInputElement);
  single.checked = load("browser", "single-keys") !== false;
  single.addEventListener("change", () => keep("browser", "single-keys", single.checked));

  addEventListener("keydown", (event) => {
    const open = document.querySelector("dialog[open]");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !open) {
      event.preventDefault();
      at("form", HTMLFormElement).requestSubmit();
    }
    const writing = /** @type {HTMLElement} */ (event.target).closest?.("input, textarea, select");
    if (!single.checked || open || writing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "?") openDialog(help);
    else if (event.key === "/") at("prompt").focus();
    else if (event.key === "g") at("gallery").querySelector("button")?.focus();
    else return;
    event.preventDefault();
  });
}
