// The pane of token mixing: all units, one unit's arithmetic over the patches, and which patch moves which.

import { choice, indexSlider, largest, make, set, unpack } from "./kit.js";
import { unitArithmetic } from "./numbers.js";
import { pane, patchValues, row, sentence } from "./panes.js";
import { short } from "./squares.js";

export function tokensPane(view) {
  const { model, data, numbers } = view;
  const biases = unpack(data.biases).values;
  const units = make("div", { class: "mixer-inside" });
  const steps = {
    values: patchValues(view, { name: "values", title: "value of each patch" }),
    weights: patchValues(view, { sign: "×", name: "weights", title: "weight it is read with" }),
    products: patchValues(view, { sign: "=", name: "products", title: "product" }),
    column: patchValues(view, { sign: "×", name: "column", title: "weight to write with" }),
    writes: patchValues(view, { sign: "=", name: "writes", title: "added to each patch by this unit" }),
    added: patchValues(view, {
      sign: "→", name: "added", title: `added by all ${data.num_units} units and the bias`,
    }),
  };
  const moves = patchValues(view, { name: "moves", title: "what moves the patch" });
  const moved = patchValues(view, { name: "moved", title: "what the patch moves" });
  const said = sentence();
  const title = make("h4");
  const arithmetic = make("div", {},
    title,
    row(indexSlider(model, "channel", "Channel", data.num_channels)),
    row(steps.values.element, steps.weights.element, steps.products.element),
    said,
    row(steps.column.element, steps.writes.element, steps.added.element));
  const influence = make("div", {}, row(moves.element, moved.element), make("p", { class: "mixer-caption" },
    "Red: a change of one moves the other the same way, blue the opposite way; the derivative of what this block's " +
    "token mixing adds, for this image, averaged over the channels, skip connection left out."));
  const tabs = { units: "the units and one's arithmetic", patches: "which patch moves which" };
  const shown = pane(view, "token mixing", row(choice(model, "tab", "Show", tabs)), units, arithmetic, influence);
  let inside = false; // whether the units' maps have been put in

  function draw(found) {
    const block = model.get("block");
    const unit = model.get("unit");
    const channel = model.get("channel");
    const patches = model.get("tab") === "patches";
    units.hidden = patches;
    arithmetic.hidden = patches;
    influence.hidden = !patches;
    shown.text.textContent =
      `Each of the ${data.num_channels} channels is mixed alone, with the same weights: ${data.num_units} hidden units ` +
      `read the channel's ${data.num_patches} values, one from each patch, and write to all patches.`;
    if (patches) {
      const scale = Math.max(largest(found.moves), largest(found.moved));
      moves.heading.textContent = `what moves patch ${view.named(model.get("patch"))}`;
      moved.heading.textContent = "what that patch moves";
      moves.draw(found.moves, scale);
      moved.draw(found.moved, scale);
      return;
    }
    if (!inside) view.mixingInside(units);
    inside = true;
    const trained = model.get("before") ? ", with the weights as they are now" : "";
    title.textContent = `What unit ${unit} computes in channel ${channel}${trained}`;
    const bias = biases[block * data.num_units + unit];
    const now = unitArithmetic(
      found.values, numbers.reads(block, unit), numbers.writes(block, unit), bias, data.config.gelu,
    );
    for (const name of ["values", "weights", "products", "column", "writes"]) steps[name].draw(now[name]);
    steps.added.draw(found.added);
    said.textContent =
      `All products together ${short(now.total)}, with the bias ${short(bias)}: a = ${short(now.total + bias)} → ` +
      `GELU(a) = ${short(now.active)}, which goes back to the patches:`;
    Object.assign(said.dataset, { sum: now.total + bias, gelu: now.active });
  }
  return { ...shown, draw };
}
