// What a new message begins with: the quoted original of a reply, the original of a forward, the text of a draft.
import { attributionDate, displayName, formatAddress, fullDate, prefixedSubject } from "../format.js";
import { downloadUrl } from "../jmap.js";
import { escapeHtml, quoteText, textToHtml } from "../text.js";
import { htmlPart, plainText } from "../thread.js";
import { bodyUrl } from "../views/body.js";

const FORWARDED = '<div class="forwarded-message">';

/** The server's sanitised HTML of a part: the second wall, DOMPurify, stands before the editor. */
async function fetchQuote(email, part, styled = false) {
  const response = await fetch(bodyUrl(email, part, { use: styled ? "forward" : "quote" }), { credentials: "same-origin" });
  if (!response.ok) throw new Error("The original could not be loaded.");
  return response.text();
}

/** Point cid: images at their blobs, so that the editor can show them and the message carry them along. */
function withInlineImages(markup, email) {
  const inline = new Map((email.attachments ?? []).filter((part) => part.cid).map((part) => [part.cid, part]));
  if (inline.size === 0) return markup;
  const tree = new DOMParser().parseFromString(markup, "text/html");
  for (const image of tree.querySelectorAll('img[src^="cid:"]')) {
    const part = inline.get(decodeURIComponent(image.getAttribute("src").slice(4)));
    if (!part || !part.type?.startsWith("image/")) continue;
    image.setAttribute("src", downloadUrl(part.blobId, part.name ?? "image", part.type));
    Object.assign(image.dataset, { cid: part.cid, blob: part.blobId, type: part.type, name: part.name ?? "", size: String(part.size) });
  }
  return tree.body.innerHTML;
}

/** {markup, text} of an email's body, for quoting or editing. */
async function contentOf(email) {
  const part = htmlPart(email);
  const text = plainText(email);
  if (!part) return { markup: textToHtml(text), text };
  return { markup: withInlineImages(await fetchQuote(email, part), email), text };
}

const attribution = (email) => `On ${attributionDate(email.sentAt ?? email.receivedAt)}, ${displayName(email.from?.[0])} wrote:`;

export async function replyContent(email) {
  const { markup, text } = await contentOf(email);
  const line = attribution(email);
  return {
    markup: `<div><br></div><div><br></div><div>${escapeHtml(line)}</div><blockquote type="cite">${markup}</blockquote>`,
    text: `\n\n${line}\n${quoteText(text)}\n`,
  };
}

function headerLines(email) {
  const list = (addresses) => (addresses ?? []).map(formatAddress).join(", ");
  return [["From", list(email.from)], ["Date", fullDate(email.sentAt ?? email.receivedAt)], ["Subject", email.subject ?? ""], ["To", list(email.to)], ["Cc", list(email.cc)]].filter(([, value]) => value);
}

/** A forwarded original is not edited: it travels as the server cleaned it, with its looks, and never enters this page. */
export async function forwardContent(email) {
  const lines = headerLines(email);
  const part = htmlPart(email);
  const text = plainText(email);
  const body = part ? await fetchQuote(email, part, true) : textToHtml(text);
  const head = lines.map(([name, value]) => `<div><b>${name}:</b> ${escapeHtml(value)}</div>`).join("");
  const inline = (email.attachments ?? []).filter((one) => part && one.cid && one.disposition === "inline" && one.type?.startsWith("image/"));
  return {
    forwarded: {
      markup: `${FORWARDED}<div>---------- Forwarded message ----------</div>${head}<br>${body}</div>`,
      text: `---------- Forwarded message ----------\n${lines.map(([name, value]) => `${name}: ${value}`).join("\n")}\n\n${text}`,
      images: inline.map(({ cid, blobId, type, name, size }) => ({ cid, blobId, type, name, size })),
      from: displayName(email.from?.[0]),
      subject: email.subject ?? "",
    },
    files: (email.attachments ?? []).filter((one) => !inline.includes(one)).map(({ blobId, type, name, size }) => ({ blobId, type, name: name || (type === "message/rfc822" ? "message.eml" : "attachment"), size, progress: 1 })),
  };
}

/** A draft's text, and apart from it the message it forwards, if it does. */
export async function draftContent(email) {
  const part = htmlPart(email);
  const text = plainText(email);
  if (!part) return { mode: "plain", text, markup: textToHtml(text), forwarded: null };
  const [simple, styled] = await Promise.all([fetchQuote(email, part), fetchQuote(email, part, true)]);
  const at = styled.indexOf(FORWARDED);
  const inline = (email.attachments ?? []).filter((one) => one.cid && one.disposition === "inline" && one.type?.startsWith("image/"));
  const own = at < 0 ? simple : simple.slice(0, simple.indexOf(FORWARDED));
  const mark = text.indexOf("---------- Forwarded message ----------");
  return {
    mode: "rich",
    text: mark < 0 ? text : text.slice(0, mark).trimEnd(),
    markup: withInlineImages(own, email),
    forwarded: at < 0 ? null : {
      markup: styled.slice(at),
      text: mark < 0 ? "" : text.slice(mark),
      images: inline.filter(({ cid }) => styled.slice(at).includes(`cid:${cid}`)).map(({ cid, blobId, type, name, size }) => ({ cid, blobId, type, name, size })),
      from: "",
      subject: email.subject ?? "",
    },
  };
}

const unique = (addresses) => [...new Map(addresses.map((address) => [address.email.toLowerCase(), address])).values()];

/** Whom a reply goes to; `mine` are one's own addresses in lower case. Answering one's own message goes on to its recipients. */
export function replyRecipients(email, mine, all) {
  const notMine = ({ email: address }) => !mine.has(address.toLowerCase());
  const fromMe = email.from?.[0] && !notMine(email.from[0]);
  const sender = fromMe ? (email.to ?? []) : email.replyTo?.length ? email.replyTo : (email.from ?? []);
  if (!all) return { to: unique(sender), cc: [] };
  const to = unique([...sender, ...(fromMe ? [] : (email.to ?? []))]).filter(notMine);
  const seen = new Set(to.map((address) => address.email.toLowerCase()));
  const cc = unique(email.cc ?? []).filter((address) => notMine(address) && !seen.has(address.email.toLowerCase()));
  return { to: to.length ? to : unique(sender), cc };
}

/** Threading fields of an answer (RFC 5322 §3.6.4). */
export function threading(email) {
  const own = email.messageId ?? [];
  const before = email.references?.length ? email.references : (email.inReplyTo ?? []);
  return { inReplyTo: own, references: [...before, ...own].slice(-50) };
}

export const subjectFor = (email, kind) => prefixedSubject(kind === "forward" ? "Fwd" : "Re", email.subject);
