"""The arithmetic of training in the browser, against PyTorch's."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mixer_utils import MlpMixer
from mixer_utils.recipes import Recipe
from mixer_utils.widgets import train_in_browser
from mixer_utils.widgets.front_end import joined
from mixer_utils.widgets.learn import unpacked_levels

# Sizes that no tile of 4 x 4 divides, more rows than are multiplied at a time, colours, and an image that is no square.
SHAPE = (3, 6, 9)
SIZES = dict(image_size=(6, 9), in_channels=3, patch_size=3, num_classes=5, num_blocks=2, hidden_dim=7,
             tokens_mlp_dim=9, channels_mlp_dim=11)  # fmt: skip
IMAGES = 23
INPUT = (np.arange(16) / 15 - 0.3) / 0.4  # what the network is fed, by level


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page()
    page.add_script_tag(content=joined("trainer"))
    yield page
    page.close()


@pytest.fixture
def run(page):
    """A function: a JavaScript function's result; what goes in and out travels as JSON, which is fast."""

    def run_(function, *arguments):
        script = f"(text) => JSON.stringify(({function})(...JSON.parse(text)), (key, value) => \
            ArrayBuffer.isView(value) ? Array.from(value) : value)"
        return json.loads(page.evaluate(script, json.dumps(arguments)))

    return run_


def mixer(gelu):
    """With every weight drawn at random, the head's and the norms' too; in double precision, as the measure."""
    torch.manual_seed(3)
    model = MlpMixer(**SIZES, gelu=gelu)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.double()


def images_and_labels():
    generator = torch.Generator().manual_seed(1)
    levels = torch.randint(16, (IMAGES, *SHAPE), generator=generator)
    return levels, torch.randint(5, (IMAGES,), generator=generator)


def weights(model):
    return {name: tensor.flatten().tolist() for name, tensor in model.state_dict().items()}


PASS = """(config, shape, weights, levels, labels, input) => {
  const net = new MixerNetwork(config, shape, labels.length);
  for (const [name, values] of Object.entries(weights)) net.weights[name].set(values);
  const size = levels.length / labels.length;
  const patches = new Float32Array(levels.length);
  labels.forEach((_, i) => fillPatchRows(levels, i * size, shape, config.patch_size, input, 0, 0, patches, i * size));
  const logits = net.forward(patches, labels.length).slice();
  const slopes = new Float32Array(logits.length);
  const called = new Int16Array(labels.length);
  net.gradient.fill(7); // of the step before
  const loss = crossEntropy(logits, labels, labels.length, config.num_classes, slopes, called);
  net.backward(slopes, labels.length);
  return { logits, loss, called, gradients: net.gradients };
}"""


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
def test_logits_loss_and_the_gradient_of_every_weight_are_pytorch_s(run, gelu):
    model = mixer(gelu)
    levels, labels = images_and_labels()
    found = run(PASS, model.config, SHAPE, weights(model), levels.flatten().tolist(), labels.tolist(), INPUT.tolist())
    logits = model(torch.from_numpy(INPUT)[levels])
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    expected = logits.detach().numpy()
    np.testing.assert_allclose(np.reshape(found["logits"], expected.shape), expected, rtol=1e-5, atol=1e-5)
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert found["called"] == expected.argmax(1).tolist()
    assert list(found["gradients"]) == [name for name, _ in model.named_parameters()]
    largest = max(parameter.grad.abs().max().item() for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.flatten().numpy()
        # What token mixing's last bias adds to all channels alike, every later LayerNorm takes away again.
        assert np.abs(gradient).max() > 1e-4 or name.endswith("token_mixing.dense_1.bias"), name
        np.testing.assert_allclose(found["gradients"][name], gradient, rtol=1e-4, atol=1e-6 * largest, err_msg=name)


def test_images_are_moved_and_cut_into_patches_as_pytorch_does(run):
    levels, _ = images_and_labels()
    image = levels[0]
    for down, right in [(0, 0), (1, 0), (0, -1), (-1, 1), (2, -2)]:
        moved = F.pad(image, (2, 2, 2, 2))[:, 2 - down : 8 - down, 2 - right : 11 - right]
        patches = torch.from_numpy(INPUT)[moved].unfold(1, 3, 3).unfold(2, 3, 3).permute(1, 2, 0, 3, 4)
        found = run(
            """(levels, shape, input, down, right) => {
              const rows = new Float32Array(levels.length + 1);
              fillPatchRows(levels, 0, shape, 3, input, down, right, rows, 1);
              return rows;
            }""",
            image.flatten().tolist(), SHAPE, INPUT.tolist(), down, right)  # fmt: skip
        np.testing.assert_allclose(found, [0, *patches.flatten()], rtol=1e-6)


def test_steps_of_the_optimiser_are_torch_s_adamw(run):
    model = mixer("erf").float()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1)
    started = weights(model)
    rates = [1e-3, 1e-2, 3e-2, 1e-2, 0.0, 5e-3]
    total = sum(p.numel() for p in model.parameters())
    generator = torch.Generator().manual_seed(2)
    gradients = torch.randn(len(rates), total, generator=generator) * 10.0 ** torch.arange(-3, 3).view(-1, 1)
    found = run(
        """(config, shape, weights, gradients, rates) => {
          const net = new MixerNetwork(config, shape, 1);
          for (const [name, values] of Object.entries(weights)) net.weights[name].set(values);
          const optimizer = new AdamW(net, { weightDecay: 0.3 });
          return rates.map((rate, i) => {
            net.gradient.set(gradients[i]);
            optimizer.step(rate);
            return net.values.slice();
          });
        }""",
        model.config, SHAPE, started, gradients.tolist(), rates)  # fmt: skip
    for step, rate in enumerate(rates):
        at = 0
        for p in model.parameters():
            p.grad = gradients[step, at : at + p.numel()].view_as(p).clone()
            at += p.numel()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        expected = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
        np.testing.assert_allclose(found[step], expected, rtol=1e-5, atol=1e-5)


# --- a run -----------------------------------------------------------------------------------------------------------


def arguments(view, size=7, **settings):
    """What a Trainer takes, as text; images and labels as the view sends them."""

    def part(name):
        labels = view.data[name]["labels"]
        return {
            "levels": list(view.data[name]["levels"]["bytes"]),
            "labels": np.frombuffer(labels["bytes"], labels["dtype"]).tolist(),
        }

    data = {name: view.data[name] for name in ("image_shape", "mean", "std")}
    data.update(train=part("train"), held_out=part("held_out"))
    settings = {**view.data["settings"], "learning_rate": 0.006, "seed": 0, **settings}
    return [view.data["configs"][str(size)], data, settings]


TRAINER = """const trainerOf = (config, data, settings) => {
  const part = ({ levels, labels }) => ({ levels: unpackLevels(levels), labels });
  return new Trainer(config, { ...data, train: part(data.train), held_out: part(data.held_out) }, settings);
};"""


@pytest.fixture
def few(few_digits):
    return train_in_browser(few_digits)


def test_a_seed_decides_a_run_and_another_seed_gives_another(run, few):
    script = f"""(config, data, settings) => {{
      {TRAINER}
      return [5, 5, 6].map((seed) => {{
        const trainer = trainerOf(config, data, {{ ...settings, seed }});
        const losses = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(() => trainer.step());
        return {{ losses, values: trainer.net.values, evaluation: trainer.evaluate() }};
      }});
    }}"""
    one, same, other = run(script, *arguments(few))
    assert one == same
    assert one["losses"][0] == pytest.approx(np.log(10), abs=1e-6)  # the head starts at zero
    assert one["losses"][1:] != other["losses"][1:] and one["values"] != other["values"]


def test_looking_at_the_held_out_images_does_not_change_the_run(run, few):
    script = f"""(config, data, settings) => {{
      {TRAINER}
      return [false, true].map((looks) => {{
        const trainer = trainerOf(config, data, settings);
        for (let i = 0; i < 4; i++) {{
          trainer.step();
          if (looks) trainer.evaluate();
        }}
        return trainer.net.values;
      }});
    }}"""
    plain, looked = run(script, *arguments(few))
    assert plain == looked


def test_evaluation_counts_every_held_out_image_once(run, few):
    """43 at most of a batch of 25: the last batch is a smaller one."""
    script = f"""(config, data, settings) => {{
      {TRAINER}
      const trainer = trainerOf(config, data, settings);
      for (let i = 0; i < 20; i++) trainer.step();
      return {{ ...trainer.evaluate(), weights: trainer.net.weights }};
    }}"""
    found = run(script, *arguments(few))
    model = MlpMixer(**few.data["configs"]["7"])
    model.load_state_dict(
        {name: torch.tensor(found["weights"][name]).view_as(old) for name, old in model.state_dict().items()}
    )
    images = torch.from_numpy(few.levels("held_out"))[:, None] / 15
    labels = few.data["held_out"]["labels"]
    labels = torch.from_numpy(np.frombuffer(labels["bytes"], labels["dtype"]).astype(np.int64))
    assert len(labels) % few.data["settings"]["batch_size"] != 0
    with torch.inference_mode():
        logits = model((images - few.data["mean"]) / few.data["std"])
    assert found["answers"] == logits.argmax(1).tolist()
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)


def test_the_learning_rate_rises_and_falls_as_a_recipe_s(run, few):
    script = f"""(config, data, settings) => {{
      {TRAINER}
      const trainer = trainerOf(config, data, settings);
      return Array.from({{ length: settings.steps }}, (_, step) => {{
        trainer.done = step;
        return trainer.learningRate();
      }});
    }}"""
    recipe = Recipe("as the view", learning_rate=0.006, warmup=few.data["settings"]["warmup"])
    for steps in (1, 7, 40):
        found = run(script, *arguments(few, steps=steps))
        np.testing.assert_allclose(found, [recipe.learning_rate_at(step, steps) for step in range(steps)])


def test_an_epoch_takes_every_image_once_at_most_and_in_another_order_each_time(run, few):
    script = f"""(config, data, settings) => {{
      {TRAINER}
      const trainer = trainerOf(config, data, settings);
      trainer.load = (split, batch) => taken.push(...batch);
      const taken = [];
      for (let i = 0; i < 2 * trainer.stepsPerEpoch; i++) trainer.step();
      return taken;
    }}"""
    taken = run(script, *arguments(few))
    first, second = np.array_split(taken, 2)
    for epoch in (first, second):
        assert len(set(epoch)) == len(epoch) == len(taken) // 2
    assert first.tolist() != second.tolist()


def test_weights_start_lecun_normal_and_the_head_zero(run, few):
    config = {**few.data["configs"]["4"], "hidden_dim": 128}
    found = run(
        """(config) => {
          const net = new MixerNetwork(config, [1, 28, 28], 1);
          net.start(new Random(4));
          return net.weights;
        }""",
        config)  # fmt: skip
    model = MlpMixer(**config)
    assert list(found) == list(model.state_dict())
    for name, expected in model.state_dict().items():
        values = np.array(found[name])
        assert values.size == expected.numel()
        if expected.ndim == 1 or name.startswith("head"):
            assert set(values) == set(expected.unique().tolist()), name
            continue
        deviation = 1 / np.sqrt(expected[0].numel())
        spread = 5 / np.sqrt(values.size)  # five deviations of what chance does
        assert values.std() == pytest.approx(deviation, rel=spread) and abs(values.mean()) < spread * deviation
        assert 1.9 < np.abs(values).max() * 0.87962566 / deviation <= 2


def test_the_random_numbers_are_mulberry32_s(run):
    def mulberry32(state):
        while True:
            state = (state + 0x6D2B79F5) % 2**32
            t = (state ^ state >> 15) * (state | 1) % 2**32
            t ^= (t + (t ^ t >> 7) * (t | 61)) % 2**32
            yield (t ^ t >> 14) / 2**32

    numbers = mulberry32(77)
    found = run("() => { const r = new Random(77); return Array.from({ length: 50 }, () => r.uniform()); }")
    assert found == [next(numbers) for _ in range(50)]


def test_levels_are_unpacked_as_python_packs_them(run, few):
    content = few.data["held_out"]["levels"]
    assert run("(bytes) => unpackLevels(bytes)", list(content["bytes"])) == unpacked_levels(content).tolist()


def test_a_short_run_calls_nine_in_ten_held_out_digits_rightly(run):
    """600 steps of 25 images, three epochs of the 5,000: a part of what the view does."""
    script = f"""(config, data, settings) => {{
      {TRAINER}
      const trainer = trainerOf(config, data, settings);
      while (trainer.done < trainer.steps) trainer.step();
      return trainer.evaluate().accuracy;
    }}"""
    assert run(script, *arguments(train_in_browser(), steps=600)) >= 0.90
