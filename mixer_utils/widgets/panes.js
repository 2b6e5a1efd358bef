// What the panes of the network's stages share: a title and a button that closes, steps of arithmetic, maps, vectors.

import { clamp, largest, make } from "./kit.js";
import { paintValues, short, squares } from "./squares.js";

/** A pane: its title, and what is in it, in rows. */
export function pane(view, stage, ...rows) {
  const title = make("h3");
  const close = make("button", {
    type: "button", class: "mixer-close", "data-do": "close", "aria-label": "Close", title: "Close (Escape)",
    onclick: view.close,
  }, "×");
  const text = make("p", { class: "mixer-lead" });
  const head = make("div", { class: "mixer-pane-head" }, title, close);
  const element = make("section", { class: "mixer-pane", "data-pane": stage, "aria-label": stage }, head, text, ...rows);
  const name = (said) => {
    title.textContent = said;
    element.setAttribute("aria-label", said);
  };
  return { element, name, text };
}

/** Things side by side. */
export function row(...content) {
  return make("div", { class: "mixer-row" }, ...content);
}

/** A drawing with a title above it and, below it, what its colours stand for; `sign` stands before it: ×, =, →. */
export function part(sign, title, ...content) {
  const note = make("small");
  const heading = make("figcaption", {}, title);
  const figure = make("figure", { class: "mixer-part" }, heading, ...content, note);
  const element = make("div", { class: "mixer-signed" }, make("b", { "aria-hidden": "true" }, sign), figure);
  return { element, note, heading };
}

/** A sentence with numbers, below a step. */
export function sentence() {
  return make("p", { class: "mixer-arithmetic" });
}

/** How wide a drawing in a pane can be, CSS pixels, beside its sign. */
export function roomIn(view) {
  return view.root.clientWidth - 108;
}

/** A map of a number for each patch. Its draw(values, scale) says below what its colours cover. */
export function patchValues(view, { sign = "", name, title, said }) {
  const { grid, model } = view;
  let values = [];
  const map = squares(model, {
    trait: "patch", count: grid[0] * grid[1], columns: grid[1], name, under: view.under.patch,
    label: () => `${said || title}, a number for each patch, ${view.spread(values)}; arrow keys choose a patch`,
    say: (s) => view.say(s === null ? null : () => `${said || title}, patch ${view.named(s)}: ${short(values[s])}`),
  });
  const shown = part(sign, title, map.canvas);
  const draw = (next, scale = largest(next)) => {
    values = next;
    const longer = Math.max(...grid);
    const most = longer <= 7 ? Math.min(308, 44 * longer) : 168;
    const side = Math.max(2, Math.floor(Math.min(most, roomIn(view)) / longer));
    const size = { width: side, height: side, numbers: true };
    Object.assign(map.canvas.dataset, { scale });
    map.draw(size, paintValues(values, scale, view.table, grid[1], size));
    shown.note.textContent = `colours ±${short(scale)}`;
  };
  return { element: shown.element, heading: shown.heading, draw, canvas: map.canvas };
}

/** Numbers of a vector (channels or hidden units), in rows; a click chooses one, the trait. */
export function vectorValues(view, { sign = "", name, title, trait, count, under, each }) {
  let values = [];
  const columns = Math.min(count, Math.ceil(Math.sqrt(4 * count)));
  const map = squares(view.model, {
    trait, count, columns, name, under,
    label: () => `${title}, ${count} numbers, ${view.spread(values)}; arrow keys choose one`,
    say: (i) => view.say(i === null ? null : () => `${title}, ${each} ${i}: ${short(values[i])}`),
  });
  const shown = part(sign, title, map.canvas);
  const draw = (next, scale = largest(next)) => {
    values = next;
    const side = clamp(Math.floor(Math.min(264, roomIn(view)) / columns), 2, 22);
    Object.assign(map.canvas.dataset, { scale });
    const size = { width: side, height: side };
    map.draw(size, paintValues(values, scale, view.table, columns, size));
    shown.note.textContent = `colours ±${short(scale)}`;
  };
  return { element: shown.element, heading: shown.heading, draw, canvas: map.canvas };
}

/** The sum of numbers. */
export function total(values) {
  return values.reduce((a, b) => a + b, 0);
}
