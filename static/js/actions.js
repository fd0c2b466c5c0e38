// What a person does to messages: read, star, move, archive, delete. Shown at once, undone when the server refuses.
import { call, checkSet, limit } from "./jmap.js";
import { positionOf, refresh, removeRows, ROW_PROPERTIES, list } from "./list.js";
import { bumpUnread, nameOf } from "./mailboxes.js";
import { changed, has, mailboxWithRole, remember, state } from "./state.js";
import { failed, notify } from "./ui/toasts.js";
import { plural } from "./format.js";

async function inPortions(ids, most, work) {
  for (let start = 0; start < ids.length; start += most) await work(ids.slice(start, start + most));
}

/** The emails that rows stand for: with `everywhere` the whole conversations, else their part in this folder. */
async function emailsOf(rowIds, { everywhere = false } = {}) {
  const most = limit("maxObjectsInGet", 500);
  const unknown = rowIds.filter((id) => !state.emails.get(id)?.threadId || (list.collapse && !state.threads.has(state.emails.get(id).threadId)));
  await inPortions(unknown, Math.min(most, 100), async (ids) => {
    const rows = call("Email/get", { ids, properties: ROW_PROPERTIES });
    const threads = call("Thread/get", { "#ids": rows.ref("/list/*/threadId") });
    const members = call("Email/get", { "#ids": threads.ref("/list/*/emailIds"), properties: ROW_PROPERTIES });
    const answers = await Promise.all([rows, threads, members]);
    for (const found of answers[1].list) state.threads.set(found.id, found.emailIds);
    remember(answers[0].list);
    remember(answers[2].list);
  });
  const here = state.route.query && state.route.everywhere ? null : state.route.mailboxId;
  const emails = new Map();
  for (const id of rowIds) {
    const row = state.emails.get(id);
    if (!row) continue;
    const ids = list.collapse ? (state.threads.get(row.threadId) ?? [id]) : [id];
    for (const email of ids.map((member) => state.emails.get(member))) {
      if (email && (everywhere || !here || email.mailboxIds?.[here])) emails.set(email.id, email);
    }
  }
  return [...emails.values()];
}

async function update(patches) {
  const entries = Object.entries(patches);
  await inPortions(entries, limit("maxObjectsInSet", 500), async (part) => {
    checkSet(await call("Email/set", { update: Object.fromEntries(part) }));
  });
}

/** Set or clear a keyword on rows; `everywhere` reaches the whole conversation. */
export async function setKeyword(rowIds, keyword, on, options = { everywhere: true }) {
  const emails = (await emailsOf(rowIds, options)).filter((email) => has(email, keyword) !== on && !(keyword === "$seen" && has(email, "$draft")));
  await setKeywordOn(emails, keyword, on);
}

/** Set or clear a keyword on the given emails. */
export async function setKeywordOn(emails, keyword, on) {
  if (emails.length === 0) return;
  const patch = { [`keywords/${keyword}`]: on || null };
  const before = emails.map(({ id, keywords }) => ({ id, keywords }));
  for (const email of emails) {
    const keywords = { ...email.keywords, [keyword]: true };
    if (!on) delete keywords[keyword];
    remember([{ id: email.id, keywords }]);
  }
  if (keyword === "$seen") {
    const folders = new Map();
    for (const email of emails) for (const id of Object.keys(email.mailboxIds ?? {})) folders.set(id, (folders.get(id) ?? new Set()).add(email.threadId));
    for (const [id, threads] of folders) bumpUnread(id, on ? -threads.size : threads.size);
  }
  changed();
  try {
    await update(Object.fromEntries(emails.map(({ id }) => [id, patch])));
  } catch (error) {
    remember(before);
    changed();
    failed(keyword === "$seen" ? "The read mark was not saved." : "The star was not saved.", error, () => setKeywordOn(before.map(({ id }) => state.emails.get(id)), keyword, on));
  }
}

export const markRead = (rowIds, on = true) => setKeyword(rowIds, "$seen", on);

/** Star the newest message of a row, or take every star of the conversation off. */
export async function toggleStar(rowId) {
  const emails = await emailsOf([rowId], { everywhere: true });
  const starred = emails.filter((email) => has(email, "$flagged"));
  const row = state.emails.get(rowId);
  if (starred.length) await setKeywordOn(starred, "$flagged", false);
  else if (row) await setKeywordOn([row], "$flagged", true);
}

/** Move rows to a folder: they leave the list at once, and a notice offers to undo. */
export async function move(rowIds, mailboxId, said) {
  const target = state.mailboxes.get(mailboxId);
  if (!target || rowIds.length === 0) return;
  const here = state.route.query && state.route.everywhere ? null : state.route.mailboxId;
  const next = rowAfter(rowIds);
  const emails = (await emailsOf(rowIds)).filter((email) => !email.mailboxIds[mailboxId] || Object.keys(email.mailboxIds).length > 1);
  if (here && here !== mailboxId) removeRows(rowIds);
  const patches = {};
  const back = {};
  for (const email of emails) {
    const from = here && email.mailboxIds[here] ? { [here]: true } : email.mailboxIds;
    const mailboxIds = { ...email.mailboxIds, [mailboxId]: true };
    for (const id of Object.keys(from)) if (id !== mailboxId) delete mailboxIds[id];
    patches[email.id] = { mailboxIds };
    back[email.id] = { mailboxIds: email.mailboxIds };
    remember([{ id: email.id, mailboxIds }]);
  }
  moveCounts(emails, patches);
  changed();
  onLeft(rowIds, next);
  const undo = async () => {
    for (const [id, { mailboxIds }] of Object.entries(back)) remember([{ id, mailboxIds }]);
    await update(back);
    refresh();
  };
  try {
    await update(patches);
    notify(said ?? `${plural(rowIds.length, "conversation")} moved to ${nameOf(target)}.`, { label: "Undo", run: undo });
  } catch (error) {
    for (const [id, { mailboxIds }] of Object.entries(back)) remember([{ id, mailboxIds }]);
    refresh();
    failed("The move did not succeed.", error, () => move(rowIds, mailboxId, said));
  }
}

function moveCounts(emails, patches) {
  const unread = emails.filter((email) => !has(email, "$seen"));
  for (const email of unread) {
    for (const id of Object.keys(email.mailboxIds)) if (!patches[email.id].mailboxIds[id]) bumpUnread(id, -1);
  }
}

function rowAfter(rowIds) {
  const last = Math.max(...rowIds.map(positionOf));
  const candidates = [list.ids[last + 1], list.ids[last - 1]];
  return candidates.find((id) => id && !rowIds.includes(id)) ?? null;
}

let onLeft = () => {};

/** `callback(rowIds, next)` decides what to show when rows have left the list. */
export function whenRowsLeave(callback) {
  onLeft = callback;
}

function moveToRole(rowIds, role, verb) {
  const target = mailboxWithRole(role);
  if (!target) {
    failed(`There is no folder for this (${role}).`);
    return Promise.resolve();
  }
  if (target.id === state.route.mailboxId && !state.route.query) return Promise.resolve();
  return move(rowIds, target.id, `${plural(rowIds.length, "conversation")} ${verb}.`);
}

export const archive = (rowIds) => moveToRole(rowIds, "archive", "archived");
export const junk = (rowIds) => moveToRole(rowIds, "junk", "moved to Junk");
export const notJunk = (rowIds) => moveToRole(rowIds, "inbox", "moved to Inbox");

/** Delete: to Trash, or for good from Trash and Junk (after `confirm`). */
export async function remove(rowIds, confirm) {
  const role = state.mailboxes.get(state.route.mailboxId)?.role;
  const forGood = role === "trash" && !state.route.query;
  if (!forGood) {
    await moveToRole(rowIds, "trash", "moved to Trash");
    return;
  }
  const answer = await confirm({
    title: `Delete ${plural(rowIds.length, "conversation")} for good?`, text: "This cannot be undone.", action: "Delete for good", danger: true,
  });
  if (answer) await destroyRows(rowIds);
}

async function destroyRows(rowIds) {
  const next = rowAfter(rowIds);
  const emails = await emailsOf(rowIds);
  removeRows(rowIds);
  onLeft(rowIds, next);
  try {
    await inPortions(emails.map(({ id }) => id), limit("maxObjectsInSet", 500), async (destroy) => checkSet(await call("Email/set", { destroy })));
    notify(`${plural(rowIds.length, "conversation")} deleted for good.`);
  } catch (error) {
    refresh();
    failed("Deleting did not succeed.", error, () => destroyRows(rowIds));
  }
}

/** Move one message of a conversation to Trash, leaving the rest where it is. */
export async function removeMessage(email) {
  const trash = mailboxWithRole("trash");
  if (!trash) return;
  const before = email.mailboxIds;
  const set = async (mailboxIds) => {
    remember([{ id: email.id, mailboxIds }]);
    changed();
    await update({ [email.id]: { mailboxIds } });
    refresh();
  };
  try {
    await set({ [trash.id]: true });
    notify("Message moved to Trash.", { label: "Undo", run: () => set(before) });
  } catch (error) {
    remember([{ id: email.id, mailboxIds: before }]);
    changed();
    failed("Deleting did not succeed.", error);
  }
}

/** Mark a whole folder read, or empty it for good, in portions. */
export async function markFolderRead(mailboxId) {
  try {
    for (;;) {
      const filter = { operator: "AND", conditions: [{ inMailbox: mailboxId }, { notKeyword: "$seen" }] };
      const { ids } = await call("Email/query", { filter, position: 0, limit: 500 });
      if (ids.length === 0) break;
      await update(Object.fromEntries(ids.map((id) => [id, { "keywords/$seen": true }])));
    }
    refresh();
  } catch (error) {
    failed("Not everything could be marked as read.", error, () => markFolderRead(mailboxId));
  }
}

export async function emptyFolder(mailboxId) {
  try {
    for (;;) {
      const { ids } = await call("Email/query", { filter: { inMailbox: mailboxId }, position: 0, limit: 500 });
      if (ids.length === 0) break;
      checkSet(await call("Email/set", { destroy: ids }));
    }
    refresh();
    notify("The folder is empty.");
  } catch (error) {
    failed("Not everything could be deleted.", error, () => emptyFolder(mailboxId));
  }
}
