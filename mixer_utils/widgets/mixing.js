// View 1: all hidden units of a block's token mixing, what each reads and what it writes, as maps over the patches.

import {
  cellOf, choice, claim, colourTable, drawnFrom, frame, hoveredPatch, indexSlider, largest, legend, make, onWidth,
  panel, range, segment, set, signed, SORTS, tick, unpack, unpackOrders,
} from "./kit.js";
import { moransI, pairTiles, saidI } from "./tiles.js";

export function mixing(model, root, data = model.get("data")) {
  const { grid } = data;
  const [rows, columns] = grid;
  const S = rows * columns;
  const units = data.num_units;
  const table = colourTable(data.colours, root);
  const key = legend(table);
  const sides = data.sides.map(({ title, maps }) => ({ title, maps: unpack(maps).values, structure: [] }));
  const orders = unpackOrders(data.orders); // the first side's: a unit keeps its place while the sides are switched
  const hovered = hoveredPatch(model);
  let unitUnder = null; // the unit under the pointer

  const shown = () => sides[model.get("before") && sides.length > 1 ? 1 : 0];
  const order = () => segment(orders[model.get("sort")], model.get("block"), units);
  const mapOf = (side, unit, writes) => segment(side.maps, (model.get("block") * 2 + writes) * units + unit, S);
  // One scale for all that is compared: what the block's units read and write, on both sides, shown or not.
  const tops = [];
  const topOf = (block) => Math.max(...sides.map((side) => largest(segment(side.maps, block, 2 * units * S))));
  const top = () => (tops[model.get("block")] ||= topOf(model.get("block")));

  const tiles = pairTiles(model, table, {
    label: "Maps of all units: arrow keys choose a unit, with Shift a patch",
    grid,
    order,
    map: (unit, writes) => mapOf(shown(), unit, writes),
    follow: (unit) => {
      unitUnder = unit;
      say();
    },
  });
  const title = make("span");
  const controls = [
    indexSlider(model, "block", "Block", data.num_blocks),
    choice(model, "sort", "Sort by", SORTS),
    choice(model, "scale", "Colours", { shared: "one scale", each: "each map its own" }),
  ];
  if (sides.length > 1) {
    const before = tick(model, "before", `${sides[1].title} (key b)`);
    before.querySelector("input").setAttribute("role", "switch");
    controls.push(before);
    tiles.canvas.setAttribute("aria-keyshortcuts", "b");
    tiles.canvas.addEventListener("keydown", switchSides);
  }
  const maps = panel(title, tiles.element);
  const parts = frame(root, { controls: [...controls, key.root], panels: [maps] });
  maps.before(parts.readout); // above a tall box it is seen while the pointer is anywhere in it

  function switchSides(event) {
    if (event.key !== "b" || event.ctrlKey || event.metaKey || event.altKey) return;
    claim(event);
    set(model, { before: !model.get("before") });
  }

  /** Moran's I of what the block's units read, on average. */
  function structure(side) {
    const found = range(units).map((unit) => moransI(mapOf(side, unit, 0), grid));
    return found.reduce((a, b) => a + b, 0) / units;
  }

  function draw() {
    if (!root.clientWidth) return; // not on the page yet
    const block = model.get("block");
    const shared = model.get("scale") === "shared";
    const side = shown();
    side.structure[block] ??= structure(side);
    key.show(shared ? top() : null);
    title.textContent = `${side.title}: reads | writes, every unit (mean Moran's I ${saidI(side.structure[block])})`;
    tiles.canvas.dataset.shown = side.title;
    tiles.draw({
      room: root.clientWidth - 30,
      scale: (unit, writes) => (shared ? top() : largest(mapOf(side, unit, writes))),
      paired: model.get("sort") === "pairs",
    });
    parts.caption.textContent =
      `Each tile is one of the ${units} hidden units of block ${block}'s token mixing: ` +
      `what it reads from the ${rows} × ${columns} patches, and what it writes to them. ` +
      "Red is above zero, blue below. Moran's I tells how much neighbouring weights of what a unit reads agree: " +
      "1 at most, about 0 by chance.";
    say();
  }

  function say() {
    const side = shown();
    const unit = unitUnder ?? model.get("unit");
    const patch = hovered.get() ?? model.get("patch");
    const [row, column] = cellOf(patch, columns);
    const [reads, writes] = [0, 1].map((map) => signed(mapOf(side, unit, map)[patch]));
    parts.readout.textContent =
      `Unit ${unit} (${side.title}, place ${order().indexOf(unit)} of 0 to ${units - 1}, ` +
      `Moran's I ${saidI(moransI(mapOf(side, unit, 0), grid))}), ` +
      `patch in row ${row}, column ${column}: reads it with weight ${reads}, writes to it with ${writes}.`;
  }

  hovered.on(say);
  onWidth(root, drawnFrom(model, ["block", "sort", "scale", "before", "unit", "patch"], root, draw));
}
