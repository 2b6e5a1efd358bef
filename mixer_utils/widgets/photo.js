// A picture of one's own on the board: a file, the camera's, one that is dropped or pasted; and how it was prepared.

import { sameNumbers } from "./board.js";
import { make, range } from "./kit.js";
import { roundEven } from "./filters.js";
import { PictureError, fitted, stagesOf } from "./photograph.js";

const STAGE_HEIGHT = 96; // of the small pictures, CSS pixels
const SURE = 0.5; // how far the likeliest class is ahead of the second, at least, to be called sure; `predict` says the same

/**
 * Controls that put a picture of one's own on a board: {buttons, panel, follow(pixels)}.
 *
 * `root` is the view's element: pictures can be dropped there, and pasted while it has the focus. `imageShape` is the
 * model's [channels, height, width], `pictures` "digit" where a digit is looked for in MNIST's way. `onDigit(pixels)`
 * gets what the model is to see, uint8, and returns the answer in words. `follow(pixels)` hears what is on the board, and
 * the stages go once it is something else. A picture that cannot be read is told in one sentence and changes nothing.
 */
export function photoControls(root, { imageShape, pictures, onDigit }) {
  const input = make("input", { type: "file", accept: "image/*", hidden: true });
  const choose = make("button", { type: "button", "data-do": "photograph", onclick: chooseFile }, "Photograph…");
  const start = make("button", { type: "button", "data-do": "camera", onclick: startCamera }, "Camera");
  const video = make("video", { muted: true, playsinline: true, autoplay: true, "aria-label": "What the camera sees" });
  const take = make("button", { type: "button", "data-do": "take", onclick: takePicture }, "Take it");
  const stop = make("button", { type: "button", "data-do": "stop", onclick: () => stopCamera() }, "Stop");
  const camera = make("div", { class: "mixer-camera", hidden: true }, video, take, stop);
  const row = make("div", { class: "mixer-prepared" });
  const said = make("p", { class: "mixer-photo-said", role: "status" });
  const panel = make("div", { class: "mixer-photo" }, input, camera, row, said);
  const live = cameraStream(() => stopCamera("The camera has stopped: press Camera to start it again."));
  let shown = null; // the pixels whose stages are seen
  let latest = 0; // of several pictures the last one counts

  function say(text) {
    said.textContent = text;
  }

  // --- from a picture to the board ---
  async function readFile(file, name = file.name) {
    latest++;
    const number = latest;
    say(`Reading ${name} …`);
    try {
      const bitmap = await decoded(file, name);
      if (number === latest) put(bitmap, bitmap.width, bitmap.height, name);
      bitmap.close();
    } catch (error) {
      const isKnown = error instanceof PictureError;
      if (number === latest) say(isKnown ? error.message : `${name} could not be read (${error.message}).`);
      if (!isKnown) throw error;
    }
  }

  function put(source, width, height, name) {
    try {
      const { pixels, stages } = prepared(pictureFrom(source, width, height));
      shown = pixels;
      row.replaceChildren(...Object.entries(stages).map(([stage, plane]) => stagePicture(stage, plane)));
      say(`${name}: ${onDigit(pixels)}`);
    } catch (error) {
      if (!(error instanceof PictureError)) throw error;
      say(`${name}: ${error.message}`);
    }
  }

  function prepared(picture) {
    const [channels, height, width] = imageShape;
    const isDigit = pictures === "digit" && channels === 1 && height === width;
    if (!isDigit) return { pixels: fitted(picture, imageShape), stages: {} };
    const stages = stagesOf(picture, roundEven((20 / 28) * height), height);
    return { pixels: stages.frame.values, stages };
  }

  function follow(pixels) {
    if (!shown || sameNumbers(shown, pixels)) return;
    shown = null;
    row.replaceChildren();
    say("");
  }

  // --- files: chosen, dropped, pasted ---
  function chooseFile() {
    input.removeAttribute("capture");
    input.click();
  }
  input.addEventListener("change", () => {
    if (input.files.length) readFile(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  function readOneOf(files) {
    if (files.length === 1) readFile(files[0]);
    else say(`${files.length} files were given: give one picture.`);
  }
  root.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
  });
  root.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    readOneOf(event.dataTransfer.files);
  });
  const paste = (event) => {
    if (!root.isConnected) document.removeEventListener("paste", paste);
    const files = event.clipboardData?.files ?? [];
    if (!files.length || !root.contains(document.activeElement)) return;
    event.preventDefault();
    readFile(files[0], "The pasted picture");
  };
  document.addEventListener("paste", paste); // where nothing can be typed, only the document hears of it

  // --- the camera ---
  async function startCamera() {
    if (!canFilm()) { // a telephone then takes the picture in its own way
      input.setAttribute("capture", "environment");
      input.click();
      return;
    }
    start.disabled = true;
    say("Waiting for the camera …");
    try {
      const stream = await live.start(root);
      if (!stream) return;
      video.srcObject = stream;
      camera.hidden = false;
      say("");
      take.focus();
    } catch (error) {
      stopCamera(whyNoCamera(error));
    }
  }

  function takePicture() {
    if (!video.videoWidth) {
      say("The camera has sent no picture yet: wait a moment.");
      return;
    }
    latest++;
    put(video, video.videoWidth, video.videoHeight, "The camera's picture");
    stopCamera(said.textContent);
  }

  function stopCamera(text = "") {
    live.stop();
    video.srcObject = null;
    camera.hidden = true;
    start.disabled = false;
    start.focus();
    say(text);
  }

  const isTelephone = window.matchMedia("(pointer: coarse)").matches;
  const buttons = canFilm() || isTelephone ? [choose, start] : [choose];
  return { buttons, panel, follow };
}

/** The likeliest class in words, and the second where it comes close; as `predict` says it. */
export function answerInWords(probabilities, classNames) {
  const order = range(probabilities.length).sort((a, b) => probabilities[b] - probabilities[a]);
  const named = (k) => `${classNames[k]} (${(100 * probabilities[k]).toFixed(1)} %)`;
  const [best, second] = order;
  const isSure = probabilities[best] - probabilities[second] >= SURE;
  return isSure ? `${named(best)}.` : `${named(best)}, not sure: perhaps ${named(second)}.`;
}

// --- pictures --------------------------------------------------------------------------------------------------------

/** A file as a bitmap, upright. Throws PictureError, in one sentence, for what the browser cannot read. */
async function decoded(file, name) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new PictureError(`${name} cannot be read (${await whyNoPicture(file)}).`);
  }
}

// How a file begins that is often taken for a picture, and what it is; in lower case.
const TAKEN_FOR_PICTURES = {
  "%pdf": "it is a PDF: export its page as PNG",
  "<svg": "it is an SVG drawing: export it as PNG",
  "<?xml": "it is an SVG drawing, or other XML: export it as PNG",
  "<!doctype": "it is a web page: download the picture itself",
  "<html": "it is a web page: download the picture itself",
};

/** Why a file is no picture, and what to do, in a few words. */
async function whyNoPicture(file) {
  if (file.size === 0) return "the file is empty: copy it again";
  const bytes = new Uint8Array(await file.slice(0, 32).arrayBuffer());
  const start = String.fromCharCode(...bytes).toLowerCase();
  for (const [beginning, reason] of Object.entries(TAKEN_FOR_PICTURES)) {
    if (start.startsWith(beginning)) return reason;
  }
  const isHeic = start.slice(4, 8) === "ftyp" && /^(heic|heix|mif1|msf1)/.test(start.slice(8));
  if (isHeic) return "this browser does not read HEIC: save it as JPEG";
  return "damaged, or not a picture that this browser reads: save it anew as PNG or JPEG";
}

/** What can be drawn on a canvas as a picture, as ``stagesOf`` takes it. */
function pictureFrom(source, width, height) {
  const canvas = make("canvas", { width });
  const rows = (top, bottom) => {
    canvas.height = bottom - top; // which empties it
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(source, 0, top, width, bottom - top, 0, 0, width, bottom - top);
    return context.getImageData(0, 0, width, bottom - top).data;
  };
  return { height, width, rows };
}

/** One of the stages as a small picture, its name and its size. */
function stagePicture(name, { height, width, values }) {
  const canvas = make("canvas", { width, height, role: "img", "aria-label": name, "data-photo": name });
  canvas.style.height = `${STAGE_HEIGHT}px`;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const full = name === "frame" ? 1 : 255;
  values.forEach((value, i) => {
    const grey = roundEven(full * value);
    picture.data.set([grey, grey, grey, 255], 4 * i);
  });
  context.putImageData(picture, 0, 0);
  return make("figure", { class: "mixer-panel" }, make("figcaption", {}, `${name}, ${width} × ${height}`), canvas);
}

// --- the camera ------------------------------------------------------------------------------------------------------

function canFilm() {
  return Boolean(navigator.mediaDevices?.getUserMedia);
}

/**
 * A camera that is off whenever it is not needed: start(root) gives its stream, null where it was stopped meanwhile.
 *
 * `ended()` is called where the camera stops by itself, where `root` leaves the page, and where the page is left; it has
 * to call stop().
 */
function cameraStream(ended) {
  let stream = null;
  let root = null;
  let wanted = 0; // counts starts and stops
  const watcher = new MutationObserver(() => root.isConnected || ended());

  async function start(element) {
    wanted++;
    const number = wanted;
    root = element;
    watcher.observe(document, { childList: true, subtree: true });
    window.addEventListener("pagehide", ended);
    const found = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (number !== wanted) {
      for (const track of found.getTracks()) track.stop();
      return null;
    }
    stream = found;
    for (const track of stream.getTracks()) track.addEventListener("ended", ended); // not heard after our own stop()
    return stream;
  }

  function stop() {
    wanted++;
    watcher.disconnect();
    window.removeEventListener("pagehide", ended);
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
  }
  return { start, stop };
}

const NO_CAMERA = {
  NotAllowedError: "The camera may not be used: allow it in the browser's settings, or choose a file.",
  NotFoundError: "No camera was found: connect one, or choose a file.",
  NotReadableError: "The camera is in use by another program: close that, or choose a file.",
};

function whyNoCamera(error) {
  return NO_CAMERA[error.name] || `The camera did not start (${error.message || error.name}): choose a file.`;
}
