// View 5: a run as it went: the maps of view 1 and the validation accuracy at every snapshot, scrubbed or played.

import {
  arrow, cellOf, choice, claim, clamp, colourTable, drawnFrom, frame, hoveredPatch, indexSlider, largest, legend,
  make, onCanvas, onWidth, panel, pointer, range, segment, set, signed, slider, SORTS, theme, unpack, unpackOrders,
} from "./kit.js";
import { moransI, pairTiles, saidI } from "./tiles.js";

export function training(model, root, data = model.get("data")) {
  const { grid } = data;
  const [rows, columns] = grid;
  const S = rows * columns;
  const units = data.num_units;
  const table = colourTable(data.colours, root);
  const key = legend(table);
  const weights = unpack(data.weights).values;
  const steps = unpack(data.steps).values;
  const orders = unpackOrders(data.orders);
  const accuracies = unpack(data.validation_accuracy).values;
  const last = steps.length - 1;
  const times = range(steps.length);
  const hovered = hoveredPatch(model);
  let unitUnder = null; // the unit under the pointer

  const order = () => segment(orders[model.get("sort")], model.get("block"), units);
  /** What all units of the block read, then what they write. */
  const blockAt = (time) => segment(weights, time * data.num_blocks + model.get("block"), 2 * units * S);
  const mapAt = (time, unit, writes) => segment(blockAt(time), writes * units + unit, S);
  const map = (unit, writes) => mapAt(model.get("time"), unit, writes);
  const norms = () => times.map((time) => Math.hypot(...mapAt(time, model.get("unit"), 0)));
  const tops = []; // block -> the largest weight of each snapshot, found when the block is first shown
  const blockTops = () => (tops[model.get("block")] ||= times.map((time) => largest(blockAt(time))));

  function top() {
    return model.get("scale") === "shared" ? Math.max(...blockTops()) : blockTops()[model.get("time")];
  }
  function when(time) {
    const step = `step ${grouped(steps[time])} of ${grouped(steps[last])}`;
    return `${step}, validation accuracy ${percent(accuracies[time])}`;
  }

  function follow(unit) {
    unitUnder = unit;
    say();
  }
  const tilesLabel = "Maps of all units: arrow keys choose a unit, with Shift a patch";
  const tiles = pairTiles(model, table, { label: tilesLabel, grid, order, map, follow });
  const accuracy = trainingLine(model, { label: "Validation accuracy along the run", steps, when });
  const normLabel = "Norm of what the chosen unit reads along the run";
  const norm = trainingLine(model, { label: normLabel, steps, when });
  const normTitle = make("span");
  const maps = panel("reads | writes, every unit", tiles.element);
  hovered.on(say);
  accuracy.canvas.dataset.line = "accuracy";
  norm.canvas.dataset.line = "norm";
  const lines = [panel("validation accuracy", accuracy.canvas), panel(normTitle, norm.canvas)];
  for (const line of lines) line.classList.add("mixer-line");

  const play = make("button", { type: "button", "data-trait": "playing", onclick: () => toggle() });
  const time = make("div", { class: "mixer-time" }, play, slider(model, "time", "Snapshot", 0, last, when));
  const controls = [
    time,
    indexSlider(model, "block", "Block", data.num_blocks),
    choice(model, "sort", "Sort by", SORTS),
    choice(model, "scale", "Colours", { shared: "one scale for the run", each: "each snapshot its own" }),
    key.root,
  ];
  const parts = frame(root, { controls, panels: [...lines, maps] });
  maps.before(parts.readout); // above a tall box it is seen while the pointer is anywhere in it

  function draw() {
    if (!root.clientWidth) return; // not on the page yet
    const wide = root.clientWidth - 30;
    const scale = top();
    drawLines(wide > 700 ? Math.floor(wide / 2) - 10 : wide);
    tiles.draw({ room: wide, scale: () => scale, paired: model.get("sort") === "pairs" });
    key.show(scale);
    parts.caption.textContent =
      `Each tile is one of the ${units} hidden units of block ${model.get("block")}'s token mixing ` +
      `at this step of ${data.run}: what it reads from the ${rows} × ${columns} patches, ` +
      "and what it writes to them. Red is above zero, blue below. " +
      "Tiles are sorted by the last snapshot and keep their places. " +
      "Moran's I tells how much neighbouring weights of what a unit reads agree: 1 at most, about 0 by chance.";
    say();
  }

  function drawLines(width) {
    const lengths = norms();
    const longest = Math.max(...lengths);
    const length = lengths[model.get("time")];
    const share = (value) => `${Math.round(100 * value)} %`;
    accuracy.draw({ width, height: 130, values: accuracies, most: 1, text: share });
    norm.draw({ width, height: 130, values: lengths, most: longest, text: (value) => value.toFixed(2) });
    normTitle.textContent = `norm of what unit ${model.get("unit")} reads: ${length.toFixed(2)}`;
  }

  function say() {
    const unit = unitUnder ?? model.get("unit");
    const patch = hovered.get() ?? model.get("patch");
    const [row, column] = cellOf(patch, columns);
    const [reads, writes] = [0, 1].map((side) => signed(map(unit, side)[patch]));
    parts.readout.textContent =
      `Unit ${unit} (place ${order().indexOf(unit)} of 0 to ${units - 1}, ` +
      `Moran's I ${saidI(moransI(map(unit, 0), grid))}), ` +
      `patch in row ${row}, column ${column}: reads it with weight ${reads}, writes to it with ${writes}.`;
  }

  // Playing: a step after every 125 ms in which the time did not change: two views of one widget do not add up.
  let waiting = null;
  function toggle() {
    const playing = model.get("playing");
    if (!playing && model.get("time") === last) set(model, { time: 0, playing: true });
    else set(model, { playing: !playing });
  }
  function goOn() {
    if (root.isConnected) set(model, { time: Math.min(last, model.get("time") + 1) });
  }
  function tickOn() {
    clearTimeout(waiting);
    const playing = model.get("playing");
    play.textContent = playing ? "❚❚ Pause" : "▶ Play";
    if (!playing) return;
    if (model.get("time") === last) set(model, { playing: false });
    else waiting = setTimeout(goOn, 125);
  }
  root.addEventListener("keydown", (event) => {
    if (event.key !== " " || event.target.matches("button, select")) return; // they have their own use for it
    claim(event);
    toggle();
  });
  if (model.get("playing")) set(model, { playing: false }); // nothing moves before it is asked to
  model.on("change:playing", tickOn);
  model.on("change:time", tickOn);
  tickOn();
  onWidth(root, drawnFrom(model, ["time", "block", "sort", "scale", "unit", "patch"], root, draw));
}

/** A line over the steps of a run, the snapshot at hand marked; click, drag and arrow keys choose another. */
function trainingLine(model, { label, steps, when }) {
  const last = steps.length - 1;
  const canvas = make("canvas", { tabindex: 0, role: "slider", "aria-label": label });
  const edge = { left: 52, right: 14, above: 8, below: 36 }; // around the line, CSS pixels
  let width = 0;

  /** Where a step stands: logarithmic, or the steps in which almost all is learned would be a wall at the left. */
  function x(step) {
    const first = Math.log1p(steps[0]);
    const whole = Math.log1p(steps[last]) - first || 1;
    return edge.left + ((Math.log1p(step) - first) / whole) * (width - edge.left - edge.right);
  }

  function draw({ width: wide, height, values, most, text }) {
    width = wide;
    const low = height - edge.below;
    const across = width - edge.left - edge.right;
    const down = low - edge.above;
    const y = (value) => edge.above + (1 - value / (most || 1)) * down;
    const now = model.get("time");
    onCanvas(canvas, width, height, (pen, ratio) => {
      const { ink, line, accent, mark } = theme();
      pen.scale(ratio, ratio);
      pen.font = "12px system-ui, sans-serif";
      pen.lineWidth = 1;
      pen.textBaseline = "middle";
      pen.textAlign = "right";
      for (const value of [0, most / 2, most]) {
        pen.fillStyle = line;
        pen.fillRect(edge.left, y(value) - 0.5, across, 1);
        pen.fillStyle = ink;
        pen.fillText(text(value), edge.left - 6, y(value));
      }
      pen.textBaseline = "top";
      pen.textAlign = "center";
      for (const step of [0, 1, 10, 100, 1000, 1e4, 1e5, 1e6]) {
        if (step < steps[0] || step > steps[last]) continue;
        pen.fillRect(x(step) - 0.5, low, 1, 4);
        pen.fillText(grouped(step), x(step), low + 6);
      }
      pen.fillText("step", (edge.left + width - edge.right) / 2, height - 14);
      pen.beginPath();
      values.forEach((value, i) => pen.lineTo(x(steps[i]), y(value)));
      pen.strokeStyle = accent;
      pen.lineWidth = 2;
      pen.stroke();
      pen.fillStyle = ink;
      pen.fillRect(x(steps[now]) - 0.5, edge.above, 1, down);
      pen.beginPath();
      pen.arc(x(steps[now]), y(values[now]), 5, 0, 7);
      pen.fillStyle = mark;
      pen.fill();
      pen.strokeStyle = ink;
      pen.lineWidth = 1.5;
      pen.stroke();
    });
    canvas.dataset.at = `${x(steps[now])} ${y(values[now])}`;
    canvas.setAttribute("aria-valuemin", 0);
    canvas.setAttribute("aria-valuemax", last);
    canvas.setAttribute("aria-valuenow", now);
    canvas.setAttribute("aria-valuetext", when(now));
  }

  /** Chooses the snapshot that is nearest to the pointer. */
  function scrub(event) {
    const [at] = pointer(event, canvas);
    const away = (time) => Math.abs(x(steps[time]) - at);
    const nearer = (best, time) => (away(time) < away(best) ? time : best);
    set(model, { time: range(steps.length).reduce(nearer) });
  }
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    scrub(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) scrub(event);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = arrow(event);
    const ends = { Home: 0, End: last };
    if (step) {
      const [down, right] = step;
      set(model, { time: clamp(model.get("time") + right - down, 0, last) });
    } else if (event.key in ends) {
      claim(event);
      set(model, { time: ends[event.key] });
    }
  });
  return { canvas, draw };
}

export function grouped(number) {
  return number.toLocaleString("en-US");
}

function percent(part) {
  return `${(100 * part).toFixed(2)}\u00a0%`;
}
