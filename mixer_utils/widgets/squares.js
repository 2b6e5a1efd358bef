// Squares in rows on a canvas, one for each patch, channel or unit: colours, numbers, pointer, keys, and lines around
// the chosen one and the one under the pointer, which all that is drawn of a view shares.

import {
  BLACK, WHITE, arrow, cellOf, clamp, css, make, onCanvas, place, pointer, readableOn, set, theme,
} from "./kit.js";

/**
 * A canvas of `count` squares in rows of `columns`; one of them is the value of `trait`, where there is one.
 *
 * `name` tells the drawings of a view apart, `label()` says what is seen, `under` is what `pointed` makes. `say(i)`
 * hears which square is under the pointer. A click calls `pick(i)`, which sets the trait by default; with `keys` the
 * arrow keys move the trait. `draw({width, height, gap}, paint)`: sizes of a square in CSS pixels;
 * `paint(context, corner)` draws them.
 */
export function squares(model, { trait, count, columns, name, label, under, say, pick, keys = true }) {
  const canvas = make("canvas", { role: "img", "data-map": name, tabindex: keys ? 0 : null });
  const rows = Math.ceil(count / columns);
  const choose = pick || ((i) => trait && set(model, { [trait]: i }));
  let layout = null;
  let paint = null;
  let asked = false;

  /** A square's left upper corner. */
  function corner(i) {
    const [row, column] = cellOf(i, columns);
    const { width, height, gap } = layout;
    return [LINE_ROOM + column * (width + gap), LINE_ROOM + row * (height + gap)];
  }

  function redraw() {
    asked = false;
    if (!layout || !canvas.isConnected) return;
    const { width, height, gap } = layout;
    const wide = columns * (width + gap) - gap + 2 * LINE_ROOM;
    const tall = rows * (height + gap) - gap + 2 * LINE_ROOM;
    onCanvas(canvas, wide, tall, (context, ratio) => {
      context.scale(ratio, ratio);
      context.imageSmoothingEnabled = false;
      paint(context, corner);
      if (trait) lineAround(context, model.get(trait), BLACK, 1.5);
      lineAround(context, under.get(), theme().accent, 2);
    });
  }

  function lineAround(context, i, colour, line) {
    if (i === null || i === undefined || i >= count) return;
    const [x, y] = corner(i);
    const { width, height } = layout;
    for (const [strokeStyle, lineWidth] of [[WHITE, line + 1.5], [colour, line]]) {
      Object.assign(context, { strokeStyle, lineWidth });
      context.strokeRect(x - 0.5, y - 0.5, width + 1, height + 1);
    }
  }

  function draw(sizes, painter) {
    layout = { gap: 0, ...sizes };
    paint = painter;
    Object.assign(canvas.dataset, layout);
    canvas.setAttribute("aria-label", label());
    redraw();
  }

  function redrawSoon() {
    if (!asked) requestAnimationFrame(redraw);
    asked = true;
  }

  function squareUnder(event) {
    if (!layout) return null;
    const { width, height, gap } = layout;
    const [x, y] = pointer(event, canvas);
    const column = Math.floor((x - LINE_ROOM) / (width + gap));
    const row = Math.floor((y - LINE_ROOM) / (height + gap));
    const i = row * columns + column;
    return row < 0 || column < 0 || column >= columns || i >= count ? null : i;
  }

  canvas.addEventListener("pointermove", (event) => {
    const i = squareUnder(event);
    under.set(i);
    say(i);
  });
  canvas.addEventListener("pointerleave", () => {
    under.set(null);
    say(null);
  });
  canvas.addEventListener("click", (event) => {
    const i = squareUnder(event);
    if (i !== null) choose(i);
  });
  if (keys) {
    canvas.addEventListener("keydown", (event) => {
      const step = arrow(event);
      if (!step) return;
      const [row, column] = cellOf(model.get(trait), columns);
      const to = (row + step[0]) * columns + column + step[1];
      const inside = column + step[1] >= 0 && column + step[1] < columns && to >= 0 && to < count;
      if (inside) set(model, { [trait]: to });
    });
  }
  under.on(redrawSoon);
  if (trait) model.on(`change:${trait}`, redrawSoon);
  return { canvas, draw };
}

const LINE_ROOM = 2; // around all squares, for the lines around those at the edge

/** Draws values as colours, a square each; with `numbers` what they are stands in them, where there is room. */
export function paintValues(values, scale, table, columns, { width, height, gap = 0, numbers = false }) {
  const tiny = gap ? null : colouredPixels(values, scale, table, columns);
  const written = numbers && width >= 28 && height >= 16;
  const digits = scale >= 1 ? (scale < 10 ? 2 : 1) : clamp(1 - Math.floor(Math.log10(scale || 1)), 2, 4);
  return (context, corner) => {
    const [left, top] = corner(0);
    if (tiny) context.drawImage(tiny, left, top, columns * width, tiny.height * height);
    if (!gap && !written) return;
    context.font = `${Math.min(12, width * 0.28)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    values.forEach((value, i) => {
      const [x, y] = corner(i);
      const colour = table[place(value, scale)];
      if (gap) {
        context.fillStyle = css(colour);
        context.fillRect(x, y, width, height);
      }
      if (!written) return;
      context.fillStyle = readableOn(colour);
      const text = value.toFixed(digits);
      context.fillText(text.replace("-", Number(text) ? "−" : ""), x + width / 2, y + height / 2);
    });
  };
}

/** A canvas of a pixel for each value. */
export function colouredPixels(values, scale, table, columns) {
  return pixelCanvas(Uint32Array.from(values, (value) => table[place(value, scale)]), columns);
}

/** A canvas of a pixel for each colour, in rows. */
export function pixelCanvas(colours, columns) {
  const rows = Math.ceil(colours.length / columns);
  const canvas = make("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  new Uint32Array(picture.data.buffer).set(colours);
  context.putImageData(picture, 0, 0);
  return canvas;
}

/** A number in as few signs as say it: 0.13, −0.0042, 12.3. */
export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e4 || (size > 0 && size < 0.001)) return value.toExponential(1).replaceAll("-", "−");
  const small = size > 0 && size < 0.1;
  const text = small ? value.toPrecision(2) : value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
  return text.replace("-", Number(text) ? "−" : "");
}
