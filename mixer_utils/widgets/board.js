// The board: an image that is drawn on by mouse, touch or keyboard, and whose patches can be hidden.

import {
  BLACK, WHITE, arrow, cellOf, claim, clamp, hoveredPatch, make, mapCanvas, neighbour, onCanvas, pointer, range, segment,
  set, theme,
} from "./kit.js";

/**
 * The image at hand: the trait `pixels`, and what is drawn on it before the pen is lifted.
 *
 * Pixels are uint8 (channels, height, width). `examples` holds those that the trait `start` counts, one after another.
 * The traits `pixels`, `start`, `hidden` and `tool` are used as in ``DigitView``. `changed()` is called whenever the image
 * is another one or other patches are hidden.
 */
export function drawnImage(model, { channels, height, width, patchSize, examples }, changed) {
  const area = height * width;
  const size = channels * area;
  const grid = [height / patchSize, width / patchSize];
  const example = (i) => segment(examples, i, size).slice();
  let image = sentPixels();
  let pen = null; // where it is, [y, x] in pixels, while it is down

  function sentPixels() {
    const { buffer, byteOffset, byteLength } = model.get("pixels");
    return new Uint8Array(buffer, byteOffset, byteLength).slice();
  }

  function commit(pixels = image) {
    set(model, { pixels: new DataView(pixels.slice().buffer) });
  }

  const patchAt = (y, x) => Math.floor(y / patchSize) * grid[1] + Math.floor(x / patchSize);

  /** What reaches the model: hidden patches are black. */
  function seen() {
    const hidden = new Set(model.get("hidden"));
    return image.map((value, i) => (hidden.has(patchAt(...cellOf(i % area, width))) ? 0 : value));
  }

  function paint(to, erase = model.get("tool") === "erase") {
    for (const channel of range(channels)) {
      strokeOn(segment(image, channel, area), height, width, pen || to, to, erase);
    }
    changed();
  }

  function drawTo(to) {
    paint(to);
    pen = to;
  }

  function lift() {
    if (!pen) return;
    pen = null;
    commit();
    changed(); // also where the stroke changed nothing
  }

  function centre() {
    const moved = image.slice();
    for (const channel of range(channels)) {
      moved.set(centredPlane(segment(image, channel, area), height, width), channel * area);
    }
    commit(moved);
  }

  /** Hides a patch, or shows it again. */
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
    image = sentPixels();
    const start = model.get("start");
    if (start >= 0 && !sameNumbers(image, example(start))) model.set("start", -1);
    changed();
  });
  model.on("change:hidden", changed);

  return {
    channels, height, width, patchSize, grid, patchAt, seen, paint, drawTo, lift, toggle, commit, centre,
    pixels: () => image,
    penIsDown: () => pen !== null,
    clear: () => commit(new Uint8Array(size)),
  };
}

/**
 * A canvas to draw on what `drawnImage` made, a pixel as large as `side` CSS pixels. Returns it and `draw()`.
 * `lines` stand between the patches.
 *
 * The pen draws, erases or hides as the trait `tool` says. With the keyboard: arrows move the pen, Space and Enter put
 * it down or lift it, x erases, h hides. The patch under the pointer, or under the keyboard's pen, is shared: see
 * ``hoveredPatch``.
 */
export function drawingBoard(model, drawing, { side, label = "The image: draw here", lines = true }) {
  const { channels, height, width, patchSize, grid } = drawing;
  const hovered = hoveredPatch(model);
  const canvas = mapCanvas(label, { class: "mixer-board", "data-side": side });
  const square = patchSize * side;
  let pen = [height / 2, width / 2]; // the keyboard's, [y, x] in pixels
  let byKeys = false; // whether keys move the pen, which is then shown

  // --- what is seen ---
  function draw() {
    const picture = imageCanvas(drawing.pixels(), [channels, height, width]);
    const { accent } = theme();
    onCanvas(canvas, width * side, height * side, (context, ratio) => {
      context.imageSmoothingEnabled = false;
      context.drawImage(picture, 0, 0, canvas.width, canvas.height);
      context.scale(ratio, ratio);
      for (const patch of model.get("hidden")) hatchSquare(context, ...corner(patch), square);
      if (lines) drawGrid(context, accent);
      if (hovered.get() !== null) outlineSquare(context, ...corner(hovered.get()), square, accent);
      if (byKeys) drawPen(context);
    });
  }

  function corner(patch) {
    const [row, column] = cellOf(patch, grid[1]);
    return [column * square, row * square];
  }

  function drawGrid(context, colour) {
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.beginPath();
    for (let row = 1; row < grid[0]; row++) {
      context.moveTo(0, row * square);
      context.lineTo(width * side, row * square);
    }
    for (let column = 1; column < grid[1]; column++) {
      context.moveTo(column * square, 0);
      context.lineTo(column * square, height * side);
    }
    context.stroke();
  }

  function drawPen(context) {
    const down = drawing.penIsDown();
    const radius = side * (down ? 0.8 : 1.4);
    for (const [strokeStyle, lineWidth] of [[BLACK, 4], [down ? theme().mark : WHITE, 2]]) {
      Object.assign(context, { strokeStyle, lineWidth });
      context.beginPath();
      context.arc(pen[1] * side, pen[0] * side, radius, 0, 7);
      context.stroke();
    }
  }

  // --- the pointer ---
  const where = (event) => pointer(event, canvas).map((at) => at / side).reverse();
  const isInside = ([y, x]) => y >= 0 && y < height && x >= 0 && x < width;
  const patchUnder = (at) => (isInside(at) ? drawing.patchAt(...at) : null);

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const at = where(event);
    byKeys = false;
    if (model.get("tool") === "hide patches") {
      if (isInside(at)) drawing.toggle(drawing.patchAt(...at));
      return;
    }
    drawing.lift();
    canvas.setPointerCapture(event.pointerId);
    drawing.drawTo(at);
  });
  canvas.addEventListener("pointermove", (event) => {
    hovered.set(patchUnder(where(event)));
    if (!drawing.penIsDown() || !canvas.hasPointerCapture(event.pointerId)) return;
    const between = event.getCoalescedEvents?.() ?? [];
    const events = between.length ? between : [event];
    for (const one of events) drawing.drawTo(where(one));
  });
  canvas.addEventListener("pointerup", drawing.lift);
  canvas.addEventListener("pointercancel", drawing.lift);
  canvas.addEventListener("pointerleave", () => hovered.set(null));

  // --- the keyboard ---
  function movePen([down, right, shift]) {
    const far = shift ? patchSize : 1;
    const y = clamp(Math.floor(pen[0]) + 0.5 + far * down, 0.5, height - 0.5);
    const x = clamp(Math.floor(pen[1]) + 0.5 + far * right, 0.5, width - 0.5);
    if (drawing.penIsDown()) drawing.drawTo([y, x]);
    pen = [y, x];
    hovered.set(drawing.patchAt(y, x));
  }
  /** What x, h, Space and Enter do where the pen is. */
  function usePen(key) {
    if (key === "h" || (key !== "x" && model.get("tool") === "hide patches")) {
      drawing.toggle(drawing.patchAt(...pen));
    } else if (key === "x") {
      drawing.paint(pen, true);
      if (!drawing.penIsDown()) drawing.commit();
    } else if (drawing.penIsDown()) {
      drawing.lift();
    } else {
      drawing.drawTo(pen);
    }
  }
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = arrow(event);
    const key = event.key.toLowerCase();
    if (!step && ![" ", "enter", "x", "h"].includes(key)) return;
    claim(event);
    byKeys = true;
    if (step) movePen(step);
    else usePen(key);
    draw();
  });
  canvas.addEventListener("focus", () => {
    byKeys = canvas.matches(":focus-visible");
    draw();
  });
  canvas.addEventListener("blur", () => {
    if (byKeys) hovered.set(null);
    byKeys = false;
    drawing.lift();
    draw();
  });
  return { canvas, draw };
}

// --- on the image's numbers ------------------------------------------------------------------------------------------

export function sameNumbers(a, b) {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

/** One stroke of the pen, from (row, column) to another: about 2 pixels wide, its edge soft, as in MNIST. In place. */
function strokeOn(plane, height, width, [fromY, fromX], [toY, toX], erase) {
  const radius = erase ? 2 : 1.1;
  const dy = toY - fromY;
  const dx = toX - fromX;
  const squaredLength = dy * dy + dx * dx || 1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const down = y + 0.5 - fromY; // from where the stroke begins to the middle of the pixel
      const right = x + 0.5 - fromX;
      const along = clamp((down * dy + right * dx) / squaredLength, 0, 1); // the stroke's nearest point
      const distance = Math.hypot(down - along * dy, right - along * dx);
      const ink = Math.round(255 * clamp(radius + 0.5 - distance, 0, 1));
      const i = y * width + x;
      plane[i] = erase ? Math.min(plane[i], 255 - ink) : Math.max(plane[i], ink);
    }
  }
}

/** The plane moved by whole pixels so that its centre of mass is in the middle, as MNIST's are. */
function centredPlane(plane, height, width) {
  let mass = 0;
  let massY = 0;
  let massX = 0;
  plane.forEach((value, i) => {
    const [y, x] = cellOf(i, width);
    mass += value;
    massY += value * y;
    massX += value * x;
  });
  const down = Math.round((height - 1) / 2 - massY / (mass || 1));
  const right = Math.round((width - 1) / 2 - massX / (mass || 1));
  return plane.map((_, i) => {
    const from = neighbour([height, width], i, -down, -right);
    return from === null ? 0 : plane[from];
  });
}

// --- on canvases -----------------------------------------------------------------------------------------------------

/** Planes of grey, or of red, green and blue (of any other count the first), as a canvas of their size. */
export function imageCanvas(image, [channels, height, width]) {
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const area = height * width;
  for (let i = 0; i < area; i++) {
    for (let colour = 0; colour < 3; colour++) {
      picture.data[4 * i + colour] = image[channels === 3 ? colour * area + i : i];
    }
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

/** Stripes over a patch that is hidden. */
export function hatchSquare(context, x, y, size) {
  context.save();
  context.beginPath();
  context.rect(x, y, size, size);
  context.clip();
  for (const [strokeStyle, lineWidth] of [[BLACK, 4], [theme().mark, 2]]) {
    Object.assign(context, { strokeStyle, lineWidth });
    context.beginPath();
    for (let at = -size; at < size; at += 9) {
      context.moveTo(x + at, y + size);
      context.lineTo(x + at + size, y);
    }
    context.stroke();
  }
  context.restore();
}

export function outlineSquare(context, x, y, size, style) {
  Object.assign(context, { strokeStyle: style, lineWidth: 2 });
  context.strokeRect(x - 1, y - 1, size + 2, size + 2);
}
