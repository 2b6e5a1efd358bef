// Views on a page without a kernel: a plain object in the model's place, the data unpacked from the page when a view is
// scrolled to, what is chosen kept in the page's address, and a tour.

import { make, wearTheme } from "./kit.js";
import { addressOf, addressRead } from "./address.js";
import { render } from "./index.js";
import { tour } from "./tour.js";

/** A view's traits in the model's place; the view is drawn at start(). */
class State {
  constructor(place, unpacked) {
    this.place = place;
    this.unpacked = unpacked; // the number of a buffer -> a promise of its bytes
    this.values = JSON.parse(place.querySelector("script").textContent);
    this.first = null; // the values as they were, once the view is drawn
    this.callbacks = {};
  }
  get(name) {
    return this.values[name];
  }
  set(name, value) {
    if (this.values[name] === value) return;
    this.values[name] = value;
    for (const event of [`change:${name}`, "change"]) {
      for (const callback of this.callbacks[event] || []) callback();
    }
  }
  save_changes() {}
  on(event, callback) {
    (this.callbacks[event] ||= []).push(callback);
  }
  /** Draws the view in its place, or writes a sentence there; once, however often it is asked for. */
  start() {
    this.starting ||= this.draw();
    return this.starting;
  }
  async draw() {
    try {
      const values = await filled(this.values, this.unpacked);
      this.values = values;
      this.first = { ...values };
      this.place.replaceChildren();
      this.end = render({ model: this, el: this.place });
    } catch (error) {
      console.error(error);
      const sentence = `This view could not be started (${error.message}): load the page again, or make it anew.`;
      instead(this.place, sentence);
    }
  }
}

function instead(place, text) {
  place.replaceChildren(make("p", { class: "mixer-instead", role: "alert" }, text));
}

/** Base64 of deflated bytes; of numbers of several bytes, all first bytes come first, then all second ones. */
async function inflated(text, width) {
  const letters = atob(text);
  const packed = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) packed[i] = letters.charCodeAt(i); // ten times as fast as from()
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  if (width === 1) return new DataView(planes.buffer);
  const bytes = new Uint8Array(planes.length);
  const count = planes.length / width;
  for (let byte = 0; byte < width; byte++) {
    for (let i = 0; i < count; i++) bytes[i * width + byte] = planes[byte * count + i];
  }
  return new DataView(bytes.buffer);
}

/** The state with {"buffer": n} replaced by the bytes of that buffer. */
async function filled(value, unpacked) {
  if (Array.isArray(value)) return Promise.all(value.map((one) => filled(one, unpacked)));
  if (value === null || typeof value !== "object") return value;
  if ("buffer" in value) return unpacked(value.buffer);
  const entries = Object.entries(value).map(async ([name, one]) => [name, await filled(one, unpacked)]);
  return Object.fromEntries(await Promise.all(entries));
}

/** A function: the bytes of a buffer of the page, unpacked when they are first asked for. */
function unpacking() {
  const scripts = document.querySelectorAll("script.mixer-buffer");
  const found = [];
  return (number) => {
    const script = scripts[number];
    found[number] ||= inflated(script.textContent, Number(script.dataset.width));
    return found[number];
  };
}

/** The views by the id of their place. One is drawn when its place is near what is seen, the first one at once. */
function findViews() {
  const places = [...document.querySelectorAll(".mixer-view-here")];
  if (!window.DecompressionStream) {
    const sentence = "This browser is too old to unpack the model: open the page in a newer one.";
    for (const place of places) instead(place, sentence);
    return new Map();
  }
  if (places.length === 0) return new Map();
  const unpacked = unpacking();
  const states = new Map(places.map((place) => [place.id, new State(place, unpacked)]));
  const near = (entries, observer) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      states.get(target.id).start();
    }
  };
  const observer = new IntersectionObserver(near, { rootMargin: "200px" });
  for (const place of places) observer.observe(place);
  return states;
}

/** What is chosen in the views, and the page's address, follow each other; `say` takes a sentence on what is wrong. */
function followAddress(traits, views, say) {
  const now = (view, trait) => views.get(view).get(trait);
  const first = (view, trait) => views.get(view).first[trait];
  const drawn = () => Object.fromEntries(Object.entries(traits).filter(([view]) => views.get(view)?.first));
  const bare = () => location.href.split("#")[0];
  let waiting = null;
  let written = -Infinity; // when an entry was made in the history

  /** Into the address. What is chosen within two seconds is one step of the browser's Back. */
  function write() {
    clearTimeout(waiting);
    const text = addressOf(drawn(), now, first);
    const old = location.hash.slice(1);
    if (text === old || (text === "" && !old.includes("="))) return;
    const together = performance.now() - written < 2000;
    written = performance.now();
    history[together ? "replaceState" : "pushState"](null, "", text ? `#${text}` : bare());
  }

  /** From the address. What it does not name is as it was at first. */
  async function read() {
    clearTimeout(waiting);
    const found = addressRead(traits, location.hash.slice(1));
    if (found === null && location.hash.length > 1) return; // a place on the page
    const { values, wrong } = found || { values: {}, wrong: [] };
    written = performance.now();
    const listed = wrong.join(", ");
    say(wrong.length ? `The page's address asks for what is not here (${listed}): this part of it is left out.` : "");
    for (const [view, kinds] of Object.entries(traits)) {
      const state = views.get(view);
      if (values[view]) await state.start();
      if (state.first) setAll(state, kinds, values[view] || {});
    }
    const [view] = Object.keys(values);
    if (view) views.get(view).place.closest("section").scrollIntoView();
  }

  function setAll(state, kinds, wanted) {
    const values = { ...state.first, ...wanted };
    if (wanted.pixels) delete values.start; // the view finds that it is no example
    else if (values.start >= 0) delete values.pixels; // the view takes the example's
    for (const trait of Object.keys(kinds)) {
      if (trait in values) state.set(trait, values[trait]);
    }
  }

  for (const view of Object.keys(traits)) {
    views.get(view).on("change", () => {
      clearTimeout(waiting);
      waiting = setTimeout(write, 400);
    });
  }
  window.addEventListener("hashchange", read);
  return { read, write };
}

/** The button that copies the page's address, with all that is chosen in it. */
function copyLink(button, write, say) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    write();
    try {
      await navigator.clipboard.writeText(location.href);
      say("The link is copied: it opens this page with what you chose and drew.");
    } catch {
      const field = make("input", { readonly: true, value: location.href, "aria-label": "Link to this page" });
      say("Copy this link: ", field);
      field.select();
    }
  });
}

async function showPage() {
  const states = findViews();
  const about = document.getElementById("mixer-page");
  if (about === null || states.size === 0) return states;
  const { traits, steps } = JSON.parse(about.textContent);
  const part = (name) => document.getElementById(`mixer-${name}`);
  const views = new Map(Object.keys(traits).map((name) => [name, states.get(`${name}-view`)]));
  const say = (...what) => part("said").replaceChildren(...what);
  wearTheme(part("explorer"));
  const { read, write } = followAddress(traits, views, say);
  copyLink(part("copy"), write, say);
  tour(steps, views, part("begin"), part("explorer"));
  await read();
  return states;
}

window.mixerViews = showPage();
