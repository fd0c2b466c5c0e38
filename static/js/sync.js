// Keeps the page true without reloading: pushed state changes (RFC 8620 §7.3), or polling when push is not to be had.
import { call, eventsUrl, accountId } from "./jmap.js";
import { refresh, ROW_PROPERTIES } from "./list.js";
import { loadMailboxes } from "./mailboxes.js";
import { changed, remember, state } from "./state.js";
import { loadThread, openThreadId } from "./thread.js";

const POLL = 30_000;
const TYPES = ["Email", "Mailbox", "Thread"];
const MOST = 200; // changed emails fetched one by one; beyond that everything is asked anew

let source = null;
let timer = null;
let running = false;
let again = false;

export function startSync() {
  connect();
  document.addEventListener("visibilitychange", () => document.hidden || sync());
  window.addEventListener("online", () => {
    connect();
    sync();
  });
}

function connect() {
  source?.close();
  source = new EventSource(eventsUrl(TYPES));
  source.addEventListener("state", (event) => {
    const { changed: accounts } = JSON.parse(event.data);
    const now = accounts?.[accountId()];
    if (now && TYPES.some((type) => now[type] && now[type] !== state.states[type])) sync();
  });
  source.onopen = () => {
    clearInterval(timer);
    timer = null;
    sync();
  };
  source.onerror = () => {
    timer ??= setInterval(sync, POLL);
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, POLL);
  };
}

/** Catch up with the server; calls that come while it runs are served by one more round. */
export async function sync() {
  if (state.phase !== "ready") return;
  if (running) {
    again = true;
    return;
  }
  running = true;
  try {
    do {
      again = false;
      await round();
    } while (again);
  } catch (error) {
    if (error.type === "cannotCalculateChanges") await startOver();
    else timer ??= setInterval(sync, POLL);
  } finally {
    running = false;
  }
}

async function startOver() {
  state.states.Email = null;
  state.emails.clear();
  state.threads.clear();
  refresh();
  if (openThreadId()) loadThread(openThreadId());
  await loadMailboxes();
}

async function round() {
  const jobs = [mailboxChanges()];
  if (state.states.Email) jobs.push(emailChanges());
  const outcome = await Promise.all(jobs);
  if (outcome[1]) {
    refresh();
    changed();
  }
}

async function mailboxChanges() {
  if (!state.states.Mailbox) return loadMailboxes();
  const changes = call("Mailbox/changes", { sinceState: state.states.Mailbox });
  const created = call("Mailbox/get", { "#ids": changes.ref("/created") });
  const updated = call("Mailbox/get", { "#ids": changes.ref("/updated"), "#properties": changes.ref("/updatedProperties") });
  const [answer, fresh, altered] = await Promise.all([changes, created, updated]);
  for (const id of answer.destroyed) state.mailboxes.delete(id);
  for (const mailbox of [...fresh.list, ...altered.list]) state.mailboxes.set(mailbox.id, { ...state.mailboxes.get(mailbox.id), ...mailbox });
  state.states.Mailbox = answer.newState;
  if (answer.hasMoreChanges) again = true;
  changed();
}

async function emailChanges() {
  const changes = call("Email/changes", { sinceState: state.states.Email, maxChanges: MOST });
  const updated = call("Email/get", { "#ids": changes.ref("/updated"), properties: ["id", "threadId", "mailboxIds", "keywords"] });
  const created = call("Email/get", { "#ids": changes.ref("/created"), properties: ROW_PROPERTIES });
  const [answer, altered, fresh] = await Promise.all([changes, updated, created]);
  state.states.Email = answer.newState;
  if (answer.hasMoreChanges) again = true;
  remember(altered.list.filter((email) => state.emails.has(email.id)));
  remember(fresh.list);
  for (const id of answer.destroyed) state.emails.delete(id);
  const open = openThreadId();
  const touched = fresh.list.some((email) => email.threadId === open) || answer.destroyed.some((id) => state.threads.get(open)?.includes(id));
  if (open && touched) loadThread(open);
  return answer.created.length + answer.updated.length + answer.destroyed.length > 0;
}
