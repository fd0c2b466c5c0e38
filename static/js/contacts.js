// Correspondents for the address fields: learnt from the mail that is loaded and from what was sent lately.
import { call } from "./jmap.js";
import { mailboxWithRole, state } from "./state.js";

const known = new Map(); // lower-case address -> {name, email, score}
const counted = new Set(); // email ids already learnt from
let asked = false;

function learn(list, weight) {
  for (const { name, email } of list ?? []) {
    if (!email) continue;
    const key = email.toLowerCase();
    const entry = known.get(key) ?? { name: "", email, score: 0 };
    entry.name ||= name ?? "";
    entry.score += weight;
    known.set(key, entry);
  }
}

function learnFrom(emails) {
  const mine = new Set(state.identities.map((identity) => identity.email.toLowerCase()));
  for (const email of emails) {
    if (counted.has(email.id)) continue;
    counted.add(email.id);
    const own = mine.has(email.from?.[0]?.email?.toLowerCase());
    learn(own ? [] : email.from, 1);
    learn(email.to, own ? 4 : 0.25);
    learn(email.cc, own ? 3 : 0.2);
  }
}

/** Ask once for whom mail was sent to lately. */
export async function prepareContacts() {
  if (asked) return;
  asked = true;
  const sent = mailboxWithRole("sent");
  if (!sent) return;
  const query = call("Email/query", { filter: { inMailbox: sent.id }, sort: [{ property: "receivedAt", isAscending: false }], position: 0, limit: 200 });
  const emails = call("Email/get", { "#ids": query.ref("/ids"), properties: ["id", "from", "to", "cc"] });
  try {
    learnFrom((await emails).list);
  } catch {
    asked = false; // suggestions are a convenience: try again at the next window
  }
}

/** Up to `most` correspondents whose name or address has a word beginning with what was typed, the likeliest first. */
export function suggest(typed, exclude = [], most = 6) {
  learnFrom(state.emails.values());
  const words = typed.trim().toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return [];
  const taken = new Set(exclude.map(({ email }) => email.toLowerCase()));
  const starts = (text, word) => text.startsWith(word) || text.split(/[\s.@_-]+/).some((part) => part.startsWith(word));
  return [...known.values()]
    .filter((entry) => !taken.has(entry.email.toLowerCase()) && words.every((word) => starts(`${entry.name} ${entry.email}`.toLowerCase(), word) || entry.email.toLowerCase().startsWith(word)))
    .sort((a, b) => b.score - a.score)
    .slice(0, most);
}

const VALID = /^[^\s@<>(),;:"\\]+@[^\s@<>(),;:"\\]+$/;
export const isValid = ({ email }) => VALID.test(email);

/** Addresses in typed or pasted text: `a@b`, `Name <a@b>`, `"Last, First" <a@b>`, separated by commas, semicolons or lines. */
export function parseAddresses(text) {
  const pieces = [];
  let piece = "";
  let quoted = false;
  let angle = false;
  for (const letter of text) {
    if (letter === '"') quoted = !quoted;
    else if (letter === "<") angle = true;
    else if (letter === ">") angle = false;
    if (/[,;\n]/.test(letter) && !quoted && !angle) {
      pieces.push(piece);
      piece = "";
    } else piece += letter;
  }
  pieces.push(piece);
  return pieces.map((one) => one.trim()).filter(Boolean).flatMap((one) => {
    const named = one.match(/^(.*)<([^<>]*)>$/s);
    if (named) return [{ name: named[1].trim().replace(/^"(.*)"$/s, "$1").replace(/\\(.)/g, "$1"), email: named[2].trim() }];
    const bare = one.split(/\s+/);
    return bare.length > 1 && bare.every((word) => VALID.test(word)) ? bare.map((email) => ({ name: "", email })) : [{ name: "", email: one }];
  });
}
