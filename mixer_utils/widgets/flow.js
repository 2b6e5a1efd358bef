// The picture of the network: every stage a box with a small live map, and between them the line along which the tokens
// flow, with a branch to every mixing and back. Boxes stand in rows, as many as the width takes.

import { cellOf, clamp, largest, make, onCanvas, range, set } from "./kit.js";
import { softmax } from "./mixer.js";
import { drawingBoard, hatchSquare, imageCanvas } from "./board.js";
import { digitPercent } from "./digit.js";
import { colouredPixels, paintValues, squares } from "./squares.js";

const RUN = 300; // milliseconds that a change takes from the first stage to the last
const SIDES = [112, 98, 84, 70, 56, 48, 42]; // of a small map, CSS pixels: the largest with which all stands in one row
const GUTTER = 24; // beside a map, where the branch leaves the line and comes back
const SPACES = [16, 34]; // between two boxes of a row, at least and at most
const NARROW = 560; // a width below which a block fills a row

/**
 * `view` is what network.js shares. Returns the element; draw(overview, run), at once or from left to right; drawInput()
 * and drawBoard() for while one draws; put(pane, stage, block), which opens a stage; layout(), when the width has changed;
 * and focus(stage, block).
 */
export function flow(view) {
  const { model, data, grid } = view;
  const [rows, columns] = grid;
  const S = rows * columns;
  const C = data.num_channels;
  const P = data.config.patch_size;
  const [channels, H, W] = data.image_shape;
  const lines = svg("svg", { class: "mixer-lines", "aria-hidden": "true" });
  const named = { role: "group", "aria-label": "The network, from image to answer" };
  const element = make("div", { class: "mixer-flow", ...named }, lines);
  const heads = `mixer-heads-${++pictures}`;
  const withHead = { "marker-end": `url(#${heads})` };
  const boxes = []; // in the order of the flow: {element, button, stage, block}
  const blocks = []; // of each its two halves: {after, branch, box}
  let cell = 4; // the side of a patch in the small maps, CSS pixels
  let tall = 168; // the height of the mean's strip
  let shown = null; // the overview that is drawn

  // --- boxes ---
  function box({ stage, block, title, name, shape }, ...content) {
    const label = `${stageName(stage, block)}, ${OPENS[stage] || "opens its arithmetic"}`;
    const button = make("button", {
      type: "button", "data-stage": stage, "data-block": block, "aria-label": label, "aria-expanded": "false",
      onclick: () => view.open(stage, block),
    }, title || stage);
    const at = make("div", { class: "mixer-stage", "data-box": name || stage }, button, ...content);
    if (shape) at.append(make("small", {}, shape));
    const one = { element: at, button, stage, block };
    boxes.push(one);
    return one;
  }

  function station(name, ...content) {
    const at = make("div", { class: `mixer-station mixer-at-${name}` }, ...content);
    element.append(at);
    return at;
  }

  /** A small map of a number for each token; a click opens the stage at that patch. */
  function smallMap(name, stage, block, said) {
    const map = squares(model, {
      trait: "patch", count: S, columns, name, under: view.under.patch, keys: false,
      label: () => `${said}: ${view.whatSquares()} of every patch${shown ? `, ${view.spread(numbers())}` : ""}`,
      say: (s) => view.say(s === null ? null : () => `${said}, patch ${view.named(s)}: ${view.written(numbers()[s])}`),
      pick: (patch) => {
        set(model, { patch });
        view.open(stage, block, true);
      },
    });
    let values = new Float32Array(S);
    const numbers = () => values;
    const draw = (next, low, scale) => {
      values = next;
      Object.assign(map.canvas.dataset, { low, scale });
      const size = { width: cell, height: cell };
      map.draw(size, paintValues(values.map((value) => value - low), scale, view.table, columns, size));
    };
    return { canvas: map.canvas, draw };
  }

  // --- the input: image over patches ---
  const say = (what) => (s) => view.say(s === null ? null : () => `${what}: patch ${view.named(s)}`);
  const longest = Math.max(H, W);
  const pixel = longest > 84 ? 84 / longest : Math.floor(84 / longest); // of the image, CSS pixels
  const board = drawingBoard(model, view.drawing, { side: pixel, label: "The image: draw on it", lines: false });
  board.canvas.dataset.map = "image";
  board.canvas.tabIndex = -1; // with keys one draws in the pane
  const pieces = squares(model, {
    trait: "patch", count: S, columns, name: "patches", under: view.under.patch, say: say("Patches"), keys: false,
    label: () => `The image cut into ${S} patches`,
    pick: (patch) => {
      set(model, { patch });
      view.open("patches", undefined, true);
    },
  });
  const planes = channels === 1 ? "" : ` × ${channels}`;
  const image = box({ stage: "image", shape: `${H} × ${W}${planes}` }, board.canvas);
  const patches = box({ stage: "patches", shape: `${S} × ${channels * P * P}` }, pieces.canvas);
  const input = station("input", image.element, patches.element);

  // --- stem ---
  const stemMap = smallMap("stem", "stem", undefined, "Tokens after the stem");
  const stem = box({ stage: "stem", shape: `${S} × ${C}` }, stemMap.canvas);
  const stemStation = station("stem", stem.element);

  // --- blocks ---
  function half(l, stage, shape) {
    const said = `of block ${l}`;
    const after = smallMap(`after ${stage} ${l}`, stage, l, `Tokens after ${stage} ${said}`);
    const branch = smallMap(`${stage} ${l}`, stage, l, `What ${stage} ${said} adds`);
    const one = box({ stage, block: l, name: `${stage} ${l}`, title: stage.replace(" ", "\n"), shape }, branch.canvas);
    const at = make("div", { class: "mixer-half" }, make("div", { class: "mixer-after" }, after.canvas), one.element);
    blocks[l].push({ after, branch, box: one });
    return at;
  }
  const blockStations = range(data.num_blocks).map((l) => {
    blocks.push([]);
    return station(
      "block",
      make("span", { class: "mixer-name" }, `block ${l}`),
      half(l, "token mixing", `${S}→\u200b${data.num_units}→\u200b${S}`), // a line may end after an arrow
      half(l, "channel mixing", `${C}→\u200b${data.num_hidden_units}→\u200b${C}`),
    );
  });

  // --- mean and head ---
  const strip = make("canvas", { role: "img", "data-map": "mean", onclick: () => view.open("mean", undefined, true) });
  const mean = box({ stage: "mean", shape: `${C}` }, strip);
  const answers = Math.min(data.num_classes, 10); // as many as have a bar
  const bars = range(answers).map(() => flowBar((chosen) => {
    set(model, { class_index: chosen });
    view.open("head", undefined, true);
  }));
  const head = box({ stage: "head", shape: `${data.num_classes} classes` },
    make("ol", { class: "mixer-votes" }, ...bars.map((bar) => bar.root)));
  const output = station("output", mean.element, head.element);
  const stations = [input, stemStation, ...blockStations, output];

  // --- one of the boxes takes the Tab key, arrows move among them ---
  const rove = (to) => boxes.forEach((one) => (one.button.tabIndex = one === to ? 0 : -1));
  rove(image);
  boxes.forEach((one, at) => {
    one.button.addEventListener("focus", () => rove(one));
    one.button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const ends = { Home: 0, End: boxes.length - 1 };
      if (!step && !(event.key in ends)) return;
      event.preventDefault();
      event.stopPropagation();
      boxes[step ? clamp(at + step, 0, boxes.length - 1) : ends[event.key]].button.focus();
    });
  });

  // --- what is drawn ---
  function drawMean({ mean: values }) {
    const scale = largest(values);
    Object.assign(strip.dataset, { scale });
    strip.setAttribute("aria-label", `The mean over all tokens, ${C} channels, ${view.spread(values)}`);
    onCanvas(strip, 16, tall, (context) => {
      context.imageSmoothingEnabled = false;
      context.drawImage(colouredPixels(values, scale, view.table, 1), 0, 0, strip.width, strip.height);
    });
  }

  function drawHead({ logits }) {
    const probabilities = softmax(logits);
    const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]);
    const kept = order.slice(0, answers);
    if (probabilities.length <= answers) kept.sort((a, b) => a - b);
    kept.forEach((k, i) => {
      const bar = bars[i];
      Object.assign(bar.root.dataset, { class: k, probability: probabilities[k] });
      bar.root.classList.toggle("mixer-best", k === order[0]);
      bar.name.textContent = data.class_names[k];
      bar.line.style.width = `${100 * probabilities[k]}%`;
      bar.number.textContent = digitPercent(probabilities[k]);
    });
  }

  function drawInput() {
    board.draw();
    const given = imageCanvas(view.drawing.seen(), data.image_shape);
    const gap = pixel * P < 3 ? 0 : S > 100 ? 1 : 2;
    const size = pixel * P - gap;
    pieces.draw({ width: size, height: size, gap }, (context, corner) => {
      for (const s of range(S)) {
        const [row, column] = cellOf(s, columns);
        context.drawImage(given, column * P, row * P, P, P, ...corner(s), size, size);
      }
      for (const s of model.get("hidden")) hatchSquare(context, ...corner(s), size);
    });
  }

  /** Every drawing in the order of the flow: each map on its own scale, or tokens on one and what is added on another. */
  function drawings(next) {
    const shared = model.get("colours") === "shared";
    const norm = model.get("show") === "norm";
    const flat = (maps) => Math.max(...maps.map(largest));
    const tokens = flat([next.stem, ...next.between, ...next.blocks]);
    const added = flat([...next.token_mixing, ...next.channel_mixing]);
    view.legends(shared ? [tokens, added] : null);
    const map = (one, values, top) => () => {
      const low = norm && !shared ? Math.min(...values) : 0; // norms are far from 0: what differs is to be seen
      one.draw(values, low, shared ? top : largest(values) - low);
    };
    const found = [[input, drawInput], [stemStation, map(stemMap, next.stem, tokens)]];
    blocks.forEach(([first, second], l) => {
      found.push([first.box.element, map(first.branch, next.token_mixing[l], added)]);
      found.push([first.after.canvas, map(first.after, next.between[l], tokens)]);
      found.push([second.box.element, map(second.branch, next.channel_mixing[l], added)]);
      found.push([second.after.canvas, map(second.after, next.blocks[l], tokens)]);
    });
    found.push([mean.element, () => drawMean(next)], [head.element, () => drawHead(next)]);
    return found;
  }

  let running = 0; // the number of the last run; an older one stops
  /** Draws an overview: at once, or with `run` from left to right, as the change runs through the network. */
  function draw(next, run = false) {
    shown = next;
    const all = drawings(next);
    const mine = ++running;
    element.dataset.running = String(run && !isCalm()); // tests wait for its end
    if (!run || isCalm()) {
      for (const [, one] of all) one();
      return;
    }
    pulse();
    const begun = performance.now();
    let done = 0;
    const step = () => {
      if (mine !== running) return;
      const front = clamp((performance.now() - begun) / RUN, 0, 1) * all.length;
      for (; done < front; done++) {
        const [where, one] = all[done];
        one();
        where.animate?.([{ filter: "brightness(1.25)" }, { filter: "none" }], { duration: 250 });
      }
      if (done < all.length) requestAnimationFrame(step);
      else element.dataset.running = "false";
    };
    step();
  }

  // --- layout ---
  const longer = Math.max(rows, columns);
  const cellFor = (side) => Math.max(1, Math.floor(side / longer));

  /** How wide all stations are side by side, without the spaces between them. */
  function widthAt(side) {
    const map = cellFor(side) * columns + 4;
    const block = 2 * (widthOf(map) + GUTTER) + 14;
    return pixel * W + 4 + Math.max(map, 44) + data.num_blocks * block + 46 + 120 + 22;
  }
  const widthOf = (map) => Math.max(map, 50); // of a half block beside its gutter: what is written below needs some

  /** The side of the small maps and the space between stations: all in one row where that can be. */
  function sizesFor(wide) {
    for (const side of SIDES) {
      const space = Math.floor((wide - widthAt(side)) / stations.length);
      if (space >= SPACES[0]) return [side, Math.min(space, SPACES[1])];
    }
    const narrow = wide < NARROW ? Math.floor((wide - 36) / 2 - GUTTER - 4) : 70;
    return [clamp(narrow, 42, 112), 22];
  }

  function layout() {
    const wide = element.clientWidth;
    if (!wide) return;
    element.toggleAttribute("data-narrow", wide < NARROW);
    const [side, space] = sizesFor(wide);
    cell = cellFor(side);
    const map = cell * rows + 4;
    tall = wide < NARROW ? 168 : Math.max(2 * map + 60, 168);
    element.style.setProperty("--wide", `${widthOf(cell * columns + 4)}px`);
    element.style.setProperty("--gutter", `${GUTTER}px`);
    element.style.setProperty("--space", `${space}px`);
    if (shown) draw(shown);
    drawLines();
  }

  // --- lines ---
  /** Where an element is in the picture. */
  function boxOf(one) {
    const outer = element.getBoundingClientRect();
    const { left, top, width, height } = one.getBoundingClientRect();
    const x = left - outer.left;
    const y = top - outer.top;
    return { left: x, top: y, right: x + width, bottom: y + height, across: x + width / 2, middle: y + height / 2 };
  }

  let trunk = []; // the pieces of the line that tokens flow along
  function drawLines() {
    if (!element.clientWidth) return;
    lines.replaceChildren(arrowHeads(heads));
    const path = (d, name, more = {}) => lines.appendChild(svg("path", { d, class: name, ...more }));
    const imageBox = boxOf(board.canvas);
    const patchBox = boxOf(pieces.canvas);
    const stemBox = boxOf(stemMap.canvas);
    const [upper, lower] = [boxOf(image.element).bottom + 1, boxOf(patches.element).top - 1];
    path(`M${imageBox.across} ${upper} V${lower}`, "mixer-branch", withHead);
    const [fromX, toX] = [patchBox.right + 2, stemBox.left - 4];
    const turn = Math.min(6, (toX - fromX) / 3);
    const corner = `${turn} ${-turn}`;
    path(
      `M${fromX} ${patchBox.middle} q${turn} 0 ${corner} V${stemBox.middle + turn} q0 ${-turn} ${corner} H${toX}`,
      "mixer-branch", withHead,
    );
    trunk = [];
    let from = { x: stemBox.right, y: stemBox.middle };
    blocks.forEach((halves) => {
      const ends = halves.map(({ after }) => boxOf(after.canvas));
      trunk.push(path(joint(from, { x: ends[0].left, y: ends[0].middle }), "mixer-trunk"));
      trunk.push(path(`M${ends[0].right} ${ends[0].middle} H${ends[1].left}`, "mixer-trunk"));
      from = { x: ends[1].right, y: ends[1].middle };
    });
    const meanBox = boxOf(strip);
    const headBox = boxOf(head.element);
    const crosses = (one, y) => one.top < y && one.bottom > y;
    const into = { x: meanBox.left - 3, y: crosses(meanBox, from.y) ? from.y : meanBox.middle };
    trunk.push(path(joint(from, into), "mixer-trunk", withHead));
    trunk.push(path(`M${meanBox.right + 1} ${into.y} H${headBox.left - 3}`, "mixer-trunk", withHead));
    for (const { after, branch } of blocks.flat()) drawBranch(path, boxOf(after.canvas), boxOf(branch.canvas));
  }

  /** Down from the line to a mixing, and back to where what it adds is added. */
  function drawBranch(path, after, branch) {
    const leave = after.left - GUTTER + 4;
    const back = after.left - 10;
    const y = after.middle;
    const below = (after.bottom + branch.top) / 2;
    path(`M${leave} ${y} V${branch.middle - 6} q0 6 6 6 H${branch.left - 3}`, "mixer-branch", withHead);
    const up = `M${branch.left + 12} ${branch.top} V${below + 5} q0 -5 -5 -5 H${back + 5} q-5 0 -5 -5 V${y + 9}`;
    path(up, "mixer-branch", withHead);
    lines.append(svg("circle", { cx: back, cy: y, r: 6.5, class: "mixer-plus" }));
    path(`M${back - 3.5} ${y} h7 M${back} ${y - 3.5} v7`, "mixer-plus");
  }

  /** A line to the right; to a place in a row below, around between the rows. */
  function joint(from, to) {
    if (Math.abs(from.y - to.y) < 2 && to.x > from.x) return `M${from.x} ${from.y} H${to.x}`;
    const all = stations.map(boxOf);
    const row = all.filter((one) => one.top < from.y && one.bottom > from.y);
    const right = Math.min(Math.max(...row.map((one) => one.right)) + 9, element.clientWidth - 2);
    const next = all.filter((one) => one.top < to.y && one.bottom > to.y);
    const left = Math.max(Math.min(...next.map((one) => one.left)) - 9, 2);
    const between = Math.max(...row.map((one) => one.bottom)) + 9;
    return `M${from.x} ${from.y} H${right - 6} q6 0 6 6 V${between - 6} q0 6 -6 6 H${left + 6} q-6 0 -6 6 ` +
      `V${to.y - 6} q0 6 6 6 H${to.x}`;
  }

  /** A light that runs along the line. */
  function pulse() {
    const lengths = trunk.map((one) => one.getTotalLength());
    const whole = lengths.reduce((a, b) => a + b, 0) || 1;
    let before = 0;
    trunk.forEach((one, i) => {
      const light = lines.appendChild(svg("path", { d: one.getAttribute("d"), class: "mixer-pulse" }));
      const length = lengths[i];
      light.style.strokeDasharray = `${Math.min(40, length)} ${2 * length + 80}`;
      const frames = [{ strokeDashoffset: 40 }, { strokeDashoffset: -length }];
      const timing = { delay: (RUN * before) / whole, duration: (RUN * length) / whole + 40, fill: "backwards" };
      light.animate(frames, timing).onfinish = () => light.remove();
      before += length;
    });
  }

  // --- the open stage ---
  /** Puts a pane below the row of its stage; null takes it away. */
  function put(pane, stage, block) {
    const open = boxes.find((one) => one.stage === stage && (one.block === undefined || one.block === block));
    for (const one of boxes) {
      one.button.setAttribute("aria-expanded", String(one === open));
      one.element.classList.toggle("mixer-open", one === open);
    }
    if (open) {
      const own = stations.findIndex((one) => one.contains(open.element));
      const top = (one) => Math.round(boxOf(one).top);
      const focused = pane.element.contains(document.activeElement) ? document.activeElement : null;
      pane.element.remove(); // rows are then as they are without it
      let last = own;
      while (last + 1 < stations.length && Math.abs(top(stations[last + 1]) - top(stations[own])) < 30) last++;
      stations[last].after(pane.element);
      focused?.focus({ preventScroll: true });
      pane.name(stageName(stage, block));
      const at = boxOf(open.element);
      const point = clamp(at.left + 24 - boxOf(pane.element).left, 16, element.clientWidth - 16);
      pane.element.style.setProperty("--point", `${point}px`);
    }
    drawLines();
  }

  const focus = (stage, block) => {
    boxes.find((one) => one.stage === stage && (one.block === undefined || one.block === block))?.button.focus();
  };
  new ResizeObserver(drawLines).observe(element); // a pane may have grown
  return { element, draw, layout, put, drawInput, drawBoard: board.draw, focus };
}

let pictures = 0; // on this page
const OPENS = { image: "opens a board to draw on", patches: "opens them enlarged" };
/** Whether the reader wants nothing to move. */
export function isCalm() {
  return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
}


/** "Token mixing of block 1", "Stem". */
function stageName(stage, block) {
  const name = stage[0].toUpperCase() + stage.slice(1);
  return block === undefined ? name : `${name} of block ${block}`;
}

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function arrowHeads(id) {
  const marker = svg("marker", {
    id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto",
    markerUnits: "userSpaceOnUse",
  });
  marker.append(svg("path", { d: "M0 0.5 L7 4 L0 7.5 z", class: "mixer-arrow" }));
  const defs = svg("defs", {});
  defs.append(marker);
  return defs;
}

/** A class, its probability as a line, and as a number. */
function flowBar(pick) {
  const name = make("span");
  const line = make("i");
  const number = make("span");
  const root = make("li", { onclick: () => pick(Number(root.dataset.class)) }, name, make("b", {}, line), number);
  return { root, name, line, number };
}
