"""Training on a GPU: the arithmetic against PyTorch's and against the trainer without one, and the view with one.

There is none here: Chromium's software, SwiftShader, plays it, which no view would take outside these tests.
"""

import json

import numpy as np
import pytest
import torch
from check_learn import expect_answers, expect_maps, part, step, train_to_the_end, trained, wait_for_step
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
def gpu_page(browser, tmp_path_factory):
    """A page whose browser gives a GPU, with the trainers in it; from a file, since about:blank gets none."""
    path = tmp_path_factory.mktemp("gpu") / "page.html"
    path.write_text("<!doctype html><title>GPU</title>", encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.add_script_tag(content=joined("trainer_gpu"))
    if page.evaluate("async () => !(await gpuDevice(true))"):
        pytest.skip(f"Chromium {browser.version} gives no adapter with {' '.join(GPU_FLAGS)}: take a newer one.")
    yield page
    page.close()


@pytest.fixture
def run(gpu_page):
    """A function: an asynchronous JavaScript function's result; what goes in and out travels as JSON."""

    def run_(function, *arguments):
        script = f"async (text) => JSON.stringify(await ({function})(...JSON.parse(text)), (key, value) => \
            ArrayBuffer.isView(value) ? Array.from(value) : value)"
        return json.loads(gpu_page.evaluate(script, json.dumps(arguments)))

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
      return {{ ...found, evaluations: [other.evaluate(), await gpu.evaluate()] }}; // of the same weights
    }}"""
    found = run(script, *arguments(few, size, steps=20))
    assert found["done"] == [6, 6]
    np.testing.assert_allclose(*found["losses"], rtol=1e-5)
    one, other = found["weights"]
    for name in one:
        off = np.abs(np.subtract(one[name], other[name]))
        assert off.max() < 2e-5 or name.endswith('token_mixing.dense_1.bias'), name
        print(size, name, off.max())
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
        for (let i = 0; i < 140; i++) {{ // more than the log holds
          await gpu.step();
          if (looks && i % 50 === 7) await gpu.evaluate();
          if (looks && i % 30 === 11) losses.push(...(await gpu.read()));
        }}
        losses.push(...(await gpu.read()));
        runs.push({{ losses, values: trainer.net.values }});
      }}
      return runs;
    }}"""
    plain, looked = run(script, *arguments(few))
    assert plain == looked and len(plain["losses"]) == 140


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
      return {{ losses: [one.read().slice(6), other.read()], error, same, done: again.done }};
    }}"""
    found = run(script, *arguments(few, steps=20))
    np.testing.assert_allclose(*found["losses"], rtol=1e-4)
    assert found["error"] and found["same"] and found["done"] == 1


# --- the view --------------------------------------------------------------------------------------------------------


@pytest.fixture
def software(gpu_page, monkeypatch):
    """A function: the settings of views to come, which take SwiftShader for a GPU."""
    return lambda **settings: monkeypatch.setattr(
        learn, "SETTINGS", {**learn.SETTINGS, "software_gpu": True, **settings}
    )


def pace(root):
    return part(root, "pace").inner_text()


def test_the_view_trains_on_the_gpu_and_shows_what_was_learnt(opened, software, few_digits):
    software(steps=40)
    view = train_in_browser(few_digits)
    page, root = opened(view)
    train_to_the_end(root)
    assert step(root) == 40 and pace(root).endswith(" images a second · on the GPU")
    expect_maps(root, view, 7, 0)
    expect_answers(root, view)
    assert float(part(root, "share").inner_text().split()[0]) > 20  # chance is 10
    first = trained(root)[0].state_dict()
    train_to_the_end(root)  # anew
    assert all((first[name] == tensor).all() for name, tensor in trained(root)[0].state_dict().items())


def test_two_pixels_make_maps_of_the_paper_s_grid(opened, software, few_digits):
    software(steps=3)
    view = train_in_browser(few_digits)
    page, root = opened(view)
    root.locator("[data-trait=patch_size]").select_option("2")
    assert root.locator("option:checked").first.inner_text() == (
        "2 × 2 pixels (14 × 14 patches, slow without a GPU)"
    )
    train_to_the_end(root)
    assert pace(root).endswith(" · on the GPU")
    expect_maps(root, view, 2, 1)
    expect_answers(root, view)


def test_software_that_plays_a_gpu_is_not_taken_for_one(opened, gpu_page, few):
    page, root = opened(few)
    assert pace(root).endswith(" · on one core of the processor")


def test_a_run_whose_gpu_is_lost_goes_on_without(opened, software, few_digits):
    software(steps=100_000)
    page, root = opened(train_in_browser(few_digits))
    root.locator("[data-control=train]").click()
    wait_for_step(root, 30)
    assert pace(root).endswith(" · on the GPU")
    page.workers[0].evaluate("gpu.device.destroy()")
    root.page.wait_for_function(
        "document.querySelector('[data-part=pace]').innerText.endsWith(' on one core of the processor, as the GPU failed')"
    )
    reached = step(root)
    assert reached >= 30
    wait_for_step(root, reached + 30)
    root.locator("[data-control=again]").click()  # a new run asks anew
    root.page.wait_for_function("document.querySelector('[data-part=pace]').innerText.endsWith(' on the GPU')")


def test_a_kernel_that_is_refused_leaves_the_training_to_the_processor(opened, software, few_digits, monkeypatch):
    software(steps=3)
    source = joined("trainer_worker")
    assert source.count("var along = 0.0;") == 1
    monkeypatch.setattr(learn, "joined", lambda entry: source.replace("var along = 0.0;", "var along = none;"))
    view = train_in_browser(few_digits)
    page, root = opened(view)
    train_to_the_end(root)
    assert step(root) == 3 and pace(root).endswith(" · on one core of the processor, as the GPU failed")
    expect_answers(root, view)
