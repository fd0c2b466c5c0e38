// Files of a compose window: uploading with progress, inline images, removing, trying again.
import { upload, downloadUrl } from "../jmap.js";
import { changed } from "../state.js";

const INLINE = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);

/** Upload files into a window; pasted images go into the text where the caret is, when it has formatting. */
export function addFiles(composer, files, { inline = false } = {}) {
  for (const file of files) {
    const entry = { name: file.name || "image.png", type: file.type || "application/octet-stream", size: file.size, progress: 0, error: "", blobId: null, file, abort: new AbortController() };
    entry.inline = inline && INLINE.has(entry.type) && composer.mode === "rich" && Boolean(composer.editor);
    composer.files = [...composer.files, entry];
    start(composer, entry);
  }
  changed();
}

async function start(composer, entry) {
  entry.error = "";
  try {
    const { blobId, type, size } = await upload(entry.file, {
      signal: entry.abort.signal,
      onProgress: (part) => {
        entry.progress = Math.min(part, 0.99);
        changed();
      },
    });
    Object.assign(entry, { blobId, type: type || entry.type, size, progress: 1, file: null });
    if (entry.inline && composer.editor) intoText(composer, entry);
    composer.touch();
  } catch (error) {
    if (error.type === "aborted") return;
    entry.error = error.message;
    changed();
  }
}

function intoText(composer, entry) {
  composer.files = composer.files.filter((one) => one !== entry);
  const cid = `${crypto.randomUUID()}@mailstead`;
  composer.editor.insertImage(downloadUrl(entry.blobId, entry.name, entry.type), {
    alt: entry.name, "data-cid": cid, "data-blob": entry.blobId, "data-type": entry.type, "data-name": entry.name, "data-size": String(entry.size),
  });
}

export function removeFile(composer, entry) {
  entry.abort?.abort();
  composer.files = composer.files.filter((one) => one !== entry);
  composer.touch();
}

export function retryFile(composer, entry) {
  entry.progress = 0;
  start(composer, entry);
  changed();
}
