// A tour through the views of a page: each step is a sentence, traits of a view, and what it is about.

import { claim, make } from "./kit.js";

/**
 * The tour of `steps`, [{view, set: {trait: value}, target: CSS selector, text}], which `button` begins.
 *
 * `views` has the page's views by name, each with start() and set(name, value). Steps of other views are left out; where
 * nothing is found by a selector the whole view is marked. The panel of the tour is put into `root`.
 */
export function tour(steps, views, button, root) {
  const known = steps.filter((step) => views.has(step.view));
  const last = known.length - 1;
  button.hidden = known.length === 0;
  if (button.hidden) return;
  let at = null; // the step at hand; null outside the tour
  let marked = null;

  const tourButton = (text, onclick) => make("button", { type: "button", onclick }, text);
  const count = make("p", { class: "mixer-tour-count" });
  const sentence = make("p", { class: "mixer-tour-text", "aria-live": "polite" });
  const back = tourButton("Back", () => go(at - 1));
  const next = tourButton("Next", () => go(at + 1));
  const leave = tourButton("Leave the tour", () => end());
  const keys = make("span", { class: "mixer-tour-keys" }, "Keys: ← → and Escape");
  const panel = make("section", { class: "mixer-tour", "aria-label": "Tour", hidden: true },
    count, sentence, make("div", { class: "mixer-tour-buttons" }, back, next, leave, keys));
  root.append(panel);

  async function go(to) {
    if (to > last) {
      end();
      return;
    }
    const losesFocus = at === null || (to <= 0 && document.activeElement === back); // a disabled button has none
    at = Math.max(0, to);
    const step = known[at];
    unmark(); // what the last sentence was about
    panel.hidden = false;
    count.textContent = `Step ${at + 1} of ${known.length}`;
    sentence.textContent = step.text;
    back.disabled = at === 0;
    next.textContent = at === last ? "Finish" : "Next";
    if (losesFocus) next.focus({ preventScroll: true });
    const view = views.get(step.view);
    await view.start();
    if (known[at] !== step) return; // the reader has gone on
    for (const [trait, value] of Object.entries(step.set)) view.set(trait, value);
    await drawnFrames();
    if (known[at] === step) mark(document.querySelector(step.target) || view.place);
  }

  function mark(element) {
    unmark(); // a step begun twice
    marked = element;
    marked.classList.add("mixer-toured");
    const room = window.innerHeight - panel.offsetHeight;
    document.documentElement.style.scrollPaddingBottom = `${panel.offsetHeight + 12}px`;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const block = marked.getBoundingClientRect().height > room - 24 ? "start" : "center";
    marked.scrollIntoView({ block, behavior: calm ? "instant" : "smooth" });
  }

  function unmark() {
    marked?.classList.remove("mixer-toured");
    marked = null;
  }

  function end() {
    at = null;
    unmark();
    panel.hidden = true;
    document.documentElement.style.scrollPaddingBottom = "";
    button.focus({ preventScroll: true });
  }

  button.addEventListener("click", () => go(0));
  panel.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    claim(event);
    go(at + step);
  });
  document.addEventListener("keydown", (event) => {
    if (at !== null && event.key === "Escape") end();
  });
}

/** Two frames on: what a change of traits asked for has then been drawn. */
function drawnFrames() {
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}
