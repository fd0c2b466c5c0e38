// The frame: top bar, folders, list, reading pane, compose windows, notices.
import { html, nothing, classMap } from "../vendor.js";
import { session } from "../jmap.js";
import { changed, state } from "../state.js";
import { thread } from "../thread.js";
import { navigate, url } from "../router.js";
import { icon } from "../ui/icons.js";
import { openMenu } from "../ui/menu.js";
import { toastsView } from "../ui/toasts.js";
import { showShortcuts } from "../keyboard.js";
import { compose, composersView } from "../compose/window.js";
import { initials } from "../format.js";
import { listPane } from "./list-pane.js";
import { readerPane } from "./reader.js";
import { sidebar } from "./sidebar.js";

const BRAND = new URL("../../icons/mailstead.svg", import.meta.url).pathname;

export function setTheme(choice) {
  try {
    if (choice) localStorage.setItem("mailstead.theme", choice);
    else localStorage.removeItem("mailstead.theme");
  } catch {
    // storage switched off: the choice lasts until the page is left
  }
  if (choice) document.documentElement.dataset.theme = choice;
  else delete document.documentElement.dataset.theme;
}

function accountMenu(event) {
  const theme = document.documentElement.dataset.theme;
  openMenu(event.currentTarget, [
    { label: "System theme", icon: "monitor", checked: !theme, run: () => setTheme(null) },
    { label: "Light theme", icon: "sun", checked: theme === "light", run: () => setTheme("light") },
    { label: "Dark theme", icon: "moon", checked: theme === "dark", run: () => setTheme("dark") },
    null,
    { label: "Keyboard shortcuts", icon: "keyboard", detail: "?", run: showShortcuts },
    { label: "Where is my mail?", icon: "mail-question-mark", run: () => location.assign("/settings/history/") },
    { label: "Change password", icon: "key-round", run: () => location.assign("/settings/security/password/") },
    { label: "App passwords", icon: "key-round", run: () => location.assign("/settings/security/app-passwords/") },
    { label: "Two-factor sign-in", icon: "shield-check", run: () => location.assign("/settings/security/two-factor/") },
    { label: "Sign out", icon: "log-out", run: () => document.getElementById("sign-out").submit() },
  ], { label: "Account", heading: session?.username });
}

export function search(query, everywhere = state.route.everywhere) {
  navigate(url({ query: query.trim(), everywhere, threadId: null }));
}

const searchBox = () => html`
  <form class="search" role="search" @submit=${(event) => { event.preventDefault(); search(event.target.elements.q.value); event.target.elements.q.blur(); }}>
    ${icon("search")}
    <input type="search" name="q" id="search" placeholder="Search mail" aria-label="Search mail" autocomplete="off" spellcheck="false" enterkeyhint="search"
      .value=${state.route.query} @keydown=${(event) => {
        if (event.key !== "Escape") return;
        event.stopPropagation();
        event.target.blur();
        if (state.route.query) search("");
        else event.target.value = "";
      }}>
    ${state.route.query ? html`<button type="button" class="icon-button icon-button--sm" aria-label="Clear search" @click=${() => search("")}>${icon("x")}</button>` : nothing}
  </form>`;

const topBar = () => html`
  <header class="topbar">
    <button class="icon-button topbar-menu" aria-label="Folders" aria-expanded=${state.drawer} @click=${() => { state.drawer = !state.drawer; changed(); }}>${icon("menu")}</button>
    <a class="brand" href="/"><img src=${BRAND} alt="" width="28" height="28"><span>Mailstead</span></a>
    ${searchBox()}
    <button class="avatar-button" aria-label="Account: ${session?.username ?? ""}" aria-haspopup="menu" @click=${accountMenu}>
      <span class="avatar avatar--me" aria-hidden="true">${initials({ email: session?.username ?? "?" })}</span>
    </button>
  </header>`;

export function shellView() {
  if (state.phase === "failed") {
    return html`<div class="fatal" role="alert">
      ${icon("cloud-off", "icon--lg")}
      <h1>Your mail cannot be shown right now</h1>
      <p>${state.failure}</p>
      <button class="button button--primary" @click=${() => location.reload()}>Try again</button>
    </div>`;
  }
  return html`
    <a class="skip-link" href="#list" @click=${(event) => { event.preventDefault(); document.querySelector(".row-link[tabindex='0']")?.focus(); }}>Skip to the messages</a>
    <div class=${classMap({ shell: true, "shell--reading": Boolean(thread.id), "shell--drawer": state.drawer })}>
      ${topBar()}
      ${state.reachable ? nothing : html`<div class="offline" role="status">${icon("cloud-off")} You are offline. What you see may be out of date; changes are not saved.</div>`}
      ${sidebar()}
      ${state.drawer ? html`<div class="scrim" @click=${() => { state.drawer = false; changed(); }}></div>` : nothing}
      ${listPane()}
      ${readerPane()}
      <button class="compose-floating" aria-label="Compose" @click=${() => compose()}>${icon("pencil")}<span>Compose</span></button>
    </div>
    ${composersView()}
    ${toastsView()}`;
}
