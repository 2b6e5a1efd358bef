// The steps of trainer.js on a GPU, by WebGPU: the same batches and the same arithmetic, but for rounding.
//
// All numbers lie in one buffer on the GPU, `m`. A place is where an array begins in it; place 0 stands for none. A pass
// runs one kernel in many threads, each of which computes a number, or a row of them; what a pass wrote the next one
// reads. A step is a list of passes that is made once. Every image's gradients stand by themselves and are added up
// where AdamW takes its step: so there is work for many threads, no two of them write to the same place, and a run can
// be repeated to the last bit.
//
// Read from the end: GpuTrainer takes a step, Plan makes the list, as trainer.js has its layers; KERNELS are in WGSL.

import { transposed } from "./trainer.js";

// --- kernels ---------------------------------------------------------------------------------------------------------

// Each returns GELU of z, and its slope; as fillTanhGelu and fillErfGelu.
const GELU = {
  tanh: `
  fn gelu(z: f32) -> vec2f {
    let u = 0.7978845608 * z * (1 + 0.044715 * z * z);
    let below = 1 / (1 + exp(-2 * clamp(u, -20, 20))); // (1 + tanh(u)) / 2, of which nothing cancels
    return vec2f(z * below, below + 2 * z * below * (1 - below) * 0.7978845608 * (1 + 0.134145 * z * z));
  }`,
  erf: `
  fn gelu(z: f32) -> vec2f {
    let size = abs(z) * 0.7071067812;
    let bell = exp(-size * size);
    let t = 1 / (1 + 0.3275911 * size);
    let cubic = 1.421413741 + t * (-1.453152027 + t * 1.061405429);
    let beyond = t * (0.254829592 + t * (-0.284496736 + t * cubic)) * bell / 2;
    let below = select(beyond, 1 - beyond, z > 0);
    return vec2f(z * below, below + z * bell * 0.3989422804);
  }`,
};

// `takes`: what a kernel is told, p, all of them whole numbers; `threads`: of a group, across and down.
// id.x counts columns, id.y rows, id.z images.
const KERNELS = {
  // to = A B, and what follows a product in a Mixer: plus a bias; GELU; times its slope, on the way back; plus what the
  // skip connection carries. A group computes a tile of 16 x 16 and shares what it reads of A and of B.
  product: {
    takes: "rows columns depth a aDown aRight aBatch b bDown bRight bBatch to down right batch bias slope times plus",
    threads: [16, 16],
    shared: "var<workgroup> A: array<array<f32, 16>, 16>; var<workgroup> B: array<array<f32, 16>, 16>;",
    body: `
      let a = p.a + id.z * p.aBatch + id.y * p.aDown;
      let b = p.b + id.z * p.bBatch + id.x * p.bRight;
      var total = 0.0;
      for (var start = 0u; start < p.depth; start += 16) {
        let across = start + here.x;
        let down = start + here.y;
        A[here.y][here.x] = select(0, m[a + across * p.aRight], id.y < p.rows && across < p.depth);
        B[here.y][here.x] = select(0, m[b + down * p.bDown], id.x < p.columns && down < p.depth);
        workgroupBarrier();
        for (var i = 0u; i < 16; i++) { total += A[here.y][i] * B[i][here.x]; }
        workgroupBarrier();
      }
      if (id.y >= p.rows || id.x >= p.columns) { return; }
      let at = id.z * p.batch + id.y * p.down + id.x * p.right;
      if (p.bias != 0) { total += m[p.bias + id.x]; }
      if (p.slope != 0) {
        let both = gelu(total);
        total = both.x;
        m[p.slope + at] = both.y;
      }
      if (p.times != 0) { total *= m[p.times + at]; }
      if (p.plus != 0) { total += m[p.plus + at]; }
      m[p.to + at] = total;`,
  },
  // Each image's sums over the rows, divided by `share`: a bias's gradient, and the mean over tokens.
  sums: {
    takes: "rows columns x down right xBatch share to batch",
    threads: [64, 1],
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
    threads: [64, 1],
    body: `
      let row = id.x;
      if (row >= p.rows) { return; }
      let start = row * p.columns;
      var total = 0.0;
      for (var i = 0u; i < p.columns; i++) { total += m[p.x + start + i]; }
      let mean = total / f32(p.columns);
      var squares = 0.0;
      for (var i = 0u; i < p.columns; i++) { squares += pow2(m[p.x + start + i] - mean); }
      let deviation = sqrt(squares / f32(p.columns) + 1e-6);
      m[p.deviation + row] = deviation;
      for (var i = 0u; i < p.columns; i++) {
        let standard = (m[p.x + start + i] - mean) / deviation;
        m[p.standard + start + i] = standard;
        m[p.to + start + i] = standard * m[p.weight + i] + m[p.bias + i];
      }`,
    shared: "fn pow2(x: f32) -> f32 { return x * x; }",
  },
  // Its way back, plus what the skip connection carries. A row of dy is shared by `share` rows: after the mean, by all.
  normBack: {
    takes: "rows columns dy share weight standard deviation plus to",
    threads: [64, 1],
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
        if (p.plus != 0) { dx += m[p.plus + start + i]; }
        m[p.to + start + i] = dx;
      }`,
  },
  // Each image's gradient of a LayerNorm's weights, and behind them of its biases.
  normGradient: {
    takes: "rows columns dy share standard to batch",
    threads: [64, 1],
    body: `
      if (id.x >= p.columns) { return; }
      var weight = 0.0;
      var bias = 0.0;
      for (var row = id.z * p.rows; row < (id.z + 1) * p.rows; row++) {
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
    threads: [64, 1],
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
      let at = p.log + 2 * (u32(m[p.slot]) * p.images + image);
      m[at] = log(total) + most - m[row + label];
      m[at + 1] = f32(called);
      for (var k = 0u; k < p.classes; k++) {
        let probability = exp(m[row + k] - most) / total;
        m[p.to + image * p.classes + k] = (probability - select(0.0, 1.0, k == label)) / f32(p.images);
      }`,
  },
  // A thread takes a weight: its gradient, the images' added up, and AdamW's step; `now` holds size, root and kept.
  adamw: {
    takes: "total images slopes gradient values mean square decays now",
    threads: [64, 1],
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
      let kept = select(1.0, m[p.now + 2], m[p.decays + i] == 1);
      m[p.values + i] = m[p.values + i] * kept - m[p.now] * mean / (sqrt(square) / m[p.now + 1] + EPSILON);`,
  },
};

/** A kernel as a whole program. */
function program({ takes, threads, shared = "", body }, gelu, { betas, epsilon }) {
  return `
    struct Told { ${takes.split(" ").map((name) => `${name}: u32`).join(", ")} }
    @group(0) @binding(0) var<storage, read_write> m: array<f32>;
    @group(0) @binding(1) var<uniform> p: Told;
    const ONE_LESS_BETA1 = f32(${1 - betas[0]});
    const ONE_LESS_BETA2 = f32(${1 - betas[1]});
    const EPSILON = f32(${epsilon});
    ${GELU[gelu]}
    ${shared}
    @compute @workgroup_size(${threads})
    fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) here: vec3u) {${body}
    }`;
}

// --- the passes of a step --------------------------------------------------------------------------------------------

/**
 * Where everything lies, and the passes of a step: `forward` ends with the loss, `all` with AdamW's step. A matrix is as
 * in trainer.js, with a place instead of an array and `batch`, the step to the next image's; weights have none.
 */
class Plan {
  constructor(net, images, size, slots) {
    Object.assign(this, { net, images, total: net.values.length, end: 1, all: [] });
    this.starts = {}; // of each weight among all of them
    let start = 0;
    for (const [name] of net.shapes) {
      this.starts[name] = start;
      start += net.weights[name].length;
    }
    this.values = this.place(3 * this.total); // and behind them the two means that AdamW keeps
    this.decays = this.place(this.total); // 1 where a weight decays
    this.gradient = this.place(this.total);
    this.slopes = this.place(images * this.total); // every image's gradient
    this.told = this.place(4 + images * (1 + size)); // what comes with each batch: four numbers, labels, patches
    this.log = this.place(2 * slots * images); // a loss and an answer for each image of the last passes
    this.addStep();
  }

  /** For `count` numbers that nothing else lies on. */
  place(count) {
    this.end += count;
    return this.end - count;
  }

  /** A matrix for every image, one behind the other. */
  perImage(rows, columns, at = this.place(this.images * rows * columns)) {
    return { at, rows, columns, down: columns, right: 1, batch: rows * columns };
  }

  tokens() {
    return this.perImage(this.net.S, this.net.C);
  }

  /** A pass of so many threads at least. */
  add(kernel, told, across, down = 1, images = 1) {
    const [wide, high] = KERNELS[kernel].threads;
    this.all.push({ kernel, told, groups: [Math.ceil(across / wide), Math.ceil(down / high), images] });
  }

  product(to, a, b, more = {}) {
    this.add("product", {
      rows: to.rows, columns: to.columns, depth: a.columns,
      a: a.at, aDown: a.down, aRight: a.right, aBatch: a.batch,
      b: b.at, bDown: b.down, bRight: b.right, bBatch: b.batch,
      to: to.at, down: to.down, right: to.right, batch: to.batch, bias: 0, slope: 0, times: 0, plus: 0, ...more,
    }, to.columns, to.rows, this.images);
  }

  sums(to, batch, x, share) {
    const { at, rows, columns, down, right } = x;
    this.add("sums", { rows, columns, x: at, down, right, xBatch: x.batch, share, to, batch }, columns, 1, this.images);
  }

  // Every layer's function adds its passes forward, from x to y, and returns one that adds those backward, from dy to dx.

  linear(name, x, y, after) {
    const start = this.starts[`${name}.weight`];
    const outputs = y.columns;
    const inputs = x.columns;
    const weight = { ...this.perImage(outputs, inputs, this.values + start), batch: 0 };
    this.product(y, x, transposed(weight), { bias: weight.at + outputs * inputs, ...after });
    return (dy, dx, before) => {
      const slopes = { ...weight, at: this.slopes + start, batch: this.total };
      this.product(slopes, transposed(dy), x);
      this.sums(slopes.at + outputs * inputs, this.total, dy, 1);
      if (dx) this.product(dx, dy, weight, before);
    };
  }

  norm(name, x, y) {
    const { images, net: { S, C } } = this;
    const start = this.starts[`${name}.weight`];
    const weight = this.values + start;
    const standard = this.place(images * S * C);
    const deviation = this.place(images * S);
    const rows = images * S;
    this.add("norm", { rows, columns: C, x: x.at, weight, bias: weight + C, standard, deviation, to: y.at }, rows);
    return (dy, dx, { share = 1, plus = 0 }) => {
      const told = { columns: C, dy: dy.at, share, standard };
      this.add("normGradient", { ...told, rows: S, to: this.slopes + start, batch: this.total }, C, 1, images);
      this.add("normBack", { ...told, rows, weight, deviation, plus, to: dx.at }, rows);
    };
  }

  mlp(name, x, y, plus) {
    const units = this.net.weights[`${name}.dense_0.bias`].length;
    const hidden = this.perImage(x.rows, units);
    const slope = this.perImage(x.rows, units).at;
    const first = this.linear(`${name}.dense_0`, x, hidden, { slope });
    const second = this.linear(`${name}.dense_1`, hidden, y, { plus });
    return (dy, dx) => {
      const dHidden = this.perImage(x.rows, units);
      second(dy, dHidden, { times: slope });
      first(dHidden, dx);
    };
  }

  /** Token mixing is an Mlp over the columns: nothing is copied for it. */
  block(name, x, y) {
    const normed = [this.tokens(), this.tokens()];
    const middle = this.tokens();
    const norm0 = this.norm(`${name}.norm_0`, x, normed[0]);
    const tokens = this.mlp(`${name}.token_mixing`, transposed(normed[0]), transposed(middle), x.at);
    const norm1 = this.norm(`${name}.norm_1`, middle, normed[1]);
    const channels = this.mlp(`${name}.channel_mixing`, normed[1], y, middle.at);
    return (dy) => {
      const [dNormed, dMiddle, dx] = [this.tokens(), this.tokens(), this.tokens()];
      channels(dy, dNormed);
      norm1(dNormed, dMiddle, { plus: dy.at });
      tokens(transposed(dMiddle), transposed(dNormed));
      norm0(dNormed, dx, { plus: dMiddle.at });
      return dx;
    };
  }

  addStep() {
    const { net, images, total, values, told, slopes, gradient, decays, log } = this;
    const { S, C } = net;
    const classes = net.config.num_classes;
    const pixels = net.weights["stem.proj.weight"].length / C;
    const labels = told + 4;
    let x = this.tokens();
    const stem = this.linear("stem.proj", this.perImage(S, pixels, labels + images), x);
    const blocks = [];
    for (let l = 0; l < net.config.num_blocks; l++) {
      const y = this.tokens();
      blocks.unshift(this.block(`blocks.${l}`, x, y));
      x = y;
    }
    const normed = this.tokens();
    const norm = this.norm("pre_head_layer_norm", x, normed);
    const mean = this.perImage(1, C);
    this.sums(mean.at, C, normed, S);
    const logits = this.perImage(1, classes);
    const head = this.linear("head", mean, logits);
    const dLogits = this.perImage(1, classes);
    this.add("crossEntropy", { images, classes, logits: logits.at, labels, slot: told, log, to: dLogits.at }, images);
    this.forward = this.all.slice();

    const dMean = this.perImage(1, C);
    head(dLogits, dMean);
    let dx = this.tokens();
    norm(dMean, dx, { share: S });
    for (const back of blocks) dx = back(dx);
    stem(dx);
    const means = { mean: values + total, square: values + 2 * total };
    this.add("adamw", { total, images, slopes, gradient, values, ...means, decays, now: told + 1 }, total);
  }
}

// --- the run ---------------------------------------------------------------------------------------------------------

const AHEAD = 8; // steps that the GPU may lie behind: it need not wait for the processor, nor a pause long for it
const SLOTS = 128; // passes that the log holds at least
const TOLD = 256; // bytes between what two passes are told: WebGPU wants as many

/** A device, of which the caller disposes; null without a GPU. Software that plays one is but the processor again. */
export async function gpuDevice(software) {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter();
  const played = adapter?.info?.isFallbackAdapter ?? adapter?.isFallbackAdapter;
  return adapter && (software || !played) ? adapter.requestDevice() : null;
}

/**
 * A Trainer's run on the GPU: step(), evaluate() and read() are as its own, but promises. They reject once the device is
 * lost or refuses something: after leave() the Trainer itself goes on, from the step whose weights were read last.
 */
export class GpuTrainer {
  static async of(trainer, device) {
    const gpu = new GpuTrainer(trainer, device);
    try {
      await gpu.prepare();
    } catch (error) {
      device.destroy();
      throw error;
    }
    return gpu;
  }

  constructor(trainer, device) {
    const { net, settings, data } = trainer;
    const images = settings.batch_size;
    const slots = Math.max(SLOTS, Math.ceil(data.held_out.labels.length / images));
    Object.assign(this, { trainer, device, images, slots, slot: 0, underWay: [], known: trainer.done });
    this.plan = new Plan(net, images, trainer.size, slots);
    this.told = new Float32Array(4 + images + trainer.patches.length);
    trainer.patches = this.told.subarray(4 + images); // the batch is put where it is sent from
    this.failed = new Promise((_, reject) => {
      device.lost.then(({ message }) => reject(new Error(message)));
      device.onuncapturederror = ({ error }) => reject(new Error(error.message));
    });
    this.failed.catch(() => {}); // whoever waits for something hears of it
  }

  async prepare() {
    const { device, plan, trainer: { net, optimizer } } = this;
    const { STORAGE, UNIFORM, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
    const buffer = (size, usage, mappedAtCreation = false) => device.createBuffer({ size, usage, mappedAtCreation });
    for (const kind of ["out-of-memory", "validation"]) device.pushErrorScope(kind);
    const visibility = GPUShaderStage.COMPUTE;
    const entries = ["storage", "uniform"].map((type, binding) => ({ binding, visibility, buffer: { type } }));
    const layout = device.createBindGroupLayout({ entries });
    const pipelines = {};
    for (const [name, kernel] of Object.entries(KERNELS)) {
      const module = device.createShaderModule({ code: program(kernel, net.config.gelu, optimizer) });
      pipelines[name] = device.createComputePipelineAsync({
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: "main" },
      });
    }
    for (const name of Object.keys(pipelines)) pipelines[name] = await pipelines[name];

    this.memory = buffer(4 * plan.end, STORAGE | COPY_SRC | COPY_DST);
    this.spare = buffer(4 * (3 * plan.total + 2 * this.slots * this.images), MAP_READ | COPY_DST);
    const toldAll = buffer(TOLD * plan.all.length, UNIFORM, true);
    plan.all.forEach((pass, i) => {
      const numbers = KERNELS[pass.kernel].takes.split(" ").map((name) => pass.told[name]);
      new Uint32Array(toldAll.getMappedRange(TOLD * i, TOLD)).set(numbers);
      pass.pipeline = pipelines[pass.kernel];
      const resources = [{ buffer: this.memory }, { buffer: toldAll, offset: TOLD * i, size: TOLD }];
      pass.group = device.createBindGroup({
        layout,
        entries: resources.map((resource, binding) => ({ binding, resource })),
      });
    });
    toldAll.unmap();
    const decays = new Float32Array(plan.total);
    for (const [name, shape] of net.shapes) {
      if (shape.length > 1) decays.fill(1, plan.starts[name], plan.starts[name] + net.weights[name].length);
    }
    this.kept = [net.values, optimizer.mean, optimizer.square];
    this.kept.forEach((numbers, i) => this.write(plan.values + i * plan.total, numbers));
    this.write(plan.decays, decays);
    for (const error of [await device.popErrorScope(), await device.popErrorScope()]) {
      if (error) throw new Error(error.message);
    }
  }

  write(place, numbers) {
    this.device.queue.writeBuffer(this.memory, 4 * place, numbers);
  }

  /** The images that the trainer has loaded through these passes; nobody waits for it. */
  run(passes, { size, root, kept }) {
    this.told.set([this.slot, size, root, kept]);
    this.told.set(this.trainer.labels, 4);
    this.write(this.plan.told, this.told);
    const commands = this.device.createCommandEncoder();
    const encoder = commands.beginComputePass();
    for (const { pipeline, group, groups } of passes) {
      encoder.setPipeline(pipeline);
      encoder.setBindGroup(0, group);
      encoder.dispatchWorkgroups(...groups);
    }
    encoder.end();
    this.device.queue.submit([commands.finish()]);
    this.slot += 1;
  }

  async step() {
    const { trainer, device, underWay } = this;
    if (this.slot === this.slots) await this.collect();
    const rate = trainer.learningRate();
    trainer.loadNext();
    this.run(this.plan.all, trainer.optimizer.nextStep(rate));
    trainer.done += 1;
    underWay.push(device.queue.onSubmittedWorkDone());
    if (underWay.length > AHEAD) await Promise.race([underWay.shift(), this.failed]);
  }

  async evaluate() {
    const { trainer } = this;
    const { labels } = trainer.data.held_out;
    await this.collect();
    for (let start = 0; start < labels.length; start += this.images) {
      trainer.loadHeldOut(start);
      this.run(this.plan.forward, { size: 0, root: 1, kept: 1 });
    }
    const log = await this.fetch();
    const answers = Int16Array.from(labels, (_, i) => log[2 * i + 1]);
    const right = labels.reduce((sum, label, i) => sum + (label === answers[i] ? 1 : 0), 0);
    const loss = labels.reduce((sum, _, i) => sum + log[2 * i], 0) / labels.length;
    return { answers, accuracy: right / labels.length, loss };
  }

  async read() {
    await this.collect();
    return this.trainer.read();
  }

  /** The losses of the steps in the log, for the trainer to keep. */
  async collect() {
    const { images, slot } = this;
    if (slot === 0) return;
    const log = await this.fetch();
    for (let step = 0; step < slot; step++) {
      let loss = 0;
      for (let image = 0; image < images; image++) loss += log[2 * (step * images + image)] / images;
      this.trainer.losses.push(loss);
    }
    this.known = this.trainer.done;
  }

  /** Waits for the GPU; the trainer's weights and AdamW's means are then the GPU's. The log, which begins anew. */
  async fetch() {
    const { device, plan, spare } = this;
    const commands = device.createCommandEncoder();
    const size = 4 * 3 * plan.total;
    commands.copyBufferToBuffer(this.memory, 4 * plan.values, spare, 0, size);
    commands.copyBufferToBuffer(this.memory, 4 * plan.log, spare, size, spare.size - size);
    device.queue.submit([commands.finish()]);
    await Promise.race([spare.mapAsync(GPUMapMode.READ), this.failed]);
    const found = new Float32Array(spare.getMappedRange().slice(0));
    spare.unmap();
    this.kept.forEach((numbers, i) => numbers.set(found.subarray(i * plan.total, (i + 1) * plan.total)));
    this.slot = 0;
    return found.subarray(3 * plan.total);
  }

  /** The end of it: the trainer is at the step of the weights that it has. */
  leave() {
    this.device.destroy();
    this.trainer.done = this.known;
    this.trainer.optimizer.steps = this.known;
  }
}
