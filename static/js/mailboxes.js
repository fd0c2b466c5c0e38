// Folders: loading, order and tree, and the changes a person can make to them.
import { call, checkSet } from "./jmap.js";
import { changed, mailboxWithRole, state } from "./state.js";

const ROLE_ORDER = ["inbox", "drafts", "sent", "archive", "junk", "trash"];
const ROLE_ICONS = { inbox: "inbox", drafts: "file-pen-line", sent: "send", archive: "archive", junk: "shield-alert", trash: "trash-2" };

export const iconOf = (mailbox) => ROLE_ICONS[mailbox.role] ?? "folder";
export const nameOf = (mailbox) => (mailbox.role === "inbox" && mailbox.name.toUpperCase() === "INBOX" ? "Inbox" : mailbox.name);

/** Ask for all folders; the caller awaits the call together with others of the tick. */
export async function loadMailboxes() {
  const { list, state: now } = await call("Mailbox/get", { ids: null });
  state.mailboxes = new Map(list.map((mailbox) => [mailbox.id, mailbox]));
  state.states.Mailbox = now;
  changed();
}

const rank = (mailbox) => {
  const index = ROLE_ORDER.indexOf(mailbox.role);
  return index < 0 ? ROLE_ORDER.length : index;
};

function inOrder(a, b) {
  return rank(a) - rank(b) || (a.sortOrder ?? 0) - (b.sortOrder ?? 0) || a.name.localeCompare(b.name);
}

/** Folders as a flat list in the order they are shown: [{mailbox, depth, hasChildren}]. */
export function mailboxTree() {
  const children = new Map();
  for (const mailbox of state.mailboxes.values()) {
    const parent = state.mailboxes.has(mailbox.parentId) ? mailbox.parentId : null;
    children.set(parent, [...(children.get(parent) ?? []), mailbox]);
  }
  const rows = [];
  const visit = (parent, depth) => {
    for (const mailbox of (children.get(parent) ?? []).sort(inOrder)) {
      rows.push({ mailbox, depth, hasChildren: children.has(mailbox.id) });
      visit(mailbox.id, depth + 1);
    }
  };
  visit(null, 0);
  return rows;
}

/** The name with its parents, for menus and announcements. */
export function pathOf(mailbox) {
  const names = [];
  for (let at = mailbox; at && names.length < 20; at = state.mailboxes.get(at.parentId)) names.unshift(nameOf(at));
  return names.join(" / ");
}

/** What the badge of a folder counts: everything in Drafts, unread conversations elsewhere, nothing in Sent and Trash. */
export function badge(mailbox) {
  if (mailbox.role === "drafts") return mailbox.totalEmails ?? 0;
  if (["sent", "trash"].includes(mailbox.role)) return 0;
  return mailbox.unreadThreads ?? mailbox.unreadEmails ?? 0;
}

async function setMailbox(args) {
  const [response] = await Promise.all([call("Mailbox/set", args), loadMailboxes()]);
  return checkSet(response);
}

export async function createMailbox(name, parentId = null) {
  const { created } = await setMailbox({ create: { new: { name, parentId, isSubscribed: true } } });
  return created.new.id;
}

export const renameMailbox = (id, name) => setMailbox({ update: { [id]: { name } } });

/** Delete a folder; its messages go to Trash first, so that nothing is lost by a slip. */
export async function deleteMailbox(id) {
  const trash = mailboxWithRole("trash");
  for (;;) {
    const { ids } = await call("Email/query", { filter: { inMailbox: id }, position: 0, limit: 500 });
    if (ids.length === 0) break;
    const patch = trash ? { [`mailboxIds/${id}`]: null, [`mailboxIds/${trash.id}`]: true } : null;
    const args = patch ? { update: Object.fromEntries(ids.map((email) => [email, patch])) } : { destroy: ids };
    checkSet(await call("Email/set", args));
  }
  await setMailbox({ destroy: [id] });
}

/** Adjust the shown counts at once; the server's own follow with the next change. */
export function bumpUnread(mailboxId, difference) {
  const mailbox = state.mailboxes.get(mailboxId);
  if (!mailbox || !difference) return;
  state.mailboxes.set(mailboxId, {
    ...mailbox,
    unreadEmails: Math.max(0, (mailbox.unreadEmails ?? 0) + difference),
    unreadThreads: Math.max(0, (mailbox.unreadThreads ?? 0) + difference),
  });
}
