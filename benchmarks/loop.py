"""What training costs beside the model itself, and how fast it is from one end to the other."""

import contextlib
import dataclasses
import functools
import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks import peers
from benchmarks.timing import ROOT, alternate, medians, ratio
from mixer_utils import RECIPES, create_mixer, load_dataset, train
from mixer_utils.data import MNIST_MD5, data_folder
from mixer_utils.devices import autocast, gains_from_bf16, keep_freed_memory

RECIPE = RECIPES["quick"]
STEPS = [(RECIPE.model, RECIPE.batch_size), ("mnist/4", 256)]


def run(device, smoke=False):
    """Time ``train()``, the model's work alone, and the usual way of training on MNIST; then what page faults cost.

    Seconds are per training image. ``overhead`` is the share of ``train()``'s time that is not forward, loss and
    backward; ``usual_way`` is how many times as long the usual way takes.
    """
    count = 2 if smoke else 7
    data = load_dataset("mnist")
    steps = 4 if smoke else chunk_steps(data, device)
    calls = {
        "train()": functools.partial(by_train, part_of(data, steps), device),
        "model alone": model_alone(data, steps, device),
    }
    skipped = {}
    with contextlib.ExitStack() as stack:
        try:
            calls["usual way"] = stack.enter_context(usual_way(data, 3 if smoke else 100, device))
        except ImportError as error:
            skipped["usual way"] = str(error)
            print(f"  usual way: skipped, {error} (pip install -e '.[bench]' brings it)", flush=True)
        times = alternate(calls, device, least=count, warmup=0 if smoke else 1)
    found = {
        "recipe": RECIPE.name, "batch_size": RECIPE.batch_size, "steps": steps, "rounds": count,
        "seconds_per_image": medians(times),
        "images_per_second": {name: 1 / value for name, value in medians(times).items()},
        "skipped": skipped,
    }  # fmt: skip
    print(f"  train(): {found['images_per_second']['train()']:,.0f} images/s", flush=True)
    if device.type == "cpu":  # on CUDA train() replays a recorded step, of which the model alone is no part
        shares = [1 - alone / whole for whole, alone in zip(times["train()"], times["model alone"], strict=True)]
        found["overhead"] = statistics.median(shares)
        print(f"  {found['overhead']:.1%} of it is not forward, loss and backward", flush=True)
    if "usual way" in times:
        found["usual_way"] = ratio(times["train()"], times["usual way"])
        print(f"  usual way: {found['images_per_second']['usual way']:,.0f} images/s, "
              f"{found['usual_way']['median']:.2f}x as long", flush=True)  # fmt: skip
    yield found
    if device.type == "cpu" and sys.platform == "linux":
        found["page_faults"] = page_faults(2 if smoke else 5, [("mnist/4", 4)] if smoke else STEPS)
        yield found


# --- train(), the model alone, the usual way --------------------------------------------------------------------------


def chunk_steps(data, device):
    """How many steps take about two seconds, at most an epoch."""
    per_image = by_train(part_of(data, 20), device)
    most = len(data.train) // RECIPE.batch_size - 1
    return min(most, max(20, int(2 / (per_image * RECIPE.batch_size))))


def part_of(data, steps):
    """``data`` with just enough training images for so many steps, and a batch for validation."""
    return dataclasses.replace(data, train=data.train[: (steps + 1) * RECIPE.batch_size])


def by_train(data, device):
    """One epoch by ``train()``: seconds per image, by its own clock."""
    recipe = dataclasses.replace(RECIPE, epochs=1, validation=RECIPE.batch_size)
    _, history = train(recipe, data=data, device=device.type, progress=False)
    return 1 / history.images_per_second


def model_alone(data, steps, device):
    """A function: forward, loss and backward of so many steps on one batch, in seconds per image."""
    model = create_mixer(RECIPE.model, stochastic_depth=RECIPE.stochastic_depth).to(device)
    batch = data.train[: RECIPE.batch_size].to(device)
    images = data.normalize(batch.images)

    def call():
        model.train()
        start = time.perf_counter()
        for _ in range(steps):
            with autocast(device):
                logits = model(images)
            F.cross_entropy(logits.float(), batch.labels).backward()
            model.zero_grad()
        finish(device)
        return (time.perf_counter() - start) / (steps * len(images))

    return call


@contextlib.contextmanager
def usual_way(data, steps, device):
    """A function: so many steps as most scripts do them, in seconds per image. Raises ImportError without timm.

    torchvision's data set and transforms image by image, a DataLoader with two workers, timm's Mixer of the recipe's
    shape, AdamW, the recipe's autocast. Starting the workers and the first five batches are not counted.
    """
    from torchvision import datasets, transforms

    shape = shape_of(RECIPE)
    model = peers.build("timm", shape, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    transform = transforms.Compose([
        transforms.RandomCrop(28, padding=1), transforms.ToTensor(), transforms.Normalize(data.mean, data.std),
    ])  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"  # where torchvision looks
        raw.mkdir(parents=True)
        for file in MNIST_MD5:
            shutil.copy(data_folder() / "mnist" / file, raw)
        dataset = datasets.MNIST(folder, transform=transform)
    loader = torch.utils.data.DataLoader(dataset, batch_size=RECIPE.batch_size, shuffle=True, num_workers=2)

    def step(images, labels):
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        with autocast(device):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    def call():
        model.train()
        batches = iter(loader)
        for images, labels in itertools.islice(batches, 5):
            step(images, labels)
        start = time.perf_counter()
        for images, labels in itertools.islice(batches, steps):
            step(images, labels)
        finish(device)
        return (time.perf_counter() - start) / (steps * RECIPE.batch_size)

    yield call


def shape_of(recipe):
    """The Shape of the recipe's Mixer."""
    config = create_mixer(recipe.model).config
    sizes = {key: config[key] for key in (
        "patch_size", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim", "num_blocks")}  # fmt: skip
    return peers.Shape(recipe.model, **sizes, batch_size=recipe.batch_size)


def finish(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


# --- page faults ------------------------------------------------------------------------------------------------------


def page_faults(rounds, steps):
    """How much longer a training step takes where freed memory goes back to the system: fresh processes in turn.

    A process cannot take the setting back, so every number comes from a process of its own. ``steps`` are pairs of a
    configuration and a batch size.
    """
    found = {}
    for config, batch_size in steps:
        kept, given_back = [], []
        for _ in range(rounds):
            kept.append(own_process("keep", config, batch_size))
            given_back.append(own_process("give back", config, batch_size))
        found[config] = {
            "batch_size": batch_size, "rounds": len(kept),
            "seconds": medians({"kept": kept, "given back": given_back}), "given_back": ratio(kept, given_back),
        }  # fmt: skip
        print(f"  {config}, B {batch_size}: a step with freed memory given back to the system takes "
              f"{found[config]['given_back']['median']:.2f}x as long", flush=True)  # fmt: skip
    return found


def own_process(choice, config, batch_size):
    arguments = [sys.executable, "-m", "benchmarks.loop", choice, config, str(batch_size)]
    return float(subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def step_seconds(choice, config, batch_size):
    """The median seconds of a training step on the processor, with freed memory kept or given back."""
    if choice == "keep":
        keep_freed_memory()
    device = torch.device("cpu")
    model = create_mixer(config)
    images, labels = torch.randn(batch_size, *model.image_shape), torch.randint(10, (batch_size,))
    precision = "bfloat16" if gains_from_bf16(device) else "float32"
    step = functools.partial(peers.training_step, model, images, labels, precision)
    return statistics.median(alternate({"step": step}, device, least=5, seconds=1)["step"])


if __name__ == "__main__":
    print(step_seconds(sys.argv[1], sys.argv[2], int(sys.argv[3])))
