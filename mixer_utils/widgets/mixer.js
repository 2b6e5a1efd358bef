// The Mixer's forward pass for one image, after mixer_utils/model.py, and the influence of patch on patch after
// mixer_utils/mixing.py. Matrices are flat Float32Arrays in row order; tokens are S x C.

import { cellOf, range, unpack } from "./kit.js";

export class Mixer {
  /** spec: {config, image_shape, tensors: {name: packed array}}, the names as in the model's state_dict. */
  constructor(spec) {
    this.config = spec.config;
    [this.channels, this.height, this.width] = spec.image_shape;
    this.weights = {};
    for (const [name, packed] of Object.entries(spec.tensors)) this.weights[name] = unpack(packed).values;
    const P = spec.config.patch_size;
    this.grid = [this.height / P, this.width / P];
    this.S = this.grid[0] * this.grid[1];
    this.C = spec.config.hidden_dim;
  }

  /** Room for every stage of one forward pass, to be filled again and again; names as in `steps`. */
  stages() {
    const { S, C, config } = this;
    const { num_blocks, tokens_mlp_dim, channels_mlp_dim, num_classes } = config;
    const each = (size) => range(num_blocks).map(() => new Float32Array(size));
    const blocks = each(S * C);
    const stem = new Float32Array(S * C);
    return {
      stem,
      entering: [stem, ...blocks.slice(0, -1)], // what enters each block
      normed: each(S * C), // what its token mixing is given
      turned: new Float32Array(S * C), // the same, channels first: token mixing is a Linear over the patches
      units: each(C * tokens_mlp_dim), // its hidden units after GELU, C x D_S
      tokenMixing: each(S * C), // what it adds
      between: each(S * C), // the tokens then
      normedBetween: each(S * C), // what channel mixing is given
      hidden: each(S * channels_mlp_dim), // its hidden units after GELU, S x D_C
      channelMixing: each(S * C), // what it adds
      blocks, // the tokens after each block
      last: new Float32Array(S * C), // after the last LayerNorm
      mean: new Float32Array(C),
      logits: new Float32Array(num_classes),
      probabilities: new Array(num_classes).fill(1 / num_classes),
    };
  }

  /** Normalised pixels (in_channels, H, W) -> every stage by name, in arrays of its own or in those that are given. */
  forward(image, stages = this.stages()) {
    for (const _ of this.steps(image, stages));
    return stages;
  }

  /** The forward pass in steps of a few milliseconds: whoever draws between them never lets a frame wait. */
  *steps(image, stages) {
    const { S, C, weights, config } = this;
    const affine = (name) => [weights[`${name}.weight`], weights[`${name}.bias`]];
    linear(this.patches(image), S, ...affine("stem.proj"), stages.stem);
    yield;
    for (let l = 0; l < config.num_blocks; l++) {
      const block = `blocks.${l}`;
      layerNorm(stages.entering[l], S, C, ...affine(`${block}.norm_0`), stages.normed[l]);
      turn(stages.normed[l], S, C, stages.turned);
      linear(stages.turned, C, ...affine(`${block}.token_mixing.dense_0`), stages.units[l]);
      gelu(stages.units[l], config.gelu);
      linear(stages.units[l], C, ...affine(`${block}.token_mixing.dense_1`), stages.turned);
      turn(stages.turned, C, S, stages.tokenMixing[l]);
      add(stages.entering[l], stages.tokenMixing[l], stages.between[l]);
      yield;
      layerNorm(stages.between[l], S, C, ...affine(`${block}.norm_1`), stages.normedBetween[l]);
      linear(stages.normedBetween[l], S, ...affine(`${block}.channel_mixing.dense_0`), stages.hidden[l]);
      gelu(stages.hidden[l], config.gelu);
      yield;
      linear(stages.hidden[l], S, ...affine(`${block}.channel_mixing.dense_1`), stages.channelMixing[l]);
      add(stages.between[l], stages.channelMixing[l], stages.blocks[l]);
      yield;
    }
    layerNorm(stages.blocks.at(-1), S, C, ...affine("pre_head_layer_norm"), stages.last);
    stages.mean.fill(0);
    for (let i = 0; i < S * C; i++) stages.mean[i % C] += stages.last[i] / S;
    linear(stages.mean, 1, ...affine("head"), stages.logits);
    stages.probabilities = softmax(stages.logits);
  }

  /** The image cut into patches, a row of in_channels * P * P numbers each, patches in row order. */
  patches(image) {
    const P = this.config.patch_size;
    const found = new Float32Array(image.length);
    let at = 0;
    for (let s = 0; s < this.S; s++) {
      const [row, column] = cellOf(s, this.grid[1]);
      for (let channel = 0; channel < this.channels; channel++) {
        for (let y = 0; y < P; y++) {
          const start = (channel * this.height + row * P + y) * this.width + column * P;
          found.set(image.subarray(start, start + P), at);
          at += P;
        }
      }
    }
    return found;
  }

  /** S x S for every block: the derivative of what token mixing adds to patch i by patch j, averaged over channels. */
  influence({ entering, normed }) {
    const { S, C, weights, config } = this;
    const D = config.tokens_mlp_dim;
    return entering.map((x, l) => {
      const w = (name) => weights[`blocks.${l}.${name}`];
      const reads = w("token_mixing.dense_0.weight");
      const writes = w("token_mixing.dense_1.weight");
      const slopes = layerNormSlopes(x, S, C, w("norm_0.weight"));
      const units = left(reads, w("token_mixing.dense_0.bias"), normed[l], C);
      for (let i = 0; i < units.length; i++) units[i] = geluSlope(units[i], config.gelu);
      const gained = new Float32Array(D * S); // mean over channels of GELU's slope times LayerNorm's, times W_1
      for (let h = 0; h < D; h++) {
        for (let s = 0; s < S; s++) {
          gained[h * S + s] = (dot(units, h * C, slopes, s * C, C) / C) * reads[h * S + s];
        }
      }
      return left(writes, new Float32Array(S), gained, S);
    });
  }
}

/**
 * x (N x in) times W transposed (W: out x in), plus bias (out): a Linear over the last dimension, N x out.
 *
 * Two rows of x meet four rows of W at a time: each number that is loaded takes part in several products, and the sums
 * stay in registers. Where rows are missing at an end, the last one is taken again.
 */
function linear(x, N, W, bias, found = new Float32Array(N * bias.length)) {
  const out = bias.length;
  const size = W.length / out;
  for (let n = 0; n < N; n += 2) {
    const second = Math.min(n + 1, N - 1);
    for (let o = 0; o < out; o += 4) {
      const p = Math.min(o + 1, out - 1);
      const q = Math.min(o + 2, out - 1);
      const r = Math.min(o + 3, out - 1);
      eightSums(x, n * size, second * size, W, o * size, p * size, q * size, r * size, size);
      const top = n * out;
      const bottom = second * out;
      found[top + o] = SUMS[0] + bias[o];
      found[top + p] = SUMS[1] + bias[p];
      found[top + q] = SUMS[2] + bias[q];
      found[top + r] = SUMS[3] + bias[r];
      found[bottom + o] = SUMS[4] + bias[o];
      found[bottom + p] = SUMS[5] + bias[p];
      found[bottom + q] = SUMS[6] + bias[q];
      found[bottom + r] = SUMS[7] + bias[r];
    }
  }
  return found;
}

const SUMS = new Float64Array(8);

/** Into SUMS: the products of `size` numbers from two places in x and from four in W, added up. */
function eightSums(x, top, bottom, W, o, p, q, r, size) {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let e = 0;
  let f = 0;
  let g = 0;
  let h = 0;
  for (let i = 0; i < size; i++) {
    const upper = x[top + i];
    const lower = x[bottom + i];
    let w = W[o + i];
    a += upper * w;
    e += lower * w;
    w = W[p + i];
    b += upper * w;
    f += lower * w;
    w = W[q + i];
    c += upper * w;
    g += lower * w;
    w = W[r + i];
    d += upper * w;
    h += lower * w;
  }
  SUMS[0] = a;
  SUMS[1] = b;
  SUMS[2] = c;
  SUMS[3] = d;
  SUMS[4] = e;
  SUMS[5] = f;
  SUMS[6] = g;
  SUMS[7] = h;
}

/** Products of `size` numbers, from a place in x and from one in y, added up. */
function dot(x, fromX, y, fromY, size) {
  let total = 0;
  for (let i = 0; i < size; i++) total += x[fromX + i] * y[fromY + i];
  return total;
}

/** Rows x columns -> columns x rows. */
function turn(x, rows, columns, found = new Float32Array(x.length)) {
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) found[c * rows + r] = x[r * columns + c];
  }
  return found;
}

/** W (out x in) times x (in x C), plus bias (out): a Linear over the first dimension, weights on the left, out x C. */
export function left(W, bias, x, C) {
  const size = W.length / bias.length;
  return turn(linear(turn(x, size, C), C, W, bias), C, bias.length);
}

const EPS = 1e-6; // of every LayerNorm

function moments(x, s, C) {
  let mean = 0;
  let variance = 0;
  for (let i = s * C; i < (s + 1) * C; i++) mean += x[i];
  mean /= C;
  for (let i = s * C; i < (s + 1) * C; i++) {
    const difference = x[i] - mean;
    variance += difference * difference;
  }
  return [mean, Math.sqrt(variance / C + EPS)];
}

function layerNorm(x, S, C, weight, bias, found) {
  for (let s = 0; s < S; s++) {
    const [mean, deviation] = moments(x, s, C);
    for (let c = 0; c < C; c++) found[s * C + c] = ((x[s * C + c] - mean) / deviation) * weight[c] + bias[c];
  }
}

/** The derivative of every normalised number by its own input. */
function layerNormSlopes(x, S, C, weight) {
  const found = new Float32Array(S * C);
  for (let s = 0; s < S; s++) {
    const [mean, deviation] = moments(x, s, C);
    for (let c = 0; c < C; c++) {
      const standard = (x[s * C + c] - mean) / deviation;
      found[s * C + c] = (weight[c] / deviation) * (1 - (1 + standard ** 2) / C);
    }
  }
  return found;
}

const ROOT = Math.sqrt(2 / Math.PI);

/** The tanh in GELU's approximate form. By exp, which takes a third of the time of Math.tanh and of a power. */
function geluTanh(x) {
  return 1 - 2 / (1 + Math.exp(2 * ROOT * (x + 0.044715 * x * x * x)));
}

export function geluOf(x, form) {
  if (form === "tanh") return 0.5 * x * (1 + geluTanh(x));
  return 0.5 * x * (1 + erf(x / Math.SQRT2));
}

function geluSlope(x, form) {
  if (form === "tanh") {
    const t = geluTanh(x);
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * ROOT * (1 + 3 * 0.044715 * x * x);
  }
  const bell = Math.exp((-x * x) / 2);
  return 0.5 * (1 + erf(x / Math.SQRT2)) + (x * bell) / Math.sqrt(2 * Math.PI);
}

const TABLES = {}; // of GELU by its form
const REACH = 8; // beyond it GELU(x) is x, or 0
const STEPS = 512; // of one in x

/** In place, by a table: off by at most 5e-7, and five times as fast as Math.tanh. */
export function gelu(x, form) {
  TABLES[form] ||= Float32Array.from(range(2 * REACH * STEPS + 1), (i) => geluOf(i / STEPS - REACH, form));
  const table = TABLES[form];
  for (let i = 0; i < x.length; i++) {
    const place = (x[i] + REACH) * STEPS;
    if (place >= 2 * REACH * STEPS) continue;
    const at = Math.max(0, Math.floor(place));
    x[i] = place > 0 ? table[at] + (place - at) * (table[at + 1] - table[at]) : 0;
  }
  return x;
}

/** Abramowitz and Stegun, formula 7.1.26: off by at most 1.5e-7. */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const cubic = 1.421413741 + t * (-1.453152027 + t * 1.061405429);
  const tail = t * (0.254829592 + t * (-0.284496736 + t * cubic));
  return Math.sign(x) * (1 - tail * Math.exp(-x * x));
}

function add(a, b, found) {
  for (let i = 0; i < found.length; i++) found[i] = a[i] + b[i];
}

export function sum(a, b) {
  return a.map((value, i) => value + b[i]);
}

export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (z) => Math.exp(z - most));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / total);
}
