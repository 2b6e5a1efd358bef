// View 1: all hidden units of a block's token mixing, what each reads and what it writes, as maps over the patches.

import {
  choice, colourTable, drawnFrom, frame, largest, legend, onWidth, panel, signed, slider, SORTS, tick, unpack,
  unpackOrders,
} from "./kit.js";
import { pairTiles } from "./tiles.js";

export function mixing(model, root) {
  const data = model.get("data"), [rows, columns] = data.grid, S = rows * columns, units = data.num_units;
  const table = colourTable(data.colours), key = legend(table);
  const sides = data.sides.map((side) => ({ title: side.title, maps: unpack(side.maps), orders: unpackOrders(side.orders) }));
  let hovered = null; // {one, unit, patch}

  const tiles = sides.map((one) =>
    pairTiles(model, table, {
      label: `Maps of all units, ${one.title}: arrow keys choose a unit, with Shift a patch`,
      grid: data.grid,
      order: () => orderOf(one),
      map: (unit, writes) => mapOf(one, unit, writes),
      follow: (found) => { hovered = found && { one, ...found }; say(); },
    }),
  );
  tiles.forEach((tile, i) => (tile.canvas.dataset.side = sides[i].title));
  const panels = sides.map((side, i) => panel(side.title, tiles[i].element));
  const controls = [
    slider(model, "block", "Block", 0, data.num_blocks - 1, (l) => `${l} of 0 to ${data.num_blocks - 1}`),
    choice(model, "sort", "Sort by", SORTS),
    choice(model, "scale", "Colours", { shared: "one scale", each: "each map its own" }),
  ];
  if (sides.length > 1) controls.push(tick(model, "compare", `also ${sides[1].title}`));
  const parts = frame(root, { controls: [...controls, key.root], panels });

  const orderOf = (one) => one.orders[model.get("sort")].subarray(model.get("block") * units, (model.get("block") + 1) * units);
  const mapOf = (one, unit, writes) => {
    const start = ((model.get("block") * 2 + writes) * units + unit) * S;
    return one.maps.values.subarray(start, start + S);
  };
  // One scale for all that is compared: what the block's units read and write, on both sides, shown or not.
  const tops = Array.from({ length: data.num_blocks }, (_, block) => Math.max(...sides.map((one) =>
    largest(one.maps.values.subarray(block * 2 * units * S, (block + 1) * 2 * units * S)))));

  function draw() {
    if (!root.clientWidth) return; // not on the page yet
    const shared = model.get("scale") === "shared", top = tops[model.get("block")], compare = model.get("compare");
    const wide = root.clientWidth - 30, two = sides.length > 1 && compare && wide > 700;
    key.show(shared ? top : null);
    sides.forEach((one, i) => {
      panels[i].hidden = i > 0 && !compare;
      if (panels[i].hidden) return;
      tiles[i].draw({
        room: two ? wide / 2 - 10 : wide, most: two ? 8 : 16,
        side: Math.max(2, Math.min(8, Math.floor(24 / columns))),
        scale: (unit, writes) => (shared ? top : largest(mapOf(one, unit, writes))),
      });
    });
    parts.caption.textContent =
      `Each tile is one of the ${units} hidden units of block ${model.get("block")}'s token mixing: on the left what it ` +
      `reads from the ${rows} × ${columns} patches, on the right what it writes to them. Red is above zero, blue below.`;
    say();
  }

  function say() {
    const { one, unit, patch } = hovered || { one: sides[0], unit: model.get("unit"), patch: model.get("patch") };
    const [reads, writes] = [0, 1].map((w) => signed(mapOf(one, unit, w)[patch]));
    parts.readout.textContent = `Unit ${unit} (${one.title}, place ${orderOf(one).indexOf(unit)} of 0 to ${units - 1}), ` +
      `patch in row ${Math.floor(patch / columns)}, column ${patch % columns}: reads it with weight ${reads}, writes to ` +
      `it with ${writes}.`;
  }

  onWidth(root, drawnFrom(model, ["block", "sort", "scale", "compare", "unit", "patch"], root, draw));
}
