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
  trainer.order.sort((a, b) => a - b);
  trainer.random.shuffle = () => {{}};
  const gpu = await GpuTrainer.of(trainer, await gpuDevice(true));
  await gpu.step();
  const {{ plan, device }} = gpu;
  const [loss] = await gpu.read();
  plan.values = plan.gradient; // what fetch() reads
  await gpu.fetch();
  return {{ loss, gradients: trainer.net.weights, evaluation: await gpu.evaluate().then(() => 0) }};
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
        off = np.abs(np.array(found["gradients"][name]) - gradient)
        print(P, gelu, name, off.max() / largest, (off / (np.abs(gradient) + 1e-6 * largest)).max())
        np.testing.assert_allclose(found["gradients"][name], gradient, rtol=1e-4, atol=1e-6 * largest, err_msg=name)
