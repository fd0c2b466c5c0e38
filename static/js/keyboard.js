// Keyboard shortcuts of the page, and the overlay that lists them.
import { html } from "./vendor.js";
import { archive, junk, markRead, remove, toggleStar } from "./actions.js";
import { list } from "./list.js";
import { mailboxWithRole, state, changed } from "./state.js";
import { leaveThread, mailboxUrl, navigate, threadUrl } from "./router.js";
import { messages, thread } from "./thread.js";
import { confirm, openDialog } from "./ui/dialogs.js";
import { undoLatest } from "./ui/toasts.js";
import { icon } from "./ui/icons.js";
import { compose, forward, reply } from "./compose/window.js";
import { moveMenu, reveal } from "./views/list-pane.js";
import { openNeighbour, openRows } from "./views/reader.js";
import { select } from "./views/row.js";

/** Rows that a shortcut acts on: the selected ones, else the open conversation, else the row under the cursor. */
function rows() {
  if (state.selection.size) return [...state.selection];
  if (thread.id) return openRows();
  return state.cursor ? [state.cursor] : [];
}

function step(by) {
  if (thread.id && openNeighbour(by)) return;
  if (thread.id) return;
  const focused = document.activeElement?.closest?.(".row")?.dataset.id;
  const at = list.ids.indexOf(focused ?? state.cursor ?? "");
  const to = Math.min(Math.max(0, at + by), (list.total ?? 1) - 1);
  if (!list.ids[to]) return;
  state.cursor = list.ids[to];
  reveal(to, { focus: true });
  changed();
}

function openCursor() {
  const email = state.emails.get(state.cursor ?? list.ids[0]);
  if (!email || thread.id) return;
  const link = document.querySelector(`.row[data-id="${CSS.escape(email.id)}"] .row-link`);
  if (link) link.click();
  else navigate(threadUrl(email.threadId));
}

const newest = () => messages().findLast((email) => !email.keywords?.$draft) ?? null;
const withNewest = (work) => () => {
  const email = newest();
  if (email) work(email);
};
const withRows = (work) => () => {
  const ids = rows();
  if (ids.length) work(ids);
};
const goTo = (role) => () => {
  const mailbox = mailboxWithRole(role);
  if (mailbox) navigate(mailboxUrl(mailbox.id));
};

function toggleRead(on) {
  return withRows((ids) => {
    markRead(ids, on);
    if (!on && thread.id) leaveThread();
  });
}

const SHORTCUTS = [
  ["Moving", [
    ["j", "Next (older)", () => step(1)],
    ["k", "Previous (newer)", () => step(-1)],
    ["Enter", "Open", openCursor, ["o"]],
    ["u", "Back to the list", leaveThread],
    ["/", "Search", () => document.getElementById("search")?.select()],
    ["g i", "Go to Inbox", goTo("inbox")],
    ["g d", "Go to Drafts", goTo("drafts")],
    ["g t", "Go to Sent", goTo("sent")],
    ["g a", "Go to Archive", goTo("archive")],
  ]],
  ["Acting", [
    ["x", "Select", () => state.cursor && select(state.cursor)],
    ["e", "Archive", withRows(archive)],
    ["#", "Delete", withRows((ids) => remove(ids, confirm)), ["Delete"]],
    ["!", "Junk", withRows(junk)],
    ["s", "Star", withRows((ids) => ids.forEach((id) => toggleStar(id)))],
    ["v", "Move to a folder", withRows((ids) => moveMenu(document.querySelector(`${thread.id && !state.selection.size ? ".reader-bar" : ".list-bar"} [aria-label="Move to"]`) ?? document.querySelector(".list-bar"), ids))],
    ["I", "Mark as read", toggleRead(true)],
    ["U", "Mark as unread", toggleRead(false)],
    ["z", "Undo", undoLatest],
  ]],
  ["Writing", [
    ["c", "Compose", () => compose()],
    ["r", "Reply", withNewest((email) => reply(email))],
    ["a", "Reply all", withNewest((email) => reply(email, { all: true }))],
    ["f", "Forward", withNewest((email) => forward(email))],
    ["Ctrl Enter", "Send", null],
    ["Esc", "Close", null],
    ["?", "This overview", () => showShortcuts()],
  ]],
];

const bindings = new Map();
for (const [, entries] of SHORTCUTS) for (const [key, , run, more = []] of entries) if (run) for (const one of [key, ...more]) bindings.set(one, run);

export function showShortcuts() {
  return openDialog((close) => html`
    <div class="dialog-body shortcuts">
      <div class="dialog-head"><h2 class="grow">Keyboard shortcuts</h2><button class="icon-button" aria-label="Close" autofocus @click=${() => close()}>${icon("x")}</button></div>
      <div class="shortcuts-groups">${SHORTCUTS.map(([name, entries]) => html`
        <section><h3>${name}</h3><dl>${entries.map(([key, what]) => html`<div><dt>${key.split(" ").map((part) => html`<kbd>${part}</kbd>`)}</dt><dd>${what}</dd></div>`)}</dl></section>`)}
      </div>
    </div>`, { className: "dialog--wide", label: "Keyboard shortcuts" });
}

let prefix = "";
let prefixTimer = null;

/** The window that has just opened and has no caret yet (its text or the editor loads): what is typed now is meant for it, not for the list. */
const awaitsCaret = () => state.composers.find((composer) => !composer.minimised && !composer.reached && performance.now() - composer.opened < 10_000);

function onKey(event) {
  if (event.defaultPrevented || event.metaKey || event.ctrlKey || event.altKey || event.isComposing) return;
  const target = event.target;
  if (target.closest?.("input:not([type='checkbox']), textarea, select, [contenteditable='true'], .composer, dialog")) return;
  const opening = awaitsCaret();
  if (opening) {
    event.preventDefault();
    if (event.key.length === 1) opening.typedAhead += event.key;
    else if (event.key === "Enter") opening.typedAhead += "\n";
    else if (event.key === "Backspace") opening.typedAhead = opening.typedAhead.slice(0, -1);
    return;
  }
  if (event.key === "Escape") {
    if (state.selection.size) {
      state.selection.clear();
      changed();
    } else if (state.drawer) {
      state.drawer = false;
      changed();
    } else leaveThread();
    return;
  }
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (!target.closest?.(".list-pane")) return;
    event.preventDefault();
    step(event.key === "ArrowDown" ? 1 : -1);
    return;
  }
  if (event.key === "Enter" && target.closest?.("a, button, summary")) return; // its own meaning
  const key = prefix ? `${prefix} ${event.key}` : event.key;
  clearTimeout(prefixTimer);
  prefix = "";
  if (key === "g") {
    prefix = "g";
    prefixTimer = setTimeout(() => { prefix = ""; }, 1200);
    return;
  }
  const run = bindings.get(key);
  if (!run) return;
  event.preventDefault();
  run();
}

export function startKeyboard() {
  document.addEventListener("keydown", onKey);
}
