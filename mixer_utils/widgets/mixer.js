// The Mixer's forward pass for one image, after mixer_utils/model.py, and the influence of patch on patch after
// mixer_utils/mixing.py. Matrices are flat Float32Arrays in row order; tokens are S x C.

import { cellOf, unpack } from "./kit.js";

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

  /** Normalised pixels (in_channels, H, W) -> every stage by name: stem, blocks, and what enters token mixing. */
  forward(image) {
    const { S, C, weights } = this;
    const form = this.config.gelu;
    const blocks = [];
    const entering = [];
    const normed = [];
    const stem = linear(this.patches(image), S, weights["stem.proj.weight"], weights["stem.proj.bias"]);
    let x = stem;
    for (let l = 0; l < this.config.num_blocks; l++) {
      const w = (name) => weights[`blocks.${l}.${name}`];
      const first = layerNorm(x, S, C, w("norm_0.weight"), w("norm_0.bias"));
      entering.push(x);
      normed.push(first);
      const units = left(w("token_mixing.dense_0.weight"), w("token_mixing.dense_0.bias"), first, C);
      gelu(units, form);
      x = sum(x, left(w("token_mixing.dense_1.weight"), w("token_mixing.dense_1.bias"), units, C));
      const second = layerNorm(x, S, C, w("norm_1.weight"), w("norm_1.bias"));
      const hidden = linear(second, S, w("channel_mixing.dense_0.weight"), w("channel_mixing.dense_0.bias"));
      gelu(hidden, form);
      x = sum(x, linear(hidden, S, w("channel_mixing.dense_1.weight"), w("channel_mixing.dense_1.bias")));
      blocks.push(x);
    }
    const norm = (name) => weights[`pre_head_layer_norm.${name}`];
    const last = layerNorm(x, S, C, norm("weight"), norm("bias"));
    const mean = new Float32Array(C);
    for (let s = 0; s < S; s++) {
      for (let c = 0; c < C; c++) mean[c] += last[s * C + c] / S;
    }
    const logits = linear(mean, 1, weights["head.weight"], weights["head.bias"]);
    return { stem, blocks, entering, normed, logits, probabilities: softmax(logits) };
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

/** x (N x in) times W transposed (W: out x in), plus bias (out): a Linear over the last dimension, N x out. */
function linear(x, N, W, bias) {
  const out = bias.length;
  const size = W.length / out;
  const found = new Float32Array(N * out);
  for (let n = 0; n < N; n++) {
    for (let o = 0; o < out; o++) found[n * out + o] = dot(x, n * size, W, o * size, size) + bias[o];
  }
  return found;
}

/** Products of `size` numbers, from a place in x and from one in W, added up: four sums keep the processor busy. */
function dot(x, fromX, W, fromW, size) {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let i = 0;
  for (; i + 3 < size; i += 4) {
    a += x[fromX + i] * W[fromW + i];
    b += x[fromX + i + 1] * W[fromW + i + 1];
    c += x[fromX + i + 2] * W[fromW + i + 2];
    d += x[fromX + i + 3] * W[fromW + i + 3];
  }
  for (; i < size; i++) a += x[fromX + i] * W[fromW + i];
  return a + b + c + d;
}

/**
 * W (out x in) times x (in x C), plus bias (out): a Linear over the first dimension, weights on the left, out x C. Four
 * rows of x at a time, so that a row of the result is fetched and stored a quarter as often.
 */
export function left(W, bias, x, C) {
  const out = bias.length;
  const size = W.length / out;
  const found = new Float32Array(out * C);
  for (let o = 0; o < out; o++) {
    const row = found.subarray(o * C, (o + 1) * C).fill(bias[o]);
    let i = 0;
    for (; i + 3 < size; i += 4) {
      const [w0, w1, w2, w3] = W.subarray(o * size + i, o * size + i + 4);
      const [x0, x1, x2, x3] = [i * C, (i + 1) * C, (i + 2) * C, (i + 3) * C];
      for (let c = 0; c < C; c++) row[c] += w0 * x[x0 + c] + w1 * x[x1 + c] + w2 * x[x2 + c] + w3 * x[x3 + c];
    }
    for (; i < size; i++) {
      const w = W[o * size + i];
      for (let c = 0; c < C; c++) row[c] += w * x[i * C + c];
    }
  }
  return found;
}

const EPS = 1e-6; // of every LayerNorm

function moments(x, s, C) {
  let mean = 0;
  let variance = 0;
  for (let c = 0; c < C; c++) mean += x[s * C + c];
  mean /= C;
  for (let c = 0; c < C; c++) {
    const difference = x[s * C + c] - mean;
    variance += difference * difference;
  }
  return [mean, Math.sqrt(variance / C + EPS)];
}

function layerNorm(x, S, C, weight, bias) {
  const found = new Float32Array(S * C);
  for (let s = 0; s < S; s++) {
    const [mean, deviation] = moments(x, s, C);
    for (let c = 0; c < C; c++) found[s * C + c] = ((x[s * C + c] - mean) / deviation) * weight[c] + bias[c];
  }
  return found;
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

/** In place. */
export function gelu(x, form) {
  for (let i = 0; i < x.length; i++) x[i] = geluOf(x[i], form);
  return x;
}

/** Abramowitz and Stegun, formula 7.1.26: off by at most 1.5e-7. */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const cubic = 1.421413741 + t * (-1.453152027 + t * 1.061405429);
  const tail = t * (0.254829592 + t * (-0.284496736 + t * cubic));
  return Math.sign(x) * (1 - tail * Math.exp(-x * x));
}

export function sum(a, b) {
  return a.map((value, i) => value + b[i]);
}

function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (z) => Math.exp(z - most));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / total);
}
