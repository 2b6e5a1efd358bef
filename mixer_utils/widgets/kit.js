// What the views share: arrays sent from Python, controls that are traits, colours, and maps on canvases.
//
// A view is a function (model, root). `model` is anywidget's: get(name), set(name, value), save_changes(),
// on("change:name", callback). A page without a kernel brings a plain object with the same four (page.js).

/** An element: make("p", {class: "note", onclick: f}, "text", child). */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  // Notebooks have their own use for arrow keys, and would take them from whatever is not marked.
  if (["input", "select", "button"].includes(tag) || "tabindex" in attributes) element.dataset.lmSuppressShortcuts = "true";
  element.append(...children);
  return element;
}

// --- arrays ----------------------------------------------------------------------------------------------------------

const BYTES = { float32: Float32Array, int32: Int32Array, int16: Int16Array, uint8: Uint8Array };

/** {dtype, shape, bytes} as Python packed it -> {shape, values}; half precision becomes Float32Array. */
function unpack({ dtype, shape, bytes }) {
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  if (dtype !== "float16") return { shape, values: new BYTES[dtype](buffer) };
  const halves = new Uint16Array(buffer), values = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) values[i] = fromHalf(halves[i]);
  return { shape, values };
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function largest(values) {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}

/** A number with its sign and three digits that count: +0.134, -2.05e-5. */
function signed(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return (value > 0 ? "+" : "−") + (size >= 0.001 && size < 1000 ? size.toPrecision(3) : size.toExponential(2));
}

// --- traits and controls ---------------------------------------------------------------------------------------------

function set(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

/** Call `draw` at the next frame after any of these traits changed, once however many changed; and once now. */
function drawnFrom(model, names, root, draw) {
  let asked = false;
  const now = () => {
    asked = false;
    draw();
    root.dataset.drawn = 1 + Number(root.dataset.drawn || 0); // tests wait for it
  };
  const ask = () => {
    if (!asked) requestAnimationFrame(now);
    asked = true;
  };
  for (const name of names) model.on(`change:${name}`, ask);
  now();
  return ask;
}

function labelled(text, ...controls) {
  return make("label", {}, text, ...controls);
}

/** A slider for a whole number; `say` turns the number into the text beside it. */
function slider(model, name, text, least, most, say = String) {
  const input = make("input", { type: "range", min: least, max: most, step: 1, "data-trait": name });
  const output = make("output");
  const show = () => {
    input.value = model.get(name);
    output.textContent = say(model.get(name));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => set(model, { [name]: Number(input.value) }));
  model.on(`change:${name}`, show);
  show();
  return labelled(text, input, output);
}

/** A choice of texts: `options` maps a trait's value to what is shown. */
function choice(model, name, text, options) {
  const select = make("select", { "data-trait": name });
  for (const [value, shown] of Object.entries(options)) select.append(make("option", { value }, shown));
  const show = () => (select.value = model.get(name));
  select.addEventListener("change", () => {
    const number = typeof model.get(name) === "number";
    set(model, { [name]: number ? Number(select.value) : select.value });
  });
  model.on(`change:${name}`, show);
  show();
  return labelled(text, select);
}

function tick(model, name, text) {
  const input = make("input", { type: "checkbox", "data-trait": name });
  const show = () => (input.checked = model.get(name));
  input.addEventListener("change", () => set(model, { [name]: input.checked }));
  model.on(`change:${name}`, show);
  show();
  return labelled(input, text);
}

/** The frame of every view: controls above, panels, what is being seen in one line, and a line that follows the hand. */
function frame(root, { controls = [], panels = [], caption = "" }) {
  root.classList.add("mixer-view");
  const said = make("p", { class: "mixer-caption" }, caption);
  const readout = make("p", { class: "mixer-readout", role: "status" });
  root.replaceChildren(
    make("div", { class: "mixer-controls" }, ...controls),
    make("div", { class: "mixer-panels" }, ...panels), said, readout,
  );
  return { caption: said, readout };
}

function panel(title, ...content) {
  return make("figure", { class: "mixer-panel" }, make("figcaption", {}, title), ...content);
}

// --- colours ---------------------------------------------------------------------------------------------------------

/** Python sends matplotlib's RdBu_r as 256 RGB triples: the same colours in figures and in views. */
function colourTable(packed) {
  const { values } = unpack(packed), table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    table[i] = (255 << 24) | (values[3 * i + 2] << 16) | (values[3 * i + 1] << 8) | values[3 * i];
  }
  return table;
}

/** The place in the table of a value between -scale and +scale. */
function place(value, scale) {
  return Math.max(0, Math.min(255, Math.round(127.5 + (127.5 * value) / (scale || 1))));
}

function css(colour) {
  return `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;
}

/** A strip from -scale to +scale; show(scale) writes the ends, show(null) says that each map has its own scale. */
function legend(table) {
  const stops = Array.from({ length: 17 }, (_, i) => css(table[Math.round((255 * i) / 16)]));
  const strip = make("i", { style: `background: linear-gradient(to right, ${stops.join(", ")})` });
  const low = make("span"), high = make("span");
  const root = make("span", { class: "mixer-legend" }, low, strip, high);
  const show = (scale) => {
    low.textContent = scale == null ? "below zero" : signed(-scale);
    high.textContent = scale == null ? "above zero, each map on its own scale" : signed(scale);
  };
  return { root, show };
}

// --- canvases --------------------------------------------------------------------------------------------------------

/** A canvas of CSS size width x height with the screen's own pixels; `draw(context, ratio)` gets device pixels. */
function onCanvas(canvas, width, height, draw) {
  const ratio = window.devicePixelRatio || 1;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  draw(context, ratio);
  return context;
}

/** Fill a map of rows x columns squares into 32-bit pixels, its corner at (x, y), squares of `side`, device pixels. */
function fillMap(pixels, stride, x, y, side, rows, columns, values, scale, table) {
  for (let r = 0; r < rows; r++) {
    const first = (y + r * side) * stride + x;
    let at = first;
    for (let c = 0; c < columns; c++) {
      const colour = table[place(values[r * columns + c], scale)];
      for (const end = at + side; at < end; at++) pixels[at] = colour;
    }
    for (let down = 1; down < side; down++) pixels.copyWithin(first + down * stride, first, at);
  }
}

/** Where a pointer is on a canvas, in CSS pixels. */
function pointer(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

/** Arrow keys as [down, right, with shift?]; null for other keys. */
function arrow(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const step = steps[event.key];
  if (!step) return null;
  event.preventDefault();
  event.stopPropagation(); // the notebook has its own use for arrow keys
  return [...step, event.shiftKey];
}

/** Call `draw` when the width of `root` has changed, and not when only its height has. */
function onWidth(root, draw) {
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (root.clientWidth !== width) draw();
    width = root.clientWidth;
  }).observe(root);
}

/** How many of `count` tiles to put in a row that has room for `fit`: a few less where this fills the last row. */
function evenly(count, fit) {
  if (fit >= count) return count;
  for (let across = fit; across > 0.7 * fit; across--) if (count % across === 0) return across;
  return Math.max(1, fit);
}

/**
 * All hidden units of a block's token mixing on one canvas, each a tile of two maps: what it reads, what it writes.
 *
 * `order()` gives the units as they are drawn, `map(unit, writes)` the values of a map. A click and the arrow keys choose
 * the traits unit and patch (Shift moves the patch); `follow({unit, patch})` hears what is under the pointer, or null.
 * Returns the element and draw({room, most, side, scale}): at most `most` tiles a row in `room` CSS pixels, squares of
 * `side` or more, and scale(unit, writes), the largest magnitude that the map's colours cover.
 */
function pairTiles(model, table, { label, grid: [rows, columns], order, map, follow }) {
  const canvas = make("canvas", { tabindex: 0, role: "img", "aria-label": label });
  const element = make("div", { class: "mixer-scroll mixer-tiles" }, canvas);
  let ratio, cell, between, gap, across; // device pixels, so that squares are whole and sharp at any zoom
  const width = () => 2 * columns * cell + between, height = () => rows * cell;
  const corner = (at) =>
    [between + (at % across) * (width() + gap), between + Math.floor(at / across) * (height() + gap)];

  function draw({ room, most, side, scale }) {
    const units = order();
    ratio = window.devicePixelRatio || 1;
    [cell, between, gap] = [side, 2, 6].map((size) => Math.max(1, Math.round(size * ratio)));
    const fit = (space) => Math.floor((space * ratio - 2 * between + gap) / (width() + gap));
    across = evenly(units.length, Math.max(1, Math.min(most, fit(room))));
    const tall = () => Math.ceil(units.length / across) * (height() + gap) - gap + 2 * between;
    if (tall() > 500 * ratio) { // beside a scroll bar
      room -= 16;
      across = evenly(units.length, Math.max(1, Math.min(most, fit(room))));
    }
    const whole = Math.floor(((room * ratio - 2 * between + gap) / across - gap - between) / (2 * columns));
    cell = Math.max(cell, Math.min(whole, Math.round(10 * ratio))); // what is left of the row makes the squares larger
    const wide = across * (width() + gap) - gap + 2 * between;
    const inCss = { side: cell, between, gap };
    for (const [name, size] of Object.entries(inCss)) canvas.dataset[name] = size / ratio;
    Object.assign(canvas.dataset, { across, order: Array.from(units).join(" ") });
    onCanvas(canvas, wide / ratio, tall() / ratio, (context) => {
      const image = context.createImageData(canvas.width, canvas.height);
      const pixels = new Uint32Array(image.data.buffer);
      units.forEach((unit, at) => {
        const [x, y] = corner(at);
        for (const writes of [0, 1]) {
          const left = x + writes * (columns * cell + between);
          fillMap(pixels, canvas.width, left, y, cell, rows, columns, map(unit, writes), scale(unit, writes), table);
        }
      });
      context.putImageData(image, 0, 0);
      outline(context, Array.from(units).indexOf(model.get("unit")));
    });
  }

  function outline(context, at) {
    const [x, y] = corner(at), line = 1.5 * ratio, around = line / 2; // around the tile and the patch, not over them
    context.lineWidth = line;
    context.strokeRect(x - around, y - around, width() + 2 * around, height() + 2 * around);
    if (cell < 4 * ratio) return;
    const patch = model.get("patch"), r = Math.floor(patch / columns), c = patch % columns;
    context.lineWidth = ratio;
    for (const left of [x, x + columns * cell + between]) {
      context.strokeRect(left + c * cell + ratio / 2, y + r * cell + ratio / 2, cell - ratio, cell - ratio);
    }
  }

  function under(event) {
    const [x, y] = pointer(event, canvas).map((at) => at * ratio - between), units = order();
    const right = Math.floor(x / (width() + gap)), down = Math.floor(y / (height() + gap)), at = down * across + right;
    if (x < 0 || right >= across || y < 0 || at >= units.length) return null;
    let left = x - right * (width() + gap);
    if (left >= columns * cell + between) left -= columns * cell + between;
    const c = Math.floor(left / cell), r = Math.floor((y - down * (height() + gap)) / cell);
    return c < columns && r < rows ? { unit: units[at], patch: r * columns + c } : null;
  }

  canvas.addEventListener("pointermove", (event) => follow(under(event)));
  canvas.addEventListener("pointerleave", () => follow(null));
  canvas.addEventListener("click", (event) => {
    const found = under(event);
    if (found) set(model, found);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = arrow(event);
    if (!step) return;
    const [down, right, shift] = step;
    follow(null);
    if (shift) {
      const patch = model.get("patch"), r = Math.floor(patch / columns) + down, c = (patch % columns) + right;
      if (r >= 0 && r < rows && c >= 0 && c < columns) set(model, { patch: r * columns + c });
      return;
    }
    const units = Array.from(order()), at = units.indexOf(model.get("unit")) + right + down * across;
    if (at < 0 || at >= units.length) return;
    set(model, { unit: units[at] });
    const top = corner(at)[1] / ratio - 10, bottom = top + height() / ratio + 20;
    element.scrollTop = Math.max(bottom - element.clientHeight, Math.min(element.scrollTop, top));
  });
  return { element, canvas, draw };
}
