// HTML bodies are documents of their own (docs/decisions: sandboxed, no scripts, not our origin). From outside we only know
// what the server's headers say about them: how many remote images were left out, and about how tall the page will be.
import { accountId } from "../jmap.js";
import { changed } from "../state.js";

const facts = new Map(); // address -> {remote, height} | null while it is asked for

/** Address of a body document; `use`: "page" with the message's header for printing, "quote" or "forward" for the composer. */
export function bodyUrl(email, part, { images = false, use = "" } = {}) {
  const path = [accountId(), email.id, part.partId].map(encodeURIComponent).join("/");
  const query = new URLSearchParams({ images: images ? "1" : "0" });
  if (use) query.set("use", use);
  return `/mail/body/${path}?${query}`;
}

/** What is known of a body, asking for it the first time. */
export function bodyFacts(email, part) {
  const address = bodyUrl(email, part);
  if (!facts.has(address)) {
    facts.set(address, null);
    ask(address);
  }
  return facts.get(address);
}

async function ask(address) {
  try {
    const response = await fetch(address, { method: "HEAD", credentials: "same-origin" });
    const number = (name) => Number(response.headers.get(name)) || 0;
    facts.set(address, { remote: number("X-Remote-Images"), height: number("X-Estimated-Height") });
    changed();
  } catch {
    facts.delete(address); // asked again the next time the message is shown
  }
}

/** Give open frames their heights; by CSSOM, because the page's policy allows no style attributes. */
export function sizeFrames(root) {
  for (const frame of root.querySelectorAll(".body-frame")) frame.style.setProperty("--height", `${frame.dataset.height}px`);
}
