// The search box's language: words, "phrases" and from: to: cc: subject: body: has: is: in: before: after: larger: smaller:.

const TERM = /(-)?(?:([a-z]+):)?("([^"]*)"|[^\s"]+)/giu;
const TEXT_FIELDS = new Set(["from", "to", "cc", "bcc", "subject", "body"]);
const IS = {
  unread: { notKeyword: "$seen" },
  read: { hasKeyword: "$seen" },
  starred: { hasKeyword: "$flagged" },
  flagged: { hasKeyword: "$flagged" },
  answered: { hasKeyword: "$answered" },
  draft: { hasKeyword: "$draft" },
};

function day(value, offset = 0) {
  const match = value.match(/^(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?$/);
  if (!match) return null;
  const date = new Date(Number(match[1]), Number(match[2] ?? 1) - 1, Number(match[3] ?? 1) + offset);
  return Number.isNaN(date.getTime()) ? null : date.toISOString().replace(/\.\d+Z$/, "Z");
}

function size(value) {
  const match = value.match(/^(\d+(?:\.\d+)?)([km]?)b?$/i);
  return match ? Math.round(Number(match[1]) * { "": 1, k: 1e3, m: 1e6 }[match[2].toLowerCase()]) : null;
}

function condition(field, value, mailboxes, quoted) {
  // The server takes words in quotes as one phrase, and others as words to be found anywhere (RFC 8621 §4.4.1).
  if (!field) return { text: quoted ? `"${value}"` : value };
  if (TEXT_FIELDS.has(field)) return { [field]: quoted ? `"${value}"` : value };
  if (field === "is" && IS[value.toLowerCase()]) return IS[value.toLowerCase()];
  if (field === "has" && /^attachments?$/i.test(value)) return { hasAttachment: true };
  if (field === "before" && day(value)) return { before: day(value) };
  if (field === "after" && day(value)) return { after: day(value) };
  if (field === "larger" && size(value) !== null) return { minSize: size(value) };
  if (field === "smaller" && size(value) !== null) return { maxSize: size(value) };
  if (field === "in") {
    const wanted = value.toLowerCase();
    const found = [...mailboxes.values()].find((mailbox) => mailbox.role === wanted || mailbox.name.toLowerCase() === wanted);
    if (found) return { inMailbox: found.id };
  }
  return { text: `${field}:${value}` };
}

/** The JMAP filter (RFC 8621 §4.4.1) for what was typed; an unknown field is taken as plain text. */
export function filterOf(query, mailboxes) {
  const conditions = [];
  for (const [, minus, field, raw, quoted] of query.matchAll(TERM)) {
    const value = quoted ?? raw;
    if (!value) continue;
    const one = condition(field?.toLowerCase(), value, mailboxes, quoted !== undefined);
    conditions.push(minus ? { operator: "NOT", conditions: [one] } : one);
  }
  if (conditions.length === 0) return { text: query };
  return conditions.length === 1 ? conditions[0] : { operator: "AND", conditions };
}
