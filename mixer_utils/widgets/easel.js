// The image that flows through the network: what is drawn on it by mouse, touch or keyboard, and the patches hidden.

import {
  BLACK, WHITE, arrow, cellOf, claim, clamp, make, pointer, range, segment, set, theme, unpack,
} from "./kit.js";
import { digitCentred, digitHatch, digitSame, digitStroke } from "./digit.js";
import { squares } from "./squares.js";

/**
 * The image at hand, the trait `pixels` and what is drawn on it before the pen is lifted. `changed()` is called whenever
 * it is another one, or other patches are hidden.
 */
export function easel(model, changed) {
  const data = model.get("data");
  const [channels, H, W] = data.image_shape;
  const P = data.config.patch_size;
  const columns = data.grid[1];
  const area = H * W;
  const examples = unpack(data.examples).values;
  const example = (i) => segment(examples, i, channels * area).slice();
  let image = sent();
  let stroke = null; // where the pen is, [y, x] in pixels, while it is down

  function sent() {
    const { buffer, byteOffset, byteLength } = model.get("pixels");
    return new Uint8Array(buffer, byteOffset, byteLength).slice();
  }

  function commit(pixels = image) {
    set(model, { pixels: new DataView(pixels.slice().buffer) });
  }

  /** What reaches the model: hidden patches are black. */
  function seen() {
    const hidden = new Set(model.get("hidden"));
    if (!hidden.size) return image;
    return image.map((value, i) => (hidden.has(patchAt(...cellOf(i % area, W))) ? 0 : value));
  }

  const patchAt = (y, x) => Math.floor(y / P) * columns + Math.floor(x / P);

  function paint(to, erase = model.get("tool") === "erase") {
    for (const channel of range(channels)) digitStroke(segment(image, channel, area), H, W, stroke || to, to, erase);
    changed();
  }

  function drawTo(to) {
    paint(to);
    stroke = to;
  }

  function lift() {
    if (!stroke) return;
    stroke = null;
    commit();
    changed(); // also where the stroke changed nothing
  }

  function toggle(patch) {
    const hidden = model.get("hidden");
    const rest = hidden.filter((other) => other !== patch);
    set(model, { hidden: hidden.includes(patch) ? rest : [...hidden, patch].sort((a, b) => a - b) });
  }

  // Traits follow from one another as in Python.
  model.on("change:start", () => {
    const start = model.get("start");
    if (start >= 0) model.set("pixels", new DataView(example(start).buffer));
  });
  model.on("change:pixels", () => {
    image = sent();
    const start = model.get("start");
    if (start >= 0 && !digitSame(image, example(start))) model.set("start", -1);
    changed();
  });
  model.on("change:hidden", changed);
  return {
    seen,
    patchAt,
    paint,
    drawTo,
    lift,
    toggle,
    commit,
    image: () => image,
    drawing: () => stroke !== null,
    clear: () => commit(new Uint8Array(channels * area)),
    centre: () => commit(Uint8Array.from(range(channels).flatMap((channel) => {
      return Array.from(digitCentred(segment(image, channel, area), H, W));
    }))),
  };
}

/** Planes of light, grey or red, green and blue (of any other count the first), as a canvas of their size. */
export function pictureOf(image, [channels, H, W]) {
  const canvas = make("canvas", { width: W, height: H });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(W, H);
  const area = H * W;
  for (let i = 0; i < area; i++) {
    for (let colour = 0; colour < 3; colour++) {
      picture.data[4 * i + colour] = image[channels === 3 ? colour * area + i : i];
    }
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

/** The image to be drawn on, pixels of `side` CSS pixels; keys where `keys` says so. Returns its canvas and draw(side). */
export function easelBoard(model, canvasOf, { name, label, under, say, keys }) {
  const data = model.get("data");
  const [, H, W] = data.image_shape;
  const P = data.config.patch_size;
  const [rows, columns] = data.grid;
  let side = 1;
  let pen = [H / 2, W / 2];
  let byKeys = false; // whether keys move the pen, which is then shown
  const board = squares(model, {
    trait: "patch", count: rows * columns, columns, name, label, under, say, keys: false,
    pick: () => {}, // what a press does is below
  });
  const { canvas } = board;
  canvas.classList.add("mixer-board");

  function draw(pixelSide) {
    side = pixelSide;
    canvas.dataset.side = side;
    const drawn = pictureOf(canvasOf.image(), data.image_shape);
    const size = { width: P * side, height: P * side };
    board.draw(size, (context, corner) => {
      const [left, top] = corner(0);
      context.drawImage(drawn, left, top, W * side, H * side);
      for (const patch of model.get("hidden")) digitHatch(context, ...corner(patch), P * side);
      if (byKeys) drawPen(context, left, top);
    });
  }

  function drawPen(context, left, top) {
    const down = canvasOf.drawing();
    for (const [strokeStyle, lineWidth] of [[BLACK, 4], [down ? theme().mark : WHITE, 2]]) {
      Object.assign(context, { strokeStyle, lineWidth });
      context.beginPath();
      context.arc(left + pen[1] * side, top + pen[0] * side, side * (down ? 0.8 : 1.4), 0, 7);
      context.stroke();
    }
  }

  const where = (event) => pointer(event, canvas).map((at) => (at - 2) / side).reverse();
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    byKeys = false;
    if (model.get("tool") === "hide patches") {
      const patch = board.squareUnder(event);
      if (patch !== null) canvasOf.toggle(patch);
      return;
    }
    canvasOf.lift();
    canvas.setPointerCapture(event.pointerId);
    canvasOf.drawTo(where(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvasOf.drawing() || !canvas.hasPointerCapture(event.pointerId)) return;
    const between = event.getCoalescedEvents?.() ?? [];
    for (const point of between.length ? between.map(where) : [where(event)]) canvasOf.drawTo(point);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, canvasOf.lift);
  if (!keys) return { canvas, draw };

  function movePen([down, right, shift]) {
    const far = shift ? P : 1;
    const y = clamp(Math.floor(pen[0]) + 0.5 + far * down, 0.5, H - 0.5);
    const x = clamp(Math.floor(pen[1]) + 0.5 + far * right, 0.5, W - 0.5);
    if (canvasOf.drawing()) canvasOf.drawTo([y, x]);
    pen = [y, x];
    under.set(canvasOf.patchAt(y, x));
  }
  /** What x, h, Space and Enter do where the pen is. */
  function usePen(key) {
    if (key === "h" || (key !== "x" && model.get("tool") === "hide patches")) {
      canvasOf.toggle(canvasOf.patchAt(...pen));
    } else if (key === "x") {
      canvasOf.paint(pen, true);
      if (!canvasOf.drawing()) canvasOf.commit();
    } else if (canvasOf.drawing()) {
      canvasOf.lift();
    } else {
      canvasOf.drawTo(pen);
    }
  }
  canvas.tabIndex = 0;
  canvas.dataset.lmSuppressShortcuts = "true";
  canvas.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = arrow(event);
    if (!step && ![" ", "enter", "x", "h"].includes(key)) return;
    claim(event);
    byKeys = true;
    if (step) movePen(step);
    else usePen(key);
    draw(side);
  });
  canvas.addEventListener("focus", () => {
    byKeys = canvas.matches(":focus-visible");
    draw(side);
  });
  canvas.addEventListener("blur", () => {
    if (byKeys) under.set(null);
    byKeys = false;
    canvasOf.lift();
    draw(side);
  });
  return { canvas, draw };
}
