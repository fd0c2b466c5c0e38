// One row of the message list: a conversation (or a draft) in three lines, with its checkbox, star and quick actions.
import { html, nothing, classMap, ref } from "../vendor.js";
import { archive, markRead, remove, toggleStar } from "../actions.js";
import { displayName, firstName, fullDate, shortDate, subjectOf } from "../format.js";
import { list, positionOf, summarise } from "../list.js";
import { threadUrl } from "../router.js";
import { changed, has, state } from "../state.js";
import { thread } from "../thread.js";
import { confirm } from "../ui/dialogs.js";
import { icon } from "../ui/icons.js";
import { resumeDraft } from "../compose/window.js";
import { DRAG_TYPE } from "./sidebar.js";

let lastSelected = null;

/** Select or deselect a row; with `range` everything from the row that was touched last. */
export function select(id, range = false) {
  const on = !state.selection.has(id);
  const from = range && lastSelected ? positionOf(lastSelected) : -1;
  const to = positionOf(id);
  if (from >= 0 && to >= 0) {
    for (let at = Math.min(from, to); at <= Math.max(from, to); at += 1) if (list.ids[at]) state.selection[on ? "add" : "delete"](list.ids[at]);
  } else if (on) state.selection.add(id);
  else state.selection.delete(id);
  lastSelected = id;
  state.cursor = id;
  changed();
}

/** Rows shown in Sent and Drafts are about whom they go to. */
const isOutgoing = (email) => {
  const role = state.mailboxes.get(state.route.mailboxId)?.role;
  return !state.route.query && (role === "sent" || role === "drafts") && Boolean(email.to);
};

function people(email, summary) {
  if (isOutgoing(email)) {
    const to = email.to?.length ? email.to.map(email.to.length > 1 ? firstName : displayName).join(", ") : "(no recipient)";
    return html`<span class="row-to">To </span>${to}`;
  }
  const seen = new Map();
  for (const member of summary.members) {
    const from = member.from?.[0];
    if (from) seen.set(from.email?.toLowerCase(), { from, unread: !has(member, "$seen") });
  }
  const mine = new Set(state.identities.map((identity) => identity.email.toLowerCase()));
  const all = [...seen.values()];
  if (all.length <= 1) return displayName(all[0]?.from ?? email.from?.[0]);
  return all.map(({ from }) => (mine.has(from.email?.toLowerCase()) ? "me" : firstName(from))).join(", ");
}

/** Put the row at its position; by CSSOM, because the page's policy allows no style attributes. */
const place = (position, height) => ref((element) => {
  if (element) element.style.transform = `translateY(${position * height}px)`;
});

function onClick(event, email) {
  if (event.target.closest(".row-check, .row-star, .row-actions")) return;
  if (event.shiftKey || event.metaKey || event.ctrlKey) {
    if (event.metaKey || event.ctrlKey) {
      if (event.target.closest("a")) return; // a new tab
    }
    event.preventDefault();
    select(email.id, event.shiftKey);
    return;
  }
  state.cursor = email.id;
  if (has(email, "$draft") && summarise(email).members.length === 1) {
    event.preventDefault();
    resumeDraft(email.id);
  } else if (!event.target.closest("a")) event.currentTarget.querySelector("a").click();
}

function onDrag(event, email) {
  const ids = state.selection.has(email.id) ? [...state.selection] : [email.id];
  event.dataTransfer.setData(DRAG_TYPE, JSON.stringify(ids));
  event.dataTransfer.effectAllowed = "move";
  const label = document.createElement("div");
  label.className = "drag-label";
  label.textContent = ids.length === 1 ? subjectOf(email) : `${ids.length} conversations`;
  document.body.append(label);
  event.dataTransfer.setDragImage(label, 12, 12);
  setTimeout(() => label.remove());
}

export function row(email, position, height) {
  const summary = summarise(email);
  const selected = state.selection.has(email.id);
  const current = thread.id === email.threadId && list.collapse;
  const cursor = state.cursor ? state.cursor === email.id : position === 0;
  const quick = (event, work) => {
    event.stopPropagation();
    event.preventDefault();
    work([email.id]);
  };
  return html`
    <li class=${classMap({ row: true, "row--unread": summary.unread, "row--selected": selected, "row--current": current, "row--cursor": state.cursor === email.id })}
      data-position=${position} data-id=${email.id} aria-setsize=${list.total ?? -1} aria-posinset=${position + 1} aria-current=${current ? "true" : nothing}
      draggable="true" @dragstart=${(event) => onDrag(event, email)} @click=${(event) => onClick(event, email)} ${place(position, height)}>
      <span class="row-lead">
        <input type="checkbox" class="row-check" aria-label="Select ${subjectOf(email)}" .checked=${selected}
          @click=${(event) => { event.stopPropagation(); select(email.id, event.shiftKey); }}>
        ${summary.unread ? html`<span class="row-dot" title="Unread"></span>` : nothing}
      </span>
      <a class="row-link" href=${threadUrl(email.threadId)} tabindex=${cursor ? 0 : -1} draggable="false">
        <span class="row-top">
          <span class="row-people truncate">${summary.unread ? html`<span class="sr-only">Unread. </span>` : nothing}${people(email, summary)}</span>
          ${summary.members.length > 1 ? html`<span class="row-number" title="${summary.members.length} messages">${summary.members.length}</span>` : nothing}
          <time class="row-date" datetime=${email.receivedAt} title=${fullDate(email.receivedAt)}>${shortDate(email.receivedAt)}</time>
        </span>
        <span class="row-middle">
          ${summary.draft ? html`<span class="row-draft">Draft</span>` : nothing}
          ${summary.answered ? icon("reply", "row-mark") : summary.forwarded ? icon("forward", "row-mark") : nothing}
          <span class="row-subject truncate">${subjectOf(email)}</span>
          ${summary.attachment ? html`<span class="row-clip" title="Has attachments">${icon("paperclip")}<span class="sr-only">, with attachments</span></span>` : nothing}
        </span>
        <span class="row-preview truncate">${email.preview || " "}</span>
      </a>
      <button class="row-star" aria-label="Star" aria-pressed=${summary.starred} tabindex="-1" title="Star (s)" @click=${(event) => { event.stopPropagation(); toggleStar(email.id); }}>${icon("star")}</button>
      <span class="row-actions">
        <button class="icon-button icon-button--sm" aria-label="Archive" title="Archive (e)" tabindex="-1" @click=${(event) => quick(event, archive)}>${icon("archive")}</button>
        <button class="icon-button icon-button--sm" aria-label="Delete" title="Delete (#)" tabindex="-1" @click=${(event) => quick(event, (ids) => remove(ids, confirm))}>${icon("trash-2")}</button>
        <button class="icon-button icon-button--sm" aria-label=${summary.unread ? "Mark as read" : "Mark as unread"} title=${summary.unread ? "Mark as read (I)" : "Mark as unread (U)"} tabindex="-1"
          @click=${(event) => quick(event, (ids) => markRead(ids, summary.unread))}>${icon(summary.unread ? "mail-open" : "mail")}</button>
      </span>
    </li>`;
}

export const skeletonRow = (position, height) => html`
  <li class="row row--bone" aria-hidden="true" ${place(position, height)}>
    <span class="row-lead"></span>
    <span class="row-link">
      <span class="bone bone--w${(position % 3) + 3}"></span>
      <span class="bone bone--w${((position * 7) % 4) + 5}"></span>
      <span class="bone bone--w8"></span>
    </span>
  </li>`;
