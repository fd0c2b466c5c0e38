// Questions and short forms in <dialog>: focus is kept inside by the browser and returns to where it was.
import { html, nothing, render } from "../vendor.js";

/** Show a modal dialog made by `content(close)`; resolves to what `close(value)` was given, undefined when dismissed. */
export function openDialog(content, { className = "", label = "" } = {}) {
  return new Promise((resolve) => {
    const dialog = document.createElement("dialog");
    dialog.className = `dialog ${className}`;
    if (label) dialog.setAttribute("aria-label", label);
    let result;
    const close = (value) => {
      result = value;
      dialog.close();
    };
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("keydown", (event) => event.stopPropagation()); // shortcuts of the page rest meanwhile
    const draw = () => render(content(close, draw), dialog);
    draw();
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("[autofocus]")?.focus();
  });
}

/** Ask before something that cannot be undone; true when agreed. */
export const confirm = ({ title, text = "", action = "OK", danger = false }) =>
  openDialog((close) => html`
    <form method="dialog" class="dialog-body" @submit=${(event) => { event.preventDefault(); close(true); }}>
      <h2>${title}</h2>
      ${text ? html`<p>${text}</p>` : nothing}
      <div class="dialog-actions">
        <button type="button" class="button" @click=${() => close(false)}>Cancel</button>
        <button class="button ${danger ? "button--danger" : "button--primary"}" autofocus>${action}</button>
      </div>
    </form>`, { label: title }).then(Boolean);

/** Ask for one line of text; undefined when dismissed. `check(value)` may give an error to show. */
export const prompt = ({ title, label, value = "", action = "Save", check = () => "" }) => {
  let error = "";
  return openDialog((close, draw) => html`
    <form method="dialog" class="dialog-body" @submit=${(event) => {
      event.preventDefault();
      const text = event.target.elements.value.value.trim();
      error = text ? check(text) : "Please type a name.";
      if (error) draw();
      else close(text);
    }}>
      <h2>${title}</h2>
      <div class="field">
        <label for="prompt-value">${label}</label>
        <input id="prompt-value" name="value" class="input" .value=${value} autofocus autocomplete="off" maxlength="200"
          aria-invalid=${error ? "true" : "false"} aria-describedby="prompt-error">
        <p class="error" id="prompt-error" role="alert">${error}</p>
      </div>
      <div class="dialog-actions">
        <button type="button" class="button" @click=${() => close(undefined)}>Cancel</button>
        <button class="button button--primary">${action}</button>
      </div>
    </form>`, { label: title });
};
