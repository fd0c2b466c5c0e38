// Starts the webmail: session, folders, place; draws the whole page from state.js whenever something changed.
import { render } from "./vendor.js";
import { openThread, thread, whenShown } from "./thread.js";
import { setKeywordOn, whenRowsLeave } from "./actions.js";
import { call, loadSession, watchConnection } from "./jmap.js";
import { startKeyboard } from "./keyboard.js";
import { openList } from "./list.js";
import { badge, loadMailboxes, nameOf } from "./mailboxes.js";
import { navigate, startRouter, threadUrl, url } from "./router.js";
import { changed, has, mailboxWithRole, setDraw, state } from "./state.js";
import { startSync } from "./sync.js";
import { startCompose } from "./compose/window.js";
import { sizeFrames } from "./views/body.js";
import { shellView } from "./views/shell.js";

const root = document.getElementById("app");

function title() {
  const inbox = mailboxWithRole("inbox");
  const unread = inbox ? badge(inbox) : 0;
  const here = state.mailboxes.get(state.route.mailboxId);
  const subject = thread.id ? (state.emails.get(state.threads.get(thread.id)?.[0])?.subject ?? "") : "";
  const place = state.route.query ? `Search: ${state.route.query}` : here ? nameOf(here) : "";
  return `${unread ? `(${unread}) ` : ""}${subject || place ? `${subject || place} · ` : ""}Mailstead`;
}

function draw() {
  render(shellView(), root);
  sizeFrames(root);
  document.title = title();
}

function onRoute(route, before) {
  if (route.mailboxId) openList(route);
  openThread(route.threadId);
  // On a phone the pane that was left is hidden: focus follows to the one that is shown.
  if (before.threadId && !route.threadId) {
    requestAnimationFrame(() => requestAnimationFrame(() => {
      if (document.activeElement === document.body) document.querySelector(".row-link[tabindex='0']")?.focus({ preventScroll: true });
    }));
  }
  if (!before.threadId && route.threadId && matchMedia("(max-width: 699px)").matches) requestAnimationFrame(() => document.querySelector(".reader")?.focus());
}

/** After rows left: show the next conversation beside the list, or go back to the list where only one pane fits. */
function afterLeaving(rowIds, next) {
  if (state.cursor && rowIds.includes(state.cursor)) state.cursor = next;
  const open = thread.id;
  if (!open || !rowIds.some((id) => state.emails.get(id)?.threadId === open)) return;
  const nextThread = next && matchMedia("(min-width: 1000px)").matches ? state.emails.get(next)?.threadId : null;
  navigate(nextThread ? threadUrl(nextThread) : url({ threadId: null }), { replace: true });
}

async function start() {
  setDraw(draw);
  draw();
  watchConnection((reachable) => {
    if (state.reachable === reachable) return;
    state.reachable = reachable;
    changed();
  });
  whenRowsLeave(afterLeaving);
  whenShown((messages) => setKeywordOn(messages.filter((email) => !has(email, "$seen") && !has(email, "$draft")), "$seen", true));
  try {
    await loadSession();
    const identities = call("Identity/get", { ids: null });
    await loadMailboxes();
    // An identity for a whole domain (*@example.org) is no address to write from.
    state.identities = (await identities.catch(() => ({ list: [] }))).list.filter((one) => !one.email.startsWith("*@"));
    state.phase = "ready";
    startRouter(onRoute);
    startSync();
    startKeyboard();
    startCompose();
  } catch (error) {
    state.phase = "failed";
    state.failure = error.message;
    changed();
  }
}

start();
