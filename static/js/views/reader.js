// The reading pane: tool bar, subject, the messages of the conversation, and the reply bar.
import { html, nothing, repeat } from "../vendor.js";
import { archive, junk, markRead, notJunk, remove, toggleStar } from "../actions.js";
import { plural, subjectOf } from "../format.js";
import { list, rowOfThread } from "../list.js";
import { nameOf } from "../mailboxes.js";
import { leaveThread, navigate, threadUrl } from "../router.js";
import { changed, has, state } from "../state.js";
import { htmlPart, isLoaded, loadThread, messages, thread } from "../thread.js";
import { confirm } from "../ui/dialogs.js";
import { icon } from "../ui/icons.js";
import { openMenu } from "../ui/menu.js";
import { forward, reply } from "../compose/window.js";
import { moveMenu, reveal } from "./list-pane.js";
import { messageView } from "./message.js";

const FEW = 4; // older messages listed without folding their middle

/** Rows the open conversation acts through: its row in the list, or its newest message when the list does not show it. */
export function openRows() {
  const row = rowOfThread(thread.id);
  if (row) return [row];
  const newest = messages().at(-1);
  return newest ? [newest.id] : [];
}

/** Open the conversation `step` rows further down the list; false at its end. */
export function openNeighbour(step) {
  const at = list.ids.indexOf(openRows()[0]);
  const id = at >= 0 ? list.ids[at + step] : null;
  const email = id ? state.emails.get(id) : null;
  if (!email) return false;
  state.cursor = id;
  reveal(at + step);
  navigate(threadUrl(email.threadId), { replace: true });
  return true;
}

function moreMenu(event) {
  const rows = openRows();
  const role = state.mailboxes.get(state.route.mailboxId)?.role;
  openMenu(event.currentTarget, [
    { label: "Mark as unread", icon: "mail", detail: "U", run: () => { markRead(rows, false); leaveThread(); } },
    role === "junk" ? { label: "Not junk", icon: "shield-check", run: () => notJunk(rows) } : { label: "Junk", icon: "shield-alert", detail: "!", run: () => junk(rows) },
    { label: thread.expanded.size > 1 ? "Collapse all" : "Expand all", icon: "unfold-vertical", run: () => expandAll(thread.expanded.size <= 1) },
  ], { label: "More" });
}

function expandAll(on) {
  const shown = messages();
  thread.expanded = new Set(on ? shown.map(({ id }) => id) : [shown.at(-1)?.id]);
  thread.unfolded = on;
  changed();
}

const toolBar = () => {
  const rows = openRows();
  const at = list.ids.indexOf(rows[0]);
  const starred = messages().some((email) => has(email, "$flagged"));
  return html`
    <div class="reader-bar" role="toolbar" aria-label="Conversation">
      <button class="icon-button reader-back" aria-label="Back to the list" title="Back (u)" @click=${leaveThread}>${icon("arrow-left")}</button>
      <button class="icon-button" aria-label="Archive" title="Archive (e)" @click=${() => archive(rows)}>${icon("archive")}</button>
      <button class="icon-button" aria-label="Delete" title="Delete (#)" @click=${() => remove(rows, confirm)}>${icon("trash-2")}</button>
      <button class="icon-button" aria-label="Move to" title="Move (v)" aria-haspopup="menu" aria-expanded="false" @click=${(event) => moveMenu(event.currentTarget, rows)}>${icon("folder-input")}</button>
      <button class="icon-button star-button" aria-label="Star" title="Star (s)" aria-pressed=${starred} @click=${() => toggleStar(rows[0])}>${icon("star")}</button>
      <button class="icon-button" aria-label="More" aria-haspopup="menu" aria-expanded="false" @click=${moreMenu}>${icon("ellipsis-vertical")}</button>
      <span class="grow"></span>
      <button class="icon-button" aria-label="Newer" title="Newer (k)" ?disabled=${at <= 0} @click=${() => openNeighbour(-1)}>${icon("chevron-up")}</button>
      <button class="icon-button" aria-label="Older" title="Older (j)" ?disabled=${at < 0 || at + 1 >= (list.total ?? 0)} @click=${() => openNeighbour(1)}>${icon("chevron-down")}</button>
    </div>`;
};

const skeleton = () => html`
  <div class="reader-wait" aria-hidden="true">
    <span class="bone bone--title"></span>
    <span class="bone bone--w4"></span>
    <span class="bone bone--w9"></span><span class="bone bone--w9"></span><span class="bone bone--w7"></span><span class="bone bone--w8"></span><span class="bone bone--w5"></span>
  </div>`;

function labels(shown) {
  const ids = new Set(shown.flatMap((email) => Object.keys(email.mailboxIds ?? {})));
  ids.delete(state.route.query && state.route.everywhere ? null : state.route.mailboxId);
  return [...ids].map((id) => state.mailboxes.get(id)).filter((mailbox) => mailbox && mailbox.role !== "sent")
    .map((mailbox) => html`<span class="label">${nameOf(mailbox)}</span>`);
}

function conversation() {
  const shown = messages();
  const folded = !thread.unfolded && shown.length > FEW + 1 ? shown.slice(1, -2).filter((email) => !thread.expanded.has(email.id)) : [];
  const hidden = new Set(folded.length > 1 ? folded.map(({ id }) => id) : []);
  const open = shown.filter((email) => thread.expanded.has(email.id));
  // One HTML message alone fills the pane and scrolls inside; with several open, or text, the pane itself scrolls.
  const fill = open.length === 1 && htmlPart(open[0]);
  const last = shown.findLast((email) => !has(email, "$draft"));
  const entries = [];
  for (const email of shown) {
    if (!hidden.has(email.id)) entries.push({ key: email.id, view: () => messageView(email, { open: thread.expanded.has(email.id), single: shown.length === 1 }) });
    else if (entries.at(-1)?.key !== "folded") entries.push({ key: "folded", view: () => html`
      <button class="folded" @click=${() => { thread.unfolded = true; changed(); }}><span>${plural(hidden.size, "earlier message")}</span></button>` });
  }
  return html`
    <div class="thread ${fill ? "thread--fill" : ""}">
      <div class="thread-head">
        <h1 class="thread-subject">${subjectOf(shown[0])}</h1>
        ${labels(shown)}
      </div>
      ${repeat(entries, ({ key }) => key, ({ view }) => view())}
      ${last ? html`
        <div class="reply-bar">
          <button class="button" @click=${() => reply(last)}>${icon("reply")} Reply</button>
          ${(last.to?.length ?? 0) + (last.cc?.length ?? 0) > 1 ? html`<button class="button" @click=${() => reply(last, { all: true })}>${icon("reply-all")} Reply all</button>` : nothing}
          <button class="button" @click=${() => forward(last)}>${icon("forward")} Forward</button>
        </div>` : nothing}
    </div>`;
}

const errorView = () => html`
  <div class="empty" role="alert">${icon("mail-question-mark", "icon--lg")}<h2>${thread.error.type === "notFound" ? "Not here any more" : "The conversation could not be loaded"}</h2>
    <p>${thread.error.message}</p>
    ${thread.error.type === "notFound" ? html`<button class="button" @click=${leaveThread}>Back to the list</button>` : html`<button class="button" @click=${() => loadThread(thread.id)}>Try again</button>`}
  </div>`;

const nothingOpen = () => html`
  <div class="empty empty--reader">${icon("mail-open", "icon--lg")}
    <p>${state.selection.size ? `${plural(state.selection.size, list.collapse ? "conversation" : "message")} selected` : "Select a conversation to read it"}</p>
    <p class="empty-hint"><kbd>j</kbd> <kbd>k</kbd> to move, <kbd>Enter</kbd> to open, <kbd>?</kbd> for all shortcuts</p>
  </div>`;

export function readerPane() {
  const body = !thread.id ? nothingOpen() : isLoaded() ? html`${toolBar()}${conversation()}` : thread.error ? html`<div class="reader-bar"><button class="icon-button reader-back" aria-label="Back to the list" @click=${leaveThread}>${icon("arrow-left")}</button></div>${errorView()}` : html`${toolBar()}${skeleton()}`;
  return html`<main class="reader" tabindex="-1" aria-label="Conversation" aria-busy=${Boolean(thread.id) && !isLoaded() && !thread.error}>${body}</main>`;
}
