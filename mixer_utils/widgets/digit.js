// View 3: an image to draw on, the model's forward pass at every stroke, and the answer.

import {
  BLACK, WHITE, arrow, cellOf, choice, claim, clamp, colourTable, css, drawnFrom, frame, indexSlider, labelled, largest,
  legend, make, mapCanvas, neighbour, onCanvas, panel, patchIn, place, pointer, range, segment, set, signed,
  theme, unpack,
} from "./kit.js";
import { Mixer } from "./mixer.js";

export function digit(model, root) {
  const data = model.get("data");
  const mixer = new Mixer(data.mixer);
  const { height: H, width: W } = mixer;
  const { S, C } = mixer;
  const P = mixer.config.patch_size;
  const [rows, columns] = mixer.grid;
  const table = colourTable(data.colours, root);
  const above = new Uint32Array(256); // norms are never negative: the half above zero
  const examples = data.starts.length ? unpack(data.examples).values : new Uint8Array(0);
  const stages = ["stem", ...range(mixer.config.num_blocks).map((block) => `block ${block}`)];
  const answers = Math.min(data.class_names.length, 10); // as many as have a bar

  let image = sentImage(); // the trait follows when the pen is lifted
  let found = null; // what the model makes of the image; null when it has to be computed anew
  let pen = [H / 2, W / 2]; // row and column
  let stroke = null; // where the pen is, while it is down
  let keys = false; // whether keys move the pen, which is then shown
  let hovered = null; // a patch

  function sentImage() {
    const { buffer, byteOffset, byteLength } = model.get("pixels");
    return new Uint8Array(buffer, byteOffset, byteLength).slice();
  }

  // --- controls and panels ---
  const button = (text, onclick) => make("button", { type: "button", onclick }, text);
  const hint = (text) => make("p", { class: "mixer-keys" }, text);
  const channel = indexSlider(model, "channel", "Channel", C);
  const controls = [
    choice(model, "tool", "Tool", { draw: "draw", erase: "erase", "hide patches": "hide patches" }),
    button("Clear", () => commit(new Uint8Array(H * W))),
    button("Centre", () => commit(digitCentred(image, H, W))),
    button("Show all patches", () => set(model, { hidden: [] })),
    ...(data.starts.length ? [digitStarts(model, data.starts)] : []),
    choice(model, "show", "Tokens", { norm: "norm over channels", channel: "one channel" }),
    channel,
  ];
  const board = mapCanvas("The image: draw here", { class: "mixer-board" });
  const pieces = mapCanvas("The patches as the stem gets them: click one to hide it");
  const maps = stages.map((name, i) => mapCanvas(`Tokens after ${name}`, { "data-stage": i }));
  const keyOf = { channel: legend(table), norm: legend(above) };
  const bars = range(answers).map(() => digitBar());
  const answer = make("p", { class: "mixer-answer", "aria-live": "polite" });
  const panels = [
    panel("The image", board,
      hint("Keys: arrows move the pen, Space puts it down or lifts it, x erases, h hides the patch.")),
    panel("The patches, as the stem gets them", pieces,
      hint("Click one, or arrows and Space, to hide it and to show it again.")),
    panel("The answer", answer, make("ol", { class: "mixer-bars" }, ...bars.map((bar) => bar.root))),
    panel("After every block, a number for each token",
      make("div", { class: "mixer-stages" }, ...maps.map((map, i) => panel(stages[i], map))),
      keyOf.norm.root, keyOf.channel.root),
  ];
  const parts = frame(root, { controls, panels });
  root.mixer = mixer; // for tests

  // --- from the image to the answer ---
  /** The patch of a pixel. */
  const patchAt = (y, x) => Math.floor(y / P) * columns + Math.floor(x / P);

  function compute() {
    const hidden = new Set(model.get("hidden"));
    const seen = image.map((value, i) => (hidden.has(patchAt(...cellOf(i, W))) ? 0 : value));
    const { stem, blocks, probabilities } = mixer.forward(digitInput(seen, data));
    return { seen, hidden, tokens: [stem, ...blocks], probabilities };
  }

  /** A number for each token: its norm, or the channel that is chosen. */
  function numbersOf(tokens) {
    if (model.get("show") === "norm") return range(S).map((s) => Math.hypot(...segment(tokens, s, C)));
    const chosen = model.get("channel");
    return range(S).map((s) => tokens[s * C + chosen]);
  }

  // --- what is drawn: patches of `size` CSS pixels, a gap between them and a margin around all ---
  const longer = Math.max(H, W);
  const side = Math.max(1, Math.floor(224 / longer)); // of a pixel on the board
  const small = Math.max(1, Math.floor(140 / longer)); // of a pixel in the patches
  const cell = clamp(Math.floor(96 / columns), 3, 24); // of a token in the maps
  const onBoard = { size: P * side, gap: 0, margin: 0 };
  const inPieces = { size: P * small, gap: 4, margin: 4 };
  const inMap = { size: cell, gap: 0, margin: 2 };
  Object.assign(board.dataset, { side });
  Object.assign(pieces.dataset, { side: small, gap: inPieces.gap });

  /** Left upper corner of a patch. */
  function corner(s, { size, gap, margin }) {
    const [row, column] = cellOf(s, columns);
    return [margin + column * (size + gap), margin + row * (size + gap)];
  }

  function draw() {
    found ||= compute();
    channel.hidden = model.get("show") !== "channel";
    drawBoard();
    drawPieces();
    const grids = found.tokens.map(numbersOf);
    drawMaps(grids);
    showAnswer(found.probabilities);
    const number = model.get("show") === "norm" ? "the norm" : `channel ${model.get("channel")}`;
    parts.caption.textContent =
      `The image is cut into ${S} patches; hidden ones (hatched) reach the model black. ` +
      `Each map has one square a patch: ${number} of its token after the stem and after every block, ` +
      `all on one scale. ${data.note}`;
    say(grids);
  }

  function drawBoard() {
    const drawn = digitGrey(image, H, W);
    onCanvas(board, W * side, H * side, (context, ratio) => {
      context.imageSmoothingEnabled = false;
      context.drawImage(drawn, 0, 0, board.width, board.height);
      context.scale(ratio, ratio);
      for (const s of found.hidden) digitHatch(context, ...corner(s, onBoard), onBoard.size);
      context.strokeStyle = theme().accent;
      for (let r = 1; r < rows; r++) context.strokeRect(-1, r * P * side, W * side + 2, H * side);
      for (let c = 1; c < columns; c++) context.strokeRect(c * P * side, -1, W * side, H * side + 2);
      if (keys) drawPen(context);
    });
  }

  function drawPen(context) {
    const radius = side * (stroke ? 0.8 : 1.4);
    for (const [strokeStyle, lineWidth] of [[BLACK, 4], [stroke ? theme().mark : WHITE, 2]]) {
      Object.assign(context, { strokeStyle, lineWidth });
      context.beginPath();
      context.arc(pen[1] * side, pen[0] * side, radius, 0, 7);
      context.stroke();
    }
  }

  function drawPieces() {
    const given = digitGrey(found.seen, H, W);
    const { size, gap } = inPieces;
    onCanvas(pieces, W * small + (columns + 1) * gap, H * small + (rows + 1) * gap, (context, ratio) => {
      context.imageSmoothingEnabled = false;
      context.scale(ratio, ratio);
      for (let s = 0; s < S; s++) {
        const [row, column] = cellOf(s, columns);
        const [x, y] = corner(s, inPieces);
        context.drawImage(given, column * P, row * P, P, P, x, y, size, size);
        if (found.hidden.has(s)) digitHatch(context, x, y, size);
        if (s === model.get("patch")) digitOutline(context, x, y, size, theme().mark);
      }
    });
  }

  function drawMaps(grids) {
    const top = largest(grids.flat());
    above.set(table.map((_, i) => table[128 + (i >> 1)]));
    for (const [name, key] of Object.entries(keyOf)) key.root.hidden = name !== model.get("show");
    keyOf.channel.show(top);
    keyOf.norm.show(top);
    keyOf.norm.root.firstChild.textContent = "0";
    keyOf.norm.root.lastChild.textContent = top.toPrecision(3);
    maps.forEach((map, i) => {
      Object.assign(map.dataset, { side: cell, scale: top });
      onCanvas(map, columns * cell + 4, rows * cell + 4, (context, ratio) => {
        context.scale(ratio, ratio);
        grids[i].forEach((value, s) => {
          context.fillStyle = css(table[place(value, top)]);
          context.fillRect(...corner(s, inMap), cell, cell);
        });
        digitOutline(context, ...corner(model.get("patch"), inMap), cell, theme().ink);
      });
    });
  }

  function showAnswer(probabilities) {
    const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]);
    const best = order[0];
    const kept = order.slice(0, answers);
    if (probabilities.length <= answers) kept.sort((a, b) => a - b);
    kept.forEach((k, i) => {
      const bar = bars[i];
      Object.assign(bar.root.dataset, { class: k, probability: probabilities[k] });
      bar.root.classList.toggle("mixer-best", k === best);
      bar.name.textContent = data.class_names[k];
      bar.line.style.width = `${100 * probabilities[k]}%`;
      bar.number.textContent = digitPercent(probabilities[k]);
    });
    const text = `${data.class_names[best]}, ${digitPercent(probabilities[best])}`;
    if (answer.textContent !== text) answer.textContent = text;
    if (!stroke && !digitSame(model.get("probabilities"), probabilities)) set(model, { probabilities });
  }

  function say(grids = found?.tokens.map(numbersOf)) {
    if (!grids) return; // the next frame says it
    const s = hovered ?? model.get("patch");
    const [row, column] = cellOf(s, columns);
    const norm = model.get("show") === "norm";
    const written = (value) => (norm ? value.toPrecision(3) : signed(value));
    const numbers = grids.map((values, i) => `${stages[i]} ${written(values[s])}`).join(", ");
    const what = norm ? "norm" : `channel ${model.get("channel")}`;
    const hidden = model.get("hidden").includes(s) ? " (hidden)" : "";
    const patch = `Patch ${s}, row ${row}, column ${column}${hidden}`;
    parts.readout.textContent = `${patch}: ${what} after ${numbers}.`;
  }

  function hover(patch) {
    hovered = patch;
    say();
  }

  // --- drawing ---
  function commit(pixels) {
    set(model, { pixels: new DataView(pixels.slice().buffer) });
  }
  function toggle(s) {
    const hidden = model.get("hidden");
    const rest = hidden.filter((other) => other !== s);
    set(model, { hidden: hidden.includes(s) ? rest : [...hidden, s].sort((a, b) => a - b) });
  }
  function paint(to, erase = model.get("tool") === "erase") {
    digitStroke(image, H, W, stroke || to, to, erase);
    found = null;
    again();
  }
  function drawTo(to) {
    paint(to);
    stroke = to;
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
    if (model.get("tool") === "hide patches") {
      if (inside(to)) toggle(patchAt(...to));
      return;
    }
    lift();
    board.setPointerCapture(event.pointerId);
    drawTo(to);
  });
  board.addEventListener("pointermove", (event) => {
    const to = where(event);
    hovered = inside(to) ? patchAt(...to) : null;
    if (!stroke || !board.hasPointerCapture(event.pointerId)) {
      say();
      return;
    }
    const between = event.getCoalescedEvents?.() ?? [];
    const points = between.length ? between.map(where) : [to];
    for (const point of points) drawTo(point);
  });
  for (const end of ["pointerup", "pointercancel"]) board.addEventListener(end, lift);

  function movePen([down, right, shift]) {
    const far = shift ? P : 1;
    const y = clamp(Math.floor(pen[0]) + 0.5 + far * down, 0.5, H - 0.5);
    const x = clamp(Math.floor(pen[1]) + 0.5 + far * right, 0.5, W - 0.5);
    const to = [y, x];
    if (stroke) drawTo(to);
    pen = to;
    hovered = patchAt(y, x);
  }
  /** What x, h, Space and Enter do where the pen is. */
  function usePen(key) {
    if (key === "h" || (key !== "x" && model.get("tool") === "hide patches")) {
      toggle(patchAt(...pen));
    } else if (key === "x") {
      paint(pen, true);
      if (!stroke) commit(image);
    } else if (stroke) {
      lift();
    } else {
      drawTo(pen);
    }
  }
  board.addEventListener("keydown", (event) => {
    const step = arrow(event);
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (!step && ![" ", "enter", "x", "h"].includes(key)) return;
    claim(event);
    keys = true;
    if (step) movePen(step);
    else usePen(key);
    again();
  });
  board.addEventListener("focus", () => {
    keys = board.matches(":focus-visible");
    again();
  });
  board.addEventListener("blur", () => {
    if (keys) hovered = null;
    keys = false;
    lift();
    again();
  });

  // --- choosing a patch among the patches and the tokens ---
  for (const canvas of [pieces, ...maps]) {
    const { size, gap, margin } = canvas === pieces ? inPieces : inMap;
    const under = (event) => {
      const [column, row] = pointer(event, canvas).map((at) => Math.floor((at - margin) / (size + gap)));
      return patchIn(mixer.grid, row, column);
    };
    canvas.addEventListener("pointermove", (event) => hover(under(event)));
    canvas.addEventListener("click", (event) => {
      const patch = under(event);
      if (patch === null) return;
      set(model, { patch });
      if (canvas === pieces) toggle(patch);
    });
    canvas.addEventListener("keydown", (event) => {
      const step = arrow(event);
      if (step) {
        const patch = neighbour(mixer.grid, model.get("patch"), step[0], step[1]);
        hovered = null;
        if (patch !== null) set(model, { patch });
      } else if (canvas === pieces && ["h", " ", "Enter"].includes(event.key)) {
        claim(event);
        toggle(model.get("patch"));
      }
    });
  }
  for (const canvas of [board, pieces, ...maps]) canvas.addEventListener("pointerleave", () => hover(null));

  // --- traits that follow from one another, as in Python ---
  const example = (i) => examples.slice(i * H * W, (i + 1) * H * W);
  model.on("change:start", () => {
    const start = model.get("start");
    if (start >= 0) model.set("pixels", new DataView(example(start).buffer));
  });
  model.on("change:pixels", () => {
    image = sentImage();
    found = null;
    const start = model.get("start");
    if (start >= 0 && !digitSame(image, example(start))) model.set("start", -1);
  });
  model.on("change:hidden", () => (found = null));
  const again = drawnFrom(model, ["pixels", "hidden", "channel", "show", "patch"], root, draw);
}

function digitSame(a, b) {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

function digitPercent(probability) {
  return `${(100 * probability).toFixed(1)} %`;
}

/** Grey values 0 to 255 -> what the model is fed with. */
function digitInput(image, { mean, std }) {
  return Float32Array.from(image, (value) => (value / 255 - mean) / std);
}

/** A row of the answer: a class, its probability as a line, and as a number. */
function digitBar() {
  const name = make("span");
  const line = make("i");
  const number = make("span");
  const root = make("li", {}, name, make("b", {}, line), number);
  return { root, name, line, number };
}

/** The list of images to start from, in groups. */
function digitStarts(model, starts) {
  const select = make("select", { "data-trait": "start" }, make("option", { value: -1 }, "my drawing"));
  for (const group of new Set(starts.map((start) => start.group))) {
    const own = range(starts.length).filter((i) => starts[i].group === group);
    const options = own.map((i) => make("option", { value: i }, starts[i].label));
    select.append(make("optgroup", { label: group }, ...options));
  }
  const show = () => (select.value = model.get("start"));
  select.addEventListener("change", () => set(model, { start: Number(select.value) }));
  model.on("change:start", show);
  show();
  return labelled("Start from", select);
}

/** One stroke of the pen, from (row, column) to another: about 2 pixels wide, its edge soft, as in MNIST. */
function digitStroke(image, H, W, [fromY, fromX], [toY, toX], erase) {
  const radius = erase ? 2 : 1.1;
  const dy = toY - fromY;
  const dx = toX - fromX;
  const squaredLength = dy * dy + dx * dx || 1;
  for (let y = 0; y < H; y++) {
    for (let x = 0; x < W; x++) {
      const down = y + 0.5 - fromY; // from where the stroke begins to the middle of the pixel
      const right = x + 0.5 - fromX;
      const along = clamp((down * dy + right * dx) / squaredLength, 0, 1); // the stroke's nearest point
      const distance = Math.hypot(down - along * dy, right - along * dx);
      const ink = Math.round(255 * clamp(radius + 0.5 - distance, 0, 1));
      const i = y * W + x;
      image[i] = erase ? Math.min(image[i], 255 - ink) : Math.max(image[i], ink);
    }
  }
}

/** The image moved by whole pixels so that its centre of mass is in the middle, as MNIST's are. */
function digitCentred(image, H, W) {
  let mass = 0;
  let massY = 0;
  let massX = 0;
  image.forEach((value, i) => {
    const [y, x] = cellOf(i, W);
    mass += value;
    massY += value * y;
    massX += value * x;
  });
  const down = Math.round((H - 1) / 2 - massY / (mass || 1));
  const right = Math.round((W - 1) / 2 - massX / (mass || 1));
  return image.map((_, i) => {
    const from = neighbour([H, W], i, -down, -right);
    return from === null ? 0 : image[from];
  });
}

function digitGrey(image, H, W) {
  const canvas = make("canvas", { width: W, height: H });
  const context = canvas.getContext("2d");
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
  for (const [strokeStyle, lineWidth] of [[BLACK, 4], [theme().mark, 2]]) {
    Object.assign(context, { strokeStyle, lineWidth });
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
