// Training of an MLP-Mixer in plain JavaScript: forward, backward, and a step of AdamW, after mixer_utils/model.py.
//
// Letters as in the paper: S tokens, C channels (hidden_dim), P patch side. A matrix is a flat Float32Array in row
// order. Every layer has forward(x, rows) and backward(dy, rows). In come `rows` rows of numbers; what goes out
// is the layer's own array, made once and written over at each step. backward() gets the derivative of the loss by what
// forward() gave, adds those by the layer's weights to `gradients`, and returns the one by x.
//
// Read from the end: Trainer takes a step, MixerNetwork and its layers follow model.py, addTiles takes the time.

// --- matrix products -------------------------------------------------------------------------------------------------

/** rows x columns over a flat array; `down` and `right` are the steps to the next row and to the next column. */
function matrix(values, rows, columns) {
  return { values, rows, columns, down: columns, right: 1 };
}

/** The same numbers with rows and columns exchanged; nothing is copied. */
export function transposed(M) {
  return { ...M, rows: M.columns, columns: M.rows, down: M.right, right: M.down };
}

const DEPTH = 128; // rows and columns multiplied at a time: so many stay in the processor's nearest memory

/** out += A B: every product of a Mixer, forward and backward. `out` is in row order. */
function addProduct(out, A, B) {
  const rows = A.rows - (A.rows % 4);
  const columns = B.columns - (B.columns % 4);
  for (let start = 0; start < A.columns; start += DEPTH) {
    const end = Math.min(start + DEPTH, A.columns);
    addTiles(out.values, A.values, B.values, A.down, A.right, B.down, B.right, out.down, rows, columns, start, end);
    addOneByOne(out, A, B, rows, A.rows, 0, B.columns, start, end); // the rows that are left over
    addOneByOne(out, A, B, 0, rows, columns, B.columns, start, end); // and the columns
  }
}

/**
 * Sixteen sums at a time, 4 x 4 of them: eight numbers are read for sixteen products, where one sum would read two for
 * each. A line below is a row of that tile.
 */
function addTiles(out, a, b, aDown, aRight, bDown, bRight, outDown, rows, columns, start, end) {
  for (let row = 0; row < rows; row += 4) {
    for (let column = 0; column < columns; column += 4) {
      let s00 = 0, s01 = 0, s02 = 0, s03 = 0;
      let s10 = 0, s11 = 0, s12 = 0, s13 = 0;
      let s20 = 0, s21 = 0, s22 = 0, s23 = 0;
      let s30 = 0, s31 = 0, s32 = 0, s33 = 0;
      let atA = row * aDown + start * aRight;
      let atB = start * bDown + column * bRight;
      for (let i = start; i < end; i++) {
        const a0 = a[atA];
        const a1 = a[atA + aDown];
        const a2 = a[atA + 2 * aDown];
        const a3 = a[atA + 3 * aDown];
        const b0 = b[atB];
        const b1 = b[atB + bRight];
        const b2 = b[atB + 2 * bRight];
        const b3 = b[atB + 3 * bRight];
        s00 += a0 * b0; s01 += a0 * b1; s02 += a0 * b2; s03 += a0 * b3;
        s10 += a1 * b0; s11 += a1 * b1; s12 += a1 * b2; s13 += a1 * b3;
        s20 += a2 * b0; s21 += a2 * b1; s22 += a2 * b2; s23 += a2 * b3;
        s30 += a3 * b0; s31 += a3 * b1; s32 += a3 * b2; s33 += a3 * b3;
        atA += aRight;
        atB += bDown;
      }
      let at = row * outDown + column;
      out[at] += s00; out[at + 1] += s01; out[at + 2] += s02; out[at + 3] += s03;
      at += outDown;
      out[at] += s10; out[at + 1] += s11; out[at + 2] += s12; out[at + 3] += s13;
      at += outDown;
      out[at] += s20; out[at + 1] += s21; out[at + 2] += s22; out[at + 3] += s23;
      at += outDown;
      out[at] += s30; out[at + 1] += s31; out[at + 2] += s32; out[at + 3] += s33;
    }
  }
}

function addOneByOne(out, A, B, firstRow, lastRow, firstColumn, lastColumn, start, end) {
  for (let row = firstRow; row < lastRow; row++) {
    for (let column = firstColumn; column < lastColumn; column++) {
      let total = 0;
      for (let i = start; i < end; i++) {
        total += A.values[row * A.down + i * A.right] * B.values[i * B.down + column * B.right];
      }
      out.values[row * out.down + column] += total;
    }
  }
}

// --- layers ----------------------------------------------------------------------------------------------------------

/** y = x W^T + b, for every row; W is out x in. `net` holds a layer's weights, by their names in the model. */
class Linear {
  constructor(net, name, mostRows) {
    this.weight = net.weights[`${name}.weight`];
    this.bias = net.weights[`${name}.bias`];
    this.weightGradient = net.gradients[`${name}.weight`];
    this.biasGradient = net.gradients[`${name}.bias`];
    this.outputs = this.bias.length;
    this.inputs = this.weight.length / this.outputs;
    this.y = new Float32Array(mostRows * this.outputs);
    this.dx = new Float32Array(mostRows * this.inputs);
  }

  forward(x, rows) {
    this.x = x;
    const { y, outputs, inputs } = this;
    for (let row = 0; row < rows; row++) y.set(this.bias, row * outputs);
    const W = matrix(this.weight, outputs, inputs);
    addProduct(matrix(y, rows, outputs), matrix(x, rows, inputs), transposed(W));
    return y;
  }

  backward(dy, rows) {
    this.addGradients(dy, rows);
    const { dx, outputs, inputs } = this;
    dx.fill(0, 0, rows * inputs);
    addProduct(matrix(dx, rows, inputs), matrix(dy, rows, outputs), matrix(this.weight, outputs, inputs));
    return dx;
  }

  /** All of backward() that the first layer needs: nobody asks for the derivative by the pixels. */
  addGradients(dy, rows) {
    const { outputs, inputs } = this;
    for (let row = 0; row < rows; row++) {
      for (let o = 0; o < outputs; o++) this.biasGradient[o] += dy[row * outputs + o];
    }
    const turned = transposed(matrix(dy, rows, outputs));
    addProduct(matrix(this.weightGradient, outputs, inputs), turned, matrix(this.x, rows, inputs));
  }
}

const EPSILON = 1e-6; // of every LayerNorm

/** Every row to mean 0 and variance 1, then times a weight and plus a bias for each column. */
class LayerNorm {
  constructor(net, name, mostRows) {
    this.weight = net.weights[`${name}.weight`];
    this.bias = net.weights[`${name}.bias`];
    this.weightGradient = net.gradients[`${name}.weight`];
    this.biasGradient = net.gradients[`${name}.bias`];
    this.size = this.weight.length;
    this.standard = new Float32Array(mostRows * this.size); // mean 0, variance 1
    this.deviation = new Float32Array(mostRows);
    this.y = new Float32Array(mostRows * this.size);
    this.dx = new Float32Array(mostRows * this.size);
  }

  forward(x, rows) {
    const { size, weight, bias, standard, deviation, y } = this;
    for (let row = 0; row < rows; row++) {
      const start = row * size;
      let total = 0;
      for (let i = 0; i < size; i++) total += x[start + i];
      const mean = total / size;
      let squares = 0;
      for (let i = 0; i < size; i++) squares += (x[start + i] - mean) ** 2;
      deviation[row] = Math.sqrt(squares / size + EPSILON);
      for (let i = 0; i < size; i++) {
        standard[start + i] = (x[start + i] - mean) / deviation[row];
        y[start + i] = standard[start + i] * weight[i] + bias[i];
      }
    }
    return y;
  }

  /** The mean and the deviation hang on x, too: what they take away again are the two averages. */
  backward(dy, rows) {
    const { size, weight, standard, deviation, dx } = this;
    for (let row = 0; row < rows; row++) {
      const start = row * size;
      let sum = 0;
      let along = 0;
      for (let i = 0; i < size; i++) {
        const slope = dy[start + i];
        this.biasGradient[i] += slope;
        this.weightGradient[i] += slope * standard[start + i];
        sum += slope * weight[i];
        along += slope * weight[i] * standard[start + i];
      }
      for (let i = 0; i < size; i++) {
        const straight = dy[start + i] * weight[i];
        dx[start + i] = (straight - sum / size - (standard[start + i] * along) / size) / deviation[row];
      }
    }
    return dx;
  }
}

/** x times the chance that a normal number lies below x; the slope of that is kept for the way back. */
class Gelu {
  constructor(form, most) {
    this.fill = form === "tanh" ? fillTanhGelu : fillErfGelu;
    this.y = new Float32Array(most);
    this.slope = new Float32Array(most);
  }

  forward(x, count) {
    this.fill(x, this.y, this.slope, count);
    return this.y;
  }

  /** In place. */
  backward(dy, count) {
    for (let i = 0; i < count; i++) dy[i] *= this.slope[i];
    return dy;
  }
}

const TANH_SCALE = Math.sqrt(2 / Math.PI);

/** The authors' form: x (1 + tanh(u)) / 2, where u = sqrt(2 / pi) (x + 0.044715 x^3). */
function fillTanhGelu(x, y, slope, count) {
  for (let i = 0; i < count; i++) {
    const z = x[i];
    const u = TANH_SCALE * z * (1 + 0.044715 * z * z);
    const tanh = 1 - 2 / (1 + Math.exp(2 * u)); // three times as fast as Math.tanh
    const below = (1 + tanh) / 2;
    y[i] = z * below;
    slope[i] = below + (z / 2) * (1 - tanh * tanh) * TANH_SCALE * (1 + 3 * 0.044715 * z * z);
  }
}

/** The exact form: x times the normal distribution, by Abramowitz and Stegun, formula 7.1.26: off by at most 7.5e-8. */
function fillErfGelu(x, y, slope, count) {
  for (let i = 0; i < count; i++) {
    const z = x[i];
    const size = Math.abs(z) * Math.SQRT1_2;
    const bell = Math.exp(-size * size);
    const t = 1 / (1 + 0.3275911 * size);
    const cubic = 1.421413741 + t * (-1.453152027 + t * 1.061405429);
    const beyond = (t * (0.254829592 + t * (-0.284496736 + t * cubic)) * bell) / 2; // of |z|
    const below = z > 0 ? 1 - beyond : beyond;
    y[i] = z * below;
    slope[i] = below + (z * bell) / Math.sqrt(2 * Math.PI);
  }
}

/** Linear, GELU, Linear over the last dimension (paper, equation 1). */
class Mlp {
  constructor(net, name, mostRows) {
    this.first = new Linear(net, `${name}.dense_0`, mostRows);
    this.gelu = new Gelu(net.config.gelu, mostRows * this.first.outputs);
    this.second = new Linear(net, `${name}.dense_1`, mostRows);
  }

  forward(x, rows) {
    const hidden = this.first.forward(x, rows);
    const active = this.gelu.forward(hidden, rows * this.first.outputs);
    return this.second.forward(active, rows);
  }

  backward(dy, rows) {
    const dActive = this.second.backward(dy, rows);
    const dHidden = this.gelu.backward(dActive, rows * this.first.outputs);
    return this.first.backward(dHidden, rows);
  }
}

/** Transpose, Mlp over the tokens, transpose. `images` of S x C each. */
class TokenMixing {
  constructor(net, name, most) {
    this.S = net.S;
    this.C = net.C;
    this.mlp = new Mlp(net, name, most * net.C);
    this.turned = new Float32Array(most * net.S * net.C);
    this.back = new Float32Array(most * net.S * net.C);
  }

  forward(x, images) {
    turn(x, this.turned, images, this.S, this.C);
    const mixed = this.mlp.forward(this.turned, images * this.C);
    return turn(mixed, this.back, images, this.C, this.S);
  }

  backward(dy, images) {
    turn(dy, this.back, images, this.S, this.C);
    const mixed = this.mlp.backward(this.back, images * this.C);
    return turn(mixed, this.turned, images, this.C, this.S);
  }
}

/** Every image's rows x columns into columns x rows. */
function turn(from, to, images, rows, columns) {
  for (let image = 0; image < images; image++) {
    const start = image * rows * columns;
    for (let row = 0; row < rows; row++) {
      const source = start + row * columns;
      for (let column = 0; column < columns; column++) to[start + column * rows + row] = from[source + column];
    }
  }
  return to;
}

/** x + TokenMixing(LayerNorm(x)), then x + Mlp(LayerNorm(x)) over the channels (paper, figure 1). */
class Block {
  constructor(net, name, most) {
    const rows = most * net.S;
    this.S = net.S;
    this.C = net.C;
    this.norm0 = new LayerNorm(net, `${name}.norm_0`, rows);
    this.tokenMixing = new TokenMixing(net, `${name}.token_mixing`, most);
    this.norm1 = new LayerNorm(net, `${name}.norm_1`, rows);
    this.channelMixing = new Mlp(net, `${name}.channel_mixing`, rows);
    this.middle = new Float32Array(rows * net.C);
    this.y = new Float32Array(rows * net.C);
    this.dMiddle = new Float32Array(rows * net.C);
    this.dx = new Float32Array(rows * net.C);
  }

  forward(x, images) {
    const rows = images * this.S;
    const tokens = this.tokenMixing.forward(this.norm0.forward(x, rows), images);
    addUp(this.middle, x, tokens, rows * this.C);
    const channels = this.channelMixing.forward(this.norm1.forward(this.middle, rows), rows);
    return addUp(this.y, this.middle, channels, rows * this.C);
  }

  backward(dy, images) {
    const rows = images * this.S;
    const channels = this.norm1.backward(this.channelMixing.backward(dy, rows), rows);
    addUp(this.dMiddle, dy, channels, rows * this.C);
    const tokens = this.norm0.backward(this.tokenMixing.backward(this.dMiddle, images), rows);
    return addUp(this.dx, this.dMiddle, tokens, rows * this.C);
  }
}

function addUp(sum, a, b, count) {
  for (let i = 0; i < count; i++) sum[i] = a[i] + b[i];
  return sum;
}

// --- the network -----------------------------------------------------------------------------------------------------

/** [[name, shape]] of every weight, in the order and under the names of the model's state_dict. */
export function weightShapes(config, imageShape) {
  const [channels, height, width] = imageShape;
  const P = config.patch_size;
  const S = (height / P) * (width / P);
  const C = config.hidden_dim;
  const linear = (name, outputs, inputs) => [[`${name}.weight`, [outputs, ...inputs]], [`${name}.bias`, [outputs]]];
  const norm = (name) => [[`${name}.weight`, [C]], [`${name}.bias`, [C]]];
  const mlp = (name, size, hidden) => [
    ...linear(`${name}.dense_0`, hidden, [size]),
    ...linear(`${name}.dense_1`, size, [hidden]),
  ];
  const shapes = linear("stem.proj", C, [channels, P, P]);
  for (let l = 0; l < config.num_blocks; l++) {
    shapes.push(...norm(`blocks.${l}.norm_0`));
    shapes.push(...mlp(`blocks.${l}.token_mixing`, S, config.tokens_mlp_dim));
    shapes.push(...norm(`blocks.${l}.norm_1`));
    shapes.push(...mlp(`blocks.${l}.channel_mixing`, C, config.channels_mlp_dim));
  }
  return [...shapes, ...norm("pre_head_layer_norm"), ...linear("head", config.num_classes, [C])];
}

/** Stem, blocks, LayerNorm, mean over tokens, head; `most` images at a time. All weights lie in one flat array. */
export class MixerNetwork {
  constructor(config, imageShape, most) {
    const P = config.patch_size;
    this.config = config;
    this.S = (imageShape[1] / P) * (imageShape[2] / P);
    this.C = config.hidden_dim;
    this.shapes = weightShapes(config, imageShape);
    const size = (shape) => shape.reduce((a, b) => a * b);
    const total = this.shapes.reduce((sum, [, shape]) => sum + size(shape), 0);
    this.values = new Float32Array(total);
    this.gradient = new Float32Array(total);
    this.weights = {}; // by name, parts of `values`
    this.gradients = {};
    let at = 0;
    for (const [name, shape] of this.shapes) {
      const end = at + size(shape);
      this.weights[name] = this.values.subarray(at, end);
      this.gradients[name] = this.gradient.subarray(at, end);
      at = end;
    }
    this.stem = new Linear(this, "stem.proj", most * this.S);
    this.blocks = [];
    for (let l = 0; l < config.num_blocks; l++) this.blocks.push(new Block(this, `blocks.${l}`, most));
    this.norm = new LayerNorm(this, "pre_head_layer_norm", most * this.S);
    this.mean = new Float32Array(most * this.C);
    this.dTokens = new Float32Array(most * this.S * this.C);
    this.head = new Linear(this, "head", most);
  }

  /** Every image's patches, a row of in_channels * P * P numbers each -> logits, num_classes an image. */
  forward(patches, images) {
    const { S, C, mean } = this;
    let x = this.stem.forward(patches, images * S);
    for (const block of this.blocks) x = block.forward(x, images);
    x = this.norm.forward(x, images * S);
    mean.fill(0);
    for (let image = 0; image < images; image++) {
      for (let s = 0; s < S; s++) {
        const token = (image * S + s) * C;
        for (let c = 0; c < C; c++) mean[image * C + c] += x[token + c] / S;
      }
    }
    return this.head.forward(mean, images);
  }

  /** From the derivative of the loss by the logits to those by all weights, in `gradient`. */
  backward(dLogits, images) {
    const { S, C, dTokens } = this;
    this.gradient.fill(0);
    const dMean = this.head.backward(dLogits, images);
    for (let image = 0; image < images; image++) {
      for (let s = 0; s < S; s++) {
        const token = (image * S + s) * C;
        for (let c = 0; c < C; c++) dTokens[token + c] = dMean[image * C + c] / S;
      }
    }
    let dx = this.norm.backward(dTokens, images * S);
    for (const block of [...this.blocks].reverse()) dx = block.backward(dx, images);
    this.stem.addGradients(dx, images * S);
  }

  /** Weights LeCun-normal (variance 1 / inputs, cut off at two deviations), biases zero, norms one, the head zero. */
  start(random) {
    for (const [name, shape] of this.shapes) {
      const weight = this.weights[name];
      const inputs = weight.length / shape[0];
      const deviation = Math.sqrt(1 / inputs) / 0.87962566103423978; // what the cut takes away is made up for
      if (name.endsWith(".bias") || name.startsWith("head.")) weight.fill(0);
      else if (shape.length === 1) weight.fill(1);
      else for (let i = 0; i < weight.length; i++) weight[i] = deviation * random.normalWithin(2);
    }
  }
}

/** The mean cross-entropy of `images` rows of logits; `dLogits` gets its derivative by them, `called` the answers. */
export function crossEntropy(logits, labels, images, classes, dLogits, called) {
  let loss = 0;
  for (let image = 0; image < images; image++) {
    const row = logits.subarray(image * classes, (image + 1) * classes);
    const most = Math.max(...row);
    called[image] = row.indexOf(most);
    let total = 0;
    for (let k = 0; k < classes; k++) total += Math.exp(row[k] - most);
    loss += (Math.log(total) + most - row[labels[image]]) / images;
    for (let k = 0; k < classes; k++) {
      const probability = Math.exp(row[k] - most) / total;
      dLogits[image * classes + k] = (probability - (k === labels[image] ? 1 : 0)) / images;
    }
  }
  return loss;
}

// --- chance, data, optimiser -----------------------------------------------------------------------------------------

/** Random numbers that a seed decides: mulberry32, by Tommy Ettinger (public domain). */
export class Random {
  constructor(seed) {
    this.state = seed >>> 0;
  }

  /** From 0 to below 1. */
  uniform() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from 0 to below `end`. */
  below(end) {
    return Math.floor(this.uniform() * end);
  }

  /** A normal number (Box and Muller); one beyond `most` is drawn again. */
  normalWithin(most) {
    for (;;) {
      const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
      const number = radius * Math.cos(2 * Math.PI * this.uniform());
      if (Math.abs(number) <= most) return number;
    }
  }

  shuffle(list) {
    for (let i = list.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [list[i], list[j]] = [list[j], list[i]];
    }
  }
}

/** Grey levels of 4 bits, two to a byte, the first in the upper half -> one to a byte, 0 to 15. */
export function unpackLevels(bytes) {
  const levels = new Uint8Array(2 * bytes.length);
  for (let i = 0; i < bytes.length; i++) {
    levels[2 * i] = bytes[i] >> 4;
    levels[2 * i + 1] = bytes[i] & 15;
  }
  return levels;
}

/**
 * An image's patches into `rows`, from place `at` on: normalised, patches in row order. The image is moved down and
 * right by whole pixels; black comes in behind it. `input` maps a level, 0 to 15, to what the network is fed.
 */
export function fillPatchRows(levels, first, [channels, height, width], P, input, down, right, rows, at) {
  for (let top = 0; top < height; top += P) {
    for (let left = 0; left < width; left += P) {
      for (let channel = 0; channel < channels; channel++) {
        for (let y = top - down; y < top + P - down; y++) {
          const line = first + (channel * height + y) * width;
          for (let x = left - right; x < left + P - right; x++) {
            const inside = y >= 0 && y < height && x >= 0 && x < width;
            rows[at++] = input[inside ? levels[line + x] : 0];
          }
        }
      }
    }
  }
}

/** AdamW (Loshchilov and Hutter, 2019), as torch.optim.AdamW; matrices decay, biases and norms do not. */
export class AdamW {
  constructor(net, { weightDecay, betas = [0.9, 0.999], epsilon = 1e-8 }) {
    Object.assign(this, { net, weightDecay, betas, epsilon });
    this.mean = new Float32Array(net.values.length); // of the gradients, the older the less
    this.square = new Float32Array(net.values.length); // of their squares
    this.steps = 0;
  }

  /** What the next step's numbers have in common: its size, what both means lack, what is kept of a weight. */
  nextStep(learningRate) {
    const [beta1, beta2] = this.betas;
    this.steps += 1;
    const size = learningRate / (1 - beta1 ** this.steps); // both means start at zero, which is made up for
    return { size, root: Math.sqrt(1 - beta2 ** this.steps), kept: 1 - learningRate * this.weightDecay };
  }

  step(learningRate) {
    const { net, mean, square, epsilon } = this;
    const [beta1, beta2] = this.betas;
    const { size, root, kept } = this.nextStep(learningRate);
    for (const [name, shape] of net.shapes) {
      if (shape.length === 1) continue;
      const weight = net.weights[name];
      for (let i = 0; i < weight.length; i++) weight[i] *= kept;
    }
    for (let i = 0; i < mean.length; i++) {
      const slope = net.gradient[i];
      mean[i] += (1 - beta1) * (slope - mean[i]);
      square[i] += (1 - beta2) * (slope * slope - square[i]);
      net.values[i] -= (size * mean[i]) / (Math.sqrt(square[i]) / root + epsilon);
    }
  }
}

// --- the run ---------------------------------------------------------------------------------------------------------

/**
 * A run: step() after step() until `done` is `steps`. What it gives hangs on its arguments alone.
 *
 * config: as of an MlpMixer. data: {image_shape, mean, std, train: {levels, labels}, held_out: the same}, levels as of
 * unpackLevels. settings: {batch_size, steps, learning_rate (the highest one), warmup (a share of all steps),
 * weight_decay, shift (the most pixels that an image is moved), seed}.
 */
export class Trainer {
  constructor(config, data, settings) {
    this.data = data;
    this.settings = settings;
    this.random = new Random(settings.seed);
    this.net = new MixerNetwork(config, data.image_shape, settings.batch_size);
    this.net.start(this.random);
    this.optimizer = new AdamW(this.net, { weightDecay: settings.weight_decay });
    this.classes = config.num_classes;
    this.size = data.image_shape.reduce((a, b) => a * b); // numbers in an image
    this.input = Float32Array.from({ length: 16 }, (_, level) => (level / 15 - data.mean) / data.std);
    this.patches = new Float32Array(settings.batch_size * this.size);
    this.labels = new Int16Array(settings.batch_size);
    this.dLogits = new Float32Array(settings.batch_size * this.classes);
    this.called = new Int16Array(settings.batch_size);
    this.order = Array.from(data.train.labels, (_, i) => i);
    this.stepsPerEpoch = Math.floor(this.order.length / settings.batch_size);
    this.steps = settings.steps;
    this.done = 0; // steps
    this.losses = [];
  }

  /** The learning rate of the next step: it rises linearly while it warms up, then falls linearly to zero. */
  learningRate() {
    const { warmup, learning_rate } = this.settings;
    const rising = Math.max(1, Math.round(warmup * this.steps));
    const falling = Math.max(1, this.steps - rising);
    return learning_rate * Math.min((this.done + 1) / rising, (this.steps - this.done) / falling);
  }

  /** The next batch, forward, backward, a step of the optimiser: the batch's mean loss before that step. */
  step() {
    const images = this.settings.batch_size;
    this.loadNext();
    const logits = this.net.forward(this.patches, images);
    const loss = crossEntropy(logits, this.labels, images, this.classes, this.dLogits, this.called);
    this.net.backward(this.dLogits, images);
    this.optimizer.step(this.learningRate());
    this.done += 1;
    this.losses.push(loss);
    return loss;
  }

  /** The losses since this was asked last. */
  read() {
    return this.losses.splice(0);
  }

  /** The answers for all images held out, the share that is right, and the mean loss. */
  evaluate() {
    const { labels } = this.data.held_out;
    const answers = new Int16Array(labels.length);
    let loss = 0;
    let right = 0;
    for (let start = 0; start < labels.length; start += this.settings.batch_size) {
      const images = this.loadHeldOut(start);
      const logits = this.net.forward(this.patches, images);
      const mean = crossEntropy(logits, this.labels, images, this.classes, this.dLogits, this.called);
      loss += (mean * images) / labels.length;
      for (let i = 0; i < images; i++) {
        answers[start + i] = this.called[i];
        if (this.called[i] === this.labels[i]) right += 1;
      }
    }
    return { answers, accuracy: right / labels.length, loss };
  }

  /** The next batch of the run; every epoch has an order of its own. */
  loadNext() {
    const images = this.settings.batch_size;
    const place = this.done % this.stepsPerEpoch;
    if (place === 0) this.random.shuffle(this.order);
    this.load(this.data.train, this.order.slice(place * images, (place + 1) * images), this.settings.shift);
  }

  /** The images held out from `start` on, a batch at most, none of them moved; how many they are. */
  loadHeldOut(start) {
    const count = Math.min(this.settings.batch_size, this.data.held_out.labels.length - start);
    this.load(this.data.held_out, Array.from({ length: count }, (_, i) => start + i), 0);
    return count;
  }

  /** Puts images into `patches`, each moved by chance by at most `shift` pixels each way, and their labels. */
  load({ levels, labels }, batch, shift) {
    const { image_shape } = this.data;
    const P = this.net.config.patch_size;
    batch.forEach((image, i) => {
      const down = shift ? this.random.below(2 * shift + 1) - shift : 0;
      const right = shift ? this.random.below(2 * shift + 1) - shift : 0;
      const first = image * this.size;
      fillPatchRows(levels, first, image_shape, P, this.input, down, right, this.patches, i * this.size);
      this.labels[i] = labels[image];
    });
  }
}
