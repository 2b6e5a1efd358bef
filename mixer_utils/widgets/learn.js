// View 6: a small Mixer trained from random weights while one watches. The arithmetic is trainer.js, in a worker.

import {
  choice, colourTable, drawnFrom, fillMap, frame, indexSlider, labelled, largest, legend, make, onCanvas, onWidth,
  panel, range, segment, set, theme, tick, unpack,
} from "./kit.js";
import { grouped } from "./training.js";

const SPOKEN_EVERY = 5000; // milliseconds between two sentences for those who listen to the view
const SHOWN_MISTAKES = 10;
const PLACES = { // of the training, as the worker names them
  gpu: "on the GPU",
  core: "on one core of the processor",
  failed: "on one core of the processor, as the GPU failed",
};

export function learn(model, root) {
  const data = model.get("data");
  const [, H, W] = data.image_shape;
  const table = colourTable(data.colours, root);
  const key = legend(table);
  const heldOut = levelsAndLabels(data.held_out);
  const names = data.class_names;
  const chosen = firstOfEach(heldOut.labels, names.length, 2); // the images whose answers are shown
  let worker = null;
  let run = { number: 0, running: false };

  // --- controls and panels ---
  const toggle = make("button", { type: "button", "data-control": "train", onclick: trainOrPause });
  const again = make("button", { type: "button", "data-control": "again", onclick: () => begin(true) }, "Start again");
  const sizes = Object.fromEntries(data.patch_sizes.map((size) => [size, patchText(size)]));
  const rates = Object.fromEntries(data.rates.map((rate) => [rate, String(rate)]));
  const controls = [
    make("div", { class: "mixer-time" }, toggle, again),
    choice(model, "patch_size", "Patches", sizes),
    choice(model, "learning_rate", "Learning rate", rates),
    seedField(model),
    indexSlider(model, "block", "Block", data.num_blocks),
    tick(model, "before", "before training"),
    key.root,
  ];
  const maps = make("canvas", { role: "img", "data-part": "maps" });
  const mapsTitle = make("span");
  const accuracy = make("canvas", { role: "img", "data-part": "accuracy" });
  const losses = make("canvas", { role: "img", "data-part": "losses" });
  const big = make("p", { class: "mixer-big", "data-part": "share" });
  const pace = make("p", { class: "mixer-pace", "data-part": "pace" });
  const answers = answerList();
  const mistakes = answerList();
  const mistakesTitle = make("span");
  const answersPanel = panel("Held-out images and what the network calls them", answers);
  const mistakesPanel = panel(mistakesTitle, mistakes);
  const lines = make("div", { class: "mixer-learn" },
    panel(`accuracy on ${grouped(heldOut.labels.length)} held-out images`, big, accuracy),
    panel("loss, batch by batch", losses),
    pace);
  const panels = [panel(mapsTitle, maps), lines, answersPanel, mistakesPanel];
  const parts = frame(root, { controls, panels });

  function patchText(size) {
    const slow = size < 4 ? ", slow without a GPU" : "";
    return `${size} × ${size} pixels (${H / size} × ${W / size} patches${slow})`;
  }

  // --- the run ---
  /** A new run, from random weights; it waits for the button, or goes on at once. */
  function begin(running) {
    if (!worker) worker = startWorker();
    const config = data.configs[model.get("patch_size")];
    const settings = { ...data.settings, learning_rate: model.get("learning_rate"), seed: model.get("seed") };
    run = { number: run.number + 1, config, settings, running, done: 0, losses: [], evaluations: [] };
    worker.postMessage({ running: false });
    worker.postMessage({ run: run.number, config, settings, running });
    for (const part of [answersPanel, mistakesPanel]) part.hidden = true;
    showButtons();
  }

  function startWorker() {
    const address = URL.createObjectURL(new Blob([data.worker], { type: "text/javascript" }));
    const started = new Worker(address);
    started.onmessage = ({ data: news }) => {
      URL.revokeObjectURL(address);
      hear(news);
    };
    started.onerror = () => {
      run.running = false;
      showButtons();
      speak("The training could not be run in this browser: open the page in another one.");
    };
    const { image_shape, mean, std } = data;
    const train = { levels: unpack(data.train.levels).values, labels: unpack(data.train.labels).values };
    const held = { levels: unpack(data.held_out.levels).values, labels: heldOut.labels };
    started.postMessage({ data: { image_shape, mean, std, train, held_out: held } });
    return started;
  }

  /** What the worker tells a few times a second. */
  function hear(news) {
    if (news.run !== run.number) return; // of a run that was given up
    const { losses: more, evaluation, images, milliseconds } = news;
    const told = ["shapes", "values", "done", "steps", "stepsPerEpoch", "worked", "place"];
    for (const name of told) run[name] = news[name];
    run.first ||= news.values;
    run.losses.push(...more);
    if (images) run.pace = (1000 * images) / milliseconds;
    if (evaluation) run.evaluations.push(evaluation);
    if (run.done === run.steps) run.running = false;
    if (evaluation) showAnswers(evaluation);
    if (run.running && !root.isConnected) go(false); // nobody sees it any longer
    showButtons();
    tell();
    redraw();
  }

  function go(running) {
    run.running = running;
    worker.postMessage({ running });
    showButtons();
    tell();
  }

  function trainOrPause() {
    if (run.done === run.steps) begin(true);
    else go(!run.running);
  }

  function stop() {
    worker.terminate();
    run.running = false;
  }

  function showButtons() {
    const first = run.done === 0 ? "▶ Train" : "▶ Go on";
    const still = run.done > 0 && run.done === run.steps ? "▶ Train anew" : first;
    toggle.textContent = run.running ? "❚❚ Pause" : still;
  }

  // --- what is drawn ---
  const latest = () => run.evaluations[run.evaluations.length - 1];

  /** A weight's place in all `values`, and its shape. */
  function find(name) {
    let start = 0;
    for (const [other, shape] of run.shapes) {
      const end = start + shape.reduce((a, b) => a * b);
      if (other === name) return { start, end, shape };
      start = end;
    }
  }

  function draw() {
    if (!run.values || !root.clientWidth) return; // not heard of yet, or not on the page
    const wide = root.clientWidth - 30;
    const beside = wide > 700;
    const room = beside ? Math.round(0.52 * wide) : wide;
    drawMaps(room);
    drawCurves(beside ? wide - room - 24 : wide);
    const share = latest() ? percentOf(latest().accuracy) : "–";
    big.textContent = share;
    const seconds = (run.worked / 1000).toFixed(0);
    const epoch = Math.floor(run.done / run.stepsPerEpoch);
    pace.textContent =
      `step ${grouped(run.done)} of ${grouped(run.steps)} · epoch ${epoch} · ${seconds} s` +
      (run.pace ? ` · ${grouped(Math.round(run.pace))} images a second` : "") +
      (run.place ? ` · ${PLACES[run.place]}` : "");
    const { tokens_mlp_dim, hidden_dim, num_blocks } = run.config;
    parts.caption.textContent =
      `A Mixer with ${num_blocks} blocks, ${hidden_dim} channels and ${grouped(run.values.length)} weights, trained ` +
      `here, in this browser, on ${grouped(unpackedLength(data.train.labels))} images of ${data.name}. ` +
      `Each map is one of the ${tokens_mlp_dim} hidden units of the block's token mixing: what it reads from every ` +
      "patch, red above zero, blue below. Units keep their places. " +
      "Another patch size, learning rate or seed begins a new run.";
  }

  function drawMaps(room) {
    const { start, end, shape } = find(`blocks.${model.get("block")}.token_mixing.dense_0.weight`);
    const [units, S] = shape;
    const columns = W / run.config.patch_size;
    const rows = S / columns;
    const now = run.values.subarray(start, end);
    const first = run.first.subarray(start, end);
    const shown = model.get("before") ? first : now;
    const scale = Math.max(largest(now), largest(first)); // one for both, so that they can be compared
    const ratio = window.devicePixelRatio || 1;
    const gap = Math.round(6 * ratio);
    const across = Math.min(units, 6);
    const fitting = Math.floor(((room * ratio + gap) / across - gap) / columns);
    const side = Math.max(1, Math.min(fitting, Math.round((72 / columns) * ratio))); // of a square
    const width = across * (columns * side + gap) - gap;
    const height = Math.ceil(units / across) * (rows * side + gap) - gap;
    onCanvas(maps, width / ratio, height / ratio, (context) => {
      const image = context.createImageData(maps.width, maps.height);
      const pixels = new Uint32Array(image.data.buffer);
      for (const unit of range(units)) {
        const x = (unit % across) * (columns * side + gap);
        const y = Math.floor(unit / across) * (rows * side + gap);
        fillMap(pixels, maps.width, x, y, side, rows, columns, segment(shown, unit, S), scale, table);
      }
      context.putImageData(image, 0, 0);
    });
    Object.assign(maps.dataset, { across, side: side / ratio, gap: gap / ratio });
    key.show(scale);
    const when = model.get("before") ? "before training" : `after step ${grouped(run.done)}`;
    mapsTitle.textContent = `what the ${units} units of block ${model.get("block")} read, ${when}`;
    maps.setAttribute("aria-label", `Maps of ${mapsTitle.textContent}`);
  }

  function drawCurves(width) {
    const shares = run.evaluations.map(({ step, accuracy: share }) => [step, 100 * share]);
    const smooth = smoothed(run.losses, 20).map((loss, i) => [i, loss]);
    const raw = run.losses.map((loss, i) => [i, loss]);
    const most = Math.max(1, Math.ceil(Math.max(0, ...run.losses.slice(0, 20))));
    const axis = { width, steps: run.steps };
    drawLearningCurve(accuracy, { ...axis, height: 150, top: 100, unit: " %", points: shares, dots: true });
    drawLearningCurve(losses, { ...axis, height: 130, top: most, unit: "", points: smooth, behind: raw });
    const said = shares.length ? `${percentOf(latest().accuracy)} after step ${latest().step}` : "not measured yet";
    accuracy.setAttribute("aria-label", `Accuracy along the run: ${said}`);
    const last = smooth.length ? `${smooth[smooth.length - 1][1].toFixed(2)} at step ${run.done}` : "not measured yet";
    losses.setAttribute("aria-label", `Loss along the run: ${last}`);
  }

  // --- answers ---
  function showAnswers({ step, answers: called }) {
    if (step === 0) return; // nothing is learnt yet
    for (const part of [answersPanel, mistakesPanel]) part.hidden = false;
    const wrong = range(called.length).filter((i) => called[i] !== heldOut.labels[i]);
    answers.replaceChildren(...chosen.map((i) => answerOf(i, called[i])));
    mistakes.replaceChildren(...wrong.slice(0, SHOWN_MISTAKES).map((i) => answerOf(i, called[i])));
    mistakesTitle.textContent =
      `${grouped(wrong.length)} of ${grouped(called.length)} are called wrongly` +
      (wrong.length > SHOWN_MISTAKES ? `; the first ${SHOWN_MISTAKES} of them` : "");
  }

  /** An image and what it is called; a mistake is marked and says what it is. */
  function answerOf(i, called) {
    const right = called === heldOut.labels[i];
    const canvas = make("canvas", { width: W, height: H, "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    const picture = context.createImageData(W, H);
    segment(heldOut.levels, i, H * W).forEach((level, at) => {
      picture.data.set([17 * level, 17 * level, 17 * level, 255], 4 * at);
    });
    context.putImageData(picture, 0, 0);
    const text = right ? `✓ ${names[called]}` : `✗ ${names[called]}, is ${names[heldOut.labels[i]]}`;
    return make("li", { class: right ? "" : "mixer-wrong", "data-image": i }, canvas, make("span", {}, text));
  }

  // --- what is spoken ---
  let spoken = -Infinity; // when
  /** The state in a sentence: at once where the run starts or stops, else every few seconds. */
  function tell() {
    if (run.running && run.done > 0 && performance.now() - spoken < SPOKEN_EVERY) return;
    if (!latest()) {
      if (!run.running) speak("The weights are random so far: press Train, and watch the maps form.");
      return;
    }
    const { step, accuracy: share } = latest();
    const still = run.done === run.steps ? "Trained" : "Paused";
    speak(`${run.running ? "Training" : still}: ${percentOf(share)} of the held-out images are called rightly after ` +
      `step ${grouped(step)} of ${grouped(run.steps)}.`);
  }
  function speak(sentence) {
    spoken = performance.now();
    if (parts.readout.textContent !== sentence) parts.readout.textContent = sentence;
  }

  /** The weights as Mixer takes them (mixer.js), and what its images are normalised by; null before any training. */
  root.trained = () => {
    if (!run.done) return null;
    const tensors = {};
    for (const [name] of run.shapes) {
      const { start, end, shape } = find(name);
      const bytes = new Uint8Array(run.values.slice(start, end).buffer);
      tensors[name] = { dtype: "float32", shape, bytes };
    }
    const { image_shape, mean, std } = data;
    return { config: run.config, image_shape, mean, std, tensors };
  };

  for (const name of ["patch_size", "learning_rate", "seed"]) model.on(`change:${name}`, () => begin(run.running));
  let redraw = () => {};
  begin(false);
  redraw = drawnFrom(model, ["block", "before"], root, draw);
  onWidth(root, redraw);
  return stop;
}

/** A field for the whole number that decides the run. */
function seedField(model) {
  const input = make("input", { type: "number", min: 0, max: 2 ** 31 - 1, step: 1, "data-trait": "seed" });
  const show = () => (input.value = model.get("seed"));
  input.addEventListener("change", () => {
    if (input.checkValidity() && input.value !== "") set(model, { seed: Number(input.value) });
    show();
  });
  model.on("change:seed", show);
  show();
  return labelled("Seed", input);
}

function answerList() {
  return make("ol", { class: "mixer-answers" });
}

/** Levels of grey, one to a place, and labels. */
function levelsAndLabels({ levels, labels }) {
  const bytes = unpack(levels).values;
  const found = new Uint8Array(2 * bytes.length);
  bytes.forEach((pair, i) => found.set([pair >> 4, pair & 15], 2 * i));
  return { levels: found, labels: unpack(labels).values };
}

/** The places of the first `count` images of each class. */
function firstOfEach(labels, classes, count) {
  const places = range(classes).map((k) => range(labels.length).filter((i) => labels[i] === k).slice(0, count));
  return places.flat();
}

function unpackedLength({ shape }) {
  return shape[0];
}

/** Means over the last `size` values, of fewer at the start. */
function smoothed(values, size) {
  let total = 0;
  return values.map((value, i) => {
    total += value - (i >= size ? values[i - size] : 0);
    return total / Math.min(i + 1, size);
  });
}

function percentOf(share) {
  return `${(100 * share).toFixed(1)} %`;
}

/** Points [step, value] as a line over the whole run, values from 0 to `top`; `behind` is a thin line under it. */
function drawLearningCurve(canvas, { width, height, steps, top, unit, points, behind = [], dots }) {
  const { ink, line, edge: behindColour, accent } = theme();
  const edge = { left: 46, right: 12, above: 8, below: 36 };
  const low = height - edge.below;
  const x = (step) => edge.left + (step / steps) * (width - edge.left - edge.right);
  const y = (value) => low - (value / top) * (low - edge.above);
  onCanvas(canvas, width, height, (pen, ratio) => {
    pen.scale(ratio, ratio);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const value of [0, top / 2, top]) {
      pen.fillStyle = line;
      pen.fillRect(edge.left, y(value) - 0.5, width - edge.left - edge.right, 1);
      pen.fillStyle = ink;
      pen.fillText(`${value}${unit}`, edge.left - 6, y(value));
    }
    pen.textBaseline = "top";
    for (const [step, align] of [[0, "left"], [steps, "right"]]) {
      pen.textAlign = align;
      pen.fillText(grouped(step), x(step), low + 6);
    }
    pen.textAlign = "center";
    pen.fillText("step", (edge.left + width - edge.right) / 2, height - 14);
    const trace = (curve, colour, thick) => {
      pen.beginPath();
      for (const [step, value] of curve) pen.lineTo(x(step), y(Math.min(value, top)));
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.stroke();
    };
    trace(behind, behindColour, 0.5);
    trace(points, accent, 2);
    pen.fillStyle = accent;
    for (const [step, value] of dots ? points : []) {
      pen.beginPath();
      pen.arc(x(step), y(value), 3, 0, 7);
      pen.fill();
    }
  });
}
