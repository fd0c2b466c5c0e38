// Menus at a button: arrow keys, type-ahead by a filter where the list is long, closed by Escape or a click elsewhere.
import { html, nothing, render } from "../vendor.js";
import { icon } from "./icons.js";

let open = null;

export function closeMenu() {
  open?.close();
}

function place(menu, anchor) {
  const box = anchor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  const margin = 8;
  const left = Math.min(Math.max(margin, box.right - width > margin && box.left + width > innerWidth - margin ? box.right - width : box.left), innerWidth - width - margin);
  const below = box.bottom + 4;
  const top = below + height <= innerHeight - margin ? below : Math.max(margin, box.top - height - 4);
  menu.style.left = `${left}px`;
  menu.style.top = `${top}px`;
}

/**
 * Show `items` under `anchor`: {label, icon, run, detail, danger, checked, disabled} or null for a line.
 * With `filter` a field at the top narrows them by name; `heading` is a line above them.
 */
export function openMenu(anchor, items, { label = "Menu", filter = false, heading = "" } = {}) {
  const again = open?.anchor === anchor;
  closeMenu();
  if (again) return;
  const menu = document.createElement("div");
  menu.className = "menu";
  let words = "";
  const draw = () => {
    const wanted = words.toLowerCase();
    const shown = items.filter((item) => !wanted || item?.label.toLowerCase().includes(wanted));
    render(html`
      ${heading ? html`<p class="menu-heading truncate" title=${heading}>${heading}</p>` : nothing}
      ${filter ? html`<input class="input menu-filter" type="text" placeholder="Find a folder" aria-label="Find a folder" autocomplete="off"
        @input=${(event) => { words = event.target.value; draw(); }}>` : nothing}
      <div role="menu" aria-label=${label} class="menu-items">
        ${shown.length ? shown.map((item) => item === null ? html`<hr role="separator">` : html`
          <button role=${item.checked === undefined ? "menuitem" : "menuitemradio"} aria-checked=${item.checked ?? nothing} tabindex="-1" ?disabled=${item.disabled}
            class="menu-item ${item.danger ? "menu-item--danger" : ""}" @click=${() => { close(); item.run(); }}>
            ${item.icon ? icon(item.icon) : html`<span class="icon"></span>`}
            <span class="grow truncate">${item.label}</span>
            ${item.detail ? html`<span class="menu-detail">${item.detail}</span>` : nothing}
            ${item.checked ? icon("check") : nothing}
          </button>`) : html`<p class="menu-empty">Nothing found.</p>`}
      </div>`, menu);
  };
  const buttons = () => [...menu.querySelectorAll(".menu-item:not(:disabled)")];
  const onKey = (event) => {
    event.stopPropagation();
    const all = buttons();
    const at = all.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? all.length - 1 : at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Escape" || event.key === "Tab") {
      event.preventDefault();
      close();
      anchor.focus();
    } else if (to !== undefined && !(event.target.tagName === "INPUT" && ["Home", "End"].includes(event.key))) {
      event.preventDefault();
      all[(to + all.length) % all.length]?.focus();
    } else if (event.key === "Enter" && event.target.tagName === "INPUT") {
      event.preventDefault();
      all[0]?.click();
    }
  };
  const onElsewhere = (event) => {
    if (!menu.contains(event.target) && !anchor.contains(event.target)) close();
  };
  function close() {
    menu.remove();
    anchor.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", onElsewhere, true);
    window.removeEventListener("resize", close);
    open = null;
  }
  menu.addEventListener("keydown", onKey);
  draw();
  (anchor.closest("dialog") ?? document.body).append(menu);
  place(menu, anchor);
  anchor.setAttribute("aria-expanded", "true");
  document.addEventListener("pointerdown", onElsewhere, true);
  window.addEventListener("resize", close);
  open = { anchor, close };
  (filter && matchMedia("(pointer: fine)").matches ? menu.querySelector("input") : buttons()[0])?.focus();
}
