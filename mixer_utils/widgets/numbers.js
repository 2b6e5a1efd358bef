// Every number that the picture of the network shows: computed here from the model's weights, or in Python where the
// model is too large to send. Both give the same parts by the same names; network.py documents their shapes.

import { range, segment, unpack } from "./kit.js";
import { geluOf, Mixer } from "./mixer.js";

/** Of a model whose weights were sent. `start(image)` takes an image, and `advance(milliseconds)` goes on with it. */
export function numbersHere(model) {
  const data = model.get("data");
  const mixer = new Mixer(data.mixer);
  const { S, C, weights } = mixer;
  const { num_units: units, num_hidden_units: hiddenUnits } = data;
  let stages = mixer.stages(); // what is shown
  let next = mixer.stages(); // what is being computed
  let steps = null; // the forward pass under way
  let waiting = null; // the image that is to be computed after it
  let influences = null;
  const of = (block, name) => weights[`blocks.${block}.${name}`];

  function start(image) {
    waiting = image;
  }

  /** Computes for so long; whether there is something new to be shown. */
  function advance(milliseconds) {
    const end = performance.now() + milliseconds;
    while (steps || waiting) {
      if (!steps) {
        steps = mixer.steps(normalised(waiting, data), next);
        waiting = null;
      }
      if (steps.next().done) {
        [stages, next] = [next, stages];
        steps = null;
        influences = null;
        return true;
      }
      if (performance.now() > end) return false;
    }
    return false;
  }

  /** A number for each token: its norm, or the chosen channel. */
  function squaresOf(tokens) {
    const found = new Float32Array(S);
    const channel = model.get("channel");
    const norm = model.get("show") === "norm";
    for (let s = 0; s < S; s++) {
      if (!norm) found[s] = tokens[s * C + channel];
      else found[s] = Math.sqrt(segment(tokens, s, C).reduce((sum, value) => sum + value * value, 0));
    }
    return found;
  }
  const channelOf = (tokens) => Float32Array.from(range(S), (s) => tokens[s * C + model.get("channel")]);
  const columnOf = (matrix, column, width) => {
    return Float32Array.from(range(matrix.length / width), (row) => matrix[row * width + column]);
  };

  const parts = {
    overview: () => ({
      stem: squaresOf(stages.stem),
      token_mixing: stages.tokenMixing.map(squaresOf),
      between: stages.between.map(squaresOf),
      channel_mixing: stages.channelMixing.map(squaresOf),
      blocks: stages.blocks.map(squaresOf),
      mean: stages.mean,
      logits: stages.logits,
    }),
    stem: () => ({
      filter: segment(weights["stem.proj.weight"], model.get("channel"), weights["stem.proj.weight"].length / C),
      bias: segment(weights["stem.proj.bias"], model.get("channel"), 1),
      values: channelOf(stages.stem),
    }),
    "token mixing": () => {
      const block = model.get("block");
      const found = {
        values: channelOf(stages.normed[block]),
        added: channelOf(stages.tokenMixing[block]),
      };
      if (model.get("tab") !== "patches") return found; // where the influence of patch on patch is not seen
      influences ||= mixer.influence(stages);
      const patch = model.get("patch");
      return { ...found, moves: segment(influences[block], patch, S), moved: columnOf(influences[block], patch, S) };
    },
    "channel mixing": () => {
      const block = model.get("block");
      const unit = model.get("hidden_unit");
      const patch = model.get("patch");
      return {
        normed: segment(stages.normedBetween[block], patch, C),
        hidden: segment(stages.hidden[block], patch, hiddenUnits),
        added: segment(stages.channelMixing[block], patch, C),
        reads: segment(of(block, "channel_mixing.dense_0.weight"), unit, C),
        bias: segment(of(block, "channel_mixing.dense_0.bias"), unit, 1),
        writes: columnOf(of(block, "channel_mixing.dense_1.weight"), unit, hiddenUnits),
        over: columnOf(stages.hidden[block], unit, hiddenUnits),
      };
    },
    mean: () => ({ values: channelOf(stages.last) }),
    head: () => {
      const chosen = model.get("class_index");
      const weight = segment(weights["head.weight"], chosen, C);
      const vote = (s) => segment(stages.last, s, C).reduce((sum, value, c) => sum + value * weight[c], 0) / S;
      return { votes: Float32Array.from(range(S), vote), bias: segment(weights["head.bias"], chosen, 1) };
    },
  };
  return {
    start,
    advance,
    busy: () => steps !== null || waiting !== null,
    part: (name) => parts[name]?.(),
    fresh: () => true,
    reads: (block, unit) => segment(of(block, "token_mixing.dense_0.weight"), unit, S),
    writes: (block, unit) => columnOf(of(block, "token_mixing.dense_1.weight"), unit, units),
    filters: weights["stem.proj.weight"],
  };
}

/** Of a model that Python runs: what it last answered, and whether that is an answer to what is chosen now. */
export function numbersThere(model, heard) {
  const data = model.get("data");
  const maps = unpack(data.mixing.sides[0].maps).values;
  const { num_units: units, num_patches: S } = data;
  let parts = {};
  let current = false; // whether the image is still the one that was answered

  function take() {
    parts = {};
    current = true;
    for (const [name, part] of Object.entries(model.get("computed"))) {
      if (name !== "of") parts[name] = unpackPart(part);
    }
  }
  take();
  model.on("change:computed", () => {
    take();
    heard();
  });
  for (const name of ["pixels", "hidden"]) model.on(`change:${name}`, () => (current = false));

  const map = (block, unit, writes) => segment(maps, (block * 2 + writes) * units + unit, S);
  return {
    start: () => {},
    advance: () => false,
    busy: () => false,
    part: (name) => parts[name],
    fresh: () => {
      const asked = Object.entries(model.get("computed").of);
      return current && asked.every(([name, value]) => model.get(name) === value);
    },
    reads: (block, unit) => map(block, unit, 0),
    writes: (block, unit) => map(block, unit, 1),
    filters: data.filters ? unpack(data.filters).values : null,
  };
}

/** Arrays by name; those of two dimensions as lists of rows. */
function unpackPart(part) {
  return Object.fromEntries(Object.entries(part).map(([name, packed]) => {
    const { shape, values } = unpack(packed);
    const rows = shape.length === 2 && range(shape[0]).map((row) => segment(values, row, shape[1]));
    return [name, rows || values];
  }));
}

/** What the chosen unit of token mixing computes in one channel: arrays over the patches, and numbers between them. */
export function unitArithmetic(values, weights, column, bias, form) {
  const products = values.map((value, s) => value * weights[s]);
  const total = products.reduce((a, b) => a + b, 0);
  const active = geluOf(total + bias, form);
  return { values, weights, products, total, bias, active, column, writes: column.map((weight) => active * weight) };
}

/** Light from 0 to 255, planes of channels -> what the model is fed with. */
export function normalised(image, { image_shape, mean, std }) {
  const area = image_shape[1] * image_shape[2];
  return Float32Array.from(image, (light, i) => {
    const channel = Math.floor(i / area) % mean.length;
    return (light / 255 - mean[channel]) / std[channel];
  });
}
