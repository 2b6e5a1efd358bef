// View 3: an image to draw on, the model's forward pass at every stroke, and the answer.

import {
  arrow, choice, colourTable, css, drawnFrom, frame, labelled, largest, legend, make, onCanvas, panel, place,
  pointer, set, signed, slider, unpack,
} from "./kit.js";
import { Mixer } from "./mixer.js";

export function digit(model, root) {
  const data = model.get("data"), mixer = new Mixer(data.mixer), { height: H, width: W, S, C } = mixer;
  const P = mixer.config.patch_size, [rows, columns] = mixer.grid, table = colourTable(data.colours);
  const above = table.map((_, i) => table[128 + (i >> 1)]); // norms are never negative: the half above zero
  const examples = data.starts.length ? unpack(data.examples).values : new Uint8Array(0);
  const stages = ["stem", ...Array.from({ length: mixer.config.num_blocks }, (_, l) => `block ${l}`)];
  const shown = data.class_names.length <= 10 ? data.class_names.length : 10;

  const bytes = () => {
    const { buffer, byteOffset, byteLength } = model.get("pixels");
    return new Uint8Array(buffer, byteOffset, byteLength).slice();
  };
  let image = bytes(); // the trait follows when the pen is lifted
  let found = null; // what the model makes of the image; null when it has to be computed anew
  let pen = [H / 2, W / 2], stroke = null, keys = false; // pen: row and column; stroke: where the pen is, while it is down
  let hovered = null; // a patch

  // --- controls and panels ---
  const button = (text, onclick) => make("button", { type: "button", onclick }, text);
  const canvas = (label, more = {}) =>
    make("canvas", { tabindex: 0, role: "img", "aria-label": label, ...more });
  const channel = slider(model, "channel", "Channel", 0, C - 1, (c) => `${c} of 0 to ${C - 1}`);
  const controls = [
    choice(model, "tool", "Tool", { draw: "draw", erase: "erase", "hide patches": "hide patches" }),
    button("Clear", () => commit(new Uint8Array(H * W))),
    button("Centre", () => commit(digitCentred(image, H, W))),
    button("Show all patches", () => set(model, { hidden: [] })),
    ...(data.starts.length ? [digitStarts(model, data.starts)] : []),
    choice(model, "show", "Tokens", { norm: "norm over channels", channel: "one channel" }), channel,
  ];
  const board = canvas("The image: draw here", { class: "mixer-board" });
  const pieces = canvas("The patches as the stem gets them: click one to hide it");
  const maps = stages.map((name, i) => canvas(`Tokens after ${name}`, { "data-stage": i }));
  const keyOf = { channel: legend(table), norm: legend(above) };
  const bars = Array.from({ length: shown }, () => {
    const row = { name: make("span"), bar: make("i"), number: make("span") };
    row.root = make("li", {}, row.name, make("b", {}, row.bar), row.number);
    return row;
  });
  const answer = make("p", { class: "mixer-answer", "aria-live": "polite" });
  const wide = panel("After every block, a number for each token", make("div", { class: "mixer-stages" },
    ...maps.map((map, i) => panel(stages[i], map))), keyOf.norm.root, keyOf.channel.root);
  const parts = frame(root, { controls, panels: [
    panel("The image", board, make("p", { class: "mixer-keys" },
      "Keys: arrows move the pen, Space puts it down or lifts it, x erases, h hides the patch.")),
    panel("The patches, as the stem gets them", pieces, make("p", { class: "mixer-keys" },
      "Click one, or arrows and Space, to hide it and to show it again.")),
    panel("The answer", answer, make("ol", { class: "mixer-bars" }, ...bars.map((row) => row.root))), wide,
  ] });
  root.mixer = mixer; // for tests

  // --- from the image to the answer ---
  const patchAt = (y, x) => Math.floor(y / P) * columns + Math.floor(x / P);
  function compute() {
    const hidden = new Set(model.get("hidden"));
    const seen = image.map((value, i) => (hidden.has(patchAt(Math.floor(i / W), i % W)) ? 0 : value));
    const { stem, blocks, probabilities } = mixer.forward(digitInput(seen, data));
    return { seen, hidden, tokens: [stem, ...blocks], probabilities };
  }
  function grid(tokens) { // S numbers
    if (model.get("show") === "channel") return Array.from({ length: S }, (_, s) => tokens[s * C + model.get("channel")]);
    return Array.from({ length: S }, (_, s) => Math.hypot(...tokens.subarray(s * C, (s + 1) * C)));
  }

  const side = Math.max(1, Math.floor(224 / Math.max(H, W))), small = Math.max(1, Math.floor(140 / Math.max(H, W)));
  const cell = Math.max(3, Math.min(24, Math.floor(96 / columns))), gap = 4;
  Object.assign(board.dataset, { side });
  Object.assign(pieces.dataset, { side: small, gap });

  function draw() {
    found ||= compute();
    const { seen, hidden, tokens, probabilities } = found;
    channel.hidden = model.get("show") !== "channel";
    const drawn = digitGrey(image, H, W), given = digitGrey(seen, H, W);
    onCanvas(board, W * side, H * side, (context, ratio) => {
      context.imageSmoothingEnabled = false;
      context.drawImage(drawn, 0, 0, board.width, board.height);
      context.scale(ratio, ratio);
      for (const s of hidden) digitHatch(context, (s % columns) * P * side, Math.floor(s / columns) * P * side, P * side);
      context.strokeStyle = "#4d8fcc";
      for (let r = 1; r < rows; r++) context.strokeRect(-1, r * P * side, W * side + 2, H * side);
      for (let c = 1; c < columns; c++) context.strokeRect(c * P * side, -1, W * side, H * side + 2);
      if (!keys) return;
      for (const [style, width] of [["#000", 4], [stroke ? "#ff9d00" : "#ffd27f", 2]]) {
        Object.assign(context, { strokeStyle: style, lineWidth: width });
        context.beginPath();
        context.arc(pen[1] * side, pen[0] * side, side * (stroke ? 0.8 : 1.4), 0, 7);
        context.stroke();
      }
    });
    onCanvas(pieces, W * small + (columns + 1) * gap, H * small + (rows + 1) * gap, (context, ratio) => {
      context.imageSmoothingEnabled = false;
      context.scale(ratio, ratio);
      for (let s = 0; s < S; s++) {
        const r = Math.floor(s / columns), c = s % columns, size = P * small;
        const x = gap + c * (size + gap), y = gap + r * (size + gap);
        context.drawImage(given, c * P, r * P, P, P, x, y, size, size);
        if (hidden.has(s)) digitHatch(context, x, y, size);
        if (s === model.get("patch")) digitOutline(context, x, y, size, "#d55e00");
      }
    });
    const grids = tokens.map(grid), norm = model.get("show") === "norm", top = largest(grids.flat());
    for (const [name, key] of Object.entries(keyOf)) key.root.hidden = name !== model.get("show");
    keyOf.channel.show(top);
    keyOf.norm.root.firstChild.textContent = "0";
    keyOf.norm.root.lastChild.textContent = top.toPrecision(3);
    maps.forEach((map, i) => {
      Object.assign(map.dataset, { side: cell, scale: top });
      onCanvas(map, columns * cell + 4, rows * cell + 4, (context, ratio) => {
        context.scale(ratio, ratio);
        grids[i].forEach((value, s) => {
          context.fillStyle = css(table[place(value, top)]);
          context.fillRect(2 + (s % columns) * cell, 2 + Math.floor(s / columns) * cell, cell, cell);
        });
        const s = model.get("patch");
        digitOutline(context, 2 + (s % columns) * cell, 2 + Math.floor(s / columns) * cell, cell, "#000");
      });
    });
    showAnswer(probabilities);
    parts.caption.textContent = `The image is cut into ${S} patches; hidden ones (hatched) reach the model black. ` +
      `Each map has one square a patch: ${norm ? "the norm of its token" : `channel ${model.get("channel")} of its token`} ` +
      `after the stem and after every block, all on one scale. ${data.note}`;
    say(grids);
  }

  function showAnswer(probabilities) {
    const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]);
    const kept = order.slice(0, shown);
    if (probabilities.length <= shown) kept.sort((a, b) => a - b);
    kept.forEach((k, i) => {
      const row = bars[i], p = probabilities[k];
      Object.assign(row.root.dataset, { class: k, probability: p });
      row.root.classList.toggle("mixer-best", k === order[0]);
      row.name.textContent = data.class_names[k];
      row.bar.style.width = `${100 * p}%`;
      row.number.textContent = digitPercent(p);
    });
    const text = `${data.class_names[order[0]]}, ${digitPercent(probabilities[order[0]])}`;
    if (answer.textContent !== text) answer.textContent = text;
    if (!stroke && !digitSame(model.get("probabilities"), probabilities)) set(model, { probabilities });
  }

  function say(grids = found?.tokens.map(grid)) {
    if (!grids) return; // the next frame says it
    const s = hovered ?? model.get("patch"), form = model.get("show") === "norm" ? (v) => v.toPrecision(3) : signed;
    const numbers = grids.map((values, i) => `${stages[i]} ${form(values[s])}`).join(", ");
    const what = model.get("show") === "norm" ? "norm" : `channel ${model.get("channel")}`;
    parts.readout.textContent = `Patch ${s}, row ${Math.floor(s / columns)}, column ${s % columns}` +
      `${model.get("hidden").includes(s) ? " (hidden)" : ""}: ${what} after ${numbers}.`;
  }

  // --- drawing ---
  function commit(pixels) {
    set(model, { pixels: new DataView(pixels.slice().buffer) });
  }
  function toggle(s) {
    const hidden = model.get("hidden");
    set(model, { hidden: hidden.includes(s) ? hidden.filter((t) => t !== s) : [...hidden, s].sort((a, b) => a - b) });
  }
  function paint(to, erase = model.get("tool") === "erase") {
    digitStroke(image, H, W, stroke || to, to, erase);
    found = null;
    again();
  }
  function lift() {
    if (!stroke) return;
    stroke = null;
    commit(image);
    again(); // also where the stroke changed nothing
  }
  const where = (event) => pointer(event, board).map((at) => at / side).reverse();
  const inside = ([y, x]) => y >= 0 && y < H && x >= 0 && x < W;

  board.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const to = where(event);
    keys = false;
    if (model.get("tool") === "hide patches") return inside(to) && toggle(patchAt(...to));
    lift();
    board.setPointerCapture(event.pointerId);
    paint(to);
    stroke = to;
  });
  board.addEventListener("pointermove", (event) => {
    const to = where(event);
    hovered = inside(to) ? patchAt(...to) : null;
    if (!stroke || !board.hasPointerCapture(event.pointerId)) return say();
    const between = event.getCoalescedEvents?.() ?? [];
    for (const at of between.length ? between.map(where) : [to]) {
      paint(at);
      stroke = at;
    }
  });
  for (const end of ["pointerup", "pointercancel"]) board.addEventListener(end, lift);
  board.addEventListener("keydown", (event) => {
    const step = arrow(event), key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (!step && ![" ", "enter", "x", "h"].includes(key)) return;
    event.preventDefault();
    event.stopPropagation();
    keys = true;
    if (step) {
      const far = step[2] ? P : 1;
      const to = [0, 1].map((i) => Math.max(0.5, Math.min([H, W][i] - 0.5, Math.floor(pen[i]) + 0.5 + far * step[i])));
      if (stroke) {
        paint(to);
        stroke = to;
      }
      pen = to;
      hovered = patchAt(...pen);
    } else if (key === "h" || (key !== "x" && model.get("tool") === "hide patches")) toggle(patchAt(...pen));
    else if (key === "x" || !stroke) {
      paint(pen, key === "x" || undefined);
      if (key !== "x") stroke = pen;
      else if (!stroke) commit(image);
    } else lift();
    again();
  });
  board.addEventListener("focus", () => { keys = board.matches(":focus-visible"); again(); });
  board.addEventListener("blur", () => {
    if (keys) hovered = null;
    keys = false;
    lift();
    again();
  });

  // --- choosing a patch among the patches and the tokens ---
  for (const one of [pieces, ...maps]) {
    const [size, between] = one === pieces ? [P * small, gap] : [cell, 0], start = one === pieces ? gap : 2;
    const under = (event) => {
      const [c, r] = pointer(event, one).map((at) => Math.floor((at - start) / (size + between)));
      return r >= 0 && r < rows && c >= 0 && c < columns ? r * columns + c : null;
    };
    one.addEventListener("pointermove", (event) => { hovered = under(event); say(); });
    one.addEventListener("click", (event) => {
      const s = under(event);
      if (s === null) return;
      set(model, { patch: s });
      if (one === pieces) toggle(s);
    });
    one.addEventListener("keydown", (event) => {
      const step = arrow(event), s = model.get("patch");
      if (step) {
        const r = Math.floor(s / columns) + step[0], c = (s % columns) + step[1];
        hovered = null;
        if (r >= 0 && r < rows && c >= 0 && c < columns) set(model, { patch: r * columns + c });
      } else if (one === pieces && ["h", " ", "Enter"].includes(event.key)) {
        event.preventDefault();
        event.stopPropagation();
        toggle(s);
      }
    });
  }
  for (const one of [board, pieces, ...maps]) one.addEventListener("pointerleave", () => { hovered = null; say(); });

  // --- traits that follow from one another, as in Python ---
  const example = (i) => examples.slice(i * H * W, (i + 1) * H * W);
  model.on("change:start", () => {
    if (model.get("start") >= 0) model.set("pixels", new DataView(example(model.get("start")).buffer));
  });
  model.on("change:pixels", () => {
    image = bytes();
    found = null;
    if (model.get("start") >= 0 && !digitSame(image, example(model.get("start")))) model.set("start", -1);
  });
  model.on("change:hidden", () => (found = null));
  const again = drawnFrom(model, ["pixels", "hidden", "channel", "show", "patch"], root, draw);
}

function digitSame(a, b) {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

function digitPercent(p) {
  return `${(100 * p).toFixed(1)} %`;
}

/** Grey values 0 to 255 -> what the model is fed with. */
function digitInput(image, { mean, std }) {
  return Float32Array.from(image, (value) => (value / 255 - mean) / std);
}

/** The list of images to start from, in groups. */
function digitStarts(model, starts) {
  const select = make("select", { "data-trait": "start" }, make("option", { value: -1 }, "my drawing"));
  for (const group of new Set(starts.map((start) => start.group))) {
    const options = starts.flatMap(({ group: own, label }, i) => (own === group ? [make("option", { value: i }, label)] : []));
    select.append(make("optgroup", { label: group }, ...options));
  }
  const show = () => (select.value = model.get("start"));
  select.addEventListener("change", () => set(model, { start: Number(select.value) }));
  model.on("change:start", show);
  show();
  return labelled("Start from", select);
}

/** One stroke of the pen into the image: about 2 pixels wide, its edge soft, as in MNIST. Points are (row, column). */
function digitStroke(image, H, W, [fromY, fromX], [toY, toX], erase) {
  const radius = erase ? 2 : 1.1, dy = toY - fromY, dx = toX - fromX, length = dy * dy + dx * dx || 1;
  for (let y = 0; y < H; y++) for (let x = 0; x < W; x++) {
    const along = Math.max(0, Math.min(1, ((y + 0.5 - fromY) * dy + (x + 0.5 - fromX) * dx) / length));
    const distance = Math.hypot(y + 0.5 - fromY - along * dy, x + 0.5 - fromX - along * dx);
    const ink = Math.round(255 * Math.max(0, Math.min(1, radius + 0.5 - distance))), i = y * W + x;
    image[i] = erase ? Math.min(image[i], 255 - ink) : Math.max(image[i], ink);
  }
}

/** The image moved by whole pixels so that its centre of mass is in the middle, as MNIST's are. */
function digitCentred(image, H, W) {
  let mass = 0, massY = 0, massX = 0;
  image.forEach((value, i) => {
    mass += value;
    massY += value * Math.floor(i / W);
    massX += value * (i % W);
  });
  const down = Math.round((H - 1) / 2 - massY / (mass || 1)), right = Math.round((W - 1) / 2 - massX / (mass || 1));
  return image.map((_, i) => {
    const y = Math.floor(i / W) - down, x = (i % W) - right;
    return y >= 0 && y < H && x >= 0 && x < W ? image[y * W + x] : 0;
  });
}

function digitGrey(image, H, W) {
  const canvas = make("canvas", { width: W, height: H }), context = canvas.getContext("2d");
  const picture = context.createImageData(W, H);
  image.forEach((value, i) => picture.data.set([value, value, value, 255], 4 * i));
  context.putImageData(picture, 0, 0);
  return canvas;
}

function digitHatch(context, x, y, size) {
  context.save();
  context.beginPath();
  context.rect(x, y, size, size);
  context.clip();
  for (const [style, width] of [["#000", 4], ["#f0a030", 2]]) {
    Object.assign(context, { strokeStyle: style, lineWidth: width });
    context.beginPath();
    for (let at = -size; at < size; at += 9) {
      context.moveTo(x + at, y + size);
      context.lineTo(x + at + size, y);
    }
    context.stroke();
  }
  context.restore();
}

function digitOutline(context, x, y, size, style) {
  Object.assign(context, { strokeStyle: style, lineWidth: 2 });
  context.strokeRect(x - 1, y - 1, size + 2, size + 2);
}
