// An address field: chips, a text input with suggestions (ARIA combobox), paste of whole lists.
import { html, nothing, classMap } from "../vendor.js";
import { isValid, parseAddresses, suggest } from "../contacts.js";
import { displayName, formatAddress, hue, initials } from "../format.js";
import { changed } from "../state.js";
import { icon } from "../ui/icons.js";

const open = { field: null, options: [], at: 0 }; // the one list of suggestions that can be shown

function closeList() {
  Object.assign(open, { field: null, options: [], at: 0 });
}

function add(composer, kind, addresses) {
  const present = new Set(composer[kind].map(({ email }) => email.toLowerCase()));
  const fresh = addresses.filter(({ email }) => email && !present.has(email.toLowerCase()));
  if (fresh.length) composer[kind] = [...composer[kind], ...fresh];
  closeList();
  composer.touch();
}

/** Take what is typed but not yet a chip. */
export function commitTyped(composer, root) {
  for (const input of root.querySelectorAll(".recipients-input")) {
    if (!input.value.trim()) continue;
    add(composer, input.dataset.kind, parseAddresses(input.value));
    input.value = "";
  }
}

function commit(composer, kind, input) {
  if (!input.value.trim()) return;
  add(composer, kind, parseAddresses(input.value));
  input.value = "";
}

function choose(composer, kind, input, option) {
  input.value = "";
  add(composer, kind, [{ name: option.name, email: option.email }]);
  input.focus();
}

function onKey(event, composer, kind, id) {
  const input = event.target;
  const listed = open.field === id && open.options.length > 0;
  if (listed && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    event.preventDefault();
    open.at = (open.at + (event.key === "ArrowDown" ? 1 : -1) + open.options.length) % open.options.length;
    changed();
  } else if (listed && (event.key === "Enter" || (event.key === "Tab" && !event.shiftKey))) {
    event.preventDefault();
    choose(composer, kind, input, open.options[open.at]);
  } else if (listed && event.key === "Escape") {
    event.stopPropagation();
    closeList();
    changed();
  } else if (["Enter", ",", ";"].includes(event.key) && !event.ctrlKey && !event.metaKey) {
    // A comma inside a quoted name belongs to the name.
    if (event.key !== "Enter" && (input.value.match(/"/g) ?? []).length % 2) return;
    event.preventDefault();
    commit(composer, kind, input);
  } else if (event.key === "Backspace" && !input.value && composer[kind].length) {
    composer[kind] = composer[kind].slice(0, -1);
    composer.touch();
  }
}

function onInput(event, composer, kind, id) {
  const options = suggest(event.target.value, [...composer.to, ...composer.cc, ...composer.bcc]);
  Object.assign(open, options.length ? { field: id, options, at: 0 } : { field: null, options: [], at: 0 });
  changed();
}

function onPaste(event, composer, kind) {
  const text = event.clipboardData.getData("text/plain");
  if (!/[,;\n<]/.test(text.trim())) return;
  event.preventDefault();
  add(composer, kind, parseAddresses(text));
}

function edit(composer, kind, index, field) {
  const [address] = composer[kind].splice(index, 1);
  composer[kind] = [...composer[kind]];
  composer.touch();
  const input = field.querySelector("input");
  input.value = formatAddress(address);
  input.focus();
}

const chip = (composer, kind, address, index) => html`
  <span class=${classMap({ "recipient": true, "recipient--invalid": !isValid(address) })} title=${formatAddress(address)}>
    <button class="recipient-name truncate" title="Edit ${address.email}" @click=${(event) => edit(composer, kind, index, event.target.closest(".recipients"))}>${displayName(address)}</button>
    <button class="recipient-remove" aria-label="Remove ${address.email}" @click=${() => { composer[kind] = composer[kind].filter((one) => one !== address); composer.touch(); }}>${icon("x")}</button>
  </span>`;

export function recipientsField(composer, kind, label, trailing = nothing) {
  const id = `${composer.key}-${kind}`;
  const listed = open.field === id;
  return html`
    <div class="compose-row recipients" @click=${(event) => event.target.classList.contains("recipients-chips") && event.target.querySelector("input").focus()}>
      <label class="compose-label" for=${id}>${label}</label>
      <div class="recipients-chips grow">
        ${composer[kind].map((address, index) => chip(composer, kind, address, index))}
        <input id=${id} class="recipients-input" data-kind=${kind} type="text" inputmode="email" autocomplete="off" autocapitalize="none" spellcheck="false"
          role="combobox" aria-autocomplete="list" aria-expanded=${listed} aria-controls="${id}-list" aria-activedescendant=${listed ? `${id}-option-${open.at}` : nothing}
          @keydown=${(event) => onKey(event, composer, kind, id)} @input=${(event) => onInput(event, composer, kind, id)} @paste=${(event) => onPaste(event, composer, kind)}
          @blur=${(event) => { commit(composer, kind, event.target); if (open.field === id) closeList(); changed(); }}>
      </div>
      ${trailing}
      ${listed ? html`
        <ul class="suggestions" id="${id}-list" role="listbox" aria-label="Suggestions">
          ${open.options.map((option, index) => html`
            <li id="${id}-option-${index}" role="option" aria-selected=${index === open.at} @pointerdown=${(event) => { event.preventDefault(); choose(composer, kind, document.getElementById(id), option); }}>
              <span class="avatar avatar--sm avatar--${hue(option)}" aria-hidden="true">${initials(option)}</span>
              <span class="truncate grow">${option.name || option.email}</span>${option.name ? html`<span class="suggestion-address truncate">${option.email}</span>` : nothing}
            </li>`)}
        </ul>` : nothing}
    </div>`;
}
