// @ts-check
/** Dialogs: the browser's own, closed by Escape, a button, or a click beside them. */

import { at } from "./dom.js";

/**
 * Show a dialog; the browser gives the focus back when it closes. Messages move into it, because
 * everything outside of an open dialog is out of reach.
 *
 * @param {HTMLDialogElement} dialog
 */
export function openDialog(dialog) {
  if (!dialog.open) dialog.showModal();
  dialog.append(at("messages"));
}

/** @param {HTMLDialogElement} dialog */
export function prepareDialog(dialog) {
  dialog.addEventListener("close", () => {
    if (dialog.contains(at("messages"))) document.body.append(at("messages"));
  });
  dialog.addEventListener("mousedown", (event) => {
    if (event.target === dialog) dialog.close();
  });
  for (const closer of dialog.querySelectorAll("[data-close]")) {
    closer.addEventListener("click", () => dialog.close());
  }
}
