// Grids of tiles in a box that scrolls: what is in sight is drawn, the pointer and the keys choose, lines run around
// the chosen tile and around the patch under the pointer.

import {
  arrow, cellOf, clamp, fillMap, hoveredPatch, make, mapCanvas, neighbour, onCanvas, patchIn, pointer, range, set,
  theme,
} from "./kit.js";
import { overlay } from "./overlay.js";

/** How many of `count` tiles to put in a row with room for `fit`: a multiple of `step`, a few less where rows fill. */
function evenly(count, fit, step) {
  const most = fit > step ? fit - (fit % step) : fit;
  if (most >= count) return count;
  for (let across = most; across > 0.7 * fit; across -= step) {
    if (count % across === 0) return across;
  }
  return most;
}

/** The side of a patch, CSS pixels, at which a map can be read at once: 8 or more, the whole map about 112. */
export function readableSide([rows, columns]) {
  return Math.max(8, Math.floor(112 / Math.max(rows, columns)));
}

/**
 * Items, each a tile on the canvas; a click and the arrow keys choose one, the trait's value.
 *
 * `element` is the box that scrolls; the canvas shows what is in sight of it, so that any number of tiles takes the
 * memory and the time of one screen. `order()` gives the items as they are drawn. `hover(found)` hears what is under the
 * pointer: {item, x, y}, x and y in CSS pixels from the tile's corner, or null. `pick(found)` gives the traits that a
 * click sets, or null for none; `withShift(down, right)`, where given, takes the arrow keys with Shift.
 * `draw(layout, paint)`: the layout's sizes are CSS pixels: `across` tiles a row, their `width` and `height`, the `gap`
 * between them, the `margin` around all, more of it `below`, and a `line` drawn `away` from the chosen tile.
 * `paint(context, ratio, tiles)` draws those in sight, {item, at, x, y}: place in the order, corner on the canvas.
 * `outline(boxes)` draws lines around boxes [x, y, width, height] of every tile, from its corner.
 */
export function tileGrid(model, trait, { canvas, name, order, hover, pick, withShift }) {
  const picked = pick || ((found) => ({ [trait]: found.item }));
  const over = overlay(canvas);
  const tall = make("div", { class: "mixer-tall" }, over.element); // as high as all tiles, and what is scrolled
  const element = make("div", { class: name }, tall);
  let layout = null;
  let paint = null;
  let boxes = [];
  let shown = null; // the chosen item that was in sight
  const items = () => Array.from(order());
  const scrolled = () => Math.round(element.scrollTop * devicePixelRatio) / devicePixelRatio; // whole device pixels

  /** The tiles in sight. */
  function inSight() {
    const { across, width, height, gap, margin } = layout;
    const top = scrolled();
    const all = items();
    const down = Math.ceil(all.length / across);
    const rowAt = (y) => clamp(Math.floor((y - margin) / (height + gap)), 0, down - 1);
    const first = rowAt(top) * across;
    const end = (rowAt(top + element.clientHeight) + 1) * across;
    return all.slice(first, end).map((item, i) => {
      const [row, column] = cellOf(first + i, across);
      const x = margin + column * (width + gap);
      return { item, at: first + i, x, y: margin + row * (height + gap) - top };
    });
  }

  function draw(sizes, paintTiles) {
    layout = { below: 0, line: 1.5, away: 1.5, ...sizes };
    paint = paintTiles;
    const { across, width, height, gap, margin, below } = layout;
    const all = items();
    const down = Math.ceil(all.length / across);
    tall.style.width = `${across * (width + gap) - gap + 2 * margin}px`;
    tall.style.height = `${down * (height + gap) - gap + 2 * margin + below}px`;
    Object.assign(canvas.dataset, { across, gap, order: all.join(" ") });
    if (shown !== model.get(trait)) reveal(model.get(trait));
    drawInSight();
  }

  function drawInSight() {
    const { width, height, line, away } = layout;
    const high = Math.min(parseFloat(tall.style.height), element.clientHeight);
    canvas.dataset.top = scrolled();
    onCanvas(canvas, parseFloat(tall.style.width), high, (context, ratio) => {
      const tiles = inSight();
      paint(context, ratio, tiles);
      const chosen = tiles.find((tile) => tile.item === model.get(trait));
      if (!chosen) return;
      context.strokeStyle = theme().ink;
      context.lineWidth = line * ratio;
      const outlined = [chosen.x - away, chosen.y - away, width + 2 * away, height + 2 * away];
      context.strokeRect(...outlined.map((size) => size * ratio));
    });
    drawOutlines();
  }

  function drawOutlines() {
    const moved = (tile) => boxes.map(([x, y, width, height]) => [tile.x + x, tile.y + y, width, height]);
    over.outline(boxes.length ? inSight().flatMap(moved) : []);
  }

  function outline(around) {
    boxes = around;
    if (layout) drawOutlines();
  }

  /** Scrolls so far that the tile is in sight. */
  function reveal(item) {
    const { across, height, gap, margin } = layout;
    const top = margin + Math.floor(items().indexOf(item) / across) * (height + gap) - 10;
    const bottom = top + height + 20;
    element.scrollTop = Math.max(bottom - element.clientHeight, Math.min(element.scrollTop, top));
    shown = item;
  }

  function under(event) {
    const { across, width, height, gap, margin } = layout;
    const [left, top] = pointer(event, canvas);
    const x = left - margin;
    const y = top - margin + scrolled();
    const right = Math.floor(x / (width + gap));
    const down = Math.floor(y / (height + gap));
    const item = items()[down * across + right];
    if (right < 0 || right >= across || down < 0 || item === undefined) return null;
    return { item, x: x - right * (width + gap), y: y - down * (height + gap) };
  }

  element.addEventListener("scroll", () => {
    if (layout && Number(canvas.dataset.top) !== scrolled()) drawInSight();
  });
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
    if (item !== undefined) set(model, { [trait]: item });
  });
  return { element, draw, outline };
}

/** A function that draws maps on a canvas, squares of `side`, all in device pixels: (values, scale, x, y). */
export function mapPainter(context, side, [rows, columns], table) {
  const picture = context.createImageData(columns * side, rows * side);
  const pixels = new Uint32Array(picture.data.buffer);
  return (values, scale, x, y) => {
    fillMap(pixels, picture.width, 0, 0, side, rows, columns, values, scale, table);
    context.putImageData(picture, Math.round(x), Math.round(y));
  };
}

/**
 * All hidden units of a block's token mixing, each a tile of two maps: what it reads, what it writes.
 *
 * `order()` gives the units as they are drawn, `map(unit, writes)` the values of a map. A click and the arrow keys choose
 * the traits unit and patch (Shift moves the patch); `follow(unit)` hears what is under the pointer, or null, and the
 * patch under it is everywhere outlined. Returns the element and draw({room, scale, paired}): `room` in CSS pixels,
 * scale(unit, writes), the largest magnitude that the map's colours cover, and whether two neighbours belong together.
 */
export function pairTiles(model, table, { label, grid, order, map, follow }) {
  const [rows, columns] = grid;
  const canvas = mapCanvas(label);
  const hovered = hoveredPatch(model);
  let cell = 1; // the side of a square, CSS pixels
  let second = [0, 0]; // where in a tile the second map begins

  /** Unit and patch at a place in a tile; null on the line between its maps. */
  function patchAt(found) {
    if (!found) return null;
    const [right, down] = second;
    const later = found.x >= right && found.y >= down;
    const x = later ? found.x - right : found.x;
    const y = later ? found.y - down : found.y;
    const patch = patchIn(grid, Math.floor(y / cell), Math.floor(x / cell));
    return patch === null ? null : { unit: found.item, patch };
  }

  function movePatch(down, right) {
    const patch = neighbour(grid, model.get("patch"), down, right);
    if (patch !== null) set(model, { patch });
  }

  function hover(found) {
    const at = patchAt(found);
    hovered.set(at && at.patch);
    follow(at && at.unit);
  }

  const tiles = tileGrid(model, "unit", {
    canvas,
    name: "mixer-scroll mixer-tiles",
    order,
    hover,
    pick: patchAt,
    withShift: movePatch,
  });

  /** The boxes around a patch in both maps of a tile. */
  function boxes(patch) {
    if (patch === null) return [];
    const [row, column] = cellOf(patch, columns);
    const box = ([x, y]) => [x + column * cell, y + row * cell, cell, cell];
    return [box([0, 0]), box(second)];
  }
  hovered.on(() => tiles.outline(boxes(hovered.get())));

  /** How tiles are laid out in `room` device pixels; sizes are whole ones, so that squares are sharp at any zoom. */
  function fit(room, ratio, step) {
    const line = Math.max(1, Math.round(ratio));
    const gap = 5 * line;
    const least = Math.max(1, Math.round(readableSide(grid) * ratio));
    const perRow = (maps) => Math.floor((room - 2 * line + gap) / (maps * columns * least + (maps - 1) * line + gap));
    const maps = perRow(2) < 2 ? 1 : 2; // side by side in a tile, or one below the other where the page is narrow
    const across = evenly(order().length, Math.max(1, perRow(maps)), step);
    const width = (room - 2 * line + gap) / across - gap; // of a tile: what is left of the row makes it larger
    const most = Math.floor((width - (maps - 1) * line) / (maps * columns));
    return { across, maps, line, gap, side: clamp(most, 1, Math.round(1.5 * least)) };
  }

  function draw({ room, scale, paired }) {
    element.style.width = `${room}px`;
    const ratio = window.devicePixelRatio || 1;
    const { across, maps, line, gap, side } = fit(element.clientWidth * ratio, ratio, paired ? 2 : 1);
    cell = side / ratio;
    second = maps === 2 ? [columns * cell + line / ratio, 0] : [0, rows * cell + line / ratio];
    const [right, down] = second;
    Object.assign(canvas.dataset, { side: cell, between: line / ratio, right, down });
    tiles.outline(boxes(hovered.get()));
    const layout = {
      across,
      width: columns * cell + right,
      height: rows * cell + down,
      gap: gap / ratio,
      margin: 2 * line / ratio,
      line: 2,
      away: 1,
    };
    tiles.draw(layout, (context, _, visible) => {
      const paint = mapPainter(context, side, grid, table);
      for (const { item, x, y } of visible) {
        paint(map(item, 0), scale(item, 0), x * ratio, y * ratio);
        paint(map(item, 1), scale(item, 1), (x + right) * ratio, (y + down) * ratio);
      }
      const chosen = visible.find((tile) => tile.item === model.get("unit"));
      if (!chosen || cell < 4) return;
      context.strokeStyle = theme().ink;
      context.lineWidth = ratio;
      for (const [x, y] of boxes(model.get("patch"))) { // around the patch, not over it
        const corner = [chosen.x + x, chosen.y + y].map((size) => Math.round(size * ratio) + ratio / 2);
        context.strokeRect(...corner, side - ratio, side - ratio);
      }
    });
  }
  const { element } = tiles;
  return { element, canvas, draw };
}

/** How much neighbouring weights of a map agree, as mixing.morans_i: 1 at most, about 0 by chance. */
export function moransI(map, [rows, columns]) {
  const mean = map.reduce((a, b) => a + b, 0) / map.length;
  let agree = 0;
  let variance = 0;
  let power = 0;
  for (const at of range(map.length)) {
    const here = map[at] - mean;
    const [row, column] = cellOf(at, columns);
    if (column + 1 < columns) agree += here * (map[at + 1] - mean);
    if (row + 1 < rows) agree += here * (map[at + columns] - mean);
    variance += here ** 2 / map.length;
    power += map[at] ** 2 / map.length;
  }
  const neighbours = rows * (columns - 1) + columns * (rows - 1);
  return variance <= 1e-12 * power || !neighbours ? 0 : agree / neighbours / variance;
}

/** A Moran's I as it is read: two digits after the point. */
export function saidI(value) {
  const text = value.toFixed(2);
  return text.replace("-", Number(text) ? "−" : "");
}
