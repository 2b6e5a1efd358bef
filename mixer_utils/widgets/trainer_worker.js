// The worker behind learn.js: a step at a time, listening in between, and news of the run a few times a second.
//
// It is told {data} once, then {run, config, settings} for every new run, and {running} to go on or to pause.

import { Trainer, unpackLevels } from "./trainer.js";

const NEWS_EVERY = 200; // milliseconds

let data = null;
let trainer = null;
let run = null; // its number, which all news of it carry
let running = false;
let news = null; // what has come since the last: losses, images trained on, milliseconds that took, an evaluation
let sent = 0; // when
let worked = 0; // milliseconds since the run began, pauses left out
let channel = null; // of messages to oneself
let asked = false; // whether work() is about to be called

globalThis.onmessage = ({ data: told }) => {
  if (told.data) data = unpacked(told.data);
  if (told.config) beginRun(told);
  if ("running" in told && told.running !== running) {
    running = told.running;
    if (running) anotherStep();
    else report();
  }
};

/** Images come as unpackLevels takes them. */
function unpacked({ train, held_out, ...rest }) {
  const part = ({ levels, labels }) => ({ levels: unpackLevels(levels), labels });
  return { ...rest, train: part(train), held_out: part(held_out) };
}

function beginRun(told) {
  run = told.run;
  trainer = new Trainer(told.config, data, told.settings);
  worked = 0;
  news = nothingNew();
  report();
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
    channel.port1.onmessage = work;
  }
  channel.port2.postMessage(null);
}

function work() {
  asked = false;
  if (!running) return;
  const start = performance.now();
  if (trainer.done === 0) evaluate();
  const trained = performance.now();
  news.losses.push(trainer.step());
  news.images += trainer.settings.batch_size;
  news.milliseconds += performance.now() - trained;
  if (isEvaluated(trainer.done)) evaluate();
  worked += performance.now() - start;
  if (trainer.done === trainer.steps) running = false;
  if (!running || news.evaluation || performance.now() - sent > NEWS_EVERY) report();
  if (running) anotherStep();
}

/** Often while the network learns fast, then now and then. */
function isEvaluated(step) {
  return step % (step <= 100 ? 25 : 100) === 0 || step === trainer.steps;
}

function evaluate() {
  news.evaluation = { step: trainer.done, ...trainer.evaluate() };
}

function report() {
  const { net, done, steps, stepsPerEpoch } = trainer;
  postMessage({ run, ...news, shapes: net.shapes, values: net.values, done, steps, stepsPerEpoch, worked, running });
  news = nothingNew();
  sent = performance.now();
}
