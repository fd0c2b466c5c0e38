// From a compose window to the server: the Email object, saving it as a draft, sending it, taking it back.
import { accountId, call, checkSet, session, SUBMISSION } from "../jmap.js";
import { domToText } from "../text.js";
import { mailboxWithRole } from "../state.js";
import { serialise } from "./editor.js";

const UNDO_SECONDS = 10;

/** Seconds that the server can hold a message back for us, 0 when it cannot (RFC 8621 §1.3.2). */
export function undoSeconds() {
  const most = session.accounts[accountId()]?.accountCapabilities?.[SUBMISSION]?.maxDelayedSend ?? 0;
  return Math.min(most, UNDO_SECONDS);
}

function body(composer) {
  const { forwarded } = composer;
  if (composer.mode === "plain") {
    const text = [composer.text.trimEnd(), forwarded?.text].filter(Boolean).join("\n\n");
    return { textBody: [{ partId: "text", type: "text/plain" }], bodyValues: { text: { value: text } }, images: [] };
  }
  const { markup, images, dom } = composer.root ? serialise(composer.root) : { markup: composer.markup, images: [], dom: null };
  const text = [dom ? domToText(dom) : composer.text, forwarded?.text].filter(Boolean).join("\n\n");
  const page = `<!DOCTYPE html><html><head><meta charset="utf-8"></head><body>${markup}${forwarded ? `<br>${forwarded.markup}` : ""}</body></html>`;
  return {
    textBody: [{ partId: "text", type: "text/plain" }],
    htmlBody: [{ partId: "html", type: "text/html" }],
    bodyValues: { text: { value: text }, html: { value: page } },
    images: [...images, ...(forwarded?.images ?? [])],
  };
}

const addresses = (list) => (list.length ? list.map(({ name, email }) => ({ name: name || null, email })) : null);

/** The Email object (RFC 8621 §4.6) of what is written. */
export function emailOf(composer) {
  const { images, ...parts } = body(composer);
  const inline = [...new Map(images.map((image) => [image.cid, image])).values()].map(({ blobId, type, name, cid }) => ({ blobId, type, name, cid, disposition: "inline" }));
  const files = composer.files.filter((file) => file.blobId).map(({ blobId, type, name }) => ({ blobId, type, name, disposition: "attachment" }));
  const drafts = mailboxWithRole("drafts");
  return {
    mailboxIds: { [drafts.id]: true },
    keywords: { $draft: true, $seen: true },
    from: addresses([composer.identity]),
    to: addresses(composer.to),
    cc: addresses(composer.cc),
    bcc: addresses(composer.bcc),
    subject: composer.subject,
    inReplyTo: composer.inReplyTo ?? null,
    references: composer.references ?? null,
    ...parts,
    attachments: [...inline, ...files],
  };
}

/** Store what is written now, then drop the draft that it replaces: whatever fails, the newest stored words stay. */
async function replaceDraft(composer, storing) {
  const response = await storing;
  const created = response.created?.draft;
  if (!created) checkSet(response);
  if (composer.draftId) composer.replaced.push(composer.draftId);
  composer.draftId = created.id;
  const { replaced } = composer;
  if (replaced.length === 0) return;
  // What cannot be dropped now goes with the next one; the words are safe either way.
  await call("Email/set", { destroy: replaced }).then(() => { composer.replaced = composer.replaced.filter((id) => !replaced.includes(id)); }, () => {});
}

export const saveDraft = (composer) => replaceDraft(composer, call("Email/set", { create: { draft: emailOf(composer) } }));

export async function destroyDraft(id) {
  if (id) await call("Email/set", { destroy: [id] });
}

/**
 * Store the final draft, hand it to the queue and file it in Sent, in one request; then drop the older draft. Gives {emailId, submissionId, seconds}:
 * for so many seconds `unsend` can take it back.
 */
export async function sendMessage(composer) {
  const drafts = mailboxWithRole("drafts");
  const sent = mailboxWithRole("sent");
  const seconds = undoSeconds();
  const rcptTo = [...new Set([...composer.to, ...composer.cc, ...composer.bcc].map(({ email }) => email))].map((email) => ({ email, parameters: null }));
  const submission = { emailId: "#draft", identityId: composer.identity.id };
  if (seconds) submission.envelope = { mailFrom: { email: composer.identity.email, parameters: { HOLDFOR: String(seconds) } }, rcptTo };
  const stored = replaceDraft(composer, call("Email/set", { create: { draft: emailOf(composer) } }));
  const submitted = call("EmailSubmission/set", {
    create: { send: submission },
    ...(sent ? { onSuccessUpdateEmail: { "#send": { [`mailboxIds/${drafts.id}`]: null, [`mailboxIds/${sent.id}`]: true, "keywords/$draft": null } } } : { onSuccessDestroyEmail: ["#send"] }),
  });
  if (composer.answers) call("Email/set", { update: { [composer.answers.emailId]: { [`keywords/${composer.answers.keyword}`]: true } } });
  await stored;
  const outcome = checkSet(await submitted);
  return { emailId: composer.draftId, submissionId: outcome.created.send.id, seconds };
}

/** Take a held message back into Drafts. */
export async function unsend({ emailId, submissionId }) {
  const drafts = mailboxWithRole("drafts");
  checkSet(await call("EmailSubmission/set", { update: { [submissionId]: { undoStatus: "canceled" } } }));
  checkSet(await call("Email/set", { update: { [emailId]: { mailboxIds: { [drafts.id]: true }, "keywords/$draft": true } } }));
}

/** Plain text for the other mode: nothing but formatting is lost. */
export const toPlain = (root) => domToText(serialise(root).dom);

/** The words of a refused submission that a person can act on. */
export function sendError(error) {
  const { type, detail } = error;
  const list = (detail?.invalidRecipients ?? []).map((address) => (detail.reasons?.[address] ? `${address} (${detail.reasons[address]})` : address)).join(", ");
  const known = {
    invalidRecipients: `These addresses cannot be used: ${list}.`,
    noRecipients: "There is no recipient.",
    tooManyRecipients: "There are too many recipients.",
    tooLarge: "The message is too large.",
    forbiddenFrom: "You may not send from this address.",
    forbiddenMailFrom: "You may not send from this address.",
    forbiddenToSend: detail?.description || "You may not send right now.",
    overQuota: "Your mailbox is full.",
    network: "The server cannot be reached.",
  };
  return known[type] ?? error.message;
}
