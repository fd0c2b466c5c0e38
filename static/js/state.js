// What the page knows, in one object, and the one way to have it drawn again: change it, then call changed().

export const state = {
  phase: "loading", // loading | ready | failed
  failure: "",
  reachable: true,
  route: { mailboxId: null, threadId: null, query: "", everywhere: true },
  mailboxes: new Map(), // id -> Mailbox
  emails: new Map(), // id -> Email, whatever properties have been asked for
  threads: new Map(), // id -> [email id, …] oldest first
  states: { Mailbox: null, Email: null, Thread: null },
  identities: [],
  drawer: false, // folders shown over the list on narrow screens
  selection: new Set(), // email ids of list rows
  cursor: null, // email id of the row the keyboard is on
  composers: [], // open compose windows, see compose/window.js
};

let draw = () => {};
let pending = false;

/** Set what draws the page; called at most once per frame after changed(). */
export function setDraw(callback) {
  draw = callback;
}

/** Draw at once, for what the very next key or click already needs. */
export function drawNow() {
  pending = false;
  draw();
}

export function changed() {
  if (pending) return;
  pending = true;
  // A hidden page gets no animation frames, yet its title and counts must follow.
  const run = () => {
    if (!pending) return;
    pending = false;
    draw();
  };
  if (document.hidden) setTimeout(run, 50);
  else requestAnimationFrame(run);
}

/** Merge properties of fetched emails into the cache. */
export function remember(emails) {
  for (const email of emails) state.emails.set(email.id, { ...state.emails.get(email.id), ...email });
}

export const has = (email, keyword) => Boolean(email?.keywords?.[keyword]);
export const mailboxWithRole = (role) => [...state.mailboxes.values()].find((mailbox) => mailbox.role === role);
export const hasRole = (email, role) => {
  const mailbox = mailboxWithRole(role);
  return Boolean(mailbox && email?.mailboxIds?.[mailbox.id]);
};
