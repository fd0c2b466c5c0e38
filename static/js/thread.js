// The open conversation: loading its messages with their bodies, which of them are expanded, and marking them read.
import { call } from "./jmap.js";
import { unflow } from "./text.js";
import { changed, has, hasRole, remember, state } from "./state.js";

const PROPERTIES = ["id", "blobId", "threadId", "mailboxIds", "keywords", "size", "receivedAt", "sentAt", "messageId", "inReplyTo", "references",
  "from", "to", "cc", "bcc", "replyTo", "sender", "subject", "preview", "hasAttachment", "textBody", "htmlBody", "attachments", "bodyValues"];
const BODY_PROPERTIES = ["partId", "blobId", "size", "name", "type", "charset", "disposition", "cid", "header:Content-Type"];
export const FULL = { properties: PROPERTIES, bodyProperties: BODY_PROPERTIES, fetchTextBodyValues: true, maxBodyValueBytes: 400_000 };

/** `expanded` holds email ids; `images` those whose remote images are shown; `unfolded`: middle messages are listed. */
export const thread = { id: null, error: null, expanded: new Set(), details: new Set(), images: new Set(), unfolded: false, seen: false };

export const openThreadId = () => thread.id;

/** Messages of the open conversation that are loaded, oldest first; those in Trash only when nothing else is there. */
export function messages() {
  const all = (state.threads.get(thread.id) ?? []).map((id) => state.emails.get(id)).filter((email) => email?.textBody);
  const inTrash = state.mailboxes.get(state.route.mailboxId)?.role === "trash";
  const kept = inTrash ? all : all.filter((email) => !hasRole(email, "trash"));
  return kept.length ? kept : all;
}

export const isLoaded = () => messages().length > 0;

export function openThread(id) {
  if (thread.id === id) return;
  Object.assign(thread, { id, error: null, expanded: new Set(), details: new Set(), images: new Set(), unfolded: false, seen: false });
  if (id) {
    if (isLoaded()) settle();
    loadThread(id);
  }
  changed();
}

export async function loadThread(id) {
  try {
    const members = call("Thread/get", { ids: [id] });
    const emails = call("Email/get", { "#ids": members.ref("/list/*/emailIds"), ...FULL });
    const [{ list: [found] }, { list }] = await Promise.all([members, emails]);
    if (!found) {
      state.threads.delete(id);
      if (thread.id === id) thread.error = { type: "notFound", message: "This conversation is no longer here." };
    } else {
      state.threads.set(id, found.emailIds);
      remember(list);
      if (thread.id === id) settle();
    }
  } catch (error) {
    if (thread.id === id && !isLoaded()) thread.error = error;
  }
  changed();
}

/** The first time: expand the newest message and count the conversation as read. What arrives later waits to be opened. */
function settle() {
  thread.error = null;
  const shown = messages();
  if (thread.expanded.size === 0 && shown.length) {
    const newest = shown.findLast((email) => !has(email, "$draft")) ?? shown.at(-1);
    thread.expanded.add(newest.id);
  }
  if (thread.seen || !shown.length) return;
  thread.seen = true;
  onShown(shown);
}

let onShown = () => {};

/** Be told of the messages whenever a conversation has been shown (actions.js marks them read). */
export function whenShown(callback) {
  onShown = callback;
}

export function toggleMessage(id) {
  if (thread.expanded.has(id)) thread.expanded.delete(id);
  else {
    thread.expanded.add(id);
    onShown([state.emails.get(id)]);
  }
  changed();
}

/** The first HTML part to show, or null when the message is plain text. */
export function htmlPart(email) {
  return email.htmlBody?.find((part) => part.type === "text/html") ?? null;
}

/** Attachments worth listing: inline images that the HTML shows by their cid are not. */
export function attachmentsOf(email) {
  const html = Boolean(htmlPart(email));
  return (email.attachments ?? []).filter((part) => !(html && part.cid && part.disposition === "inline" && part.type?.startsWith("image/")));
}

/** The message's plain text, with the lines of format=flowed joined again. */
export const plainText = (email) => (email.textBody ?? [])
  .filter((part) => part.type?.startsWith("text/") && part.type !== "text/html")
  .map((part) => unflow(email.bodyValues?.[part.partId]?.value ?? "", part["header:Content-Type"] ?? ""))
  .join("\n");
