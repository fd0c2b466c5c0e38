// The folder pane: compose, the folder tree with unread counts, folder menus; messages can be dropped on folders.
import { html, nothing, repeat, classMap } from "../vendor.js";
import { emptyFolder, markFolderRead, move } from "../actions.js";
import { count } from "../format.js";
import { badge, createMailbox, deleteMailbox, iconOf, mailboxTree, nameOf, pathOf, renameMailbox } from "../mailboxes.js";
import { mailboxUrl, navigate } from "../router.js";
import { changed, state } from "../state.js";
import { confirm, prompt } from "../ui/dialogs.js";
import { icon } from "../ui/icons.js";
import { openMenu } from "../ui/menu.js";
import { failed, notify } from "../ui/toasts.js";
import { compose } from "../compose/window.js";

const folded = new Set(); // parents whose children are hidden
let dropTarget = null;

export const DRAG_TYPE = "application/x-mailstead-rows";

function nameError(name, parentId, except = null) {
  if (name.includes("/")) return "A name cannot contain “/”.";
  const taken = [...state.mailboxes.values()].some((mailbox) => mailbox.id !== except && (mailbox.parentId ?? null) === parentId && mailbox.name.toLowerCase() === name.toLowerCase());
  return taken ? "There is a folder of this name already." : "";
}

async function attempt(text, work) {
  try {
    return await work();
  } catch (error) {
    failed(text, error, () => attempt(text, work));
    return null;
  }
}

export async function newFolder(parent = null) {
  const parentId = parent?.id ?? null;
  const name = await prompt({
    title: parent ? `New folder in ${nameOf(parent)}` : "New folder", label: "Name", action: "Create", check: (value) => nameError(value, parentId),
  });
  if (!name) return null;
  if (parentId) folded.delete(parentId);
  return attempt("The folder was not created.", () => createMailbox(name, parentId));
}

async function renameFolder(mailbox) {
  const name = await prompt({ title: "Rename folder", label: "Name", value: mailbox.name, action: "Rename", check: (value) => nameError(value, mailbox.parentId ?? null, mailbox.id) });
  if (name && name !== mailbox.name) await attempt("The folder was not renamed.", () => renameMailbox(mailbox.id, name));
}

async function deleteFolder(mailbox) {
  const agreed = await confirm({
    title: `Delete “${nameOf(mailbox)}”?`, action: "Delete folder", danger: true,
    text: mailbox.totalEmails ? `Its ${count(mailbox.totalEmails)} messages go to Trash.` : "The folder is empty.",
  });
  if (!agreed) return;
  await attempt("The folder was not deleted.", () => deleteMailbox(mailbox.id));
  if (state.route.mailboxId === mailbox.id) navigate("/", { replace: true });
  notify(`“${nameOf(mailbox)}” deleted.`);
}

async function empty(mailbox) {
  const agreed = await confirm({ title: `Empty ${nameOf(mailbox)}?`, text: `${count(mailbox.totalEmails)} messages are deleted for good.`, action: "Delete for good", danger: true });
  if (agreed) await emptyFolder(mailbox.id);
}

function folderMenu(event, mailbox, hasChildren) {
  event.preventDefault();
  event.stopPropagation();
  const rights = mailbox.myRights ?? {};
  const fixed = Boolean(mailbox.role);
  openMenu(event.currentTarget, [
    { label: "Mark all as read", icon: "mail-open", disabled: !mailbox.unreadEmails, run: () => markFolderRead(mailbox.id) },
    { label: "New folder inside…", icon: "folder-plus", disabled: rights.mayCreateChild === false, run: () => newFolder(mailbox) },
    ...(["trash", "junk"].includes(mailbox.role) ? [{ label: `Empty ${nameOf(mailbox)}…`, icon: "trash-2", danger: true, disabled: !mailbox.totalEmails, run: () => empty(mailbox) }] : []),
    null,
    { label: "Rename…", icon: "pencil-line", disabled: fixed || rights.mayRename === false, run: () => renameFolder(mailbox) },
    { label: "Delete…", icon: "trash-2", danger: true, disabled: fixed || hasChildren || rights.mayDelete === false, run: () => deleteFolder(mailbox) },
  ], { label: pathOf(mailbox) });
}

const drop = (mailbox) => ({
  over(event) {
    if (!event.dataTransfer.types.includes(DRAG_TYPE) || mailbox.id === state.route.mailboxId) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "move";
    if (dropTarget !== mailbox.id) {
      dropTarget = mailbox.id;
      changed();
    }
  },
  leave() {
    if (dropTarget !== mailbox.id) return;
    dropTarget = null;
    changed();
  },
  here(event) {
    event.preventDefault();
    dropTarget = null;
    move(JSON.parse(event.dataTransfer.getData(DRAG_TYPE)), mailbox.id);
  },
});

function row({ mailbox, depth, hasChildren }) {
  const number = badge(mailbox);
  const current = mailbox.id === state.route.mailboxId && !(state.route.query && state.route.everywhere);
  const on = drop(mailbox);
  const name = nameOf(mailbox);
  return html`
    <li class=${classMap({ folder: true, "folder--current": current, "folder--unread": number > 0 && mailbox.role !== "drafts", "folder--drop": dropTarget === mailbox.id, [`folder--depth-${Math.min(depth, 5)}`]: true })}
      @dragover=${on.over} @dragleave=${on.leave} @drop=${on.here}>
      ${hasChildren ? html`<button class="folder-fold" aria-label="${folded.has(mailbox.id) ? "Show" : "Hide"} folders in ${name}" aria-expanded=${!folded.has(mailbox.id)}
        @click=${() => { if (!folded.delete(mailbox.id)) folded.add(mailbox.id); changed(); }}>${icon(folded.has(mailbox.id) ? "chevron-right" : "chevron-down")}</button>` : nothing}
      <a class="folder-link" href=${mailboxUrl(mailbox.id)} aria-current=${current ? "page" : nothing} aria-label=${number ? `${name}, ${count(number)} ${mailbox.role === "drafts" ? "drafts" : "unread"}` : name}>
        ${icon(iconOf(mailbox))}
        <span class="folder-name truncate">${name}</span>
        ${number ? html`<span class="folder-count">${number > 9999 ? "9999+" : count(number)}</span>` : nothing}
      </a>
      <button class="icon-button icon-button--sm folder-menu" aria-label="Actions for ${name}" aria-haspopup="menu" aria-expanded="false"
        @click=${(event) => folderMenu(event, mailbox, hasChildren)}>${icon("ellipsis")}</button>
    </li>`;
}

/** Rows whose parents are all unfolded, special folders apart from a person's own. */
function visibleRows() {
  const rows = [];
  let hiddenBelow = Infinity;
  for (const entry of mailboxTree()) {
    if (entry.depth > hiddenBelow) continue;
    hiddenBelow = folded.has(entry.mailbox.id) ? entry.depth : Infinity;
    rows.push(entry);
  }
  return rows;
}

const skeleton = () => Array.from({ length: 6 }, (_, index) => html`<li class="folder" aria-hidden="true"><span class="folder-link"><span class="bone bone--w${(index % 3) + 3}"></span></span></li>`);

export function sidebar() {
  const rows = visibleRows();
  const firstOwn = rows.findIndex(({ mailbox, depth }) => depth === 0 && !mailbox.role);
  const special = firstOwn < 0 ? rows : rows.slice(0, firstOwn);
  const own = firstOwn < 0 ? [] : rows.slice(firstOwn);
  const section = (entries) => repeat(entries, ({ mailbox }) => mailbox.id, row);
  return html`
    <nav class="sidebar" aria-label="Folders">
      <button class="button button--primary compose-button" @click=${() => compose()}>${icon("pencil")} Compose</button>
      <ul role="list" class="folders">${rows.length ? section(special) : skeleton()}</ul>
      <div class="folders-head">
        <h2>Folders</h2>
        <button class="icon-button icon-button--sm" aria-label="New folder" @click=${() => newFolder()}>${icon("plus")}</button>
      </div>
      <ul role="list" class="folders">${section(own)}</ul>
    </nav>`;
}
