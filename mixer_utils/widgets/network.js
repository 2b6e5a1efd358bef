// One picture of the network with an image flowing through it; each stage opens in place, down to its arithmetic.

import {
  cellOf, choice, colourTable, drawnFrom, frame, hoveredPatch, indexSlider, legend, make, onWidth, pointed, set,
  unpack,
} from "./kit.js";
import { softmax } from "./mixer.js";
import { drawnImage, sameNumbers } from "./board.js";
import { digitPercent, digitStarts } from "./digit.js";
import { flow, isCalm } from "./flow.js";
import { mixing } from "./mixing.js";
import { numbersHere, numbersThere } from "./numbers.js";
import { headPane, meanPane } from "./pane_answer.js";
import { channelsPane } from "./pane_channels.js";
import { imagePane, patchesPane } from "./pane_input.js";
import { stemPane } from "./pane_stem.js";
import { tokensPane } from "./pane_tokens.js";
import { short } from "./squares.js";

const FRAME = 8; // milliseconds of a frame that may go into computing, so that none is missed while one draws
const PANES = {
  image: imagePane,
  patches: patchesPane,
  stem: stemPane,
  "token mixing": tokensPane,
  "channel mixing": channelsPane,
  mean: meanPane,
  head: headPane,
};

const OF_BLOCKS = ["token mixing", "channel mixing"];
const DRAWN_ON = ["image", "patches"];

export function network(model, root) {
  const data = model.get("data");
  const table = colourTable(data.colours, root);
  const numbers = data.mixer ? numbersHere(model) : numbersThere(model, () => again());
  const panes = {}; // those that have been open, by stage
  let mustCompute = true; // the image is another one
  let run = false; // whether the change is to be seen running through the network
  let overview = null; // what the small maps show

  const view = {
    model, root, data, table, numbers,
    grid: data.grid,
    under: { patch: hoveredPatch(model), channel: pointed(), hidden: pointed() },
    whatSquares: () => (model.get("show") === "norm" ? "the norm" : `channel ${model.get("channel")}`),
    written: short,
    named(patch) {
      const [row, column] = cellOf(patch, data.grid[1]);
      return `${patch} (row ${row}, column ${column})`;
    },
    spread: (values) => `from ${short(Math.min(...values))} to ${short(Math.max(...values))}`,
    overview: () => overview,
    say,
    open,
    close,
    legends,
    computeNow,
    mixingInside: (place) => mixing(model, place, data.mixing),
  };
  const [channels, height, width] = data.image_shape;
  const images = {
    channels, height, width, patchSize: data.config.patch_size, examples: unpack(data.examples).values,
  };
  view.drawing = drawnImage(model, images, () => {
    mustCompute = true;
    again();
  });
  const picture = flow(view);

  // --- around the picture ---
  const keyOf = (text) => {
    const key = legend(table);
    return { ...key, element: make("span", { class: "mixer-key" }, make("span", {}, text), key.root) };
  };
  const keys = { tokens: keyOf("tokens"), added: keyOf("added") };
  const channelSlider = indexSlider(model, "channel", "Channel", data.num_channels);
  const controls = [
    ...(data.starts.length ? [digitStarts(model, data.starts)] : []),
    make("button", { type: "button", "data-do": "clear", onclick: () => view.drawing.clear() }, "Clear"),
    choice(model, "show", "Squares", { norm: "norm over channels", channel: "one channel" }),
    channelSlider,
    choice(model, "colours", "Colours", { each: "each map its own", shared: "one scale" }),
  ];
  const parts = frame(root, { controls, panels: [picture.element] });
  root.classList.add("mixer-network");
  parts.caption.before(make("div", { class: "mixer-legends" }, keys.tokens.element, keys.added.element));
  const waiting = make("p", { class: "mixer-waiting", role: "status" });
  parts.caption.before(waiting);
  root.numbers = numbers; // for tests

  /** Says what colours stand for: `tops`, the largest of the tokens and of what is added, or null for each map's own. */
  function legends(tops) {
    const norm = model.get("show") === "norm"; // norms are never negative: the half above zero
    root.classList.toggle("mixer-norms", norm);
    for (const [i, key] of [keys.tokens, keys.added].entries()) {
      key.element.hidden = tops === null && i > 0;
      key.show(tops && tops[i]);
      if (!norm) continue;
      key.root.firstChild.textContent = tops ? "0" : "smallest";
      key.root.lastChild.textContent = tops ? short(tops[i]) : "largest";
    }
    keys.tokens.element.firstChild.textContent = tops ? "tokens" : "each map";
  }

  // --- what is said ---
  let saying = null; // a function that says what is under the pointer
  function say(what) {
    saying = what;
    parts.readout.textContent = what ? `${what()}.` : resting();
  }
  function answered() {
    const probabilities = softmax(overview.logits);
    const best = probabilities.indexOf(Math.max(...probabilities));
    return `The answer: ${data.class_names[best]}, ${digitPercent(probabilities[best])}.`;
  }
  function resting() {
    const patch = view.under.patch.get() ?? model.get("patch");
    const last = overview.blocks.at(-1)[patch];
    return `Patch ${view.named(patch)}: ${view.whatSquares()} is ${short(overview.stem[patch])} after the stem ` +
      `and ${short(last)} after the last block. ${answered()}`;
  }

  // --- stages ---
  function open(stage, block, byPointer = false) {
    const same = model.get("stage") === stage && (block === undefined || model.get("block") === block);
    if (same && !byPointer) {
      close();
      return;
    }
    set(model, block === undefined ? { stage } : { stage, block });
    requestAnimationFrame(() => requestAnimationFrame(() => { // drawn by then
      panes[stage]?.element.scrollIntoView({ block: "nearest", behavior: isCalm() ? "auto" : "smooth" });
    }));
  }
  function close() {
    const stage = model.get("stage");
    set(model, { stage: "" });
    picture.focus(stage, model.get("block"));
  }
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !model.get("stage")) return;
    event.preventDefault();
    event.stopPropagation();
    close();
  });

  let placed = null; // what is open where
  function drawPane(anew = false) {
    const stage = model.get("stage");
    const block = OF_BLOCKS.includes(stage) ? model.get("block") : undefined;
    const pane = stage ? (panes[stage] ||= PANES[stage](view)) : null;
    const place = `${stage} ${block}`;
    if (anew || place !== placed) {
      for (const other of Object.values(panes)) {
        if (other !== pane) other.element.remove();
      }
      picture.put(pane, stage, block);
      placed = place;
    }
    if (!pane) return;
    const found = numbers.part(stage); // nothing for image and patches, and until Python has answered
    if (found || DRAWN_ON.includes(stage)) pane.draw(found);
  }

  // --- the frame ---
  function draw() {
    const drawing = view.drawing.penIsDown();
    if (mustCompute) {
      numbers.start(view.drawing.seen());
      mustCompute = false;
      if (!root.dataset.drawn) while (numbers.busy()) numbers.advance(1000); // the first picture is a whole one
    }
    if (numbers.advance(FRAME)) computed(drawing);
    channelSlider.hidden = model.get("show") !== "channel";
    const fresh = numbers.fresh();
    root.classList.toggle("mixer-stale", !fresh);
    waiting.textContent = fresh ? "" : "Python computes this model's numbers: without a kernel they stay as they were.";
    if (drawing || numbers.busy()) picture.drawInput();
    if (!numbers.busy()) {
      overview = numbers.part("overview");
      picture.draw(overview, run && !drawing);
      run = false;
      drawPane();
    }
    caption();
    say(saying);
    if (numbers.busy()) again();
    root.dataset.busy = String(numbers.busy());
  }

  /** The answer to the image at hand; null where Python computes it. */
  function computeNow() {
    if (!data.mixer) return null;
    numbers.start(view.drawing.seen());
    while (numbers.busy()) numbers.advance(1000);
    return softmax(numbers.part("overview").logits);
  }

  function computed(drawing) {
    const probabilities = softmax(numbers.part("overview").logits);
    if (!drawing && !sameNumbers(model.get("probabilities"), probabilities)) set(model, { probabilities });
  }

  function caption() {
    const what = model.get("show") === "norm" ? "the norm of its token" : `channel ${model.get("channel")} of its token`;
    parts.caption.textContent =
      `Each small map has one square a patch: ${what}. Along the line stand the tokens, below it what token mixing and ` +
      `channel mixing add to them; the line itself is the skip connection. Click a stage to open it. ${data.note}`;
  }

  view.under.patch.on(() => {
    picture.drawBoard();
    if (model.get("stage") === "image") drawPane();
    say(saying);
  });
  model.on("change:start", () => (run = model.get("start") >= 0)); // what is drawn is followed stroke by stroke
  const traits = [
    "stage", "block", "unit", "hidden_unit", "patch", "channel", "class_index", "show", "colours", "tab", "before", "start",
    "pixels", "hidden",
  ];
  picture.layout();
  const again = drawnFrom(model, traits, root, draw);
  onWidth(root, () => {
    picture.layout();
    drawPane(true);
  });
}
