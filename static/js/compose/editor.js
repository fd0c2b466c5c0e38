// The rich text area: Squire behind our own tool bar, with DOMPurify at every way in (pasting, quoting, reopening a draft).
import { html, nothing } from "../vendor.js";
import { changed } from "../state.js";
import { icon } from "../ui/icons.js";
import { prompt } from "../ui/dialogs.js";

const PURIFY = {
  ALLOWED_TAGS: ["a", "b", "blockquote", "br", "code", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "li", "ol", "p", "pre", "s", "span",
    "strike", "strong", "sub", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul", "del", "ins", "dl", "dt", "dd"],
  ALLOWED_ATTR: ["href", "src", "alt", "title", "type", "colspan", "rowspan", "start", "dir", "lang", "width", "height", "data-cid", "data-blob", "data-remote", "data-type", "data-name", "data-size"],
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const PLACEHOLDER = new URL("../../icons/remote-image.svg", import.meta.url).pathname;

let libraries = null;

/** Load Squire and DOMPurify the first time somebody writes. */
export function loadLibraries() {
  libraries ??= import("../vendor-editor.js").then((loaded) => {
    loaded.DOMPurify.addHook("afterSanitizeAttributes", keepImagesAtHome);
    return loaded;
  });
  return libraries;
}

/** No image of a quoted mail is loaded from elsewhere while writing; its address is kept for the message itself. */
function keepImagesAtHome(node) {
  if (node.nodeName === "A" && node.hasAttribute("href")) {
    if (!/^(https?|mailto|tel):/i.test(node.getAttribute("href").trim())) node.removeAttribute("href");
    return;
  }
  if (node.nodeName !== "IMG") return;
  const source = node.getAttribute("src") ?? "";
  const own = source.startsWith(PLACEHOLDER) || source.startsWith("/jmap/download/") || source.startsWith("blob:");
  if (own) return;
  if (/^https?:/i.test(source)) node.setAttribute("data-remote", source);
  else if (source.startsWith("cid:")) node.setAttribute("data-cid", source.slice(4));
  node.setAttribute("src", PLACEHOLDER);
}

const sanitise = (DOMPurify, markup) => document.importNode(DOMPurify.sanitize(markup, PURIFY), true);

/** Make an editor in `root`, keeping what was typed into it meanwhile: `onInput()`, `onPath()` when the formats at the caret changed, `onFiles(files)` when images are pasted. */
export async function createEditor(root, { markup, onInput, onPath, onFiles }) {
  const { DOMPurify, Squire } = await loadLibraries();
  const early = root.innerText.trimEnd();
  const focused = document.activeElement === root;
  if (focused) root.blur(); // the editor has to see the focus come
  const squire = new Squire(root, {
    sanitizeToDOMFragment: (text) => sanitise(DOMPurify, text),
    tagAttributes: { blockquote: { type: "cite" } },
    undo: { documentSizeThreshold: 2_000_000, undoLimit: 60 },
  });
  squire.setHTML(markup);
  squire.moveCursorToStart();
  // Squire reports what we put in as input too: nothing counts until it differs from that.
  let before = squire.getHTML();
  squire.addEventListener("input", () => {
    if (before !== null && squire.getHTML() === before) return;
    before = null;
    onInput();
  });
  squire.addEventListener("pathChange", onPath);
  squire.addEventListener("pasteImage", (event) => {
    const files = [...(event.detail.clipboardData?.items ?? [])].filter((item) => item.kind === "file").map((item) => item.getAsFile()).filter(Boolean);
    if (files.length === 0) return;
    event.preventDefault();
    onFiles(files);
  });
  if (focused) squire.focus();
  if (early) squire.insertPlainText(early, false);
  return squire;
}

const COMMANDS = [
  { name: "Bold", key: "Ctrl+B", icon: "bold", tag: "B", on: "bold", off: "removeBold" },
  { name: "Italic", key: "Ctrl+I", icon: "italic", tag: "I", on: "italic", off: "removeItalic" },
  { name: "Underline", key: "Ctrl+U", icon: "underline", tag: "U", on: "underline", off: "removeUnderline" },
  { name: "Strikethrough", icon: "strikethrough", tag: "S", on: "strikethrough", off: "removeStrikethrough" },
  { name: "Bulleted list", icon: "list", tag: "UL", on: "makeUnorderedList", off: "removeList" },
  { name: "Numbered list", icon: "list-ordered", tag: "OL", on: "makeOrderedList", off: "removeList" },
  { name: "Quote", icon: "text-quote", tag: "BLOCKQUOTE", on: "increaseQuoteLevel", off: "decreaseQuoteLevel" },
];

async function link(squire) {
  if (squire.hasFormat("A")) {
    squire.removeLink();
    return;
  }
  const address = await prompt({
    title: "Add a link", label: "Address", value: "https://", action: "Add link",
    check: (value) => (/^(https?:\/\/|mailto:)\S{2,}$/i.test(value) ? "" : "Begin with https:// or mailto:"),
  });
  squire.focus();
  if (address) squire.makeLink(address);
}

/** The formatting buttons; a press keeps the caret where it is. */
export function formatBar(squire) {
  if (!squire) return nothing;
  const button = ({ name, key, icon: glyph, active, run }) => html`
    <button type="button" class="icon-button icon-button--sm" aria-label=${name} aria-pressed=${active} title=${key ? `${name} (${key})` : name}
      @pointerdown=${(event) => event.preventDefault()} @click=${run}>${icon(glyph)}</button>`;
  return html`
    <div class="format-bar" role="toolbar" aria-label="Formatting">
      ${COMMANDS.map((command) => {
        const active = squire.hasFormat(command.tag);
        return button({ ...command, active, run: () => { squire[active ? command.off : command.on](); squire.focus(); changed(); } });
      })}
      ${button({ name: "Link", key: "Ctrl+K", icon: "link", active: squire.hasFormat("A"), run: () => link(squire) })}
      ${button({ name: "Clear formatting", icon: "remove-formatting", active: false, run: () => { squire.removeAllFormatting(); squire.focus(); } })}
    </div>`;
}

/** The markup of the editor as it goes into a message, and the images in it: [{cid, blobId, type, name, size}]. */
export function serialise(root) {
  // In an inert document, where an image does not load when it gets its address back.
  const copy = document.implementation.createHTMLDocument("").importNode(root, true);
  const images = [];
  for (const image of copy.querySelectorAll("img")) {
    const { remote, cid, blob, type, name, size } = image.dataset;
    if (remote) image.setAttribute("src", remote);
    else if (cid) {
      image.setAttribute("src", `cid:${cid}`);
      if (blob) images.push({ cid, blobId: blob, type, name: name || null, size: Number(size) || 0 });
    } else image.remove();
    for (const attribute of ["data-remote", "data-cid", "data-blob", "data-type", "data-name", "data-size"]) image.removeAttribute(attribute);
  }
  return { markup: copy.innerHTML, images, dom: copy };
}
