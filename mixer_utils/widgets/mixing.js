// View 1: all hidden units of a block's token mixing, what each reads and what it writes, as maps over the patches.

import {
  cellOf, choice, clamp, colourTable, drawnFrom, frame, indexSlider, largest, legend, onWidth, panel, range,
  segment, signed, SORTS, tick, unpack, unpackOrders,
} from "./kit.js";
import { pairTiles } from "./tiles.js";

export function mixing(model, root) {
  const data = model.get("data");
  const [rows, columns] = data.grid;
  const S = rows * columns;
  const units = data.num_units;
  const table = colourTable(data.colours, root);
  const key = legend(table);
  const sides = data.sides.map((side) => ({
    title: side.title,
    maps: unpack(side.maps).values,
    orders: unpackOrders(side.orders),
  }));
  let hovered = null; // {one, unit, patch}

  function follow(one, found) {
    hovered = found && { one, ...found };
    say();
  }
  const tiles = sides.map((one) =>
    pairTiles(model, table, {
      label: `Maps of all units, ${one.title}: arrow keys choose a unit, with Shift a patch`,
      grid: data.grid,
      order: () => orderOf(one),
      map: (unit, writes) => mapOf(one, unit, writes),
      follow: (found) => follow(one, found),
    }),
  );
  tiles.forEach((tile, i) => (tile.canvas.dataset.side = sides[i].title));
  const panels = sides.map((side, i) => panel(side.title, tiles[i].element));
  const controls = [
    indexSlider(model, "block", "Block", data.num_blocks),
    choice(model, "sort", "Sort by", SORTS),
    choice(model, "scale", "Colours", { shared: "one scale", each: "each map its own" }),
  ];
  if (sides.length > 1) controls.push(tick(model, "compare", `also ${sides[1].title}`));
  const parts = frame(root, { controls: [...controls, key.root], panels });

  const orderOf = (one) => segment(one.orders[model.get("sort")], model.get("block"), units);
  const mapOf = (one, unit, writes) => segment(one.maps, (model.get("block") * 2 + writes) * units + unit, S);
  // One scale for all that is compared: what the block's units read and write, on both sides, shown or not.
  const topOf = (block) => Math.max(...sides.map((one) => largest(segment(one.maps, block, 2 * units * S))));
  const tops = range(data.num_blocks).map(topOf);

  function draw() {
    if (!root.clientWidth) return; // not on the page yet
    const shared = model.get("scale") === "shared";
    const top = tops[model.get("block")];
    const compare = model.get("compare");
    const wide = root.clientWidth - 30;
    const two = sides.length > 1 && compare && wide > 700;
    key.show(shared ? top : null);
    sides.forEach((one, i) => {
      panels[i].hidden = i > 0 && !compare;
      if (panels[i].hidden) return;
      tiles[i].draw({
        room: two ? wide / 2 - 10 : wide,
        most: two ? 8 : 16,
        side: clamp(Math.floor(24 / columns), 2, 8),
        scale: (unit, writes) => (shared ? top : largest(mapOf(one, unit, writes))),
      });
    });
    parts.caption.textContent =
      `Each tile is one of the ${units} hidden units of block ${model.get("block")}'s token mixing: ` +
      `on the left what it reads from the ${rows} × ${columns} patches, ` +
      "on the right what it writes to them. Red is above zero, blue below.";
    say();
  }

  function say() {
    const shown = hovered || { one: sides[0], unit: model.get("unit"), patch: model.get("patch") };
    const { one, unit, patch } = shown;
    const [row, column] = cellOf(patch, columns);
    const [reads, writes] = [0, 1].map((map) => signed(mapOf(one, unit, map)[patch]));
    parts.readout.textContent =
      `Unit ${unit} (${one.title}, place ${orderOf(one).indexOf(unit)} of 0 to ${units - 1}), ` +
      `patch in row ${row}, column ${column}: reads it with weight ${reads}, writes to it with ${writes}.`;
  }

  onWidth(root, drawnFrom(model, ["block", "sort", "scale", "compare", "unit", "patch"], root, draw));
}
