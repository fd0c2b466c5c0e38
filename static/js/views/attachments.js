// Attachments of a message: download always, a preview for images, PDF and plain text.
import { html, nothing } from "../vendor.js";
import { fileSize, plural } from "../format.js";
import { downloadUrl, fetchBlob } from "../jmap.js";
import { icon } from "../ui/icons.js";
import { openDialog } from "../ui/dialogs.js";
import { failed } from "../ui/toasts.js";

const IMAGES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);
const MOST = 25e6; // octets that a preview may load

const kindOf = (part) => (IMAGES.has(part.type) ? "image" : part.type === "application/pdf" ? "pdf" : part.type === "text/plain" ? "text" : null);
const canPreview = (part) => kindOf(part) !== null && part.size <= MOST;

export function iconOfType(type = "") {
  if (type.startsWith("image/")) return "image";
  if (type.startsWith("audio/")) return "music";
  if (type.startsWith("video/")) return "film";
  if (/zip|tar|gzip|compressed|7z|rar/.test(type)) return "file-archive";
  if (/spreadsheet|excel|csv/.test(type)) return "file-spreadsheet";
  if (type === "text/calendar") return "calendar";
  if (type === "message/rfc822") return "mail";
  if (type.startsWith("text/") || /pdf|word|document/.test(type)) return "file-text";
  return "file";
}

export const nameOfPart = (part) => part.name || (part.type === "message/rfc822" ? "message.eml" : `attachment.${part.type?.split("/")[1] ?? "bin"}`);

/** Show a part in a dialog. Its type is one of the allow-list whatever the sender claimed, so it can never run as a page. */
async function preview(part) {
  const name = nameOfPart(part);
  let address = null;
  let text = "";
  try {
    const blob = await fetchBlob(part.blobId, name, part.type);
    if (kindOf(part) === "text") text = await blob.text();
    else address = URL.createObjectURL(blob);
  } catch (error) {
    failed(`${name} cannot be shown.`, error, () => preview(part));
    return;
  }
  await openDialog((close) => html`
    <div class="preview">
      <div class="preview-bar">
        <h2 class="truncate grow">${name}</h2>
        <a class="icon-button" aria-label="Download" title="Download" href=${downloadUrl(part.blobId, name, part.type)} download=${name}>${icon("download")}</a>
        <button class="icon-button" aria-label="Close" autofocus @click=${() => close()}>${icon("x")}</button>
      </div>
      ${kindOf(part) === "image" ? html`<div class="preview-stage"><img src=${address} alt=${name}></div>` : kindOf(part) === "pdf" ? html`<iframe class="preview-stage" src=${address} title=${name}></iframe>` : html`<pre class="preview-stage preview-text">${text}</pre>`}
    </div>`, { className: "dialog--preview", label: name });
  if (address) URL.revokeObjectURL(address);
}

function attachment(part) {
  const name = nameOfPart(part);
  const inside = html`
    <span class="attachment-icon attachment-icon--${kindOf(part) ?? "other"}">${icon(iconOfType(part.type))}</span>
    <span class="attachment-text grow"><span class="attachment-name truncate">${name}</span><span class="attachment-size">${fileSize(part.size)}</span></span>`;
  return html`
    <li class="attachment">
      ${canPreview(part) ? html`<button class="attachment-main" title="Show ${name}" @click=${() => preview(part)}>${inside}</button>` : html`<a class="attachment-main" title="Download ${name}" href=${downloadUrl(part.blobId, name, part.type)} download=${name}>${inside}</a>`}
      <a class="icon-button icon-button--sm" aria-label="Download ${name}" title="Download" href=${downloadUrl(part.blobId, name, part.type)} download=${name}>${icon("download")}</a>
    </li>`;
}

export const attachmentsView = (email, parts) => html`
  <section class="attachments" aria-label="Attachments">
    ${parts.length > 1 ? html`<h3>${plural(parts.length, "attachment")}, ${fileSize(parts.reduce((sum, part) => sum + part.size, 0))}</h3>` : nothing}
    <ul role="list">${parts.map(attachment)}</ul>
  </section>`;
