// One message of a conversation: collapsed to a line, or open with its header, body and attachments.
import { html, nothing, classMap, keyed } from "../vendor.js";
import { removeMessage, setKeywordOn } from "../actions.js";
import { displayName, formatAddress, fullDate, hue, initials, messageDate, plural } from "../format.js";
import { downloadUrl } from "../jmap.js";
import { changed, has, state } from "../state.js";
import { attachmentsOf, htmlPart, plainText, thread, toggleMessage } from "../thread.js";
import { foldQuotes, linkify } from "../text.js";
import { icon } from "../ui/icons.js";
import { openMenu } from "../ui/menu.js";
import { compose, forward, reply, resumeDraft } from "../compose/window.js";
import { attachmentsView } from "./attachments.js";
import { bodyFacts, bodyUrl } from "./body.js";

const isMe = (address) => state.identities.some((identity) => identity.email.toLowerCase() === address?.email?.toLowerCase());
const names = (list) => (list ?? []).map((address) => (isMe(address) ? "me" : displayName(address))).join(", ");

const avatar = (address) => html`<span class="avatar avatar--${hue(address)}" aria-hidden="true">${initials(address)}</span>`;

const addressList = (list) => (list ?? []).map((address, index) => html`${index ? ", " : ""}<button class="address" title="Write to ${address.email}"
  @click=${() => compose({ to: [address] })}>${formatAddress(address)}</button>`);

function detail(label, value) {
  return value && value.length ? html`<dt>${label}</dt><dd>${value}</dd>` : nothing;
}

const details = (email) => html`
  <dl class="message-details">
    ${detail("From", addressList(email.from))}
    ${detail("Reply to", email.replyTo?.length && email.replyTo[0].email !== email.from?.[0]?.email ? addressList(email.replyTo) : null)}
    ${detail("To", addressList(email.to))}
    ${detail("Cc", addressList(email.cc))}
    ${detail("Bcc", addressList(email.bcc))}
    ${detail("Date", fullDate(email.sentAt ?? email.receivedAt))}
    ${detail("Subject", email.subject)}
  </dl>`;

function print(email) {
  const part = htmlPart(email) ?? email.textBody?.[0];
  if (part) window.open(bodyUrl(email, part, { images: thread.images.has(email.id), use: "page" }), "_blank", "noopener");
}

function download(email) {
  const link = document.createElement("a");
  link.download = `${(email.subject || "message").replace(/[^\p{L}\p{N} ._-]/gu, "_").slice(0, 80)}.eml`;
  link.href = downloadUrl(email.blobId, link.download, "message/rfc822");
  link.click();
}

function messageMenu(event, email) {
  event.stopPropagation();
  openMenu(event.currentTarget, [
    { label: "Reply", icon: "reply", detail: "r", run: () => reply(email) },
    { label: "Reply all", icon: "reply-all", detail: "a", run: () => reply(email, { all: true }) },
    { label: "Forward", icon: "forward", detail: "f", run: () => forward(email) },
    null,
    { label: has(email, "$seen") ? "Mark as unread" : "Mark as read", icon: "mail", run: () => setKeywordOn([email], "$seen", !has(email, "$seen")) },
    { label: "Print", icon: "printer", run: () => print(email) },
    { label: "Download message", icon: "download", run: () => download(email) },
    null,
    { label: "Delete this message", icon: "trash-2", danger: true, run: () => removeMessage(email) },
  ], { label: "Message" });
}

function textView(email) {
  return html`<div class="plain">${foldQuotes(plainText(email)).map((block, index, all) => (block.quoted && block.lines.length > 3 && index === all.length - 1 && all.length > 1
    ? html`<details class="quoted"><summary aria-label="Show quoted text">${icon("ellipsis")}</summary><div class="quoted-text">${linkify(block.lines.join("\n"))}</div></details>`
    : html`<div class=${block.quoted ? "quoted-text" : "plain-text"}>${linkify(block.lines.join("\n"))}</div>`))}</div>`;
}

function htmlView(email, part) {
  const images = thread.images.has(email.id);
  const facts = bodyFacts(email, part);
  return html`
    ${facts?.remote && !images ? html`
      <div class="message-notice">${icon("image-off")}<span class="grow">${plural(facts.remote, "remote image")} blocked to protect your privacy.</span>
        <button class="button button--small" @click=${() => { thread.images.add(email.id); changed(); }}>Show images</button></div>` : nothing}
    ${keyed(images, html`
      <iframe class="body-frame" title="Message from ${displayName(email.from?.[0])}" sandbox="allow-popups allow-popups-to-escape-sandbox"
        referrerpolicy="no-referrer" src=${bodyUrl(email, part, { images })} data-height=${facts?.height ?? 320}></iframe>`)}`;
}

function bodyView(email) {
  const part = htmlPart(email);
  if (part) return htmlView(email, part);
  if (!plainText(email).trim()) return html`<p class="plain plain--empty">This message has no text.</p>`;
  return textView(email);
}

function collapsed(email) {
  return html`
    <button class="message-line" aria-expanded="false" @click=${() => (has(email, "$draft") ? resumeDraft(email.id) : toggleMessage(email.id))}>
      ${avatar(email.from?.[0])}
      <span class="message-line-from truncate">${has(email, "$draft") ? html`<span class="row-draft">Draft</span>` : isMe(email.from?.[0]) ? "me" : displayName(email.from?.[0])}</span>
      <span class="message-line-text truncate">${email.preview}</span>
      ${email.hasAttachment ? icon("paperclip", "row-mark") : nothing}
      <time class="row-date" datetime=${email.receivedAt} title=${fullDate(email.receivedAt)}>${messageDate(email.receivedAt)}</time>
    </button>`;
}

function opened(email, single) {
  const from = email.from?.[0];
  const showsDetails = thread.details.has(email.id);
  const attachments = attachmentsOf(email);
  const toggleDetails = (event) => {
    event.stopPropagation();
    if (!thread.details.delete(email.id)) thread.details.add(email.id);
    changed();
  };
  return html`
    <header class="message-head" @click=${(event) => { if (!single && !event.target.closest("button, a, dl")) toggleMessage(email.id); }}>
      ${avatar(from)}
      <div class="message-who grow">
        <div class="message-from"><span class="message-name">${displayName(from)}</span>${from?.name ? html` <span class="message-address truncate">${from.email}</span>` : nothing}</div>
        <button class="message-to" aria-expanded=${showsDetails} @click=${toggleDetails}>
          <span class="truncate">to ${names([...(email.to ?? []), ...(email.cc ?? [])]) || "undisclosed recipients"}</span>${icon(showsDetails ? "chevron-up" : "chevron-down")}
        </button>
      </div>
      <time class="message-date" datetime=${email.receivedAt} title=${fullDate(email.receivedAt)}>${messageDate(email.receivedAt)}</time>
      <span class="message-tools">
        <button class="icon-button star-button" aria-label="Star this message" aria-pressed=${has(email, "$flagged")} @click=${() => setKeywordOn([email], "$flagged", !has(email, "$flagged"))}>${icon("star")}</button>
        <button class="icon-button message-reply" aria-label="Reply" title="Reply" @click=${() => reply(email)}>${icon("reply")}</button>
        <button class="icon-button" aria-label="More for this message" aria-haspopup="menu" aria-expanded="false" @click=${(event) => messageMenu(event, email)}>${icon("ellipsis-vertical")}</button>
      </span>
    </header>
    ${showsDetails ? details(email) : nothing}
    ${has(email, "$draft") ? html`<div class="message-notice">${icon("file-pen-line")}<span class="grow">This is a draft.</span><button class="button button--small" @click=${() => resumeDraft(email.id)}>Edit</button></div>` : nothing}
    ${bodyView(email)}
    ${attachments.length ? attachmentsView(email, attachments) : nothing}`;
}

export function messageView(email, { open, single }) {
  return html`
    <article class=${classMap({ message: true, "message--open": open, "message--unread": !has(email, "$seen") })} aria-label="Message from ${displayName(email.from?.[0])}">
      ${open ? opened(email, single) : collapsed(email)}
    </article>`;
}
