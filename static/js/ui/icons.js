// Icons of the sprite static/icons/sprite.svg by name; decorative, so the control around them carries the label.
import { html } from "../vendor.js";

const SPRITE = new URL("../../icons/sprite.svg", import.meta.url).pathname;

export const icon = (name, extra = "") => html`<svg class="icon ${extra}" aria-hidden="true" viewBox="0 0 24 24"><use href="${SPRITE}#${name}"></use></svg>`;
