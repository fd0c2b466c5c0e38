// How a compose window looks: header, address fields, text, attachments, send bar; files can be dropped anywhere on it.
import { html, live, nothing, ref, repeat, classMap } from "../vendor.js";
import { fileSize, formatAddress } from "../format.js";
import { changed, state } from "../state.js";
import { icon } from "../ui/icons.js";
import { openMenu } from "../ui/menu.js";
import { iconOfType } from "../views/attachments.js";
import { formatBar } from "./editor.js";
import { addFiles, removeFile, retryFile } from "./files.js";
import { recipientsField } from "./recipients.js";
import { discard, dismiss, send, toggleMode } from "./window.js";

function pick(composer) {
  const input = document.createElement("input");
  input.type = "file";
  input.multiple = true;
  input.addEventListener("change", () => addFiles(composer, input.files));
  input.click();
}

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

const drop = (composer) => ({
  over(event) {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    if (!composer.dragging) {
      composer.dragging = true;
      changed();
    }
  },
  leave(event) {
    if (event.currentTarget.contains(event.relatedTarget)) return;
    composer.dragging = false;
    changed();
  },
  here(event) {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    composer.dragging = false;
    addFiles(composer, event.dataTransfer.files);
  },
});

function onKey(event, composer) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    event.stopPropagation();
    send(composer);
  } else if (event.key === "Escape" && !event.defaultPrevented) {
    event.preventDefault();
    dismiss(composer);
  }
}

const file = (composer, entry) => html`
  <li class=${classMap({ "compose-file": true, "compose-file--error": Boolean(entry.error) })}>
    ${icon(iconOfType(entry.type))}
    <span class="grow truncate"><span class="compose-file-name">${entry.name}</span> <span class="compose-file-size">${entry.error || fileSize(entry.size)}</span></span>
    ${entry.error && entry.file ? html`<button class="button button--quiet button--small" @click=${() => retryFile(composer, entry)}>Retry</button>` : nothing}
    ${entry.progress < 1 && !entry.error ? html`<progress max="1" .value=${entry.progress} aria-label="Uploading ${entry.name}"></progress>` : nothing}
    <button class="icon-button icon-button--sm" aria-label="Remove ${entry.name}" @click=${() => removeFile(composer, entry)}>${icon("x")}</button>
  </li>`;

function identityRow(composer) {
  if (state.identities.length < 2) return nothing;
  return html`
    <div class="compose-row">
      <label class="compose-label" for="${composer.key}-from">From</label>
      <select id="${composer.key}-from" class="compose-select grow" @change=${(event) => { composer.identity = state.identities[event.target.selectedIndex]; composer.touch(); }}>
        ${state.identities.map((identity) => html`<option .selected=${identity.id === composer.identity?.id}>${formatAddress(identity)}</option>`)}
      </select>
    </div>`;
}

const moreFields = (composer) => html`
  ${composer.showCc ? nothing : html`<button class="compose-more" @click=${() => { composer.showCc = true; changed(); }}>Cc</button>`}
  ${composer.showBcc ? nothing : html`<button class="compose-more" @click=${() => { composer.showBcc = true; changed(); }}>Bcc</button>`}`;

const forwardedCard = (composer) => html`
  <div class="forwarded-card">
    ${icon("forward")}
    <span class="grow truncate">Forwarded message${composer.forwarded.from ? ` from ${composer.forwarded.from}` : ""}${composer.forwarded.subject ? html`: <b>${composer.forwarded.subject}</b>` : nothing}</span>
    <button class="icon-button icon-button--sm" aria-label="Leave the forwarded message out" @click=${() => { composer.forwarded = null; composer.touch(); }}>${icon("x")}</button>
  </div>`;

function text(composer) {
  if (composer.loading) return html`<div class="compose-text" aria-busy="true"><span class="bone bone--w5"></span><span class="bone bone--w7"></span></div>`;
  if (composer.mode === "plain") {
    return html`<textarea class="compose-text compose-plain" aria-label="Message" .value=${live(composer.text)} @input=${(event) => { composer.text = event.target.value; composer.touch(); }}></textarea>`;
  }
  return html`<div class="compose-text editor" contenteditable="true" role="textbox" aria-multiline="true" aria-label="Message" spellcheck="true" ${ref(composer.attach)}></div>`;
}

const overflow = (event, composer) => openMenu(event.currentTarget, [
  { label: composer.mode === "rich" ? "Plain text" : "Rich text", icon: composer.mode === "rich" ? "type" : "bold", run: () => toggleMode(composer) },
  { label: "Discard draft", icon: "trash-2", danger: true, run: () => discard(composer) },
], { label: "More" });

function one(composer) {
  const on = drop(composer);
  const title = composer.subject || composer.title;
  return html`
    <section id=${composer.key} @focusin=${() => { composer.reached = true; }} class=${classMap({ "composer": true, "composer--minimised": composer.minimised, "composer--full": composer.full, "composer--dragging": Boolean(composer.dragging) })}
      role="dialog" aria-label=${title} @keydown=${(event) => onKey(event, composer)} @dragover=${on.over} @dragleave=${on.leave} @drop=${on.here}>
      <div class="compose-head" @click=${(event) => { if (composer.minimised && !event.target.closest(".icon-button")) { composer.minimised = false; changed(); } }}>
        <button class="icon-button icon-button--sm compose-back" aria-label="Close" @click=${() => dismiss(composer)}>${icon("arrow-left")}</button>
        <h2 class="grow truncate">${title}</h2>
        <span class="compose-status" role="status">${composer.busy || composer.status}</span>
        <button class="icon-button icon-button--sm compose-desktop" aria-label=${composer.minimised ? "Restore" : "Minimise"} @click=${() => { composer.minimised = !composer.minimised; changed(); }}>${icon(composer.minimised ? "chevron-up" : "minus")}</button>
        <button class="icon-button icon-button--sm compose-desktop" aria-label=${composer.full ? "Smaller" : "Larger"} @click=${() => { composer.full = !composer.full; composer.minimised = false; changed(); }}>${icon(composer.full ? "minimize-2" : "maximize-2")}</button>
        <button class="icon-button icon-button--sm compose-desktop" aria-label="Close" title="Close (Esc)" @click=${() => dismiss(composer)}>${icon("x")}</button>
        <button class="button button--primary button--small compose-send-small" ?disabled=${Boolean(composer.busy) || composer.loading} @click=${() => send(composer)}>${icon("send")} Send</button>
      </div>
      <div class="compose-body">
        ${identityRow(composer)}
        ${recipientsField(composer, "to", "To", html`<span class="compose-mores">${moreFields(composer)}</span>`)}
        ${composer.showCc ? recipientsField(composer, "cc", "Cc") : nothing}
        ${composer.showBcc ? recipientsField(composer, "bcc", "Bcc") : nothing}
        <div class="compose-row">
          <label class="compose-label" for="${composer.key}-subject">Subject</label>
          <input id="${composer.key}-subject" class="compose-subject grow" type="text" maxlength="998" .value=${live(composer.subject)} @input=${(event) => { composer.subject = event.target.value; composer.touch(); }}>
        </div>
        <div class="compose-scroll">
          ${text(composer)}
          ${composer.forwarded ? forwardedCard(composer) : nothing}
          ${composer.files.length ? html`<ul role="list" class="compose-files" aria-label="Attachments">${composer.files.map((entry) => file(composer, entry))}</ul>` : nothing}
        </div>
        ${composer.error ? html`<div class="compose-error" role="alert">${icon("circle-alert")}<span class="grow">${composer.error}</span></div>` : nothing}
        <footer class="compose-foot">
          <button class="button button--primary compose-send" title="Send (Ctrl+Enter)" ?disabled=${Boolean(composer.busy) || composer.loading} @click=${() => send(composer)}>${icon("send")} ${composer.busy ? "Sending…" : "Send"}</button>
          ${composer.mode === "rich" ? formatBar(composer.editor) : html`<span class="grow compose-mode">Plain text</span>`}
          <span class="grow"></span>
          <button class="icon-button icon-button--sm" aria-label="Attach files" title="Attach files" @click=${() => pick(composer)}>${icon("paperclip")}</button>
          <button class="icon-button icon-button--sm compose-desktop" aria-label="Discard draft" title="Discard draft" @click=${() => discard(composer)}>${icon("trash-2")}</button>
          <button class="icon-button icon-button--sm" aria-label="More" aria-haspopup="menu" aria-expanded="false" @click=${(event) => overflow(event, composer)}>${icon("ellipsis-vertical")}</button>
        </footer>
      </div>
      ${composer.dragging ? html`<div class="compose-drop">${icon("paperclip")} Drop files to attach them</div>` : nothing}
    </section>`;
}

export const composerView = (composers) => html`<div class="composers">${repeat(composers, (composer) => composer.key, one)}</div>`;
