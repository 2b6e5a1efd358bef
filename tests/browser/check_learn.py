"""Trains in ``train_in_browser``, moves its controls, and compares what is shown with Python's."""

import json

import numpy as np
import torch
from helpers import FRAMES, wait_until

from mixer_utils import MlpMixer
from mixer_utils.widgets.base import signed_colours

# The colours in the middle of every square: units, rows, columns, RGB. As a text: Playwright takes seconds for lists.
COLOURS = """(canvas, [units, rows, columns]) => {
  const ratio = canvas.width / parseFloat(canvas.style.width), found = [];
  const [across, side, gap] = ["across", "side", "gap"].map((name) => Number(canvas.dataset[name]));
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let at = 0; at < units; at++) for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
    const x = Math.floor(((at % across) * (columns * side + gap) + (c + 0.5) * side) * ratio);
    const y = Math.floor((Math.floor(at / across) * (rows * side + gap) + (r + 0.5) * side) * ratio);
    found.push(...pixels.subarray(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 3));
  }
  return JSON.stringify(found);
}"""
TRAINED = """(root) => {
  const spec = root.trained();
  if (spec === null) return null;
  const tensors = {};
  for (const [name, { shape, bytes, dtype }] of Object.entries(spec.tensors)) {
    tensors[name] = { shape, dtype, values: Array.from(new Float32Array(bytes.slice().buffer)) };
  }
  return JSON.stringify({ ...spec, tensors });
}"""


def button(root, name):
    return root.locator(f"[data-control={name}]")


def part(root, name):
    return root.locator(f"[data-part={name}]")


def step(root):
    """The step that is shown; -1 before the first."""
    words = part(root, "pace").inner_text().split()
    return int(words[1].replace(",", "")) if words else -1


def wait_for_step(root, least):
    wait_until(root.page, lambda: step(root) >= least)


def train_to_the_end(root):
    button(root, "train").click()
    wait_until(root.page, lambda: "anew" in button(root, "train").inner_text())
    root.page.evaluate(FRAMES)


def trained(root):
    """What the view gives away: an MlpMixer with its weights, and the images' mean and std; None before training."""
    text = root.evaluate(TRAINED)
    if text is None:
        return None
    spec = json.loads(text)
    model = MlpMixer(**spec["config"]).eval()
    assert list(model.image_shape) == spec["image_shape"]
    for name, tensor in spec["tensors"].items():
        assert tensor["dtype"] == "float32" and tensor["shape"] == list(model.state_dict()[name].shape), name
    values = {name: torch.tensor(t["values"]).view(t["shape"]) for name, t in spec["tensors"].items()}
    model.load_state_dict(values)
    return model, spec["mean"], spec["std"]


def maps_shown(root, view, size):
    """The colours of all maps, (units, S, 3)."""
    root.page.evaluate(FRAMES)
    config = view.data["configs"][str(size)]
    units, (_, height, width) = config["tokens_mlp_dim"], view.data["image_shape"]
    text = part(root, "maps").evaluate(COLOURS, [units, height // size, width // size])
    return np.array(json.loads(text)).reshape(units, -1, 3)


def expect_maps(root, view, size, block):
    """The maps are those of the weights, on the scale that the legend states."""
    found = maps_shown(root, view, size)
    model, _, _ = trained(root)
    reads = model.blocks[block].token_mixing.dense_0.weight.detach().numpy()
    scale = float(root.locator(".mixer-legend span").last.text_content().removeprefix("+"))
    assert np.abs(reads).max() <= 1.005 * scale
    places = np.floor(128 + 127.5 * reads / scale).clip(0, 255).astype(int)
    table = signed_colours().astype(int)
    off = np.minimum.reduce([np.abs(found - table[(places + d).clip(0, 255)]).max(-1) for d in (-1, 0, 1)])
    assert off.max() <= 2  # the scale is written with three digits: a place more or less in the table


def expect_answers(root, view):
    """Accuracy, answers and mistakes are those of the weights that the view gives away."""
    model, mean, std = trained(root)
    images = torch.from_numpy(view.levels("held_out"))[:, None] / 15
    labels = np.frombuffer(view.data["held_out"]["labels"]["bytes"], np.int16)
    with torch.inference_mode():
        called = model((images - mean) / std).argmax(1).numpy()
    assert part(root, "share").inner_text() == f"{100 * (called == labels).mean():.1f} %"
    names = view.data["class_names"]
    items = root.locator(".mixer-answers").first.locator("li").all()
    shown = [int(item.get_attribute("data-image")) for item in items]
    assert shown == [i for k in range(len(names)) for i in np.flatnonzero(labels == k)[:2]]
    wrong = np.flatnonzero(called != labels)
    mistakes = root.locator(".mixer-answers").last.locator("li").all()
    assert [int(item.get_attribute("data-image")) for item in mistakes] == wrong[:10].tolist()
    for item in items + mistakes:
        i = int(item.get_attribute("data-image"))
        right = called[i] == labels[i]
        assert item.inner_text() == (
            f"✓ {names[called[i]]}" if right else f"✗ {names[called[i]]}, is {names[labels[i]]}"
        )
        assert ("mixer-wrong" in item.get_attribute("class")) == (not right)
    assert f"{len(wrong)} of {len(labels)} are called wrongly" in root.inner_text()
