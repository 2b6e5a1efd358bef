// View 2: which patches talk to which for one image, the units that make it so, and one unit's arithmetic.

import {
  BLACK, WHITE, arrow, cellOf, choice, clamp, colourTable, css, drawnFrom, frame, hoveredPatch, indexSlider, largest,
  legend, make, mapCanvas, neighbour, onCanvas, panel, patchIn, place, pointer, range, readableOn, segment, set, signed,
  theme, unpack,
} from "./kit.js";
import { gelu, geluOf, left, Mixer, sum } from "./mixer.js";
import { overlay } from "./overlay.js";
import { mapPainter, readableSide, tileGrid } from "./tiles.js";

export function influence(model, root, data = model.get("data")) {
  const [rows, columns] = data.grid;
  const S = rows * columns;
  const C = data.num_channels;
  const units = data.num_units;
  const source = data.mixer ? influenceComputed(data) : influenceSent(data);
  const pictures = unpack(data.images).values;
  const table = colourTable(data.colours, root);
  const key = legend(table);
  const longer = Math.max(rows, columns);
  const numbers = longer <= 7; // whether they stand in the squares
  const large = clamp(Math.floor(288 / longer), 2, 72); // a patch of the image, CSS pixels
  const small = numbers ? clamp(Math.floor(312 / longer), 44, 52) : Math.max(2, Math.floor(150 / longer));
  const square = readableSide(data.grid); // a patch of a unit's tile
  const tile = { side: square, gap: 6, width: columns * square, height: rows * square };

  // --- controls and panels ---
  const canvases = {}; // by name, as the overlays over them and the notes
  const overlays = {};
  const notes = {};
  const canvas = (name, label) => (canvases[name] = mapCanvas(label, { "data-map": name }));
  canvas("image", "The image in patches, coloured by influence; arrow keys choose a patch");
  canvas("row", "Influence patch by patch; arrow keys choose a patch, with shift they read another's number");
  for (const name of ["image", "row"]) overlays[name] = overlay(canvases[name]);
  canvas("units", "What each hidden unit reads, strongest first; arrow keys choose a unit");
  /** A map of the arithmetic, and what stands before it. */
  function step(name, sign, title) {
    const map = canvas(name, `${title}; arrow keys choose a patch`);
    overlays[name] = overlay(map);
    notes[name] = make("small");
    const above = make("span", {}, `${sign} ${title}`);
    return make("div", { class: "mixer-step" }, above, overlays[name].element, notes[name]);
  }
  const strip = tileGrid(model, "unit", {
    canvas: canvases.units,
    name: "mixer-scroll mixer-strip",
    order: () => now.order,
    hover: hoverUnit,
  });
  const box = (name, ...content) => make("div", { class: name }, ...content);
  const said = make("p", { class: "mixer-sum", role: "status" });
  const title = { row: make("span"), sum: make("span") };
  const panels = [
    panel(title.row, box("mixer-steps", overlays.image.element, overlays.row.element)),
    panel(`What the ${units} units read, strongest first`, strip.element),
    panel(
      title.sum,
      box("mixer-controls", indexSlider(model, "channel", "Channel", C)),
      box("mixer-steps",
        step("values", "", "value of each patch"),
        step("weights", "×", "weight it is read with"),
        step("products", "=", "product")),
      said,
      box("mixer-steps",
        step("column", "×", "weight to write with"),
        step("writes", "=", "added to each patch")),
    ),
  ];
  const controls = [
    indexSlider(model, "block", "Block", data.num_blocks),
    choice(model, "show", "Through", { "one block": "this block", composed: "all blocks up to it" }),
    choice(model, "direction", "Show", { reads: "what moves the patch", writes: "what the patch moves" }),
    key.root,
  ];
  if (data.num_images > 1) controls.unshift(indexSlider(model, "image", "Image", data.num_images));
  const parts = frame(root, { controls, panels });
  panels[2].before(parts.readout); // in the middle of this tall view it is seen from everywhere

  const patchUnder = hoveredPatch(model); // outlined wherever there are patches
  let hovered = null; // {map, at}: a canvas's name and the patch, or the unit, under the pointer
  let now = {}; // what is drawn

  function hover(found) {
    hovered = found;
    if (found?.map !== "units") patchUnder.set(found && found.at);
    say();
  }

  function hoverUnit(found) {
    const patch = found && patchIn(data.grid, Math.floor(found.y / square), Math.floor(found.x / square));
    patchUnder.set(patch);
    hover(found && { map: "units", at: found.item });
  }

  /** A box around a patch of a map with squares of `side`. */
  function around(patch, side) {
    const [row, column] = cellOf(patch, columns);
    return [column * side, row * side, side, side];
  }

  function outlineHovered() {
    if (!now.order) return; // not drawn yet
    const patch = patchUnder.get();
    const boxes = (side) => (patch === null ? [] : [around(patch, side)]);
    for (const [name, { outline }] of Object.entries(overlays)) outline(boxes(Number(canvases[name].dataset.side)));
    strip.outline(boxes(square));
    if (!hovered) say(); // where the pointer is elsewhere
  }
  patchUnder.on(outlineHovered);

  // --- what is drawn ---
  function look() {
    const block = model.get("block");
    const patch = model.get("patch");
    const image = model.get("image");
    const trace = source.trace(image);
    const one = model.get("show") === "one block";
    const matrix = (one ? trace.influence : trace.composed())[block];
    const reads = model.get("direction") === "reads";
    const row = Float32Array.from(range(S), (s) => matrix[reads ? patch * S + s : s * S + patch]);
    const written = range(units).map((unit) => Math.abs(source.writes(block, unit)[patch]));
    const sizes = trace.sizes[block];
    const strength = sizes.map((size, unit) => size * written[unit]);
    const order = Array.from(strength.keys()).sort((a, b) => strength[b] - strength[a]);
    now = { block, patch, image, one, matrix, reads, row, sizes, order, ...arithmetic(trace, block) };
  }

  /** What the chosen unit computes in the chosen channel: maps over the patches, and numbers between them. */
  function arithmetic(trace, block) {
    const unit = model.get("unit");
    const channel = model.get("channel");
    const values = Float32Array.from(range(S), (s) => trace.normed[block][s * C + channel]);
    const weights = source.reads(block, unit);
    const products = values.map((value, s) => value * weights[s]);
    const total = products.reduce((a, b) => a + b, 0);
    const bias = source.bias(block, unit);
    const entering = total + bias;
    const active = geluOf(entering, data.gelu);
    const column = source.writes(block, unit);
    const writes = column.map((weight) => active * weight);
    return { unit, total, bias, entering, active, maps: { values, weights, products, column, writes } };
  }

  function draw() {
    if (!root.clientWidth) return; // not on the page yet
    look();
    const { block, unit, reads, one, maps } = now;
    const scale = largest(now.matrix);
    key.show(scale);
    title.row.textContent = `${reads ? "What moves" : "What is moved by"} ${named(now.patch)}`;
    title.sum.textContent = `What unit ${unit} of block ${block} computes in one channel`;
    drawImage(scale);
    drawMap(canvases.row, now.row, scale, large);
    for (const [name, values] of Object.entries(maps)) {
      const least = name === "writes" ? largest(maps.column) : 0; // pale where GELU gives nothing
      const top = Math.max(largest(values), least);
      drawMap(canvases[name], values, top, small);
      notes[name].textContent = `colours ±${influenceSize(top)}`;
    }
    said.textContent = `All products together ${signed(now.total)}, with the bias ${signed(now.bias)}: ` +
      `a = ${signed(now.entering)} → GELU(a) = ${signed(now.active)}, which goes back to the patches:`;
    Object.assign(said.dataset, { sum: now.entering, gelu: now.active, bias: now.bias });
    drawUnits();
    const through = one
      ? `block ${block}'s token mixing, without its skip connection`
      : `the token mixing of blocks 0 to ${block}, skip connections included, channel mixing left out`;
    const cut = data.all_blocks > data.num_blocks;
    const missing = cut ? ` Of the model's ${data.all_blocks} blocks the first are here.` : "";
    parts.caption.textContent =
      `Red: a patch moves another the same way (blue: the opposite way) through ${through}; ` +
      `the derivative for this image, averaged over ${C} channels. ` +
      `A unit is strong that writes much to the patch.${missing}`;
    say();
  }

  /** A black line on a white one around a patch; `side` is its side in CSS pixels. */
  function outlineChosen(context, patch, side, ratio) {
    for (const [colour, line] of [[WHITE, 4], [BLACK, 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = line * ratio;
      context.strokeRect(...around(patch, side).map((size) => size * ratio));
    }
  }

  function drawMap(element, values, scale, side) {
    Object.assign(element.dataset, { side, scale });
    onCanvas(element, columns * side, rows * side, (context, ratio) => {
      const digits = clamp(2 - Math.floor(Math.log10(scale || 1)), 0, 4);
      context.font = `${Math.min(13, side * 0.26) * ratio}px system-ui, sans-serif`;
      context.textAlign = "center";
      context.textBaseline = "middle";
      const edge = (i) => Math.round(i * side * ratio);
      values.forEach((value, s) => {
        const [row, column] = cellOf(s, columns);
        const colour = table[place(value, scale)];
        context.fillStyle = css(colour);
        context.fillRect(edge(column), edge(row), edge(column + 1) - edge(column), edge(row + 1) - edge(row));
        if (!numbers) return;
        context.fillStyle = readableOn(colour);
        const text = influenceWritten(value, digits);
        context.fillText(text, (column + 0.5) * side * ratio, (row + 0.5) * side * ratio);
      });
      outlineChosen(context, model.get("patch"), side, ratio);
    });
  }

  /** The image, shining through the colours. */
  function drawImage(scale) {
    const [channels, height, width] = data.image_shape;
    const area = height * width;
    const start = now.image * channels * area;
    Object.assign(canvases.image.dataset, { side: large, scale });
    onCanvas(canvases.image, columns * large, rows * large, (context, ratio) => {
      const { width: wide, height: high } = canvases.image;
      const under = (x, y, down, across) => { // which of `down` rows of `across` things lies there
        return Math.floor((y * down) / high) * across + Math.floor((x * across) / wide);
      };
      const picture = context.createImageData(wide, high);
      let at = 0;
      for (let y = 0; y < high; y++) {
        for (let x = 0; x < wide; x++) {
          const colour = table[place(now.row[under(x, y, rows, columns)], scale)];
          const pixel = start + under(x, y, height, width);
          for (let i = 0; i < 3; i++) {
            const light = pictures[pixel + (channels === 3 ? i * area : 0)];
            const tint = (colour >> (8 * i)) & 255;
            picture.data[at + i] = Math.round(INFLUENCE_IMAGE * light + (1 - INFLUENCE_IMAGE) * tint);
          }
          picture.data[at + 3] = 255;
          at += 4;
        }
      }
      context.putImageData(picture, 0, 0);
      context.fillStyle = `${theme().edge}88`; // half seen through
      const edge = (i) => Math.round(i * large * ratio);
      for (let i = 1; i < columns; i++) context.fillRect(edge(i), 0, 1, high);
      for (let i = 1; i < rows; i++) context.fillRect(0, edge(i), wide, 1);
      outlineChosen(context, now.patch, large, ratio);
    });
  }

  /** How many tiles of units stand in a row. */
  function perRow() {
    const whole = root.clientWidth - 46;
    const beside = whole - 2 * columns * large - 40; // beside the image, where there is room
    const space = beside > 200 ? beside : whole;
    return clamp(Math.floor((space + tile.gap) / (tile.width + tile.gap)), 1, units);
  }

  function drawUnits() {
    const { block, order } = now;
    const canvas = canvases.units;
    const top = Math.max(...order.map((unit) => largest(source.reads(block, unit))));
    Object.assign(canvas.dataset, { ...tile, scale: top });
    strip.draw({ ...tile, across: perRow(), margin: 2 }, (context, ratio, visible) => {
      const side = Math.max(1, Math.floor(tile.side * ratio));
      const paint = mapPainter(context, side, data.grid, table);
      for (const { item, x, y } of visible) paint(source.reads(block, item), top, x * ratio, y * ratio);
    });
  }

  // --- what is said ---
  function named(patch) {
    const [row, column] = cellOf(patch, columns);
    return `patch ${patch} (row ${row}, column ${column})`;
  }

  function sayMove(s) {
    const [mover, moved] = now.reads ? [s, now.patch] : [now.patch, s];
    return `${named(mover)} moves ${named(moved)} by ${signed(now.row[s])}`;
  }

  function saySum(s) {
    const number = (name) => signed(now.maps[name][s]);
    const read = `${number("values")} × ${number("weights")} = ${number("products")}`;
    const added = `${signed(now.active)} × ${number("column")} = ${number("writes")}`;
    return `Unit ${now.unit}, ${named(s)}: ${read} is read; ${added} is added`;
  }

  function sayUnit(unit) {
    const { block, sizes } = now;
    const patch = patchUnder.get() ?? now.patch;
    const weight = source.writes(block, unit)[patch];
    const reads = signed(source.reads(block, unit)[patch]);
    const writes = signed(weight);
    const size = influenceSize(sizes[unit] * Math.abs(weight));
    return `Unit ${unit}, place ${now.order.indexOf(unit)} of ${units}: reads ${named(patch)} with weight ` +
      `${reads}, writes to it with ${writes}, about ${size} in a channel (root mean square)`;
  }

  function sentence() {
    if (!hovered && patchUnder.get() !== null) return `A change of one: ${sayMove(patchUnder.get())}`;
    if (!hovered) {
      const larger = (best, s) => (Math.abs(now.row[s]) > Math.abs(now.row[best]) ? s : best);
      const strongest = range(S).reduce(larger);
      return `Strongest: ${sayMove(strongest)}. ${saySum(now.patch)}`;
    }
    const { map, at } = hovered;
    if (map === "units") return sayUnit(at);
    if (map === "image" || map === "row") return `A change of one: ${sayMove(at)}`;
    return saySum(at);
  }

  function say() {
    parts.readout.textContent = `${sentence()}.`;
  }

  // --- pointer and keys ---
  function under(event, name) {
    const side = Number(canvases[name].dataset.side);
    const [column, row] = pointer(event, canvases[name]).map((size) => Math.floor(size / side));
    const patch = patchIn(data.grid, row, column);
    return patch === null ? null : { map: name, at: patch };
  }

  for (const [name, element] of Object.entries(canvases)) {
    element.addEventListener("blur", () => hover(null));
    if (name === "units") continue; // the grid of tiles has its own
    element.addEventListener("pointermove", (event) => hover(under(event, name)));
    element.addEventListener("pointerleave", () => hover(null));
    element.addEventListener("click", (event) => {
      const found = under(event, name);
      if (found) set(model, { patch: found.at });
    });
    element.addEventListener("keydown", (event) => {
      const step = arrow(event);
      if (!step) return;
      const [down, right, shift] = step;
      const from = shift && hovered?.map === name ? hovered.at : model.get("patch");
      const patch = neighbour(data.grid, from, down, right);
      if (patch === null) return;
      hover(shift ? { map: name, at: patch } : null);
      if (!shift) set(model, { patch });
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

/** A number with so many digits after the point, and no minus before a zero. */
function influenceWritten(value, digits) {
  const text = value.toFixed(digits);
  return text.replace("-", Number(text) ? "−" : "");
}

/** Products of I + J over the blocks so far, as mixing.composed: a function that finds them when they are first asked. */
function influenceComposed(influences, S) {
  const zeros = new Float32Array(S);
  let found = null;
  function compose() {
    let product = Float32Array.from(influences[0]);
    for (let s = 0; s < S; s++) product[s * S + s] += 1;
    found = [product];
    for (const one of influences.slice(1)) {
      product = sum(product, left(one, zeros, product, S));
      found.push(product);
    }
    return found;
  }
  return () => found || compose();
}

/** What the view draws from, by the model itself: the image's trace, and each unit's weights. */
function influenceComputed(data) {
  const mixer = new Mixer(data.mixer);
  const { S, C } = mixer;
  const units = data.num_units;
  const images = unpack(data.images).values;
  const [channels, height, width] = data.image_shape;
  const area = height * width;
  const weight = (block, name) => mixer.weights[`blocks.${block}.token_mixing.${name}`];
  const columns = range(data.num_blocks).map((block) => {
    const writes = weight(block, "dense_1.weight");
    return range(units).map((unit) => Float32Array.from(range(S), (s) => writes[s * units + unit]));
  });

  /** As the model is fed with it. */
  function normalised(image) {
    return Float32Array.from(segment(images, image, channels * area), (light, i) => {
      const channel = Math.floor(i / area) % data.mean.length;
      return (light / 255 - data.mean[channel]) / data.std[channel];
    });
  }

  /** How large each unit of a block is: the root mean square over the channels. */
  function sizesOf(normed, block) {
    const outputs = left(weight(block, "dense_0.weight"), weight(block, "dense_0.bias"), normed, C);
    gelu(outputs, data.gelu);
    return Float32Array.from(range(units), (unit) => {
      let square = 0;
      for (const output of segment(outputs, unit, C)) square += output ** 2 / C;
      return Math.sqrt(square);
    });
  }

  function follow(image) {
    const stages = mixer.forward(normalised(image));
    const found = mixer.influence(stages);
    return {
      influence: found,
      composed: influenceComposed(found, S),
      normed: stages.normed,
      sizes: stages.normed.map(sizesOf),
    };
  }

  const traces = []; // of the images that were shown
  return {
    trace: (image) => (traces[image] ||= follow(image)),
    reads: (block, unit) => segment(weight(block, "dense_0.weight"), unit, S),
    writes: (block, unit) => columns[block][unit],
    bias: (block, unit) => weight(block, "dense_0.bias")[unit],
  };
}

/** The same of a model too large to send: Python computed the trace of one image. */
function influenceSent(data) {
  const units = data.num_units;
  const S = data.num_patches;
  const maps = unpack(data.trace.maps).values;
  const biases = unpack(data.trace.biases).values;
  const byBlock = (packed) => {
    const { shape, values } = unpack(packed);
    return range(shape[0]).map((block) => segment(values, block, values.length / shape[0]));
  };
  const found = byBlock(data.trace.influence);
  const trace = {
    influence: found,
    composed: influenceComposed(found, S),
    normed: byBlock(data.trace.normed),
    sizes: byBlock(data.trace.sizes),
  };
  const map = (block, unit, writes) => segment(maps, (block * 2 + writes) * units + unit, S);
  return {
    trace: () => trace,
    reads: (block, unit) => map(block, unit, 0),
    writes: (block, unit) => map(block, unit, 1),
    bias: (block, unit) => biases[block * units + unit],
  };
}
