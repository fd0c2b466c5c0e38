// The one place that names vendored libraries and their versions (static/vendor/README.md).
export { html, nothing, render } from "../vendor/lit-html-3.3.3/lit-html.js";
export { repeat } from "../vendor/lit-html-3.3.3/directives/repeat.js";
export { classMap } from "../vendor/lit-html-3.3.3/directives/class-map.js";
export { live } from "../vendor/lit-html-3.3.3/directives/live.js";
export { keyed } from "../vendor/lit-html-3.3.3/directives/keyed.js";
export { ref } from "../vendor/lit-html-3.3.3/directives/ref.js";
