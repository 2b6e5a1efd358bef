// View 2: which patches talk to which for one image, the units that make it so, and one unit's arithmetic.

import {
  arrow, choice, colourTable, css, drawnFrom, fillMap, frame, largest, legend, make, onCanvas, panel, place, pointer,
  set, signed, slider, unpack,
} from "./kit.js";
import { gelu, geluOf, left, Mixer, sum } from "./mixer.js";
import { tileGrid } from "./tiles.js";

export function influence(model, root) {
  const data = model.get("data"), [rows, columns] = data.grid, S = rows * columns, units = data.num_units;
  const C = data.num_channels, table = colourTable(data.colours), pictures = unpack(data.images).values;
  const source = data.mixer ? influenceComputed(data) : influenceSent(data), key = legend(table);
  const longer = Math.max(rows, columns), numbers = longer <= 7;
  const large = Math.max(2, Math.min(72, Math.floor(288 / longer)));
  const small = numbers ? Math.max(44, Math.min(52, Math.floor(312 / longer))) : Math.max(2, Math.floor(150 / longer));
  const tile = { side: Math.max(2, Math.min(8, Math.floor(24 / columns))), gap: 6 };
  tile.width = columns * tile.side;
  tile.height = rows * tile.side;

  const canvas = (name, label) => make("canvas", { tabindex: 0, role: "img", "data-map": name, "aria-label": label });
  const canvases = {
    image: canvas("image", "The image in patches, coloured by influence; arrow keys choose a patch"),
    row: canvas("row", "Influence patch by patch; arrow keys choose a patch, with shift they read another's number"),
    units: canvas("units", "What each hidden unit reads, strongest first; arrow keys choose a unit"),
  };
  const steps = { // the arithmetic: a map each, and what stands before it
    values: ["", "value of each patch"], weights: ["×", "weight it is read with"], products: ["=", "product"],
    column: ["×", "weight to write with"], writes: ["=", "added to each patch"],
  };
  const notes = {};
  const stepOf = ([name, [sign, title]]) => {
    canvases[name] = canvas(name, `${title}; arrow keys choose a patch`);
    notes[name] = make("small");
    return make("div", { class: "mixer-step" }, make("span", {}, `${sign} ${title}`), canvases[name], notes[name]);
  };
  const said = make("p", { class: "mixer-sum", role: "status" }), all = Object.entries(steps).map(stepOf);
  const title = { row: make("span"), sum: make("span") };
  const panels = [
    panel(title.row, make("div", { class: "mixer-steps" }, canvases.image, canvases.row)),
    panel(`What the ${units} units read, strongest first`,
      make("div", { class: "mixer-scroll mixer-strip" }, canvases.units)),
    panel(title.sum, make("div", { class: "mixer-controls" }, slider(model, "channel", "Channel", 0, C - 1, (c) => `${c} of 0 to ${C - 1}`)),
      make("div", { class: "mixer-steps" }, ...all.slice(0, 3)), said, make("div", { class: "mixer-steps" }, ...all.slice(3))),
  ];
  const last = data.num_blocks - 1, N = data.num_images;
  const images = N > 1 ? [slider(model, "image", "Image", 0, N - 1, (i) => `${i} of 0 to ${N - 1}`)] : [];
  const parts = frame(root, { panels, controls: [
    ...images, slider(model, "block", "Block", 0, last, (l) => `${l} of 0 to ${last}`),
    choice(model, "show", "Through", { "one block": "this block", composed: "all blocks up to it" }),
    choice(model, "direction", "Show", { reads: "what moves the patch", writes: "what the patch moves" }), key.root,
  ] });

  panels[2].before(parts.readout); // in the middle of this tall view it is seen from everywhere
  let hovered = null; // {map, at}: a canvas's name and the patch, or the unit, under the pointer
  let now = {}; // what is drawn
  const named = (s) => `patch ${s} (row ${Math.floor(s / columns)}, column ${s % columns})`;
  const perRow = () => {
    const all = root.clientWidth - 46, beside = all - 2 * columns * large - 40; // beside the image, where there is room
    return Math.max(1, Math.min(units, Math.floor(((beside > 200 ? beside : all) + tile.gap) / (tile.width + tile.gap))));
  };
  const strip = tileGrid(model, "unit", {
    canvas: canvases.units,
    order: () => now.order,
    hover: (found) => {
      hovered = found && { map: "units", at: found.item };
      say();
    },
  });

  function look() {
    const [image, l, patch, h, c] = ["image", "block", "patch", "unit", "channel"].map((name) => model.get(name));
    const trace = source.trace(image), reads = model.get("direction") === "reads", one = model.get("show") === "one block";
    const matrix = (one ? trace.influence : trace.composed)[l];
    const row = Float32Array.from({ length: S }, (_, s) => (reads ? matrix[patch * S + s] : matrix[s * S + patch]));
    const strength = Float32Array.from({ length: units }, (_, u) => trace.sizes[l][u] * Math.abs(source.writes(l, u)[patch]));
    const order = Array.from(strength.keys()).sort((a, b) => strength[b] - strength[a]);
    const values = Float32Array.from({ length: S }, (_, s) => trace.normed[l][s * C + c]);
    const weights = source.reads(l, h), products = values.map((value, s) => value * weights[s]);
    const total = products.reduce((a, b) => a + b, 0), a = total + source.bias(l, h), g = geluOf(a, data.gelu);
    const column = source.writes(l, h), writes = column.map((w) => g * w);
    now = { image, l, patch, h, c, reads, one, matrix, row, strength, order, total, a, g,
      maps: { values, weights, products, column, writes } };
  }

  function draw() {
    look();
    const { l, patch, h, c, reads, one, maps } = now, scale = largest(now.matrix);
    key.show(scale);
    title.row.textContent = `${reads ? "What moves" : "What is moved by"} ${named(patch)}`;
    title.sum.textContent = `What unit ${h} of block ${l} computes in one channel`;
    drawImage(scale);
    drawMap(canvases.row, now.row, scale, large);
    for (const [name, values] of Object.entries(maps)) {
      const top = Math.max(largest(values), name === "writes" ? largest(maps.column) : 0); // pale where GELU gives nothing
      drawMap(canvases[name], values, top, small);
      notes[name].textContent = `colours ±${influenceSize(top)}`;
    }
    said.textContent = `All products together ${signed(now.total)}, with the bias ${signed(source.bias(l, h))}: ` +
      `a = ${signed(now.a)} → GELU(a) = ${signed(now.g)}, which goes back to the patches:`;
    Object.assign(said.dataset, { sum: now.a, gelu: now.g, bias: source.bias(l, h) });
    drawUnits();
    const through = one ? `block ${l}'s token mixing, without its skip connection`
      : `the token mixing of blocks 0 to ${l}, skip connections included, channel mixing left out`;
    const missing = data.all_blocks > data.num_blocks ? ` Of the model's ${data.all_blocks} blocks the first are here.` : "";
    parts.caption.textContent = `Red: a patch moves another the same way (blue: the opposite way) through ${through}; ` +
      `the derivative for this image, averaged over ${C} channels. A unit is strong that writes much to the patch.${missing}`;
    say();
  }

  function outline(context, x, y, width, height, ratio) {
    for (const [colour, line] of [["#fff", 4], ["#000", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = line * ratio;
      context.strokeRect(x * ratio, y * ratio, width * ratio, height * ratio);
    }
  }

  function drawMap(element, values, scale, side) {
    Object.assign(element.dataset, { side, scale });
    onCanvas(element, columns * side, rows * side, (context, ratio) => {
      const digits = Math.max(0, Math.min(4, 2 - Math.floor(Math.log10(scale || 1))));
      context.font = `${Math.min(13, side * 0.26) * ratio}px system-ui, sans-serif`;
      context.textAlign = "center";
      context.textBaseline = "middle";
      const edge = (i) => Math.round(i * side * ratio);
      values.forEach((value, s) => {
        const r = Math.floor(s / columns), column = s % columns, colour = table[place(value, scale)];
        context.fillStyle = css(colour);
        context.fillRect(edge(column), edge(r), edge(column + 1) - edge(column), edge(r + 1) - edge(r));
        if (!numbers) return;
        context.fillStyle = influenceLight(colour) > 140 ? "#000" : "#fff";
        const text = value.toFixed(digits).replace("-", Number(value.toFixed(digits)) ? "−" : "");
        context.fillText(text, (column + 0.5) * side * ratio, (r + 0.5) * side * ratio);
      });
      const patch = model.get("patch");
      outline(context, (patch % columns) * side, Math.floor(patch / columns) * side, side, side, ratio);
    });
  }

  /** The image, shining through the colours. */
  function drawImage(scale) {
    const [channels, height, width] = data.image_shape, start = now.image * channels * height * width;
    Object.assign(canvases.image.dataset, { side: large, scale });
    onCanvas(canvases.image, columns * large, rows * large, (context, ratio) => {
      const { width: wide, height: high } = canvases.image, picture = context.createImageData(wide, high);
      for (let y = 0; y < high; y++) for (let x = 0; x < wide; x++) {
        const s = Math.floor((y * rows) / high) * columns + Math.floor((x * columns) / wide);
        const pixel = start + Math.floor((y * height) / high) * width + Math.floor((x * width) / wide);
        const colour = table[place(now.row[s], scale)], at = 4 * (y * wide + x);
        for (let i = 0; i < 3; i++) {
          const light = pictures[pixel + (channels === 3 ? i : 0) * height * width];
          picture.data[at + i] = Math.round(INFLUENCE_IMAGE * light + (1 - INFLUENCE_IMAGE) * ((colour >> (8 * i)) & 255));
        }
        picture.data[at + 3] = 255;
      }
      context.putImageData(picture, 0, 0);
      context.fillStyle = "#8888";
      for (let i = 1; i < columns; i++) context.fillRect(Math.round(i * large * ratio), 0, 1, high);
      for (let i = 1; i < rows; i++) context.fillRect(0, Math.round(i * large * ratio), wide, 1);
      outline(context, (now.patch % columns) * large, Math.floor(now.patch / columns) * large, large, large, ratio);
    });
  }

  function drawUnits() {
    const { l, order } = now;
    const top = Math.max(...order.map((unit) => largest(source.reads(l, unit))));
    Object.assign(canvases.units.dataset, { ...tile, scale: top });
    strip.draw({ ...tile, across: perRow(), margin: 2 }, (context, ratio) => {
      const picture = context.createImageData(canvases.units.width, canvases.units.height);
      const pixels = new Uint32Array(picture.data.buffer);
      const side = Math.max(1, Math.floor(tile.side * ratio));
      order.forEach((unit, at) => {
        const [x, y] = strip.corner(at).map((size) => Math.round(size * ratio));
        fillMap(pixels, canvases.units.width, x, y, side, rows, columns, source.reads(l, unit), top, table);
      });
      context.putImageData(picture, 0, 0);
    });
  }

  function say() {
    const { l, patch, h, reads, row, order, strength, maps } = now, map = hovered?.map;
    const strongest = row.reduce((best, value, s) => (Math.abs(value) > Math.abs(row[best]) ? s : best), 0);
    const moved = (s) => (reads ? `${named(s)} moves ${named(patch)}` : `${named(patch)} moves ${named(s)}`) + ` by ${signed(row[s])}`;
    const sum = (s) => `Unit ${h}, ${named(s)}: ${signed(maps.values[s])} × ${signed(maps.weights[s])} = ` +
      `${signed(maps.products[s])} is read; ${signed(now.g)} × ${signed(maps.column[s])} = ${signed(maps.writes[s])} is added`;
    const unit = (u) => `Unit ${u}, place ${order.indexOf(u)} of ${units}: reads ${named(patch)} with weight ` +
      `${signed(source.reads(l, u)[patch])}, writes to it with ${signed(source.writes(l, u)[patch])}, about ` +
      `${influenceSize(strength[u])} in a channel (root mean square)`;
    const text = map === "units" ? unit(hovered.at)
      : map === "image" || map === "row" ? `A change of one: ${moved(hovered.at)}`
        : map ? sum(hovered.at) : `Strongest: ${moved(strongest)}. ${sum(patch)}`;
    parts.readout.textContent = `${text}.`;
  }

  function under(event, name) {
    const [x, y] = pointer(event, canvases[name]);
    const side = Number(canvases[name].dataset.side);
    const r = Math.floor(y / side);
    const c = Math.floor(x / side);
    return r >= 0 && r < rows && c >= 0 && c < columns ? { map: name, at: r * columns + c } : null;
  }

  const leave = () => {
    hovered = null;
    say();
  };
  for (const [name, element] of Object.entries(canvases)) {
    element.addEventListener("blur", leave);
    if (name === "units") continue; // the grid of tiles has its own
    element.addEventListener("pointermove", (event) => {
      hovered = under(event, name);
      say();
    });
    element.addEventListener("pointerleave", leave);
    element.addEventListener("click", (event) => {
      const found = under(event, name);
      if (found) set(model, { patch: found.at });
    });
    element.addEventListener("keydown", (event) => {
      const step = arrow(event);
      if (!step) return;
      const [down, right, shift] = step;
      const from = shift && hovered?.map === name ? hovered.at : model.get("patch");
      const r = Math.floor(from / columns) + down;
      const c = (from % columns) + right;
      if (r < 0 || r >= rows || c < 0 || c >= columns) return;
      hovered = shift ? { map: name, at: r * columns + c } : null;
      if (shift) say();
      else set(model, { patch: r * columns + c });
    });
  }
  const traits = ["image", "block", "patch", "unit", "channel", "show", "direction"];
  const again = drawnFrom(model, traits, root, draw);
  new ResizeObserver(again).observe(root);
}

const INFLUENCE_IMAGE = 0.45; // the image's part of a pixel, the rest is colour

function influenceSize(value) {
  return signed(value).replace("+", "");
}

function influenceLight(colour) {
  return 0.3 * (colour & 255) + 0.59 * ((colour >> 8) & 255) + 0.11 * ((colour >> 16) & 255);
}

/** Products of I + J over the blocks so far, as mixing.composed. */
function influenceComposed(influences, S) {
  let product = Float32Array.from({ length: S * S }, (_, i) => (i % (S + 1) === 0 ? 1 : 0));
  return influences.map((one) => (product = sum(product, left(one, new Float32Array(S), product, S))));
}

/** What the view draws from, by the model itself: the image's trace, and each unit's weights. */
function influenceComputed(data) {
  const mixer = new Mixer(data.mixer), { S, C } = mixer, D = data.num_units, images = unpack(data.images).values;
  const weight = (l, name) => mixer.weights[`blocks.${l}.token_mixing.${name}`];
  const columns = Array.from({ length: data.num_blocks }, (_, l) => Array.from({ length: D }, (_, h) =>
    Float32Array.from({ length: S }, (_, s) => weight(l, "dense_1.weight")[s * D + h])));
  const size = data.image_shape.reduce((a, b) => a * b), area = data.image_shape[1] * data.image_shape[2], traces = new Map();
  const follow = (image) => {
    const pixels = Float32Array.from(images.subarray(image * size, (image + 1) * size), (light, i) => {
      const channel = Math.floor(i / area) % data.mean.length;
      return (light / 255 - data.mean[channel]) / data.std[channel];
    });
    const stages = mixer.forward(pixels), found = mixer.influence(stages);
    const sizes = stages.normed.map((normed, l) => {
      const outputs = gelu(left(weight(l, "dense_0.weight"), weight(l, "dense_0.bias"), normed, C), data.gelu);
      return Float32Array.from({ length: D }, (_, h) => {
        let square = 0;
        for (let c = 0; c < C; c++) square += outputs[h * C + c] ** 2 / C;
        return Math.sqrt(square);
      });
    });
    return { influence: found, composed: influenceComposed(found, S), normed: stages.normed, sizes };
  };
  return {
    trace: (image) => traces.get(image) || traces.set(image, follow(image)).get(image),
    reads: (l, h) => weight(l, "dense_0.weight").subarray(h * S, (h + 1) * S),
    writes: (l, h) => columns[l][h],
    bias: (l, h) => weight(l, "dense_0.bias")[h],
  };
}

/** The same of a model too large to send: Python computed the trace of one image. */
function influenceSent(data) {
  const D = data.num_units, S = data.num_patches, sent = data.trace, maps = unpack(sent.maps).values;
  const cut = ({ shape, values }) =>
    Array.from({ length: shape[0] }, (_, l) => values.subarray((l * values.length) / shape[0], ((l + 1) * values.length) / shape[0]));
  const [found, normed, sizes] = [sent.influence, sent.normed, sent.sizes].map((one) => cut(unpack(one)));
  const trace = { influence: found, composed: influenceComposed(found, S), normed, sizes }, biases = unpack(sent.biases).values;
  const map = (l, h, writes) => maps.subarray(((l * 2 + writes) * D + h) * S, ((l * 2 + writes) * D + h + 1) * S);
  return {
    trace: () => trace,
    reads: (l, h) => map(l, h, 0),
    writes: (l, h) => map(l, h, 1),
    bias: (l, h) => biases[l * D + h],
  };
}
