// Views on a page without a kernel: a plain object in the model's place, and the data unpacked from the page.

import { make } from "./kit.js";
import { render } from "./index.js";

class State {
  constructor(values) {
    this.values = values;
    this.callbacks = {};
  }
  get(name) {
    return this.values[name];
  }
  set(name, value) {
    if (this.values[name] === value) return;
    this.values[name] = value;
    for (const callback of this.callbacks[`change:${name}`] || []) callback();
  }
  save_changes() {}
  on(event, callback) {
    (this.callbacks[event] ||= []).push(callback);
  }
}

/** Base64 of deflated bytes; of numbers of several bytes, all first bytes come first, then all second ones. */
async function inflated(text, width) {
  const letters = atob(text);
  const packed = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) packed[i] = letters.charCodeAt(i); // ten times as fast as from()
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const bytes = new Uint8Array(planes.length);
  const count = planes.length / width;
  for (let byte = 0; byte < width; byte++) {
    for (let i = 0; i < count; i++) bytes[i * width + byte] = planes[byte * count + i];
  }
  return new DataView(bytes.buffer);
}

/** The state with {"buffer": n} replaced by the bytes of that buffer. */
function filled(value, buffers) {
  if (Array.isArray(value)) return value.map((one) => filled(one, buffers));
  if (value === null || typeof value !== "object") return value;
  if ("buffer" in value) return buffers[value.buffer];
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, filled(one, buffers)]));
}

/** Show every view in its place, or a sentence there; the states by the id of their place. */
async function showViews() {
  const places = [...document.querySelectorAll(".mixer-view-here")];
  const states = new Map();
  const instead = (place, text) => {
    place.replaceChildren(make("p", { class: "mixer-instead", role: "alert" }, text));
  };
  const start = (place, buffers) => {
    const values = JSON.parse(place.querySelector("script").textContent);
    const state = new State(filled(values, buffers));
    place.replaceChildren();
    render({ model: state, el: place });
    states.set(place.id, state);
  };
  if (!window.DecompressionStream) {
    const sentence = "This browser is too old to unpack the model: open the page in a newer one.";
    for (const place of places) instead(place, sentence);
    return states;
  }
  const scripts = [...document.querySelectorAll("script.mixer-buffer")];
  const unpacking = Promise.all(scripts.map((one) => inflated(one.textContent, Number(one.dataset.width))));
  for (const place of places) {
    try {
      start(place, await unpacking);
    } catch (error) {
      console.error(error);
      instead(place, `This view could not be started (${error.message}): load the page again, or make it anew.`);
    }
  }
  document.getElementById(location.hash.slice(1))?.scrollIntoView(); // views above have found their height only now
  return states;
}

window.mixerViews = showViews();
