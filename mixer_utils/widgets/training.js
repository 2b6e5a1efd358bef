// View 5: a run as it went: the maps of view 1 and the validation accuracy at every snapshot, scrubbed or played.

import {
  arrow, choice, colourTable, drawnFrom, frame, largest, legend, make, onCanvas, onWidth, panel, pointer, set,
  signed, slider, SORTS, unpack, unpackOrders,
} from "./kit.js";
import { pairTiles } from "./tiles.js";

export function training(model, root) {
  const data = model.get("data"), [rows, columns] = data.grid, S = rows * columns, units = data.num_units;
  const table = colourTable(data.colours), key = legend(table);
  const weights = unpack(data.weights).values, steps = unpack(data.steps).values, orders = unpackOrders(data.orders);
  const accuracies = unpack(data.validation_accuracy).values, last = steps.length - 1;
  let hovered = null; // {unit, patch}

  const order = () => orders[model.get("sort")].subarray(model.get("block") * units, (model.get("block") + 1) * units);
  const blockAt = (time) => { // what all units of the block read, then what they write
    const start = (time * data.num_blocks + model.get("block")) * 2 * units * S;
    return weights.subarray(start, start + 2 * units * S);
  };
  const mapAt = (time, unit, writes) => blockAt(time).subarray((writes * units + unit) * S, (writes * units + unit + 1) * S);
  const map = (unit, writes) => mapAt(model.get("time"), unit, writes);
  const tops = []; // block -> the largest weight of each snapshot, found when the block is first shown
  const blockTops = () => (tops[model.get("block")] ||= Array.from(steps, (_, time) => largest(blockAt(time))));
  const top = () => (model.get("scale") === "shared" ? Math.max(...blockTops()) : blockTops()[model.get("time")]);
  const norms = () => Array.from(steps, (_, time) => Math.hypot(...mapAt(time, model.get("unit"), 0)));
  const when = (time) =>
    `step ${grouped(steps[time])} of ${grouped(steps[last])}, validation accuracy ${percent(accuracies[time])}`;

  const tiles = pairTiles(model, table, {
    label: "Maps of all units: arrow keys choose a unit, with Shift a patch",
    grid: data.grid, order, map, follow: (found) => { hovered = found; say(); },
  });
  const accuracy = trainingLine(model, { label: "Validation accuracy along the run", steps, when });
  const norm = trainingLine(model, { label: "Norm of what the chosen unit reads along the run", steps, when });
  const normTitle = make("span");
  const maps = panel("reads | writes, every unit", tiles.element);
  accuracy.canvas.dataset.line = "accuracy";
  norm.canvas.dataset.line = "norm";
  const lines = make("div", { class: "mixer-line" },
    panel("validation accuracy", accuracy.canvas), panel(normTitle, norm.canvas));

  const play = make("button", { type: "button", "data-trait": "playing", onclick: () => toggle() });
  const time = make("div", { class: "mixer-time" }, play, slider(model, "time", "Snapshot", 0, last, when));
  const parts = frame(root, {
    controls: [
      time,
      slider(model, "block", "Block", 0, data.num_blocks - 1, (l) => `${l} of 0 to ${data.num_blocks - 1}`),
      choice(model, "sort", "Sort by", SORTS),
      choice(model, "scale", "Colours", { shared: "one scale for the run", each: "each snapshot its own" }),
      key.root,
    ],
    panels: [maps, lines],
  });

  function draw() {
    if (!root.clientWidth) return; // not on the page yet
    const wide = root.clientWidth - 30, beside = wide > 700, scale = top(), now = model.get("time");
    const room = beside ? Math.round(0.63 * wide) : wide;
    tiles.draw({ room, most: 8, side: Math.max(2, Math.min(6, Math.floor(24 / columns))), scale: () => scale });
    key.show(scale);
    const width = beside ? wide - room - 24 : wide, length = norms();
    accuracy.draw({ width, height: 160, values: accuracies, most: 1, text: (value) => `${Math.round(100 * value)} %` });
    norm.draw({ width, height: 120, values: length, most: Math.max(...length), text: (value) => value.toFixed(2) });
    normTitle.textContent = `norm of what unit ${model.get("unit")} reads: ${length[now].toFixed(2)}`;
    parts.caption.textContent =
      `Each tile is one of the ${units} hidden units of block ${model.get("block")}'s token mixing at this step of ` +
      `${data.run}: on the left what it reads from the ${rows} × ${columns} patches, on the right what it writes to them. ` +
      "Red is above zero, blue below. Tiles are sorted by the last snapshot and keep their places.";
    say();
  }

  function say() {
    const { unit, patch } = hovered || { unit: model.get("unit"), patch: model.get("patch") };
    const [reads, writes] = [0, 1].map((w) => signed(map(unit, w)[patch]));
    parts.readout.textContent = `Unit ${unit} (place ${order().indexOf(unit)} of 0 to ${units - 1}), patch in row ` +
      `${Math.floor(patch / columns)}, column ${patch % columns}: reads it with weight ${reads}, writes to it with ${writes}.`;
  }

  // Playing: a step after every 125 ms in which the time did not change, so that two views of one widget do not add up.
  let waiting = null;
  function toggle() {
    if (!model.get("playing") && model.get("time") === last) set(model, { time: 0, playing: true });
    else set(model, { playing: !model.get("playing") });
  }
  function tickOn() {
    clearTimeout(waiting);
    play.textContent = model.get("playing") ? "❚❚ Pause" : "▶ Play";
    if (!model.get("playing")) return;
    if (model.get("time") === last) set(model, { playing: false });
    else waiting = setTimeout(() => root.isConnected && set(model, { time: Math.min(last, model.get("time") + 1) }), 125);
  }
  root.addEventListener("keydown", (event) => {
    if (event.key !== " " || event.target.matches("button, select")) return; // they have their own use for it
    event.preventDefault();
    event.stopPropagation();
    toggle();
  });
  if (model.get("playing")) set(model, { playing: false }); // nothing moves before it is asked to
  model.on("change:playing", tickOn);
  model.on("change:time", tickOn);
  tickOn();
  onWidth(root, drawnFrom(model, ["time", "block", "sort", "scale", "unit", "patch"], root, draw));
}

/** A line over the steps of a run, with the snapshot at hand marked; click, drag and arrow keys choose another. */
function trainingLine(model, { label, steps, when }) {
  const last = steps.length - 1;
  const canvas = make("canvas", { tabindex: 0, role: "slider", "aria-label": label });
  const [left, right, above, below] = [52, 14, 8, 36];
  let width = 0;
  const part = (step) => // logarithmic, or the steps in which almost all is learned would be a wall at the left
    (Math.log1p(step) - Math.log1p(steps[0])) / (Math.log1p(steps[last]) - Math.log1p(steps[0]) || 1);
  const x = (step) => left + part(step) * (width - left - right);

  function draw({ width: wide, height, values, most, text }) {
    width = wide;
    const y = (value) => above + (1 - value / (most || 1)) * (height - above - below), now = model.get("time");
    onCanvas(canvas, width, height, (pen, ratio) => {
      pen.scale(ratio, ratio);
      pen.font = "12px system-ui, sans-serif";
      pen.lineWidth = 1;
      pen.textBaseline = "middle";
      pen.textAlign = "right";
      for (const value of [0, most / 2, most]) {
        pen.fillStyle = "#ddd";
        pen.fillRect(left, y(value) - 0.5, width - left - right, 1);
        pen.fillStyle = "#1a1a1a";
        pen.fillText(text(value), left - 6, y(value));
      }
      pen.textBaseline = "top";
      pen.textAlign = "center";
      for (const step of [0, 1, 10, 100, 1000, 1e4, 1e5, 1e6]) {
        if (step < steps[0] || step > steps[last]) continue;
        pen.fillRect(x(step) - 0.5, height - below, 1, 4);
        pen.fillText(grouped(step), x(step), height - below + 6);
      }
      pen.fillText("step", (left + width - right) / 2, height - 14);
      pen.beginPath();
      values.forEach((value, i) => pen.lineTo(x(steps[i]), y(value)));
      pen.strokeStyle = "#0072b2";
      pen.lineWidth = 2;
      pen.stroke();
      pen.fillStyle = "#1a1a1a";
      pen.fillRect(x(steps[now]) - 0.5, above, 1, height - above - below);
      pen.beginPath();
      pen.arc(x(steps[now]), y(values[now]), 5, 0, 7);
      pen.fillStyle = "#e69f00";
      pen.fill();
      pen.strokeStyle = "#1a1a1a";
      pen.lineWidth = 1.5;
      pen.stroke();
    });
    canvas.dataset.at = `${x(steps[now])} ${y(values[now])}`;
    for (const [name, value] of Object.entries({ min: 0, max: last, now })) canvas.setAttribute(`aria-value${name}`, value);
    canvas.setAttribute("aria-valuetext", when(now));
  }

  const scrub = (event) => {
    const [at] = pointer(event, canvas), away = (i) => Math.abs(x(steps[i]) - at);
    set(model, { time: Array.from(steps.keys()).reduce((best, i) => (away(i) < away(best) ? i : best)) });
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); scrub(event); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) scrub(event); });
  canvas.addEventListener("keydown", (event) => {
    const step = arrow(event), ends = { Home: 0, End: last };
    if (step) set(model, { time: Math.max(0, Math.min(last, model.get("time") + step[1] - step[0])) });
    else if (event.key in ends) {
      event.preventDefault();
      event.stopPropagation();
      set(model, { time: ends[event.key] });
    }
  });
  return { canvas, draw };
}

function grouped(number) {
  return number.toLocaleString("en-US");
}

function percent(part) {
  return `${(100 * part).toFixed(2)}\u00a0%`;
}
