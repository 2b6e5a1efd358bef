// The panes of the mean over the tokens and of the head: which patches carry a channel, and which vote for a class.

import { choice, indexSlider, make, set } from "./kit.js";
import { softmax } from "./mixer.js";
import { digitPercent } from "./digit.js";
import { pane, patchValues, row, sentence, total, vectorValues } from "./panes.js";
import { short } from "./squares.js";

export function meanPane(view) {
  const { model, data, numbers } = view;
  const mean = vectorValues(view, {
    sign: "→", name: "means", title: `the mean token: ${data.num_channels} channels`,
    trait: "channel", count: data.num_channels, under: view.under.channel, each: "channel",
  });
  const values = patchValues(view, { name: "values", title: "this channel in every patch" });
  const said = sentence();
  const shown = pane(view, "mean",
    row(indexSlider(model, "channel", "Channel", data.num_channels)), row(values.element, mean.element), said);
  shown.text.textContent =
    "After a last LayerNorm, every channel is averaged over all patches: what is in the image counts, wherever it was.";

  function draw(found) {
    const channel = model.get("channel");
    mean.draw(view.overview().mean);
    values.draw(found.values);
    values.heading.textContent = `channel ${channel} of every patch`;
    const average = total(found.values) / data.num_patches;
    said.textContent = `The ${data.num_patches} numbers of channel ${channel} have the mean ${short(average)}.`;
    Object.assign(said.dataset, { value: average });
  }
  return { ...shown, draw };
}

export function headPane(view) {
  const { model, data, numbers } = view;
  const few = data.num_classes <= 20;
  const list = make("table", { class: "mixer-classes" });
  const votes = patchValues(view, { name: "votes", title: "votes", said: "Its vote" });
  const said = sentence();
  const names = Object.fromEntries(data.class_names.map((name, k) => [k, name]));
  const shown = pane(view, "head",
    row(choice(model, "class_index", "Class", names)), row(list, votes.element), said);
  shown.text.textContent =
    "The mean and the head are linear: a class's logit is the sum of what every patch contributes, its vote, and a " +
    "bias. Softmax turns the logits into probabilities.";

  function drawList(logits) {
    const probabilities = softmax(logits);
    const order = Array.from(logits.keys());
    if (!few) order.sort((a, b) => logits[b] - logits[a]).splice(10);
    const head = make("tr", {}, ...["class", "logit", "probability"].map((text) => make("th", { scope: "col" }, text)));
    const rows = order.map((k) => {
      const chosen = k === model.get("class_index");
      const pick = make("button", {
        type: "button", "data-class": k, "aria-pressed": String(chosen), onclick: () => set(model, { class_index: k }),
      }, data.class_names[k]);
      return make("tr", { "aria-current": chosen ? "true" : null }, make("td", {}, pick),
        make("td", {}, short(logits[k])), make("td", {}, digitPercent(probabilities[k])));
    });
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.class : null;
    list.replaceChildren(head, ...rows);
    if (focused !== null) list.querySelector(`[data-class="${focused}"]`)?.focus();
  }

  function draw(found) {
    const { logits } = view.overview();
    const chosen = model.get("class_index");
    drawList(logits);
    votes.draw(found.votes);
    const name = data.class_names[chosen];
    votes.heading.textContent = `each patch's vote for ${name}`;
    const sum = total(found.votes);
    said.textContent =
      `The ${data.num_patches} votes for ${name} add up to ${short(sum)}; with the bias ${short(found.bias[0])} ` +
      `that is ${short(sum + found.bias[0])}, the logit.`;
    Object.assign(said.dataset, { sum, bias: found.bias[0], logit: logits[chosen] });
  }
  return { ...shown, draw };
}
