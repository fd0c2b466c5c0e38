// Compose windows: opening them for a new message, a reply, a forward or a draft; saving by themselves; sending.
import { call } from "../jmap.js";
import { isValid, prepareContacts } from "../contacts.js";
import { changed, drawNow, remember, state } from "../state.js";
import { FULL } from "../thread.js";
import { textToHtml } from "../text.js";
import { confirm } from "../ui/dialogs.js";
import { failed, notify } from "../ui/toasts.js";
import { destroyDraft, saveDraft, sendError, sendMessage, toPlain, unsend } from "./draft.js";
import { createEditor, loadLibraries } from "./editor.js";
import { addFiles } from "./files.js";
import { draftContent, forwardContent, replyContent, replyRecipients, subjectFor, threading } from "./quote.js";
import { commitTyped } from "./recipients.js";
import { composerView } from "./view.js";

const SAVE_AFTER = 2000;
const MOST = 3; // windows open at once
let number = 0;

const mine = () => new Set(state.identities.map((identity) => identity.email.toLowerCase()));

/** The identity to answer with: the one that was written to, else the first. */
function identityFor(email) {
  const addressed = new Set([...(email?.to ?? []), ...(email?.cc ?? []), ...(email?.from ?? [])].map((address) => address.email?.toLowerCase()));
  return state.identities.find((identity) => addressed.has(identity.email.toLowerCase())) ?? state.identities[0];
}

function make(fields) {
  const composer = {
    key: `compose-${(number += 1)}`, title: "New message", identity: state.identities[0], to: [], cc: [], bcc: [], showCc: false, showBcc: false,
    subject: "", mode: "rich", markup: "<div><br></div>", text: "", forwarded: null, files: [], inReplyTo: null, references: null, answers: null, draftId: null, replaced: [],
    version: 0, saved: 0, busy: "", status: "", error: "", minimised: false, full: false, loading: false, editor: null, root: null, timer: null, saving: null,
    focus: "to", opened: performance.now(), typedAhead: "", reached: false, closed: false, ...fields,
  };
  /** Something changed: draw, and save a little later. */
  composer.touch = () => {
    composer.version += 1;
    composer.status = "";
    clearTimeout(composer.timer);
    composer.timer = setTimeout(() => save(composer), SAVE_AFTER);
    changed();
  };
  composer.attach = (element) => attach(composer, element);
  return composer;
}

function show(composer) {
  if (state.composers.length >= MOST) {
    notify("Please close one of the open messages first.");
    return null;
  }
  for (const other of state.composers) other.minimised = true;
  state.composers.push(composer);
  prepareContacts();
  drawNow(); // the caret is there before the next key
  if (composer.focus === "to") document.getElementById(`${composer.key}-to`)?.focus();
  return composer;
}

/** Fill a window whose text has to be fetched first; it is there, with its recipients, at once. */
async function fill(composer, load) {
  composer.loading = true;
  if (!show(composer)) return;
  try {
    Object.assign(composer, await load());
    composer.loading = false;
  } catch (error) {
    close(composer);
    failed("The message could not be opened.", error);
  }
  changed();
}

export const compose = (fields = {}) => show(make({ showCc: Boolean(fields.cc?.length), ...fields }));

export function reply(email, { all = false } = {}) {
  const { to, cc } = replyRecipients(email, mine(), all);
  const composer = make({
    title: "Reply", identity: identityFor(email), to, cc, showCc: cc.length > 0, subject: subjectFor(email, "reply"), ...threading(email),
    answers: { emailId: email.id, keyword: "$answered" }, focus: "body",
  });
  return fill(composer, () => replyContent(email));
}

export function forward(email) {
  const composer = make({
    title: "Forward", identity: identityFor(email), subject: subjectFor(email, "forward"), references: threading(email).references,
    answers: { emailId: email.id, keyword: "$forwarded" },
  });
  return fill(composer, () => forwardContent(email));
}

/** Go on with a stored draft; a window that has it already comes to the front. */
export async function resumeDraft(emailId) {
  const already = state.composers.find((composer) => composer.draftId === emailId);
  if (already) {
    already.minimised = false;
    changed();
    return;
  }
  const composer = make({ title: "Draft", draftId: emailId, focus: "body" });
  await fill(composer, async () => {
    const { list: [email] } = await call("Email/get", { ids: [emailId], ...FULL });
    if (!email) throw new Error("It is no longer there.");
    remember([email]);
    const { mode, text, markup, forwarded } = await draftContent(email);
    const inline = (email.attachments ?? []).filter((part) => part.cid && part.disposition === "inline");
    return {
      identity: state.identities.find((identity) => identity.email === email.from?.[0]?.email) ?? state.identities[0],
      to: email.to ?? [], cc: email.cc ?? [], bcc: email.bcc ?? [], showCc: Boolean(email.cc?.length), showBcc: Boolean(email.bcc?.length), subject: email.subject ?? "",
      inReplyTo: email.inReplyTo, references: email.references, mode, text, markup, forwarded,
      files: (email.attachments ?? []).filter((part) => !inline.includes(part)).map(({ blobId, type, name, size }) => ({ blobId, type, name: name ?? "attachment", size, progress: 1 })),
    };
  });
}

/** Called by the view with the element that the editor lives in, and with undefined when it goes. */
function attach(composer, element) {
  if (!element) {
    composer.editor?.destroy();
    Object.assign(composer, { editor: null, root: null });
    return;
  }
  if (composer.root === element) return;
  composer.root = element;
  createEditor(element, {
    markup: composer.markup,
    onInput: () => composer.touch(),
    onPath: changed,
    onFiles: (files) => addFiles(composer, files, { inline: true }),
  }).then((editor) => {
    if (composer.root !== element) return;
    composer.editor = editor;
    if (composer.focus === "body") {
      editor.focus();
      editor.moveCursorToStart();
      if (composer.typedAhead) editor.insertPlainText(composer.typedAhead, false);
      composer.typedAhead = "";
    }
    changed();
  });
}

/** Between rich and plain text; the words stay, the formatting goes. */
export function toggleMode(composer) {
  if (composer.mode === "rich") {
    composer.text = composer.root ? toPlain(composer.root) : composer.text;
    composer.mode = "plain";
  } else {
    composer.markup = textToHtml(composer.text);
    composer.mode = "rich";
    composer.focus = "body";
  }
  composer.touch();
}

/** Save now if something changed; saves of one window never overlap. */
export async function save(composer) {
  clearTimeout(composer.timer);
  if (composer.saving) {
    await composer.saving;
    return save(composer);
  }
  if (composer.version === composer.saved || composer.busy || composer.loading || composer.closed === "sent") return undefined;
  const version = composer.version;
  composer.status = "Saving…";
  changed();
  composer.saving = saveDraft(composer).then(
    () => {
      composer.saved = version;
      composer.status = composer.version === version ? "Draft saved" : "";
    },
    (error) => {
      composer.status = error.type === "network" ? "Not saved: offline" : "Not saved";
      clearTimeout(composer.timer);
      if (!composer.closed) composer.timer = setTimeout(() => save(composer), 10 * SAVE_AFTER);
    },
  );
  await composer.saving;
  composer.saving = null;
  changed();
  return undefined;
}

function close(composer) {
  clearTimeout(composer.timer);
  composer.closed ||= true;
  state.composers = state.composers.filter((other) => other !== composer);
  changed();
}

/** Put a window away; what is in it stays in Drafts. */
export async function dismiss(composer) {
  commitTyped(composer, document.getElementById(composer.key));
  const unsaved = composer.version !== composer.saved;
  if (!unsaved) {
    close(composer);
    return;
  }
  await save(composer);
  if (composer.version === composer.saved) {
    close(composer);
    notify("Draft saved.");
  } else if (await confirm({ title: "Close without saving?", text: "The draft could not be saved.", action: "Close", danger: true })) close(composer);
}

export async function discard(composer) {
  if (composer.saving) await composer.saving;
  const keep = { ...composer, draftId: null, markup: composer.editor?.getHTML() ?? composer.markup };
  close(composer);
  const written = composer.draftId || composer.version > 0;
  try {
    await destroyDraft(composer.draftId);
    if (written) notify("Draft discarded.", { label: "Undo", run: () => reopen(keep) });
  } catch (error) {
    failed("The draft was not discarded.", error);
  }
}

function reopen(old) {
  const fields = ["title", "identity", "to", "cc", "bcc", "showCc", "showBcc", "subject", "mode", "markup", "text", "forwarded", "files", "inReplyTo", "references", "answers", "draftId"];
  const composer = make(Object.fromEntries(fields.map((name) => [name, old[name]])));
  composer.focus = "body";
  if (show(composer)) composer.touch();
}

const MENTIONS = /\b(attach(ed|ment|ing)?|enclosed|anhang|angehängt|beigefügt|pièce jointe|adjunto)\b/i;

async function isReady(composer) {
  const everyone = [...composer.to, ...composer.cc, ...composer.bcc];
  const wrong = everyone.filter((address) => !isValid(address));
  if (everyone.length === 0) composer.error = "Please add a recipient.";
  else if (wrong.length) composer.error = `Not a mail address: ${wrong.map(({ email }) => email).join(", ")}`;
  else if (composer.files.some((file) => file.progress < 1 && !file.error)) composer.error = "Attachments are still being uploaded.";
  else composer.error = "";
  if (composer.error) {
    changed();
    return false;
  }
  const own = (composer.mode === "plain" ? composer.text : (composer.root?.innerText ?? "")).split(/^(>|On .* wrote:)/m)[0];
  if (MENTIONS.test(own) && composer.files.length === 0 && !composer.forwarded) {
    return confirm({ title: "Send without an attachment?", text: "The text mentions one, but nothing is attached.", action: "Send anyway" });
  }
  return true;
}

export async function send(composer) {
  if (composer.busy || composer.loading) return;
  commitTyped(composer, document.getElementById(composer.key));
  if (!(await isReady(composer))) return;
  clearTimeout(composer.timer);
  if (composer.saving) await composer.saving;
  composer.busy = "Sending…";
  changed();
  try {
    const outcome = await sendMessage(composer);
    composer.closed = "sent";
    const keep = { ...composer, markup: composer.editor?.getHTML() ?? composer.markup, draftId: outcome.emailId };
    close(composer);
    const undo = async () => {
      await unsend(outcome);
      reopen(keep);
    };
    notify("Sent.", outcome.seconds ? { label: "Undo", run: undo } : null, outcome.seconds || 4);
  } catch (error) {
    composer.busy = "";
    composer.error = `Not sent. ${sendError(error)}`;
    composer.minimised = false;
    composer.saved = -1; // whatever became of the draft, store it again
    changed();
  }
}

export const composersView = () => composerView(state.composers);

/** Links to mail addresses open a window of ours; leaving with something unsaved asks first. */
export function startCompose() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="mailto:"]');
    if (!link || link.closest(".editor")) return;
    event.preventDefault();
    const target = new URL(link.href);
    compose({ to: decodeURIComponent(target.pathname).split(",").filter(Boolean).map((email) => ({ name: "", email: email.trim() })), subject: target.searchParams.get("subject") ?? "" });
  });
  window.addEventListener("beforeunload", (event) => {
    if (state.composers.some((composer) => composer.version !== composer.saved || composer.busy)) event.preventDefault();
  });
  requestIdleCallback?.(() => loadLibraries(), { timeout: 10_000 });
}
