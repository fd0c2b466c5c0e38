// Short notices at the foot of the page, with an action such as Undo or Retry; announced to screen readers.
import { html, repeat } from "../vendor.js";
import { changed } from "../state.js";
import { icon } from "./icons.js";

const toasts = [];
let number = 0;
let lastUndo = null;

function dismiss(toast) {
  clearTimeout(toast.timer);
  const at = toasts.indexOf(toast);
  if (at >= 0) toasts.splice(at, 1);
  if (lastUndo?.toast === toast) lastUndo = null;
  changed();
}

function arm(toast) {
  clearTimeout(toast.timer);
  if (toast.seconds) toast.timer = setTimeout(() => dismiss(toast), toast.seconds * 1000);
}

function show(text, { kind, action, seconds }) {
  const toast = { id: (number += 1), text, kind, action, seconds };
  if (toasts.length > 2) dismiss(toasts[0]);
  toasts.push(toast);
  if (action?.label === "Undo") lastUndo = { toast, run: action.run };
  arm(toast);
  changed();
  return () => dismiss(toast);
}

/** Say that something was done. Gives a function that takes the notice away. */
export const notify = (text, action = null, seconds = action ? 8 : 4) => show(text, { kind: "done", action, seconds });

/** Say that something failed and, with `retry`, offer to try again. */
export function failed(text, error = null, retry = null) {
  const reason = error?.type === "network" ? "The server cannot be reached." : error?.message && error.message !== error.type ? error.message : "";
  return show(reason ? `${text} ${reason}` : text, { kind: "error", action: retry && { label: "Retry", run: retry }, seconds: retry ? 20 : 10 });
}

/** Undo the latest thing that offers it; false when there is none. */
export function undoLatest() {
  if (!lastUndo) return false;
  const { toast } = lastUndo;
  perform(toast);
  return true;
}

async function perform(toast) {
  dismiss(toast);
  try {
    await toast.action.run();
  } catch (error) {
    failed("That did not succeed.", error);
  }
}

export const toastsView = () => html`
  <div class="toasts" role="region" aria-label="Notices" aria-live="polite">
    ${repeat(toasts, (toast) => toast.id, (toast) => html`
      <div class="toast toast--${toast.kind}" role=${toast.kind === "error" ? "alert" : "status"}
        @pointerenter=${() => clearTimeout(toast.timer)} @pointerleave=${() => arm(toast)}>
        ${toast.kind === "error" ? icon("circle-alert") : null}
        <span class="toast-text">${toast.text}</span>
        ${toast.action ? html`<button class="toast-action" @click=${() => perform(toast)}>${toast.action.label}</button>` : null}
        <button class="toast-close" aria-label="Dismiss" @click=${() => dismiss(toast)}>${icon("x")}</button>
      </div>`)}
  </div>`;
