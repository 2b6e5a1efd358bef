// What the views share: arrays sent from Python, controls that are traits, colours, and maps on canvases.
//
// A view is a function (model, root). `model` is anywidget's: get(name), set(name, value), save_changes(),
// on("change:name", callback). A page without a kernel brings a plain object with the same four (page.js).

/** An element: make("p", {class: "note", onclick: f}, "text", child). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  // Notebooks have their own use for arrow keys, and would take them from whatever is not marked.
  const takesKeys = ["input", "select", "button"].includes(tag) || "tabindex" in attributes;
  if (takesKeys) element.dataset.lmSuppressShortcuts = "true";
  element.append(...children);
  return element;
}

/** The whole numbers from 0 to count - 1. */
export function range(count) {
  return Array.from({ length: count }, (_, i) => i);
}

/** The number itself, or the end that it lies beyond. */
export function clamp(value, least, most) {
  return Math.max(least, Math.min(most, value));
}

// --- arrays ----------------------------------------------------------------------------------------------------------

const BYTES = {
  float32: Float32Array, int32: Int32Array, int16: Int16Array, int8: Int8Array, uint8: Uint8Array,
};
const HALVES = new Float32Array(65536); // what each half-precision number is, filled when the first is unpacked

/**
 * {dtype, shape, bytes} as Python packed it -> {shape, values}. Half precision becomes Float32Array, and so do maps of
 * whole numbers with `scales`, what 1 stands for in each.
 */
export function unpack({ dtype, shape, bytes, scales }) {
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  if (dtype === "float16") return { shape, values: unpackHalves(new Uint16Array(buffer)) };
  const values = new BYTES[dtype](buffer);
  return { shape, values: scales ? scaled(values, unpack(scales).values) : values };
}

function unpackHalves(halves) {
  if (!HALVES[0x3c00]) { // it is 1
    for (let bits = 0; bits < HALVES.length; bits++) HALVES[bits] = fromHalf(bits);
  }
  const values = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) values[i] = HALVES[halves[i]];
  return values;
}

function scaled(whole, scales) {
  const values = new Float32Array(whole.length);
  const size = whole.length / scales.length;
  scales.forEach((scale, map) => {
    for (let i = map * size; i < (map + 1) * size; i++) values[i] = whole[i] * scale;
  });
  return values;
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Part `at` of values cut into parts of `size`; the values stay where they are. */
export function segment(values, at, size) {
  return values.subarray(at * size, (at + 1) * size);
}

export function largest(values) {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}

/** A number with its sign and three digits that count: +0.134, -2.05e-5. */
export function signed(value) {
  if (value === 0) return "0";
  const sign = value > 0 ? "+" : "−";
  const size = Math.abs(value);
  const plain = size >= 0.001 && size < 1000;
  return sign + (plain ? size.toPrecision(3) : size.toExponential(2));
}

// --- traits and controls ---------------------------------------------------------------------------------------------

export function set(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

/** Call `draw` at the next frame after any of these traits or the theme changed, once however many did; and once now. */
export function drawnFrom(model, names, root, draw) {
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
  onTheme(root, ask);
  now();
  return ask;
}

export function labelled(text, ...controls) {
  return make("label", {}, text, ...controls);
}

/** A slider for a whole number; `say` turns the number into the text beside it. */
export function slider(model, name, text, least, most, say = String) {
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

/** A slider for a trait that counts from 0, which says how far. */
export function indexSlider(model, name, text, count) {
  const last = count - 1;
  return slider(model, name, text, 0, last, (at) => `${at} of 0 to ${last}`);
}

/** A choice of texts: `options` maps a trait's value to what is shown. */
export function choice(model, name, text, options) {
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

export function tick(model, name, text) {
  const input = make("input", { type: "checkbox", "data-trait": name });
  const show = () => (input.checked = model.get(name));
  input.addEventListener("change", () => set(model, { [name]: input.checked }));
  model.on(`change:${name}`, show);
  show();
  return labelled(input, text);
}

/** The frame of every view: controls above, panels, what is being seen in one line, and a line that follows the hand. */
export function frame(root, { controls = [], panels = [], caption = "" }) {
  root.classList.add("mixer-view");
  const said = make("p", { class: "mixer-caption" }, caption);
  const readout = make("p", { class: "mixer-readout", role: "status" });
  root.replaceChildren(
    make("div", { class: "mixer-controls" }, ...controls),
    make("div", { class: "mixer-panels" }, ...panels),
    said,
    readout,
  );
  return { caption: said, readout };
}

export function panel(title, ...content) {
  return make("figure", { class: "mixer-panel" }, make("figcaption", {}, title), ...content);
}

// --- light and dark --------------------------------------------------------------------------------------------------

// As CSS these are --mixer-ink and so on, on every view. Text is ink or muted, on paper or fill.
const PALETTES = {
  light: {
    dark: false,
    ink: "#1a1a1a",
    muted: "#474747",
    paper: "#ffffff",
    fill: "#f1f1f1", // of buttons, and where a bar is not
    line: "#cccccc", // between parts, behind curves
    edge: "#828282", // of controls and maps
    accent: "#0072b2",
    mark: "#d55e00", // what is chosen or hidden, on pictures
  },
  dark: {
    dark: true,
    ink: "#e9e7e4",
    muted: "#b9bcc0",
    paper: "#1d2024",
    fill: "#2d3136",
    line: "#484d53",
    edge: "#757a81",
    accent: "#56b4f0",
    mark: "#d55e00",
  },
};

// Pictures are black and white in any theme, and so is what is written on a colour of a map.
export const BLACK = "#000";
export const WHITE = "#fff";

/** Whether the page around is dark, as far as it says so in its kind's own way; else what the reader's system prefers. */
function isDark() {
  const html = document.documentElement;
  const { dataset, classList } = document.body;
  const isOneOf = (...names) => names.some((name) => classList.contains(name));
  if (["light", "dark"].includes(html.dataset.theme)) return html.dataset.theme === "dark"; // Sphinx
  if (dataset.jpThemeLight) return dataset.jpThemeLight === "false"; // JupyterLab and Notebook 7
  if (isOneOf("vscode-light", "vscode-high-contrast-light")) return false;
  if (isOneOf("vscode-dark", "vscode-high-contrast")) return true;
  if (html.hasAttribute("theme") || window.google?.colab) return html.getAttribute("theme") === "dark"; // Colab
  return PREFERS_DARK.matches;
}

const PREFERS_DARK = globalThis.matchMedia?.("(prefers-color-scheme: dark)");
const THEMED = new Map(); // the element of a view -> what hears of another theme
let palette = null; // null until the first view looks

/** The colours at hand, those of PALETTES, and whether they are `dark`. */
export function theme() {
  return palette;
}

/** Puts the theme's colours on the element of a view, now and at every change. Returns a function that ends it, for its parts too. */
export function wearTheme(root) {
  if (palette === null) followSurroundings();
  onTheme(root, () => putOn(root));
  putOn(root);
  return () => {
    for (const part of THEMED.keys()) {
      if (root.contains(part)) THEMED.delete(part);
    }
  };
}

/** Call `callback` after another theme has been put on the view. */
export function onTheme(root, callback) {
  if (!THEMED.has(root)) THEMED.set(root, []);
  THEMED.get(root).push(callback);
}

function putOn(root) {
  const { dark, ...colours } = palette;
  root.dataset.theme = dark ? "dark" : "light";
  root.style.colorScheme = root.dataset.theme; // of sliders, boxes and scroll bars
  for (const [name, colour] of Object.entries(colours)) root.style.setProperty(`--mixer-${name}`, colour);
}

function followSurroundings() {
  const look = () => {
    const found = isDark() ? PALETTES.dark : PALETTES.light;
    if (found === palette) return;
    palette = found;
    for (const callbacks of THEMED.values()) {
      for (const callback of callbacks) callback();
    }
  };
  const watcher = new MutationObserver(look);
  const attributeFilter = ["class", "theme", "data-theme", "data-jp-theme-light"];
  for (const element of [document.documentElement, document.body]) watcher.observe(element, { attributeFilter });
  PREFERS_DARK.addEventListener("change", look);
  look();
}

// --- colours ---------------------------------------------------------------------------------------------------------

/** The colours of signed numbers, of Python's 2 x 256 RGB triples, light and dark, those of the theme; kept up to date. */
export function colourTable(packed, root) {
  const { values } = unpack(packed);
  const table = new Uint32Array(256);
  const fill = () => {
    const colours = segment(values, theme().dark ? 1 : 0, 3 * 256);
    for (let i = 0; i < 256; i++) {
      const [red, green, blue] = segment(colours, i, 3);
      table[i] = (255 << 24) | (blue << 16) | (green << 8) | red;
    }
  };
  onTheme(root, fill);
  fill();
  return table;
}

/** Black or white, whichever is better read on a colour of a table: the contrast is 4.5 or more on any. */
export function readableOn(colour) {
  const linear = (level) => (level <= 10 ? level / 3295 : ((level / 255 + 0.055) / 1.055) ** 2.4);
  const [red, green, blue] = [0, 8, 16].map((shift) => linear((colour >> shift) & 255));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? BLACK : WHITE;
}

/** The place in the table of a value between -scale and +scale. */
export function place(value, scale) {
  return clamp(Math.round(127.5 + (127.5 * value) / (scale || 1)), 0, 255);
}

export function css(colour) {
  return `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;
}

/** A strip from -scale to +scale; show(scale) writes the ends, show(null) says that each map has its own scale. */
export function legend(table) {
  const strip = make("i");
  const low = make("span");
  const high = make("span");
  const root = make("span", { class: "mixer-legend" }, low, strip, high);
  const show = (scale) => {
    const stops = range(17).map((i) => css(table[Math.round((255 * i) / 16)]));
    strip.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    low.textContent = scale == null ? "below zero" : signed(-scale);
    high.textContent = scale == null ? "above zero, each map on its own scale" : signed(scale);
  };
  return { root, show };
}

// --- canvases --------------------------------------------------------------------------------------------------------

/** A canvas that takes the focus, and with it the keys. */
export function mapCanvas(label, attributes = {}) {
  return make("canvas", { tabindex: 0, role: "img", "aria-label": label, ...attributes });
}

/** A canvas of CSS size width x height with the screen's own pixels; `draw(context, ratio)` gets device pixels. */
export function onCanvas(canvas, width, height, draw) {
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
export function fillMap(pixels, stride, x, y, side, rows, columns, values, scale, table) {
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
export function pointer(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

/** Arrow keys as [down, right, with shift?]; null for other keys. */
export function arrow(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const step = steps[event.key];
  if (!step) return null;
  claim(event);
  return [...step, event.shiftKey];
}

/** Neither the page nor the notebook, which have their own use for keys, gets this one. */
export function claim(event) {
  event.preventDefault();
  event.stopPropagation();
}

/** Call `draw` when the width of `root` has changed, and not when only its height has. */
export function onWidth(root, draw) {
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (root.clientWidth !== width) draw();
    width = root.clientWidth;
  }).observe(root);
}

// --- patches ---------------------------------------------------------------------------------------------------------

/** Row and column of a patch. */
export function cellOf(patch, columns) {
  return [Math.floor(patch / columns), patch % columns];
}

/** The patch in a row and a column; null outside the grid. */
export function patchIn([rows, columns], row, column) {
  const inside = row >= 0 && row < rows && column >= 0 && column < columns;
  return inside ? row * columns + column : null;
}

/** The patch that lies so many rows down and columns right of another; null outside the grid. */
export function neighbour(grid, patch, down, right) {
  const [row, column] = cellOf(patch, grid[1]);
  return patchIn(grid, row + down, column + right);
}

/** What is under the pointer, shared by several drawings: get() is null for none, set(what), on(call). */
export function pointed() {
  let at = null;
  const callbacks = [];
  const get = () => at;
  const on = (callback) => callbacks.push(callback);
  const setAt = (next) => {
    if (next === at) return;
    at = next;
    for (const callback of callbacks) callback();
  };
  return { get, set: setAt, on };
}

const HOVERED = new WeakMap();

/** The patch under the pointer, the same `pointed` for all that is drawn of one model. */
export function hoveredPatch(model) {
  if (!HOVERED.has(model)) HOVERED.set(model, pointed());
  return HOVERED.get(model);
}

/** The model of a view inside another, where traits are called otherwise: {show: "through"} gives "through" as "show". */
export function renamed(model, names) {
  const outside = (name) => names[name] || name;
  const inside = {
    get: (name) => model.get(outside(name)),
    set: (name, value) => model.set(outside(name), value),
    save_changes: () => model.save_changes(),
    on: (event, callback) => model.on(`change:${outside(event.replace("change:", ""))}`, callback),
  };
  HOVERED.set(inside, hoveredPatch(model));
  return inside;
}

// --- a block's units -------------------------------------------------------------------------------------------------

export const SORTS = {
  structure: "structure", norm: "norm", frequency: "frequency", pairs: "opposite pairs", number: "number",
};

/** {"norm": packed (num_blocks, units), ...} -> the same with Int32Arrays. */
export function unpackOrders(orders) {
  return Object.fromEntries(Object.entries(orders).map(([name, order]) => [name, unpack(order).values]));
}
