// Grids of tiles on a canvas: the pointer, the keys, what is scrolled into sight, and the line around the chosen tile.

import {
  arrow, cellOf, clamp, fillMap, make, mapCanvas, neighbour, onCanvas, patchIn, pointer, set, theme,
} from "./kit.js";

/** How many of `count` tiles to put in a row that has room for `fit`: a few less where this fills the last row. */
function evenly(count, fit) {
  if (fit >= count) return count;
  for (let across = fit; across > 0.7 * fit; across--) {
    if (count % across === 0) return across;
  }
  return Math.max(1, fit);
}

/**
 * Items, each a tile on the canvas; a click and the arrow keys choose one, the trait's value.
 *
 * `order()` gives the items as they are drawn. `hover(found)` hears what is under the pointer: {item, x, y}, x and y in
 * CSS pixels from the tile's corner, or null. `pick(found)` gives the traits that a click sets, or null for none;
 * `withShift(down, right)`, where given, takes the arrow keys with Shift.
 * `draw(layout, paint)`: the layout's sizes are CSS pixels: `across` tiles a row, their `width` and `height`, the `gap`
 * between them, the `margin` around all, more of it `below`, and a `line` drawn `away` from the chosen tile.
 */
export function tileGrid(model, trait, { canvas, order, hover, pick, withShift }) {
  const picked = pick || ((found) => ({ [trait]: found.item }));
  let layout = null;
  const items = () => Array.from(order());

  /** A tile's left upper corner. */
  function corner(at) {
    const { across, width, height, gap, margin } = layout;
    const [row, column] = cellOf(at, across);
    return [margin + column * (width + gap), margin + row * (height + gap)];
  }

  /** `paint(context, ratio, items)` draws the tiles, in device pixels; the line around the chosen one is drawn here. */
  function draw(sizes, paint) {
    layout = { below: 0, line: 1.5, away: 1.5, ...sizes };
    const { across, width, height, gap, margin, below, line, away } = layout;
    const shown = items();
    const down = Math.ceil(shown.length / across);
    const wide = across * (width + gap) - gap + 2 * margin;
    const tall = down * (height + gap) - gap + 2 * margin + below;
    Object.assign(canvas.dataset, { across, gap, order: shown.join(" ") });
    onCanvas(canvas, wide, tall, (context, ratio) => {
      paint(context, ratio, shown);
      const [x, y] = corner(shown.indexOf(model.get(trait)));
      context.strokeStyle = theme().ink;
      context.lineWidth = line * ratio;
      const outline = [x - away, y - away, width + 2 * away, height + 2 * away];
      context.strokeRect(...outline.map((size) => size * ratio));
    });
  }

  /** Scrolls the box around the canvas so far that the tile is in sight. */
  function reveal(item) {
    const box = canvas.parentElement;
    const top = corner(items().indexOf(item))[1] - 10;
    const bottom = top + layout.height + 20;
    box.scrollTop = Math.max(bottom - box.clientHeight, Math.min(box.scrollTop, top));
  }

  function under(event) {
    const { across, width, height, gap, margin } = layout;
    const [x, y] = pointer(event, canvas).map((place) => place - margin);
    const right = Math.floor(x / (width + gap));
    const down = Math.floor(y / (height + gap));
    const item = items()[down * across + right];
    if (right < 0 || right >= across || down < 0 || item === undefined) return null;
    return { item, x: x - right * (width + gap), y: y - down * (height + gap) };
  }

  canvas.addEventListener("pointermove", (event) => hover(under(event)));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("click", (event) => {
    const found = under(event);
    const traits = found && picked(found);
    if (traits) set(model, traits);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = arrow(event);
    if (!step) return;
    const [down, right, shift] = step;
    hover(null);
    if (shift && withShift) {
      withShift(down, right);
      return;
    }
    const all = items();
    const item = all[all.indexOf(model.get(trait)) + right + down * layout.across];
    if (item === undefined) return;
    set(model, { [trait]: item });
    reveal(item);
  });
  return { draw, corner, reveal };
}

/**
 * All hidden units of a block's token mixing, each a tile of two maps: what it reads, what it writes.
 *
 * `order()` gives the units as they are drawn, `map(unit, writes)` the values of a map. A click and the arrow keys choose
 * the traits unit and patch (Shift moves the patch); `follow({unit, patch})` hears what is under the pointer, or null.
 * Returns the element and draw({room, most, side, scale}): at most `most` tiles a row in `room` CSS pixels, squares of
 * `side` or more, and scale(unit, writes), the largest magnitude that the map's colours cover.
 */
export function pairTiles(model, table, { label, grid, order, map, follow }) {
  const [rows, columns] = grid;
  const canvas = mapCanvas(label);
  const element = make("div", { class: "mixer-scroll mixer-tiles" }, canvas);
  let cell = 1; // the side of a square, CSS pixels
  let between = 1; // the line between two maps

  /** Unit and patch at a place in a tile; null on the line between its maps. */
  function patchAt(found) {
    if (!found) return null;
    const second = columns * cell + between;
    const x = found.x >= second ? found.x - second : found.x;
    const patch = patchIn(grid, Math.floor(found.y / cell), Math.floor(x / cell));
    return patch === null ? null : { unit: found.item, patch };
  }

  function movePatch(down, right) {
    const patch = neighbour(grid, model.get("patch"), down, right);
    if (patch !== null) set(model, { patch });
  }

  const tiles = tileGrid(model, "unit", {
    canvas,
    order,
    hover: (found) => follow(patchAt(found)),
    pick: patchAt,
    withShift: movePatch,
  });

  function draw({ room, most, side, scale }) {
    const count = order().length;
    const ratio = window.devicePixelRatio || 1; // whole device pixels, so that squares are sharp at any zoom
    const [least, line, gap] = [side, 2, 6].map((size) => Math.max(1, Math.round(size * ratio)));
    const width = (size) => 2 * columns * size + line;
    const fit = (space) => Math.floor((space * ratio - 2 * line + gap) / (width(least) + gap));
    const inRow = (space) => evenly(count, clamp(fit(space), 1, most));
    let across = inRow(room);
    const tall = Math.ceil(count / across) * (rows * least + gap) - gap + 2 * line;
    if (tall > 500 * ratio) { // beside a scroll bar
      room -= 16;
      across = inRow(room);
    }
    const whole = Math.floor(((room * ratio - 2 * line + gap) / across - gap - line) / (2 * columns));
    const square = clamp(whole, least, Math.round(10 * ratio)); // what is left of the row makes it larger
    cell = square / ratio;
    between = line / ratio;
    Object.assign(canvas.dataset, { side: cell, between });
    const layout = {
      across,
      width: width(square) / ratio,
      height: rows * cell,
      gap: gap / ratio,
      margin: between,
      away: 0.75,
    };
    tiles.draw(layout, (context, _, units) => {
      const image = context.createImageData(canvas.width, canvas.height);
      const pixels = new Uint32Array(image.data.buffer);
      const place = (at) => tiles.corner(at).map((size) => Math.round(size * ratio));
      units.forEach((unit, at) => {
        const [x, y] = place(at);
        for (const writes of [0, 1]) {
          const left = x + writes * (columns * square + line);
          const values = map(unit, writes);
          const top = scale(unit, writes);
          fillMap(pixels, canvas.width, left, y, square, rows, columns, values, top, table);
        }
      });
      context.putImageData(image, 0, 0);
      if (square < 4 * ratio) return;
      const [x, y] = place(units.indexOf(model.get("unit")));
      const [row, column] = cellOf(model.get("patch"), columns);
      const top = y + row * square + ratio / 2; // around the patch, not over it
      context.lineWidth = ratio;
      for (const writes of [0, 1]) {
        const left = x + writes * (columns * square + line) + column * square + ratio / 2;
        context.strokeRect(left, top, square - ratio, square - ratio);
      }
    });
  }
  return { element, canvas, draw };
}
