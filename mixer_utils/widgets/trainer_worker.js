// The worker behind learn.js: a step at a time, listening in between, and news of the run a few times a second.
//
// It is told {data} once, then {run, config, settings} for every new run, and {running} to go on or to pause. Where the
// browser gives it a GPU, the steps are taken there; where that fails, the trainer goes on by itself.

import { Trainer, unpackLevels } from "./trainer.js";
import { GpuTrainer, gpuDevice } from "./trainer_gpu.js";

const NEWS_EVERY = 200; // milliseconds
const TRIED = 3; // steps: the last one's loss depends on every gradient of those before

let data = null;
let trainer = null;
let gpu = null; // which takes the trainer's steps, or null
let place = null; // where they are taken: "gpu", "core", or "failed", on the core as the GPU failed; null: not known yet
let run = null; // its number, which all news of it carry
let running = false;
let news = null; // what has come since the last: losses, images trained on, milliseconds that took, an evaluation
let sent = 0; // when
let worked = 0; // milliseconds since the run began, pauses left out
let channel = null; // of messages to oneself
let asked = false; // whether work() is about to be called
let last = Promise.resolve(); // what is being done

/** One thing after another: a GPU's answers are waited for, and messages come meanwhile. */
function afterwards(task) {
  last = last.then(task).catch((error) => {
    setTimeout(() => {
      throw error; // where learn.js hears of it
    });
  });
}

globalThis.onmessage = ({ data: told }) => afterwards(() => hearOf(told));

async function hearOf(told) {
  if (told.data) data = unpacked(told.data);
  if (told.config) await beginRun(told);
  if ("running" in told && told.running !== running) {
    running = told.running;
    if (running) anotherStep();
    else await withGpu(report);
  }
}

/** Images come as unpackLevels takes them. */
function unpacked({ train, held_out, ...rest }) {
  const part = ({ levels, labels }) => ({ levels: unpackLevels(levels), labels });
  return { ...rest, train: part(train), held_out: part(held_out) };
}

async function beginRun(told) {
  gpu?.leave();
  gpu = null;
  run = told.run;
  trainer = new Trainer(told.config, data, told.settings);
  worked = 0;
  news = nothingNew();
  place = null;
  await report(); // what there is to see; a GPU takes its time to get ready
  await askForGpu(told);
  await report();
}

async function askForGpu(told) {
  let device = null;
  try {
    await tryGpu(told);
    device = await gpuDevice(told.settings.software_gpu);
    gpu = device && (await GpuTrainer.of(trainer, device));
    place = gpu ? "gpu" : "core";
  } catch {
    device?.destroy();
    place = "failed";
  }
}

/** No GPU is believed unseen: throws where the losses of its first steps are not the processor's. */
async function tryGpu({ config, settings }) {
  const device = await gpuDevice(settings.software_gpu);
  if (!device) return;
  const trial = new Trainer(config, data, settings);
  const here = new Trainer(config, data, settings);
  try {
    const there = await GpuTrainer.of(trial, device);
    for (let step = 0; step < TRIED; step++) {
      await there.step();
      here.step();
    }
    const losses = await there.read();
    const right = here.read().every((loss, i) => Math.abs(losses[i] - loss) < 1e-3 * loss);
    if (!right) throw new Error("The GPU counts otherwise than the processor.");
  } finally {
    device.destroy();
  }
}

/** Does a task; where the GPU fails at it, once more without. */
async function withGpu(task) {
  try {
    await task();
  } catch (error) {
    if (!gpu) throw error;
    gpu.leave();
    gpu = null;
    place = "failed";
    await task();
  }
}

function nothingNew() {
  return { losses: [], images: 0, milliseconds: 0, evaluation: null };
}

/** Calls work(), once, after whatever message has come meanwhile. Unlike setTimeout, this waits for nothing else. */
function anotherStep() {
  if (asked) return; // before a pause, or by the run before
  asked = true;
  if (!channel) {
    channel = new MessageChannel();
    channel.port1.onmessage = () => afterwards(work);
  }
  channel.port2.postMessage(null);
}

async function work() {
  asked = false;
  if (!running) return;
  await withGpu(step);
  if (running) anotherStep();
}

async function step() {
  const start = performance.now();
  if (trainer.done === 0) await evaluate();
  const trained = performance.now();
  if (trainer.done < trainer.steps) await (gpu ?? trainer).step(); // else the GPU failed at the evaluation only
  const evaluated = isEvaluated(trainer.done);
  const due = evaluated || news.evaluation || performance.now() - sent > NEWS_EVERY;
  if (due) await collect();
  news.images += trainer.settings.batch_size;
  news.milliseconds += performance.now() - trained;
  if (evaluated) await evaluate();
  worked += performance.now() - start;
  running = trainer.done < trainer.steps;
  if (due) await report();
}

/** Often while the network learns fast, then now and then. */
function isEvaluated(step) {
  return step % (step <= 100 ? 25 : 100) === 0 || step === trainer.steps;
}

async function evaluate() {
  news.evaluation = { step: trainer.done, ...(await (gpu ?? trainer).evaluate()) };
}

/** The losses so far, and with them the weights of now. */
async function collect() {
  news.losses.push(...(await (gpu ?? trainer).read()));
}

async function report() {
  await collect();
  const { net, done, steps, stepsPerEpoch } = trainer;
  const { shapes, values } = net;
  postMessage({ run, ...news, shapes, values, done, steps, stepsPerEpoch, worked, running, place });
  news = nothingNew();
  sent = performance.now();
}
