// The steps of trainer.js on a GPU, by WebGPU: the same batches and the same arithmetic, but for rounding.
//
// All numbers lie in one buffer on the GPU; a place is where an array begins in it. A pass runs one kernel (kernels.js)
// in many threads, each of which computes a number, or a row of them; what a pass wrote the next one reads. A step is a
// list of passes that is made once. Every image's gradients stand by themselves, and are added up where AdamW takes its
// step: so there is work for many threads, no two of them write to the same place, and a run can be repeated exactly.
//
// Read from the end: GpuTrainer takes a step, Plan makes the list, layer by layer as in trainer.js.

import { GROUP, KERNELS, program } from "./kernels.js";
import { transposed } from "./trainer.js";

// --- the passes of a step --------------------------------------------------------------------------------------------

/**
 * Where everything lies, and the passes of a step: `forward` ends with the loss, `all` with AdamW's step. A matrix is
 * as in trainer.js, with a place, `at`, instead of an array, and `batch`, the step to the next image's.
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

  /** A pass of so many threads at least, for each image where images are told. */
  add(kernel, told, threads, images = 1) {
    this.all.push({ kernel, told, groups: [Math.ceil(threads / GROUP), 1, images] });
  }

  product(to, a, b, more = {}) {
    this.add("product", {
      rows: to.rows, columns: to.columns, depth: a.columns,
      a: a.at, aDown: a.down, aRight: a.right, aBatch: a.batch,
      b: b.at, bDown: b.down, bRight: b.right, bBatch: b.batch,
      to: to.at, down: to.down, right: to.right, batch: to.batch, bias: 0, slope: 0, times: 0, plus: 0, ...more,
    }, Math.ceil(to.rows / 4) * Math.ceil(to.columns / 4), this.images);
  }

  sums(to, batch, x, share) {
    const { at, rows, columns, down, right } = x;
    this.add("sums", { rows, columns, x: at, down, right, xBatch: x.batch, share, to, batch }, columns, this.images);
  }

  // A layer's function adds its passes forward, from x to y, and returns one that adds those backward, from dy to dx.

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
      this.add("normGradient", { ...told, rows: S, to: this.slopes + start, batch: this.total }, C, images);
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
 * A Trainer's run on the GPU: step(), evaluate() and read() are as its own, but promises. They reject once the device
 * is lost or refuses something: after leave() the Trainer itself goes on, from the step whose weights were read last.
 */
export class GpuTrainer {
  static async of(trainer, device) {
    const gpu = new GpuTrainer(trainer, device);
    await gpu.prepare();
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

  /** Whatever the device refuses is thrown here, not at a later step. */
  async prepare() {
    const { device, plan, trainer: { net, optimizer } } = this;
    for (const kind of ["out-of-memory", "validation"]) device.pushErrorScope(kind);
    const buffers = ["storage", "uniform"].map((type) => ({ visibility: GPUShaderStage.COMPUTE, buffer: { type } }));
    const layout = device.createBindGroupLayout({ entries: numbered(buffers) });
    const pipelines = await this.compiled(layout);
    this.makeBuffers(layout, pipelines);
    this.kept = [net.values, optimizer.mean, optimizer.square];
    this.kept.forEach((numbers, i) => this.write(plan.values + i * plan.total, numbers));
    const decays = new Float32Array(plan.total);
    for (const [name, shape] of net.shapes) {
      if (shape.length > 1) decays.fill(1, plan.starts[name], plan.starts[name] + net.weights[name].length);
    }
    this.write(plan.decays, decays);
    for (const error of [await device.popErrorScope(), await device.popErrorScope()]) {
      if (error) throw new Error(error.message);
    }
  }

  /** Every kernel as a pipeline, by name. */
  async compiled(bindGroupLayout) {
    const { device, trainer: { net, optimizer } } = this;
    const layout = device.createPipelineLayout({ bindGroupLayouts: [bindGroupLayout] });
    const compile = async ([name, kernel]) => {
      const module = device.createShaderModule({ code: program(kernel, net.config.gelu, optimizer) });
      return [name, await device.createComputePipelineAsync({ layout, compute: { module, entryPoint: "main" } })];
    };
    return Object.fromEntries(await Promise.all(Object.entries(KERNELS).map(compile)));
  }

  /** The buffer of all numbers, a spare one to read them by, and what every pass is told, which never changes. */
  makeBuffers(layout, pipelines) {
    const { device, plan } = this;
    const { STORAGE, UNIFORM, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
    const log = 2 * this.slots * this.images;
    this.memory = device.createBuffer({ size: 4 * plan.end, usage: STORAGE | COPY_SRC | COPY_DST });
    this.spare = device.createBuffer({ size: 4 * (3 * plan.total + log), usage: MAP_READ | COPY_DST });
    const told = device.createBuffer({ size: TOLD * plan.all.length, usage: UNIFORM, mappedAtCreation: true });
    plan.all.forEach((pass, i) => {
      const numbers = KERNELS[pass.kernel].takes.split(" ").map((name) => pass.told[name]);
      new Uint32Array(told.getMappedRange(TOLD * i, TOLD)).set(numbers);
      const resources = [{ buffer: this.memory }, { buffer: told, offset: TOLD * i, size: TOLD }];
      const entries = numbered(resources.map((resource) => ({ resource })));
      pass.group = device.createBindGroup({ layout, entries });
      pass.pipeline = pipelines[pass.kernel];
    });
    told.unmap();
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

/** Entries with their numbers, in WebGPU's words. */
function numbered(entries) {
  return entries.map((entry, binding) => ({ binding, ...entry }));
}
