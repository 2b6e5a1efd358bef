// What trainer_gpu.js runs on a GPU, in WGSL, the language of WebGPU: layers, loss and optimiser as in trainer.js.
//
// A kernel is what every thread does; id tells a thread which one it is, and for which image (z). `takes` is what a
// kernel is told, as p: whole numbers, most of them places in the one buffer `m` in which all numbers lie; place 0
// stands for none.

// Each returns GELU of z, and its slope; as fillTanhGelu and fillErfGelu.
const GELU = {
  tanh: `
  fn gelu(z: f32) -> vec2f {
    let u = 0.7978845608 * z * (1.0 + 0.044715 * z * z);
    let below = 1.0 / (1.0 + exp(-2.0 * clamp(u, -20.0, 20.0))); // (1 + tanh(u)) / 2, of which nothing cancels
    return vec2f(z * below, below + 2.0 * z * below * (1.0 - below) * 0.7978845608 * (1.0 + 0.134145 * z * z));
  }`,
  erf: `
  fn gelu(z: f32) -> vec2f {
    let size = abs(z) * 0.7071067812;
    let bell = exp(-size * size);
    let t = 1.0 / (1.0 + 0.3275911 * size);
    let cubic = 1.421413741 + t * (-1.453152027 + t * 1.061405429);
    let beyond = t * (0.254829592 + t * (-0.284496736 + t * cubic)) * bell / 2.0;
    let below = select(beyond, 1.0 - beyond, z > 0.0);
    return vec2f(z * below, below + z * bell * 0.3989422804);
  }`,
};

export const KERNELS = {
  // to = A B, and what follows a product in a Mixer: plus a bias; GELU; times its slope, on the way back; plus what the
  // skip connection carries. A thread computes 4 x 4 sums, as addTiles does, and what hangs over the edge is not kept.
  product: {
    takes: "rows columns depth a aDown aRight aBatch b bDown bRight bBatch to down right batch bias slope times plus",
    body: `
      let across = (p.columns + 3u) / 4u;
      let row = id.x / across * 4u;
      let column = id.x % across * 4u;
      if (row >= p.rows) { return; }
      var a = p.a + id.z * p.aBatch + row * p.aDown;
      var b = p.b + id.z * p.bBatch + column * p.bRight;
      var sums: array<vec4f, 4>;
      for (var i = 0u; i < p.depth; i++) {
        let four = vec4f(m[b], m[b + p.bRight], m[b + 2u * p.bRight], m[b + 3u * p.bRight]);
        for (var r = 0u; r < 4u; r++) { sums[r] += m[a + r * p.aDown] * four; }
        a += p.aRight;
        b += p.bDown;
      }
      for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
          if (row + r >= p.rows || column + c >= p.columns) { continue; }
          let at = id.z * p.batch + (row + r) * p.down + (column + c) * p.right;
          var total = sums[r][c];
          if (p.bias != 0u) { total += m[p.bias + column + c]; }
          if (p.slope != 0u) {
            let both = gelu(total);
            total = both.x;
            m[p.slope + at] = both.y;
          }
          if (p.times != 0u) { total *= m[p.times + at]; }
          if (p.plus != 0u) { total += m[p.plus + at]; }
          m[p.to + at] = total;
        }
      }`,
  },
  // Each image's sums over the rows, divided by `share`: a bias's gradient, and the mean over tokens.
  sums: {
    takes: "rows columns x down right xBatch share to batch",
    body: `
      if (id.x >= p.columns) { return; }
      let x = p.x + id.z * p.xBatch + id.x * p.right;
      var total = 0.0;
      for (var row = 0u; row < p.rows; row++) { total += m[x + row * p.down]; }
      m[p.to + id.z * p.batch + id.x] = total / f32(p.share);`,
  },
  // A thread takes a row, a token: to mean 0 and variance 1, then times a weight and plus a bias for each column.
  norm: {
    takes: "rows columns x weight bias standard deviation to",
    body: `
      let row = id.x;
      if (row >= p.rows) { return; }
      let start = row * p.columns;
      var total = 0.0;
      for (var i = 0u; i < p.columns; i++) { total += m[p.x + start + i]; }
      let mean = total / f32(p.columns);
      var squares = 0.0;
      for (var i = 0u; i < p.columns; i++) {
        let off = m[p.x + start + i] - mean;
        squares += off * off;
      }
      let deviation = sqrt(squares / f32(p.columns) + 1e-6);
      m[p.deviation + row] = deviation;
      for (var i = 0u; i < p.columns; i++) {
        let standard = (m[p.x + start + i] - mean) / deviation;
        m[p.standard + start + i] = standard;
        m[p.to + start + i] = standard * m[p.weight + i] + m[p.bias + i];
      }`,
  },
  // Its way back, plus what the skip connection carries. A row of dy is shared by `share` rows: after the mean, by all.
  normBack: {
    takes: "rows columns dy share weight standard deviation plus to",
    body: `
      let row = id.x;
      if (row >= p.rows) { return; }
      let start = row * p.columns;
      let dy = p.dy + row / p.share * p.columns;
      var sum = 0.0;
      var along = 0.0;
      for (var i = 0u; i < p.columns; i++) {
        let straight = m[dy + i] * m[p.weight + i];
        sum += straight;
        along += straight * m[p.standard + start + i];
      }
      for (var i = 0u; i < p.columns; i++) {
        let straight = m[dy + i] * m[p.weight + i];
        let taken = (sum + m[p.standard + start + i] * along) / f32(p.columns);
        var dx = (straight - taken) / (m[p.deviation + row] * f32(p.share));
        if (p.plus != 0u) { dx += m[p.plus + start + i]; }
        m[p.to + start + i] = dx;
      }`,
  },
  // Each image's gradient of a LayerNorm's weights, and behind them of its biases.
  normGradient: {
    takes: "rows columns dy share standard to batch",
    body: `
      if (id.x >= p.columns) { return; }
      var weight = 0.0;
      var bias = 0.0;
      for (var row = id.z * p.rows; row < (id.z + 1u) * p.rows; row++) {
        let slope = m[p.dy + row / p.share * p.columns + id.x] / f32(p.share);
        weight += slope * m[p.standard + row * p.columns + id.x];
        bias += slope;
      }
      let to = p.to + id.z * p.batch + id.x;
      m[to] = weight;
      m[to + p.columns] = bias;`,
  },
  // A thread takes an image: its cross-entropy and the answer into the log, and the derivative by its logits.
  crossEntropy: {
    takes: "images classes logits labels slot log to",
    body: `
      let image = id.x;
      if (image >= p.images) { return; }
      let row = p.logits + image * p.classes;
      var called = 0u;
      for (var k = 1u; k < p.classes; k++) { if (m[row + k] > m[row + called]) { called = k; } }
      let most = m[row + called];
      var total = 0.0;
      for (var k = 0u; k < p.classes; k++) { total += exp(m[row + k] - most); }
      let label = u32(m[p.labels + image]);
      let at = p.log + 2u * (u32(m[p.slot]) * p.images + image);
      m[at] = log(total) + most - m[row + label];
      m[at + 1u] = f32(called);
      for (var k = 0u; k < p.classes; k++) {
        let probability = exp(m[row + k] - most) / total;
        m[p.to + image * p.classes + k] = (probability - select(0.0, 1.0, k == label)) / f32(p.images);
      }`,
  },
  // A thread takes a weight: its gradient, the images' added up, and AdamW's step; `now` holds size, root and kept.
  adamw: {
    takes: "total images slopes gradient values mean square decays now",
    body: `
      let i = id.x;
      if (i >= p.total) { return; }
      var slope = 0.0;
      for (var image = 0u; image < p.images; image++) { slope += m[p.slopes + image * p.total + i]; }
      m[p.gradient + i] = slope;
      let mean = m[p.mean + i] + ONE_LESS_BETA1 * (slope - m[p.mean + i]);
      let square = m[p.square + i] + ONE_LESS_BETA2 * (slope * slope - m[p.square + i]);
      m[p.mean + i] = mean;
      m[p.square + i] = square;
      let kept = select(1.0, m[p.now + 2u], m[p.decays + i] == 1.0);
      m[p.values + i] = m[p.values + i] * kept - m[p.now] * mean / (sqrt(square) / m[p.now + 1u] + EPSILON);`,
  },
};

export const GROUP = 64; // threads

/** A kernel as a whole program. */
export function program({ takes, body }, gelu, { betas, epsilon }) {
  return `
    struct Told { ${takes.split(" ").map((name) => `${name}: u32`).join(", ")} }
    @group(0) @binding(0) var<storage, read_write> m: array<f32>;
    @group(0) @binding(1) var<uniform> p: Told;
    const ONE_LESS_BETA1 = f32(${1 - betas[0]});
    const ONE_LESS_BETA2 = f32(${1 - betas[1]});
    const EPSILON = f32(${epsilon});
    ${GELU[gelu]}
    @compute @workgroup_size(${GROUP})
    fn main(@builtin(global_invocation_id) id: vec3u) {${body}
    }`;
}
