// The pane of channel mixing: one patch's channels through the hidden units, and one hidden unit's arithmetic.

import { make } from "./kit.js";
import { unitArithmetic } from "./numbers.js";
import { pane, patchValues, row, sentence, vectorValues } from "./panes.js";
import { short } from "./squares.js";

export function channelsPane(view) {
  const { model, data, numbers } = view;
  const channels = { trait: "channel", count: data.num_channels, under: view.under.channel, each: "channel" };
  const count = data.num_hidden_units;
  const hiddens = { trait: "hidden_unit", count, under: view.under.hidden, each: "hidden unit" };
  const normed = vectorValues(view, { ...channels, name: "normed", title: `the token's ${data.num_channels} channels` });
  const hidden = vectorValues(view, {
    ...hiddens, sign: "→", name: "hidden", title: `${data.num_hidden_units} hidden units, after GELU`,
  });
  const added = vectorValues(view, { ...channels, sign: "→", name: "added", title: "added to the token" });
  const steps = {
    values: vectorValues(view, { ...channels, name: "values", title: "value of each channel" }),
    weights: vectorValues(view, { ...channels, sign: "×", name: "weights", title: "weight it is read with" }),
    products: vectorValues(view, { ...channels, sign: "=", name: "products", title: "product" }),
    column: vectorValues(view, { ...channels, sign: "×", name: "column", title: "weight to write with" }),
    writes: vectorValues(view, { ...channels, sign: "=", name: "writes", title: "added to each channel by this unit" }),
  };
  const over = patchValues(view, { name: "over", title: "this hidden unit in every patch" });
  const title = make("h4");
  const said = sentence();
  const same = make("p", { class: "mixer-caption" },
    "The weights are the same for every patch, and no patch sees another: choose another patch, and only the values " +
    "change.");
  const shown = pane(view, "channel mixing",
    row(normed.element, hidden.element, added.element),
    title,
    row(steps.values.element, steps.weights.element, steps.products.element),
    said,
    row(steps.column.element, steps.writes.element, over.element),
    same);

  function draw(found) {
    const unit = model.get("hidden_unit");
    const patch = model.get("patch");
    shown.text.textContent =
      `Each token is mixed alone: its ${data.num_channels} channels become ${count} hidden units and then ` +
      `${data.num_channels} numbers that are added to it. This is patch ${view.named(patch)}.`;
    normed.draw(found.normed);
    hidden.draw(found.hidden);
    added.draw(found.added);
    over.draw(found.over);
    title.textContent = `What hidden unit ${unit} computes in patch ${patch}`;
    const now = unitArithmetic(found.normed, found.reads, found.writes, found.bias[0], data.config.gelu);
    for (const name of Object.keys(steps)) steps[name].draw(now[name]);
    said.textContent =
      `All ${data.num_channels} products together ${short(now.total)}, with the bias ${short(now.bias)}: ` +
      `a = ${short(now.total + now.bias)} → GELU(a) = ${short(now.active)}, which goes back to the channels:`;
    Object.assign(said.dataset, { sum: now.total + now.bias, gelu: now.active });
  }
  return { ...shown, draw };
}
