// View 3: an image to draw on, the model's forward pass at every stroke, and the answer.

import { drawingBoard, drawnImage, hatchSquare, imageCanvas, outlineSquare, sameNumbers } from "./board.js";
import {
  arrow, cellOf, choice, claim, clamp, colourTable, css, drawnFrom, frame, hoveredPatch, indexSlider, labelled, largest,
  legend, make, mapCanvas, neighbour, onCanvas, panel, patchIn, place, pointer, range, segment, set, signed, theme,
  unpack,
} from "./kit.js";
import { Mixer } from "./mixer.js";
import { answerInWords, photoControls } from "./photo.js";

export function digit(model, root) {
  const data = model.get("data");
  const mixer = new Mixer(data.mixer);
  const { height: H, width: W } = mixer;
  const { S, C, grid } = mixer;
  const P = mixer.config.patch_size;
  const [rows, columns] = grid;
  const table = colourTable(data.colours, root);
  const above = new Uint32Array(256); // norms are never negative: the half above zero
  const examples = data.starts.length ? unpack(data.examples).values : new Uint8Array(0);
  const stages = ["stem", ...range(mixer.config.num_blocks).map((block) => `block ${block}`)];
  const answers = Math.min(data.class_names.length, 10); // as many as have a bar

  let found = null; // what the model makes of the image; null when it has to be computed anew
  const hovered = hoveredPatch(model);
  const sizes = { channels: 1, height: H, width: W, patchSize: P, examples };
  const drawing = drawnImage(model, sizes, () => {
    found = null;
    photo.follow(drawing.pixels());
    again();
  });
  const photo = photoControls(root, {
    imageShape: data.mixer.image_shape, pictures: data.pictures,
    onDigit: (pixels) => {
      drawing.commit(pixels);
      found ||= compute();
      return answerInWords(found.probabilities, data.class_names);
    },
  });

  // --- controls and panels ---
  const button = (text, onclick) => make("button", { type: "button", onclick }, text);
  const hint = (text) => make("p", { class: "mixer-keys" }, text);
  const channel = indexSlider(model, "channel", "Channel", C);
  const controls = [
    choice(model, "tool", "Tool", { draw: "draw", erase: "erase", "hide patches": "hide patches" }),
    button("Clear", drawing.clear),
    button("Centre", drawing.centre),
    button("Show all patches", () => set(model, { hidden: [] })),
    ...photo.buttons,
    ...(data.starts.length ? [digitStarts(model, data.starts)] : []),
    choice(model, "show", "Tokens", { norm: "norm over channels", channel: "one channel" }),
    channel,
  ];
  const longer = Math.max(H, W);
  const board = drawingBoard(model, drawing, { side: Math.max(1, Math.floor(224 / longer)) });
  const pieces = mapCanvas("The patches as the stem gets them: click one to hide it");
  const maps = stages.map((name, i) => mapCanvas(`Tokens after ${name}`, { "data-stage": i }));
  const keyOf = { channel: legend(table), norm: legend(above) };
  const bars = range(answers).map(() => digitBar());
  const answer = make("p", { class: "mixer-answer", "aria-live": "polite" });
  const panels = [
    panel("The image", board.canvas,
      hint("Keys: arrows move the pen, Space puts it down or lifts it, x erases, h hides the patch. " +
        "A picture of yours can be dropped here, or pasted.")),
    panel("The patches, as the stem gets them", pieces,
      hint("Click one, or arrows and Space, to hide it and to show it again.")),
    panel("The answer", answer, make("ol", { class: "mixer-bars" }, ...bars.map((bar) => bar.root))),
    panel("After every block, a number for each token",
      make("div", { class: "mixer-stages" }, ...maps.map((map, i) => panel(stages[i], map))),
      keyOf.norm.root, keyOf.channel.root),
  ];
  const parts = frame(root, { controls, panels: [photo.panel, ...panels] });
  root.mixer = mixer; // for tests

  // --- from the image to the answer ---
  function compute() {
    const seen = drawing.seen();
    const { stem, blocks, probabilities } = mixer.forward(digitInput(seen, data));
    return { seen, tokens: [stem, ...blocks], probabilities };
  }

  /** A number for each token: its norm, or the channel that is chosen. */
  function numbersOf(tokens) {
    if (model.get("show") === "norm") return range(S).map((s) => Math.hypot(...segment(tokens, s, C)));
    const chosen = model.get("channel");
    return range(S).map((s) => tokens[s * C + chosen]);
  }

  // --- what is drawn: patches of `size` CSS pixels, a gap between them and a margin around all ---
  const small = Math.max(1, Math.floor(140 / longer)); // of a pixel in the patches
  const cell = clamp(Math.floor(96 / columns), 3, 24); // of a token in the maps
  const inPieces = { size: P * small, gap: 4, margin: 4 };
  const inMap = { size: cell, gap: 0, margin: 2 };
  Object.assign(pieces.dataset, { side: small, gap: inPieces.gap });

  /** Left upper corner of a patch. */
  function corner(s, { size, gap, margin }) {
    const [row, column] = cellOf(s, columns);
    return [margin + column * (size + gap), margin + row * (size + gap)];
  }

  function draw() {
    found ||= compute();
    channel.hidden = model.get("show") !== "channel";
    board.draw();
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

  function drawPieces() {
    const given = imageCanvas(found.seen, [1, H, W]);
    const hidden = new Set(model.get("hidden"));
    const { size, gap } = inPieces;
    onCanvas(pieces, W * small + (columns + 1) * gap, H * small + (rows + 1) * gap, (context, ratio) => {
      context.imageSmoothingEnabled = false;
      context.scale(ratio, ratio);
      for (let s = 0; s < S; s++) {
        const [row, column] = cellOf(s, columns);
        const [x, y] = corner(s, inPieces);
        context.drawImage(given, column * P, row * P, P, P, x, y, size, size);
        if (hidden.has(s)) hatchSquare(context, x, y, size);
        if (s === model.get("patch")) outlineSquare(context, x, y, size, theme().mark);
      }
      outlineHovered(context, inPieces);
    });
  }

  function outlineHovered(context, layout) {
    const patch = hovered.get();
    if (patch === null) return;
    outlineSquare(context, ...corner(patch, layout), layout.size, theme().accent);
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
        outlineSquare(context, ...corner(model.get("patch"), inMap), cell, theme().ink);
        outlineHovered(context, inMap);
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
    if (!drawing.penIsDown() && !sameNumbers(model.get("probabilities"), probabilities)) set(model, { probabilities });
  }

  function say(grids) {
    const s = hovered.get() ?? model.get("patch");
    const [row, column] = cellOf(s, columns);
    const norm = model.get("show") === "norm";
    const written = (value) => (norm ? value.toPrecision(3) : signed(value));
    const numbers = grids.map((values, i) => `${stages[i]} ${written(values[s])}`).join(", ");
    const what = norm ? "norm" : `channel ${model.get("channel")}`;
    const hidden = model.get("hidden").includes(s) ? " (hidden)" : "";
    const patch = `Patch ${s}, row ${row}, column ${column}${hidden}`;
    parts.readout.textContent = `${patch}: ${what} after ${numbers}.`;
  }

  // --- choosing a patch among the patches and the tokens ---
  for (const canvas of [pieces, ...maps]) {
    const { size, gap, margin } = canvas === pieces ? inPieces : inMap;
    const under = (event) => {
      const [column, row] = pointer(event, canvas).map((at) => Math.floor((at - margin) / (size + gap)));
      return patchIn(grid, row, column);
    };
    canvas.addEventListener("pointermove", (event) => hovered.set(under(event)));
    canvas.addEventListener("click", (event) => {
      const patch = under(event);
      if (patch === null) return;
      set(model, { patch });
      if (canvas === pieces) drawing.toggle(patch);
    });
    canvas.addEventListener("keydown", (event) => {
      const step = arrow(event);
      if (step) {
        const patch = neighbour(grid, model.get("patch"), step[0], step[1]);
        hovered.set(null);
        if (patch !== null) set(model, { patch });
      } else if (canvas === pieces && ["h", " ", "Enter"].includes(event.key)) {
        claim(event);
        drawing.toggle(model.get("patch"));
      }
    });
    canvas.addEventListener("pointerleave", () => hovered.set(null));
  }

  const again = drawnFrom(model, ["pixels", "hidden", "channel", "show", "patch"], root, draw);
  hovered.on(again);
}

export function digitPercent(probability) {
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
export function digitStarts(model, starts) {
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
