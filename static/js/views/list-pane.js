// The list pane: its tool bar, the virtual list (rows of one height, placed by position), and what to say when it is empty.
import { html, nothing, repeat } from "../vendor.js";
import { archive, junk, markRead, move, notJunk, remove } from "../actions.js";
import { count, plural } from "../format.js";
import { allIds, ensure, list, refresh, retry } from "../list.js";
import { mailboxTree, nameOf, pathOf, iconOf } from "../mailboxes.js";
import { changed, has, state } from "../state.js";
import { sync } from "../sync.js";
import { confirm } from "../ui/dialogs.js";
import { icon } from "../ui/icons.js";
import { openMenu } from "../ui/menu.js";
import { failed } from "../ui/toasts.js";
import { row, skeletonRow } from "./row.js";
import { search } from "./shell.js";

const OVERSCAN = 6;
let scroller = null;
let rowHeight = 82;
let viewHeight = 800;
let shownKey = "";

const resizer = new ResizeObserver(() => {
  measure();
  changed();
});

function measure() {
  if (!scroller) return;
  viewHeight = scroller.clientHeight || viewHeight;
  const probe = scroller.querySelector(".row");
  if (probe?.offsetHeight) rowHeight = probe.offsetHeight;
}

function attach(element) {
  if (element === scroller) return;
  resizer.disconnect();
  scroller = element ?? null;
  if (scroller) {
    resizer.observe(scroller);
    queueMicrotask(() => { measure(); changed(); });
  }
}

let shift = 0; // rows that the list has moved by above the view

list.onShift = (rows) => { shift += rows; };

/** Follow rows that were pushed away, before it is decided which ones are in view. */
function follow(total) {
  const space = scroller?.querySelector(".rows-space");
  if (space) {
    space.style.blockSize = `${total * rowHeight}px`;
    if (shift) scroller.scrollTop += shift * rowHeight;
  }
  shift = 0;
}

function range() {
  const top = scroller?.scrollTop ?? 0;
  const first = Math.max(0, Math.floor(top / rowHeight));
  const last = Math.ceil((top + viewHeight) / rowHeight);
  return [first, Math.min(last, Math.max(0, (list.total ?? last) - 1))];
}

/** Bring a row into view and, when asked, give it the focus. */
export function reveal(position, { focus = false } = {}) {
  if (!scroller || position < 0) return;
  const top = position * rowHeight;
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  else if (top + rowHeight > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + rowHeight - scroller.clientHeight;
  if (!focus) return;
  // Two frames later the row is drawn; whoever took the focus meanwhile (a menu, a field) keeps it.
  const before = document.activeElement;
  requestAnimationFrame(() => requestAnimationFrame(() => {
    if (document.activeElement === before || document.activeElement === document.body) scroller.querySelector(`.row[data-position="${position}"] .row-link`)?.focus({ preventScroll: true });
  }));
}

const selected = () => [...state.selection];

export function moveMenu(anchor, rowIds) {
  const items = mailboxTree().filter(({ mailbox }) => mailbox.id !== state.route.mailboxId && mailbox.role !== "drafts")
    .map(({ mailbox }) => ({ label: pathOf(mailbox), icon: iconOf(mailbox), run: () => move(rowIds, mailbox.id) }));
  openMenu(anchor, items, { label: "Move to", filter: true });
}

function moreMenu(event, rowIds) {
  const emails = rowIds.map((id) => state.emails.get(id)).filter(Boolean);
  const role = state.mailboxes.get(state.route.mailboxId)?.role;
  openMenu(event.currentTarget, [
    { label: "Mark as read", icon: "mail-open", run: () => markRead(rowIds, true) },
    { label: "Mark as unread", icon: "mail", run: () => markRead(rowIds, false), disabled: emails.every((email) => !has(email, "$seen")) },
    role === "junk" ? { label: "Not junk", icon: "shield-check", run: () => notJunk(rowIds) } : { label: "Junk", icon: "shield-alert", detail: "!", run: () => junk(rowIds) },
  ], { label: "More" });
}

async function selectAll() {
  if (state.selection.size) state.selection.clear();
  else {
    for (const id of list.ids) if (id) state.selection.add(id);
    changed();
    if (list.total > state.selection.size) {
      try {
        for (const id of await allIds()) state.selection.add(id);
      } catch (error) {
        failed("Not everything could be selected.", error);
      }
    }
  }
  changed();
}

const selectionBar = () => {
  const ids = selected();
  return html`
    <div class="list-bar list-bar--selection" role="toolbar" aria-label="Selected messages">
      <input type="checkbox" class="select-all" aria-label="Select none" .checked=${true} .indeterminate=${ids.length < (list.total ?? 0)} @change=${selectAll}>
      <span class="list-title grow">${count(ids.length)} selected</span>
      <button class="icon-button" aria-label="Archive" title="Archive (e)" @click=${() => archive(ids)}>${icon("archive")}</button>
      <button class="icon-button" aria-label="Delete" title="Delete (#)" @click=${() => remove(ids, confirm)}>${icon("trash-2")}</button>
      <button class="icon-button" aria-label="Move to" title="Move (v)" aria-haspopup="menu" aria-expanded="false" @click=${(event) => moveMenu(event.currentTarget, ids)}>${icon("folder-input")}</button>
      <button class="icon-button" aria-label="More" aria-haspopup="menu" aria-expanded="false" @click=${(event) => moreMenu(event, ids)}>${icon("ellipsis-vertical")}</button>
    </div>`;
};

function titleBar() {
  const here = state.mailboxes.get(state.route.mailboxId);
  const { query, everywhere } = state.route;
  const what = list.collapse ? "conversation" : "message";
  return html`
    <div class="list-bar">
      <input type="checkbox" class="select-all" aria-label="Select all" .checked=${false} .indeterminate=${false} ?disabled=${!list.total} @change=${selectAll}>
      <div class="list-heading grow">
        <h1 class="list-title truncate">${query ? "Search" : here ? nameOf(here) : ""}</h1>
        <span class="list-count">${list.total === null ? nothing : plural(list.total, query ? "result" : what)}</span>
      </div>
      ${query && here ? html`<button class="chip" aria-pressed=${!everywhere} @click=${() => search(query, !everywhere)}>${everywhere ? "All folders" : `In ${nameOf(here)}`}</button>` : nothing}
      <button class="icon-button" aria-label="Check for new mail" title="Check for new mail" @click=${() => { refresh(); sync(); }}>${icon("refresh-cw")}</button>
    </div>`;
}

const EMPTY = {
  inbox: ["sparkles", "Nothing new", "New mail appears here by itself."],
  drafts: ["file-pen-line", "No drafts", "What you begin to write is kept here."],
  sent: ["send", "Nothing sent yet", "Messages you send are kept here."],
  archive: ["archive", "Nothing archived", "Archive what you are done with but may want again."],
  junk: ["shield-check", "No junk", "Unwanted mail ends up here."],
  trash: ["trash-2", "Trash is empty", ""],
};

function emptyView() {
  const here = state.mailboxes.get(state.route.mailboxId);
  const [name, head, text] = state.route.query ? ["search-x", "No matches", "Try fewer words, or search all folders."] : (EMPTY[here?.role] ?? ["folder-open", "This folder is empty", ""]);
  return html`<div class="empty">${icon(name, "icon--lg")}<h2>${head}</h2><p>${text}</p></div>`;
}

const errorView = () => html`
  <div class="empty" role="alert">${icon("circle-alert", "icon--lg")}<h2>The list could not be loaded</h2><p>${list.error.message}</p>
    <button class="button" @click=${retry}>Try again</button></div>`;

let lastTop = 0;
let wish = null;

/** Ask for the rows in view; while somebody drags far through the list, only for those where they stop. */
function want(first, last) {
  const top = scroller?.scrollTop ?? 0;
  const far = Math.abs(top - lastTop) > 2 * viewHeight;
  lastTop = top;
  clearTimeout(wish);
  if (far) wish = setTimeout(() => ensure(first, last), 80);
  else ensure(first, last);
}

function rows() {
  const [first, last] = range();
  want(first, last);
  const from = Math.max(0, first - OVERSCAN);
  const to = list.total === null ? Math.ceil(viewHeight / rowHeight) : Math.min(list.total - 1, last + OVERSCAN);
  const entries = [];
  for (let position = from; position <= to; position += 1) entries.push({ position, email: state.emails.get(list.ids[position]) });
  // A row keeps its element as it moves, so that focus and hover stay with the message.
  return repeat(entries, ({ position, email }) => email?.id ?? `bone-${position}`, ({ position, email }) => (email ? row(email, position, rowHeight) : skeletonRow(position, rowHeight)));
}

export function listPane() {
  if (shownKey !== list.key) {
    shownKey = list.key;
    if (scroller) scroller.scrollTop = 0;
  }
  const total = list.total ?? 0;
  follow(total);
  const body = list.error && total === 0 ? errorView() : list.total === 0 ? emptyView() : html`
    <ul role="list" class="rows" aria-label="Messages">
      <li class="rows-space" aria-hidden="true"></li>
      ${rows()}
    </ul>`;
  queueMicrotask(() => {
    attach(document.querySelector(".list-scroll"));
    follow(total);
  });
  return html`
    <section class="list-pane" aria-label="Message list" id="list">
      ${state.selection.size ? selectionBar() : titleBar()}
      <div class="list-scroll" aria-busy=${list.total === null} @scroll=${changed}>${body}</div>
    </section>`;
}
