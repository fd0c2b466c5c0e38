// Libraries that only the composer needs, so that reading mail never waits for them.
import DOMPurify from "../vendor/dompurify-3.4.18/purify.es.mjs";
import Squire from "../vendor/squire-rte-2.4.8/squire.mjs";

export { DOMPurify, Squire };
