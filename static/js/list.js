// The message list of the current folder or search: a sparse array of email ids by position, filled in windows.
// One request fetches a window: query, its emails, their threads and the threads' emails, tied by result references.
import { call } from "./jmap.js";
import { filterOf } from "./search.js";
import { changed, mailboxWithRole, remember, state } from "./state.js";

const WINDOW = 50;
export const ROW_PROPERTIES = ["id", "threadId", "mailboxIds", "keywords", "from", "to", "subject", "receivedAt", "preview", "hasAttachment", "size"];
const SORT = [{ property: "receivedAt", isAscending: false }];

/** `ids[position]` is undefined until its window has come (null when the server gave none); `total` is null until the first answer. */
export const list = { key: "", filter: null, collapse: true, ids: [], total: null, error: null, stale: new Set(), visible: [0, 20], onShift: null };
let loading = new Map(); // window number -> generation
let generation = 0;

function filterFor(route) {
  if (!route.query) return { inMailbox: route.mailboxId };
  const filter = filterOf(route.query, state.mailboxes);
  if (!route.everywhere) return { operator: "AND", conditions: [{ inMailbox: route.mailboxId }, filter] };
  const hidden = ["trash", "junk"].map(mailboxWithRole).filter(Boolean).map(({ id }) => id);
  return hidden.length ? { operator: "AND", conditions: [{ inMailboxOtherThan: hidden }, filter] } : filter;
}

/** Show the list that a route names; does nothing when it is shown already. */
export function openList(route) {
  const filter = filterFor(route);
  const key = JSON.stringify(filter);
  if (key === list.key) return;
  generation += 1;
  loading = new Map();
  // Drafts and Sent are about single messages; everywhere else a row is a conversation.
  const collapse = state.mailboxes.get(route.mailboxId)?.role !== "drafts" || Boolean(route.query);
  Object.assign(list, { key, filter, collapse, ids: [], total: null, error: null, stale: new Set(), visible: [0, WINDOW - 1] });
  state.selection.clear();
  state.cursor = null;
  ensure(0, WINDOW - 1);
  changed();
}

/** Make sure that the rows from `first` to `last` are there or on their way. */
export function ensure(first, last) {
  list.visible = [first, last];
  if (list.error) return; // until somebody asks for another try
  const end = list.total === null ? last : Math.max(0, Math.min(last, list.total - 1)); // an empty list has a first window too
  for (let number = Math.floor(Math.max(0, first) / WINDOW); number * WINDOW <= end; number += 1) {
    const start = number * WINDOW;
    const upTo = Math.min(start + WINDOW, list.total ?? start + WINDOW);
    let missing = list.stale.has(number);
    for (let position = start; position < upTo && !missing; position += 1) missing = list.ids[position] === undefined;
    if (missing && loading.get(number) !== generation) fetchWindow(number);
  }
}

async function fetchWindow(number) {
  const mine = generation;
  loading.set(number, mine);
  try {
    const query = call("Email/query", {
      filter: list.filter, sort: SORT, collapseThreads: list.collapse, position: number * WINDOW, limit: WINDOW, calculateTotal: true,
    });
    const rows = call("Email/get", { "#ids": query.ref("/ids"), properties: ROW_PROPERTIES });
    const threads = call("Thread/get", { "#ids": rows.ref("/list/*/threadId") });
    const members = call("Email/get", { "#ids": threads.ref("/list/*/emailIds"), properties: ROW_PROPERTIES });
    const [answer, ...rest] = await Promise.all([query, rows, threads, members]);
    if (mine !== generation) return;
    accept(number, answer, rest);
  } catch (error) {
    if (mine === generation) list.error = error;
  } finally {
    if (loading.get(number) === mine) loading.delete(number);
    changed();
  }
}

function accept(number, answer, [rows, threads, members]) {
  remember(rows.list);
  remember(members.list);
  for (const thread of threads.list) state.threads.set(thread.id, thread.emailIds);
  state.states.Email ??= rows.state;
  state.states.Thread ??= threads.state;
  const anchor = list.ids[list.visible[0]];
  const start = number * WINDOW;
  list.error = null;
  list.stale.delete(number);
  list.total = answer.total ?? start + answer.ids.length;
  list.ids.length = Math.min(list.ids.length, list.total);
  for (let index = 0; index < WINDOW && start + index < list.total; index += 1) list.ids[start + index] = answer.ids[index] ?? null;
  // What arrived above pushes the rows down: tell the view, so that it keeps the rows under the reader's eye.
  if (anchor && list.visible[0] > 0) {
    const now = list.ids.indexOf(anchor, Math.max(0, list.visible[0] - WINDOW));
    if (now >= 0 && now !== list.visible[0]) list.onShift?.(now - list.visible[0]);
  }
}

export function retry() {
  list.error = null;
  ensure(...list.visible);
  changed();
}

/** Ask again for what is on the screen, keeping the rows until the answer is there; other windows are asked again when seen. */
export function refresh() {
  if (!list.filter) return;
  generation += 1;
  loading = new Map();
  list.error = null;
  const last = Math.ceil(Math.max(list.total ?? 0, list.ids.length) / WINDOW);
  list.stale = new Set(Array.from({ length: last + 1 }, (_, number) => number));
  ensure(...list.visible);
}

/** Take rows out before the server has answered. */
export function removeRows(ids) {
  const gone = new Set(ids);
  let removed = 0;
  generation += 1; // answers under way were asked with the rows still in
  loading = new Map();
  // A sparse array: walk it by position, so that rows not loaded yet keep their distance.
  const kept = [];
  for (let position = 0; position < list.ids.length; position += 1) {
    const id = list.ids[position];
    if (id !== undefined && gone.has(id)) removed += 1;
    else kept.push(id);
  }
  list.ids = kept;
  if (list.total !== null) list.total = Math.max(0, list.total - removed);
  for (const id of gone) state.selection.delete(id);
  changed();
}

export const positionOf = (id) => list.ids.indexOf(id);

/** The row of a conversation, whichever of its emails stands for it. */
export function rowOfThread(threadId) {
  return list.ids.find((id) => id !== undefined && state.emails.get(id)?.threadId === threadId) ?? null;
}

/** Every id of the list, asked for without their contents; for "select all". */
export async function allIds() {
  const ids = [];
  while (list.total === null || ids.length < list.total) {
    const answer = await call("Email/query", { filter: list.filter, sort: SORT, collapseThreads: list.collapse, position: ids.length, limit: 5000 });
    if (answer.ids.length === 0) break;
    ids.push(...answer.ids);
  }
  return ids;
}

/** What a row shows of its conversation: members in order, who wrote, whether something is unread, starred, a draft. */
export function summarise(email) {
  const ids = (list.collapse && state.threads.get(email.threadId)) || [email.id];
  let members = ids.map((id) => state.emails.get(id)).filter(Boolean);
  const here = list.filter?.inMailbox;
  const hidden = ["trash", "junk"].map(mailboxWithRole).filter((mailbox) => mailbox && mailbox.id !== here).map(({ id }) => id);
  members = members.filter((member) => !hidden.some((id) => member.mailboxIds?.[id]));
  if (!members.includes(email)) members = members.length ? members : [email];
  return {
    members,
    unread: members.some((member) => !member.keywords?.$seen && !member.keywords?.$draft),
    starred: members.some((member) => member.keywords?.$flagged),
    draft: members.some((member) => member.keywords?.$draft),
    answered: Boolean(email.keywords?.$answered),
    forwarded: Boolean(email.keywords?.$forwarded),
    attachment: members.some((member) => member.hasAttachment),
  };
}
