// Addresses of the page: /, /mail/<mailboxId>/, /mail/<mailboxId>/<threadId>, each with ?q= (search) and &in=folder.
import { changed, mailboxWithRole, state } from "./state.js";

let onRoute = () => {};

export function parse(url) {
  const { pathname, searchParams } = new URL(url, location.origin);
  const [, mailboxId = null, threadId = null] = pathname.split("/").filter(Boolean).map(decodeURIComponent);
  return { mailboxId, threadId, query: searchParams.get("q") ?? "", everywhere: searchParams.get("in") !== "folder" };
}

/** The address of a place; missing parts come from where we are. */
export function url({ mailboxId = state.route.mailboxId, threadId = null, query = state.route.query, everywhere = state.route.everywhere } = {}) {
  let path = `/mail/${encodeURIComponent(mailboxId)}/`;
  if (threadId) path += encodeURIComponent(threadId);
  const search = new URLSearchParams();
  if (query) {
    search.set("q", query);
    if (!everywhere) search.set("in", "folder");
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

export const mailboxUrl = (id) => url({ mailboxId: id, query: "", everywhere: true });
export const threadUrl = (id) => url({ threadId: id });

export function navigate(address, { replace = false } = {}) {
  const here = location.pathname + location.search;
  if (address !== here) history[replace ? "replaceState" : "pushState"]({ inApp: !replace || history.state?.inApp }, "", address);
  apply();
}

/** Leave the conversation: back in history when we came from the list, else to the list's address. */
export function leaveThread() {
  if (!state.route.threadId) return;
  navigate(url({ threadId: null }));
}

function apply() {
  const route = parse(location.href);
  if (!state.mailboxes.has(route.mailboxId)) {
    const home = mailboxWithRole("inbox") ?? [...state.mailboxes.values()][0];
    route.mailboxId = home?.id ?? null;
    route.threadId = null;
  }
  const before = state.route;
  state.route = route;
  state.drawer = false;
  onRoute(route, before);
  changed();
}

/** Begin: `callback(route, before)` is called at once and at every change of place. */
export function startRouter(callback) {
  onRoute = callback;
  window.addEventListener("popstate", apply);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (!link || link.target || link.hasAttribute("download")) return;
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const target = new URL(link.href);
    if (target.origin !== location.origin || !/^\/(mail\/|$)/.test(target.pathname)) return;
    event.preventDefault();
    navigate(target.pathname + target.search);
  });
  apply();
}
