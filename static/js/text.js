// Plain text for reading and quoting: addresses become links, quoted tails fold, HTML becomes text and back.
import { html } from "./vendor.js";

const LINK = /\b(?:https?:\/\/|www\.)[^\s<>"'`{}|\\^]+|\b[\w.+-]{1,64}@[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?\.[a-z]{2,24}\b/giu;

/** A link ends before the punctuation of the sentence around it, and before a bracket it did not open. */
function trimLink(link) {
  let end = link.length;
  while (end > 0) {
    const last = link[end - 1];
    if (/[.,;:!?*_~'"]/.test(last)) end -= 1;
    else if (last === ")" && !link.slice(0, end).includes("(")) end -= 1;
    else if (last === "]" && !link.slice(0, end).includes("[")) end -= 1;
    else break;
  }
  return link.slice(0, end);
}

/** Text with its addresses as links; every piece is a text node, so nothing in it can be markup. */
export function linkify(text) {
  const pieces = [];
  let at = 0;
  for (const match of text.matchAll(LINK)) {
    const link = trimLink(match[0]);
    if (!link) continue;
    pieces.push(text.slice(at, match.index));
    const isAddress = !/^(https?:|www\.)/i.test(link);
    const href = isAddress ? `mailto:${link}` : link.startsWith("www.") ? `https://${link}` : link;
    pieces.push(html`<a href=${href} target="_blank" rel="noopener noreferrer nofollow">${link}</a>`);
    at = match.index + link.length;
  }
  pieces.push(text.slice(at));
  return pieces;
}

const isQuote = (line) => line.startsWith(">");
const ATTRIBUTION = /(wrote|schrieb|écrit|escribió|ha scritto|schreef|skrev)\s*:\s*$/i;

/** Split into [{quoted, lines}]: a quoted block takes the attribution line above it along. */
export function foldQuotes(text) {
  const lines = text.replace(/\r\n?/g, "\n").replace(/\s+$/, "").split("\n");
  const blocks = [];
  for (const line of lines) {
    const quoted = isQuote(line);
    if (blocks.length === 0 || blocks.at(-1).quoted !== quoted) blocks.push({ quoted, lines: [] });
    blocks.at(-1).lines.push(line);
  }
  for (let index = 1; index < blocks.length; index += 1) {
    if (!blocks[index].quoted) continue;
    const above = blocks[index - 1].lines;
    while (above.length && !above.at(-1).trim()) above.pop();
    if (above.length && ATTRIBUTION.test(above.at(-1))) {
      const from = above.length > 1 && /^(on|am|le|el|il|op|den)\b/i.test(above.at(-2)) ? above.length - 2 : above.length - 1;
      blocks[index].lines.unshift(...above.splice(from));
    }
  }
  return blocks.filter((block) => block.lines.length);
}

const BLOCK = new Set(["ADDRESS", "ARTICLE", "BLOCKQUOTE", "CENTER", "DD", "DIV", "DL", "DT", "FIGURE", "FOOTER", "H1", "H2", "H3", "H4",
  "H5", "H6", "HEADER", "HR", "LI", "MAIN", "OL", "P", "PRE", "SECTION", "TABLE", "TR", "UL"]);

/** Readable text of a DOM tree: "> " before quotes, "- " before list items, link targets after their text. */
export function domToText(root) {
  let out = "";
  const newline = () => {
    if (out && !out.endsWith("\n")) out += "\n";
  };
  const walk = (node, prefix, pre) => {
    if (node.nodeType === Node.TEXT_NODE) {
      const text = pre ? node.data : node.data.replace(/[ \t\r\n\f]+/g, " ");
      out += out === "" || out.endsWith("\n") ? prefix + text.replace(/^ +/, "") : text.startsWith(" ") && out.endsWith(" ") ? text.slice(1) : text;
      if (out.endsWith(`\n${prefix}`) || out === prefix) out = out.slice(0, out.length - prefix.length);
      return;
    }
    if (node.nodeType !== Node.ELEMENT_NODE) return;
    const name = node.tagName;
    if (["STYLE", "SCRIPT", "HEAD", "TITLE", "TEMPLATE"].includes(name)) return;
    if (name === "BR") {
      out += out === "" || out.endsWith("\n") ? `${prefix.trimEnd()}\n` : "\n";
      return;
    }
    const block = BLOCK.has(name);
    if (block) newline();
    if (name === "HR") {
      out += `${prefix}---\n`;
      return;
    }
    const inner = name === "BLOCKQUOTE" ? `${prefix}> ` : prefix;
    if (name === "LI") {
      const ordered = node.parentElement?.tagName === "OL";
      out += `${prefix}${ordered ? `${[...node.parentElement.children].indexOf(node) + 1}.` : "-"} `;
    }
    if ((name === "TD" || name === "TH") && node.previousElementSibling) out += "  ";
    for (const child of node.childNodes) walk(child, inner, pre || name === "PRE");
    if (name === "A" && node.href && /^https?:/.test(node.href) && !node.textContent.includes(node.getAttribute("href"))) out += ` <${node.getAttribute("href")}>`;
    if (block) newline();
    if (name === "P" || name === "TABLE") out += prefix ? `${prefix.trimEnd()}\n` : "\n";
  };
  walk(root, "", false);
  return out.replace(/[ \t]+\n/g, "\n").replace(/\n{3,}/g, "\n\n").trim();
}

/** Join the soft-broken lines of format=flowed text (RFC 3676); other text stays as it is. */
export function unflow(text, contentType) {
  if (!/;\s*format\s*=\s*"?flowed/i.test(contentType)) return text;
  const deleteSpace = /;\s*delsp\s*=\s*"?yes/i.test(contentType);
  const out = [];
  let open = null; // quote depth of the line that goes on, null when none does
  for (const line of text.replace(/\r\n?/g, "\n").split("\n")) {
    const depth = line.match(/^>*/)[0].length;
    const content = line.slice(depth).replace(/^ /, "");
    if (open === depth && content !== "-- ") out[out.length - 1] += content;
    else out.push((depth ? `${">".repeat(depth)} ` : "") + content);
    const soft = content.endsWith(" ") && content !== "-- ";
    if (soft && deleteSpace) out[out.length - 1] = out.at(-1).slice(0, -1);
    open = soft ? depth : null;
  }
  return out.join("\n");
}

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
export const escapeHtml = (text) => text.replace(/[&<>"]/g, (letter) => ENTITIES[letter]);

/** Plain text as the simplest HTML that looks the same; quoted lines become blockquotes. */
export function textToHtml(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  let depth = 0;
  let out = "";
  for (const line of lines) {
    const [, marks, rest] = line.match(/^((?:> ?)*)(.*)$/);
    const wanted = (marks.match(/>/g) ?? []).length;
    while (depth < wanted) { out += "<blockquote>"; depth += 1; }
    while (depth > wanted) { out += "</blockquote>"; depth -= 1; }
    out += `<div>${escapeHtml(rest) || "<br>"}</div>`;
  }
  while (depth > 0) { out += "</blockquote>"; depth -= 1; }
  return out;
}

export const quoteText = (text) => text.replace(/\r\n?/g, "\n").trimEnd().split("\n").map((line) => (line.startsWith(">") ? `>${line}` : line ? `> ${line}` : ">")).join("\n");
