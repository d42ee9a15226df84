// Pictures from files, folders, the clipboard and drops, made small before they are sent.

const ENDINGS = /\.(jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf])$/i;
//: What systems put into folders by themselves.
const HIDDEN = /(^|\/)(\.|__MACOSX|(thumbs\.db|desktop\.ini)$)/i;
//: The network sees about 224 pixels, and of a long picture several squares as high as it; more are not sent.
const LONGEST = 512;
const SHORTEST = 300;
//: Files of these kinds up to this size are sent unmodified.
const SMALL_BYTES = 200_000;
const KINDS = new Set(["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"]);

/** Whether a file may be a picture. */
export function isPicture(file) {
  return file.type.startsWith("image/") ? file.type !== "image/svg+xml" : !file.type && ENDINGS.test(file.name);
}

/** Let the user choose files, or a folder. */
export function choose({ folder = false, accept = "image/*", multiple = true } = {}) {
  return new Promise((done) => {
    const input = document.createElement("input");
    Object.assign(input, { type: "file", multiple, accept: folder ? "" : accept, webkitdirectory: folder });
    input.addEventListener("change", () => done([...input.files].map((file) => ({ file, path: file.webkitRelativePath }))));
    input.addEventListener("cancel", () => done([]));
    input.click();
  });
}

/** Return the files of a drop, also those in folders, each with its path. Call it at once: the drop is soon gone. */
export async function dropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  for (const entry of entries.filter(Boolean)) await collect(entry, found);
  return found;
}

async function collect(entry, found) {
  if (entry instanceof File) found.push({ file: entry, path: "" });
  else if (entry.isFile) {
    const file = await new Promise((done) => entry.file(done, () => done(null)));
    if (file) found.push({ file, path: entry.fullPath.replace(/^\//, "") });
  } else if (entry.isDirectory) {
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done) => reader.readEntries(done, () => done([])));
      if (!some.length) break;
      for (const one of some) await collect(one, found);
    }
  }
}

/** Return the pictures among files in the order of their paths, and the names of the files that are none. */
export function picturesAmong(files) {
  const visible = files.filter(({ file, path }) => !HIDDEN.test(path || file.name));
  const pictures = visible.filter(({ file }) => isPicture(file));
  const order = new Intl.Collator("en", { numeric: true });
  pictures.sort((a, b) => order.compare(a.path || a.file.name, b.path || b.file.name));
  return { pictures, others: visible.filter(({ file }) => !isPicture(file)).map(({ file }) => file.name) };
}

/** Return pictures by the name of the folder that holds them; null unless all lie in folders. */
export function byFolder(files) {
  const groups = new Map();
  for (const one of files) {
    const folders = one.path.split("/").slice(0, -1);
    if (!folders.length) return null;
    const name = folders.at(-1);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(one);
  }
  return groups.size ? groups : null;
}

/** Return a picture to send and show: {blob, name, url, file}; the file is as large as it was. */
export async function prepared(file) {
  const blob = await smaller(file).catch(() => file); // the service says what is wrong with it
  return { blob, name: file.name || "picture", url: URL.createObjectURL(blob), file };
}

/** Prepare many, a few at a time. */
export async function preparedAll(files, onprogress = () => {}) {
  const found = new Array(files.length);
  let next = 0;
  let done = 0;
  async function work() {
    while (next < files.length) {
      const place = next++;
      found[place] = await prepared(files[place]);
      onprogress((done += 1), files.length);
    }
  }
  await Promise.all([work(), work(), work(), work()]);
  return found;
}

async function smaller(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  const scale = Math.max(LONGEST / Math.max(bitmap.width, bitmap.height), SHORTEST / Math.min(bitmap.width, bitmap.height));
  if (file.size <= SMALL_BYTES && KINDS.has(file.type)) {
    bitmap.close();
    return file;
  }
  const kind = file.type === "image/jpeg" ? "image/jpeg" : "image/webp"; // which keeps transparency
  const blob = await drawn(bitmap, bitmap.width, bitmap.height, Math.min(scale, 1), kind);
  bitmap.close();
  return blob.size < file.size || !KINDS.has(file.type) ? blob : file;
}

/** Return what a video shows now. */
export async function frameOf(video) {
  const { videoWidth: width, videoHeight: height } = video;
  const blob = await drawn(video, width, height, Math.min(1, Math.max(LONGEST / Math.max(width, height), SHORTEST / Math.min(width, height))), "image/jpeg");
  return { blob, name: `camera ${new Date().toISOString().slice(11, 23).replaceAll(":", ".")}.jpg`, url: URL.createObjectURL(blob) };
}

function drawn(source, width, height, scale, kind) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height].map((length) => Math.max(1, Math.round(length * scale)));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return new Promise((done, fail) => canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("empty"))), kind, 0.92));
}

/** Forget pictures that are shown no longer. */
export function released(pictures) {
  for (const { url } of pictures) URL.revokeObjectURL(url);
}
