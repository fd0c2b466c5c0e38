// How dates, sizes, names and subjects are written for people.

const LOCALE = navigator.language || "en";
const timeOfDay = new Intl.DateTimeFormat(LOCALE, { hour: "numeric", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(LOCALE, { weekday: "short" });
const dayMonth = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short" });
const dayMonthYear = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short", year: "numeric" });
const complete = new Intl.DateTimeFormat(LOCALE, { dateStyle: "full", timeStyle: "short" });
const medium = new Intl.DateTimeFormat(LOCALE, { dateStyle: "medium", timeStyle: "short" });
const numbers = new Intl.NumberFormat(LOCALE);

const startOfDay = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate());

/** Short date for lists: 14:05 today, Tue this week, 3 Nov this year, 3 Nov 2023 before. */
export function shortDate(iso, now = new Date()) {
  if (!iso) return "";
  const date = new Date(iso);
  const days = Math.round((startOfDay(now) - startOfDay(date)) / 86_400_000);
  if (days === 0) return timeOfDay.format(date);
  if (days > 0 && days < 7) return weekday.format(date);
  return (date.getFullYear() === now.getFullYear() ? dayMonth : dayMonthYear).format(date);
}

export function messageDate(iso, now = new Date()) {
  if (!iso) return "";
  const date = new Date(iso);
  if (startOfDay(now).getTime() === startOfDay(date).getTime()) return timeOfDay.format(date);
  const day = (date.getFullYear() === now.getFullYear() ? dayMonth : dayMonthYear).format(date);
  return `${day}, ${timeOfDay.format(date)}`;
}

export const fullDate = (iso) => (iso ? complete.format(new Date(iso)) : "");
export const attributionDate = (iso) => (iso ? medium.format(new Date(iso)) : "");
export const count = (value) => numbers.format(value);

export function fileSize(octets) {
  if (octets < 1000) return `${octets} B`;
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (octets >= size) return `${(octets / size).toLocaleString(LOCALE, { maximumFractionDigits: octets < 10 * size ? 1 : 0 })} ${unit}`;
  }
  return "";
}

export const displayName = (address) => address?.name?.trim() || address?.email || "Unknown sender";

/** The name people call somebody by: the first word of a name, or the part before the @. */
export function firstName(address) {
  const name = address?.name?.trim();
  if (!name) return address?.email?.split("@")[0] ?? "Unknown";
  return name.includes(",") ? name.split(",")[1]?.trim().split(/\s+/)[0] || name : name.split(/\s+/)[0];
}

export const formatAddress = ({ name, email }) => (name ? `${name} <${email}>` : email);

export function initials(address) {
  const words = displayName(address).replace(/[^\p{L}\p{N}\s@.]/gu, "").split(/[\s@.]+/).filter(Boolean);
  const letters = words.length > 1 && address?.name ? [words[0][0], words.at(-1)[0]] : [words[0]?.[0] ?? "?"];
  return letters.join("").toUpperCase();
}

/** One of eight hues for a correspondent, always the same one. */
export function hue(address) {
  let sum = 0;
  for (const letter of (address?.email ?? "").toLowerCase()) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return sum % 8;
}

export const subjectOf = (email) => email?.subject?.trim() || "(no subject)";

/** "Re: Re: x" and "AW: x" lead to one "Re: x". */
export function prefixedSubject(prefix, subject = "") {
  const bare = (subject ?? "").replace(/^\s*((re|aw|sv|vs|fwd?|wg)(\[\d+\])?\s*:\s*)+/i, "");
  return `${prefix}: ${bare}`;
}

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
