"""The arithmetic of training on a GPU, against PyTorch's and against the trainer without one.

No GPU is needed: Chromium's software, SwiftShader, plays one.
"""

import json

import numpy as np
import pytest
import torch
from helpers import GPU_FLAGS
from test_trainer import TRAINER, arguments
from torch.nn import functional as F

from mixer_utils import MlpMixer
from mixer_utils.widgets import learn, train_in_browser
from mixer_utils.widgets.front_end import joined

INPUT = np.arange(16) / 15  # what the network is fed, by level: the images' mean is 0, their deviation 1


@pytest.fixture(scope="module")
def browser_flags():
    return GPU_FLAGS


@pytest.fixture(scope="module")
def page(gpu_page):
    gpu_page.add_script_tag(content=joined("trainer_gpu"))
    return gpu_page


@pytest.fixture
def run(page):
    """A function: an asynchronous JavaScript function's result; what goes in and out travels as JSON."""

    def run_(function, *arguments):
        script = f"async (text) => JSON.stringify(await ({function})(...JSON.parse(text)), (key, value) => \
            ArrayBuffer.isView(value) ? Array.from(value) : value)"
        return json.loads(page.evaluate(script, json.dumps(arguments)))

    return run_


# --- a step, against PyTorch's ---------------------------------------------------------------------------------------

# A step whose learning rate is 0 leaves the weights alone; the gradient lies where AdamW found it.
GRADIENTS = f"""async (config, data, settings, weights) => {{
  {TRAINER}
  const trainer = trainerOf(config, data, settings);
  for (const [name, values] of Object.entries(weights)) trainer.net.weights[name].set(values);
  const gpu = await GpuTrainer.of(trainer, await gpuDevice(true));
  await gpu.step();
  const [loss] = await gpu.read();
  gpu.plan.values = gpu.plan.gradient; // fetch() reads from there
  await gpu.fetch();
  gpu.leave();
  return {{ loss, gradients: trainer.net.weights }};
}}"""


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
@pytest.mark.parametrize("shape, P", [((1, 28, 28), 7), ((1, 28, 28), 4), ((1, 28, 28), 2), ((3, 6, 9), 3)])
def test_the_loss_and_the_gradient_of_every_weight_are_pytorch_s(run, shape, P, gelu):
    sizes = learn.MODELS[P] if P in learn.MODELS else dict(hidden_dim=7, tokens_mlp_dim=9, channels_mlp_dim=11)
    torch.manual_seed(3)
    model = MlpMixer(image_size=shape[1:], in_channels=shape[0], patch_size=P, num_classes=5, num_blocks=2, gelu=gelu,
                     **sizes)  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.double()
    levels, labels = torch.randint(16, (3, *shape)), torch.randint(5, (3,))
    packed = learn.packed_levels((levels * 17).numpy().astype(np.uint8))["bytes"]
    split = {"levels": list(packed), "labels": labels.tolist()}
    data = {"image_shape": shape, "mean": 0, "std": 1, "train": split, "held_out": split}
    settings = {"batch_size": 3, "steps": 1, "learning_rate": 0, "warmup": 0, "weight_decay": 0, "shift": 0, "seed": 0}
    weights = {name: tensor.flatten().tolist() for name, tensor in model.state_dict().items()}
    found = run(GRADIENTS, model.config, data, settings, weights)
    loss = F.cross_entropy(model(torch.from_numpy(INPUT)[levels]), labels)
    loss.backward()
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
    largest = max(parameter.grad.abs().max().item() for parameter in model.parameters())
    assert list(found["gradients"]) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.flatten().numpy()
        np.testing.assert_allclose(found["gradients"][name], gradient, rtol=1e-4, atol=1e-6 * largest, err_msg=name)


# --- a run, against the same one without a GPU -----------------------------------------------------------------------


@pytest.fixture
def few(few_digits):
    return train_in_browser(few_digits)


@pytest.mark.parametrize("size", learn.MODELS)
def test_weights_losses_and_answers_are_those_of_a_run_without_a_gpu(run, few, size):
    script = f"""async (config, data, settings) => {{
      {TRAINER}
      const one = trainerOf(config, data, settings);
      const other = trainerOf(config, data, settings);
      const gpu = await GpuTrainer.of(other, await gpuDevice(true));
      for (let i = 0; i < 6; i++) {{
        one.step();
        await gpu.step();
      }}
      const losses = [one.read(), await gpu.read()];
      const found = {{ losses, weights: [one.net.weights, other.net.weights], done: [one.done, other.done] }};
      const evaluations = [other.evaluate(), await gpu.evaluate()]; // of the same weights
      gpu.leave();
      return {{ ...found, evaluations }};
    }}"""
    found = run(script, *arguments(few, size, steps=20))
    assert found["done"] == [6, 6]
    np.testing.assert_allclose(*found["losses"], rtol=1e-5)
    one, other = found["weights"]
    for name in one:
        if not name.endswith(
            "token_mixing.dense_1.bias"
        ):  # its gradient is zero but for rounding, which AdamW blows up
            np.testing.assert_allclose(other[name], one[name], rtol=0, atol=2e-5, err_msg=name)  # of 1e-2 moved
    assert np.abs(np.subtract(one["head.weight"], 0)).max() > 5e-3
    one, other = found["evaluations"]
    assert one["answers"] == other["answers"] and one["accuracy"] == other["accuracy"]
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_a_run_can_be_repeated_exactly_and_nobody_who_looks_at_it_changes_it(run, few):
    script = f"""async (config, data, settings) => {{
      {TRAINER}
      const runs = [];
      for (const looks of [false, true]) {{
        const trainer = trainerOf(config, data, settings);
        const gpu = await GpuTrainer.of(trainer, await gpuDevice(true));
        const losses = [];
        let most = 0;
        gpu.slots = 4; // fewer than there are steps
        for (let i = 0; i < 14; i++) {{
          await gpu.step();
          most = Math.max(most, gpu.slot);
          if (looks && i % 5 === 2) await gpu.evaluate();
          if (looks && i % 6 === 4) losses.push(...(await gpu.read()));
        }}
        losses.push(...(await gpu.read()));
        runs.push({{ losses, values: trainer.net.values, most }});
        gpu.leave();
      }}
      return runs;
    }}"""
    plain, looked = run(script, *arguments(few))
    assert plain.pop("most") == 4 and looked.pop("most") <= 4
    assert plain == looked and len(plain["losses"]) == 14


def test_where_the_gpu_is_left_the_trainer_goes_on_from_what_was_read_last(run, few):
    script = f"""async (config, data, settings) => {{
      {TRAINER}
      const one = trainerOf(config, data, settings);
      const other = trainerOf(config, data, settings);
      const gpu = await GpuTrainer.of(other, await gpuDevice(true));
      for (let i = 0; i < 6; i++) await gpu.step();
      await gpu.read();
      gpu.leave();
      for (let i = 0; i < 10; i++) one.step();
      for (let i = 0; i < 4; i++) other.step();
      const again = trainerOf(config, data, settings);
      const lost = await GpuTrainer.of(again, await gpuDevice(true));
      await lost.step();
      await lost.read();
      const known = again.net.values.slice();
      await lost.step();
      lost.device.destroy();
      const error = await lost.read().then(() => null, String);
      lost.leave();
      const same = again.net.values.every((value, i) => value === known[i]);
      return {{ losses: [one.read().slice(6), other.read()], error, same, steps: [again.done, again.optimizer.steps] }};
    }}"""
    found = run(script, *arguments(few, steps=20))
    np.testing.assert_allclose(*found["losses"], rtol=1e-4)
    assert found["error"] and found["same"] and found["steps"] == [1, 1]
