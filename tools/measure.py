"""Measure what results/ holds, from the beginning.

Validation chooses, the test images are read once per seed at the end.

    python tools/measure.py                     everything: three hours and a half on two cores
    python tools/measure.py quick minute        these recipes, five seeds each
    python tools/measure.py full                the recipe `full`, three seeds (on a CPU one: a run is 15 minutes)
    python tools/measure.py pretrained          the same, and its first model becomes the one in mixer_utils/weights
    python tools/measure.py mixing              `mixing`, four runs: accuracy, structure of their maps; they ship
    python tools/measure.py baselines           the Mixer of `minute` against other models, one optimiser for all
    python tools/measure.py choices             `minute` with one choice changed
    python tools/measure.py variants            notebook 08's networks for eight epochs: 80 minutes, resumable
    python tools/measure.py photographs         the shipped model on digits redrawn as people's pictures, of every kind

What was measured on a GPU lies in files called NAME-gpu.json, but for baselines, choices and variants, which say so
inside.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for benchmarks/, which is not installed

from benchmarks import drawn
from benchmarks import variants as of_notebook_08
from benchmarks.provenance import write_result
from mixer_utils import RECIPES, Snapshots, baselines, evaluate, load_dataset, load_pretrained, mixing, train
from mixer_utils.__main__ import SURE
from mixer_utils.checkpoints import PRETRAINED, read_tensors, write_atomically, write_tensors
from mixer_utils.data import DataError, read_image
from mixer_utils.evaluation import predict_logits
from mixer_utils.model import count_parameters
from mixer_utils.optimizers import Muon, make_optimizers
from mixer_utils.snapshots import RECORDED_RUN
from mixer_utils.training import TrainingError, hold_out, mixer_for
from mixer_utils.widgets import untrained

RESULTS = Path(__file__).resolve().parent.parent / "results"
SEEDS = [0, 1, 2, 3, 4]
MIXING_MODELS = {  # of each data set, of seeds 0, 1, 2: an hour of two cores in all
    "mnist": ["mnist-14x14", "mnist-14x14-seed-1", "mnist-14x14-seed-2"],
    "fashion-mnist": ["fashion-mnist-14x14"],
}
GPU = torch.cuda.is_available()


def seeds_of(name, seeds, out=None):
    """Train and evaluate a recipe with each seed; keep what each run reached, and the first one's curves.

    The first run's files go to ``out``.
    """
    if GPU:
        train(dataclasses.replace(RECIPES[name], epochs=1), progress=False)  # what a process does once is not timed
    runs, data = [], load_dataset("mnist")
    for seed in seeds:
        model, history = train(name, data=data, seed=seed, out=out if seed == seeds[0] else None, progress=False)
        report = evaluate(model, data)
        metrics = report.metrics() | {
            "train_seconds": history.train_seconds, "images_per_second": history.images_per_second,
            "num_parameters": count_parameters(model), "recipe": name, "seed": seed,
        }  # fmt: skip
        run = {"seed": seed, "metrics": metrics, "validation_accuracy": history.epochs["validation_accuracy"][-1]}
        if seed == seeds[0]:  # one run's curves are enough for the figures
            history = rounded(dataclasses.asdict(history), 5)
            run["history"] = history if len(history["steps"]["loss"]) < 5000 else {"epochs": history["epochs"]}
        runs.append(run)
        print(f"{name}, seed {seed}: {report.accuracy:.2%} in {metrics['train_seconds']:.1f} s", flush=True)
    columns = {key: [run["metrics"][key] for run in runs] for key in (
        "accuracy", "precision", "recall", "f1", "train_seconds", "images_per_second")}  # fmt: skip
    recipe = dataclasses.asdict(RECIPES[name])
    save(name + "-gpu" * GPU, {"seeds": seeds, "recipe": recipe, "summary": summaries(columns), "runs": runs})


def full():
    """Three seeds of `full`, or one on a CPU."""
    seeds_of("full", SEEDS[:3] if GPU else SEEDS[:1])


def pretrained():
    """The same, and the first model becomes the shipped one: its weights in half precision, 2.4 MB in place of 4.8."""
    with tempfile.TemporaryDirectory() as folder:
        seeds_of("full", SEEDS[:3] if GPU else SEEDS[:1], out=folder)
        tensors, about = read_tensors(Path(folder) / "model.safetensors")
    write_tensors(PRETRAINED["mnist"], {name: tensor.half() for name, tensor in tensors.items()}, about)
    metrics = evaluate(load_pretrained("mnist"), load_dataset("mnist")).metrics()
    metrics |= {key: about[key] for key in ("train_seconds", "seed", "device")} | {"recipe": "full"}
    made_by = "recipe full, seed 0; weights stored in half precision"
    save("pretrained-mnist", {"made_by": made_by, "seeds": [0], "metrics": metrics})


def mixing_weights():
    """`mixing`: accuracy, and how much structure its maps have: three seeds on MNIST and one on Fashion-MNIST.

    All four models ship, and what seed 0 on MNIST went through, on the CPU, as most people train it. A run that was
    cut goes on where it was, for its files are in build/mixing; but a recorded one has to be done in one go.
    """
    for dataset, names in MIXING_MODELS.items():
        runs = [mixing_run(dataset, seed, name) for seed, name in enumerate(names)]
        columns = {key: [run[key] for run in runs] for key in ("accuracy", "validation_accuracy", "train_seconds")}
        structures = {
            when: over_seeds([run["structure"][when] for run in runs]) for when in ("trained", "before training")
        }
        recipe = dataclasses.asdict(RECIPES["mixing"])
        save("mixing" if dataset == "mnist" else f"mixing-{dataset}", {
            "dataset": dataset, "seeds": [run["seed"] for run in runs], "recipe": recipe,
            "summary": summaries(columns), "structure": structures, "runs": runs})  # fmt: skip


def mixing_run(dataset, seed, name):
    """Train `mixing` on a data set with a seed, keep the model in half precision as ``name``; say what came out."""
    data = load_dataset(dataset)
    recipe = dataclasses.replace(RECIPES["mixing"], dataset=dataset)
    out = Path("build/mixing") / name
    snapshots = None if out.exists() or name != "mnist-14x14" else Snapshots(24)
    _, history = train(recipe, data=data, seed=seed, device="cpu", out=out, progress=False, resume=out.exists(),
                       snapshots=snapshots)  # fmt: skip
    if snapshots:
        snapshots.save(RECORDED_RUN)
    tensors, about = read_tensors(out / "model.safetensors")
    write_tensors(PRETRAINED[name], {key: tensor.half() for key, tensor in tensors.items()}, about)
    model = load_pretrained(name)
    found = {
        "seed": seed, "num_parameters": count_parameters(model), "accuracy": evaluate(model, data).accuracy,
        "validation_accuracy": history.epochs["validation_accuracy"][-1], "train_seconds": history.train_seconds,
        "structure": {"trained": structure(model), "before training": structure(untrained(model))},
        "epochs": rounded(history.epochs, 5),
    }  # fmt: skip
    print(f"{name}: {found['accuracy']:.2%} in {found['train_seconds']:.0f} s", flush=True)
    return found


def structure(model):
    """Of every block, what its units read and write: each figure's mean over the units, and its standard deviation."""
    grid = mixing.patch_grid(model)
    blocks = []
    for reads, writes in mixing.unit_maps(model).numpy():
        block = {}
        for side, maps in {"reads": reads, "writes": writes}.items():
            figures = {
                "morans_i": mixing.morans_i(maps, grid),
                "low_frequency_share": mixing.low_frequency_share(maps, grid),
                "participation_ratio": mixing.participation_ratio(maps),
            }
            block[side] = {name: float(values.mean()) for name, values in figures.items()}
            block[side] |= {f"std_of_{name}": float(values.std(ddof=1)) for name, values in figures.items()}
            block[side]["pairs_alike"], block[side]["pairs_opposite"] = mixing.alike_and_opposite(maps)
        blocks.append(block)
    return blocks


def over_seeds(structures):
    """``summaries`` over the seeds of every figure in several models' ``structure``."""
    blocks = range(len(structures[0]))
    return [
        {
            side: summaries({name: [found[k][side][name] for found in structures] for name in structures[0][k][side]})
            for side in ("reads", "writes")
        }
        for k in blocks
    ]


def compare(variants, data, seeds):
    """For each variant {name: (recipe, make_model)}: the validation images choose its learning rate, with seed 0; then
    every seed, of which the last epoch's validation accuracy and, once, the test accuracy are kept."""
    found = {}
    for name, (recipe, make_model, rates) in variants.items():

        def run(seed, rate, recipe=recipe, make_model=make_model):
            torch.manual_seed(seed)
            model, history = train(dataclasses.replace(recipe, learning_rate=rate), data=data, model=make_model(),
                                   seed=seed, progress=False)  # fmt: skip
            return model, history

        tried = {}
        if len(rates) > 1:
            tried = {rate: run(0, rate)[1].epochs["validation_accuracy"][-1] for rate in rates}
        rate = max(tried, key=tried.get) if tried else rates[0]
        runs = []
        for seed in seeds:
            model, history = run(seed, rate)
            runs.append({
                "seed": seed,
                "validation_accuracy": history.epochs["validation_accuracy"][-1],
                "accuracy": evaluate(model, data).accuracy,
            })  # fmt: skip
        columns = {key: [run[key] for run in runs] for key in ("validation_accuracy", "accuracy")}
        found[name] = {
            "learning_rate": rate,
            "validation_accuracy_by_rate": tried,
            "num_parameters": count_parameters(model),
            "summary": summaries(columns),
            "runs": runs,
        }
        print(f"{name}: {found[name]['summary']['accuracy']['mean']:.2%} at {rate:g}", flush=True)
    return found


def measure_baselines():
    """The Mixer of `minute` beside a linear model, an MLP and a CNN with as many parameters: one optimiser for all.

    ``models``: AdamW for every parameter of every model. ``with_muon``: Muon on the matrices and filters between the
    first layer and the last, for the three that have some. Three epochs; every model at rates that lie on both sides of
    its best one. Half an hour on two cores.
    """
    data = load_dataset("mnist")
    recipe = dataclasses.replace(RECIPES["minute"], optimizer="adamw", epochs=3)
    shape, classes = data.image_shape, len(data.class_names)
    budget = count_parameters(mixer_for(recipe, data))
    builders = {
        "linear": lambda: baselines.linear(shape, classes),
        "MLP": lambda: baselines.mlp(shape, classes, budget),
        "CNN": lambda: baselines.cnn(shape, classes, budget),
        "Mixer": lambda: mixer_for(recipe, data),
    }
    seeds = SEEDS[:3]
    models = {name: at_its_best_rate(name, recipe, make, data, seeds) for name, make in builders.items()}
    muon = dataclasses.replace(recipe, optimizer="muon")
    hidden = {name: make for name, make in builders.items() if name != "linear"}
    with_muon = {name: at_its_best_rate(name, muon, make, data, seeds) for name, make in hidden.items()}
    save("baselines", {"seeds": seeds, "recipe": dataclasses.asdict(recipe), "models": models, "with_muon": with_muon})


def at_its_best_rate(name, recipe, make_model, data, seeds):
    """Every seed at every rate; the mean validation accuracy chooses the rate, and only its models read test images."""
    models, accuracies = {}, {}

    def mean_accuracy(rate):
        models[rate], accuracies[rate] = [], []
        for seed in seeds:
            torch.manual_seed(seed)
            try:
                model, history = train(dataclasses.replace(recipe, learning_rate=rate), data=data, model=make_model(),
                                       seed=seed, progress=False)  # fmt: skip
                models[rate].append(model)
                accuracies[rate].append(history.epochs["validation_accuracy"][-1])
            except TrainingError:  # the loss is no longer a number: the rate is too high
                accuracies[rate].append(0.0)
        mean = statistics.mean(accuracies[rate])
        print(f"{name}, {recipe.optimizer}, {rate:g}: validation {mean:.2%}", flush=True)
        return mean

    rate, tried = of_notebook_08.bracketed(mean_accuracy, [4e-3, 8e-3, 1.6e-2])
    runs = [
        {"seed": seed, "validation_accuracy": accuracy, "accuracy": evaluate(model, data).accuracy}
        for seed, accuracy, model in zip(seeds, accuracies[rate], models[rate], strict=True)
    ]
    columns = {key: [run[key] for run in runs] for key in ("validation_accuracy", "accuracy")}
    print(f"{name}, {recipe.optimizer}: test {statistics.mean(columns['accuracy']):.2%} at {rate:g}", flush=True)
    muon = [maker for maker in make_optimizers(models[rate][0], recipe) if isinstance(maker, Muon)]
    moved = sum(weights.numel() for maker in muon for group in maker.param_groups for weights in group["params"])
    return {
        "learning_rate": rate,
        "validation_accuracy_by_rate": tried,
        "num_parameters": count_parameters(models[rate][0]),
        "share_moved_by_muon": moved / count_parameters(models[rate][0]),
        "summary": summaries(columns),
        "runs": runs,
    }


def choices():
    """`minute` with one choice changed at a time."""
    data, recipe = load_dataset("mnist"), RECIPES["minute"]
    changed = {
        "the recipe": {},
        "no warm-up": {"warmup": 0.0},
        "AdamW for all": {"optimizer": "adamw"},
        "no shifts": {"shift": 0},
    }
    variants = {}
    for name, changes in changed.items():
        rates = [2e-3, 4e-3, 8e-3, 1.6e-2] if name == "AdamW for all" else [recipe.learning_rate]
        variants[name] = (dataclasses.replace(recipe, **changes), lambda: mixer_for(recipe, data), rates)
    seeds = SEEDS[:3]
    save(
        "choices",
        {"seeds": seeds, "recipe": dataclasses.asdict(recipe), "changed": compare(variants, data, seeds)},
    )


def variants(data=None, epochs=8, seeds=SEEDS[:3], networks=of_notebook_08.NETWORKS, sprint=(200, 25_600),
             batch_size=128):  # fmt: skip
    """The networks of notebook 08, trained by its own loop for eight epochs: validation accuracies, three seeds each.

    Each has the best learning rate of a bracketed grid, found in two epochs with a seed of its own; and so has the
    notebook's sprint, ``sprint`` steps on so many images. What is done is kept in build/variants-*.json, and a run that
    was cut goes on there; delete that file to begin again.
    """
    data = data or load_dataset("mnist")
    device = torch.device("cuda" if GPU else "cpu")
    training, validation = hold_out(data.train, min(5000, len(data.train) // 5))
    images, labels = data.normalize(training.images).to(device), training.labels.to(device)
    unseen, true = data.normalize(validation.images).to(device), validation.labels.to(device)
    steps, few = len(labels) // batch_size, sprint[1]
    path = Path(f"build/variants-{data.name}-{epochs}.json")
    done = json.loads(path.read_text()) if path.exists() else {}

    def run(name, rate, seed, steps, count=None):
        """Train once, or recall that it was done: {"validation_accuracy", "train_seconds"}."""
        key = f"{name}, rate {rate:g}, seed {seed}, {steps} steps, {count or 'all'} images, batches of {batch_size}"
        if key not in done:
            torch.manual_seed(seed)
            model, start = networks[name]().to(device), time.perf_counter()
            of_notebook_08.fit(model, images[:count], labels[:count], rate, seed, steps, batch_size)
            seconds = round(time.perf_counter() - start, 2)
            reached = of_notebook_08.accuracy(model, unseen, true)
            done[key] = {"validation_accuracy": reached, "train_seconds": seconds}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(done, indent=1).encode())
            print(f"{key}: {reached:.2%} in {seconds:.0f} s", flush=True)
        return done[key]

    def search(name, rates, *how):
        """The best rate, with a seed that counts for nothing else: {"learning_rate", "validation_accuracy_by_rate"}."""
        best, scores = of_notebook_08.bracketed(lambda rate: run(name, rate, 10, *how)["validation_accuracy"], rates)
        return {"learning_rate": best, "validation_accuracy_by_rate": scores}

    found = {}
    for name, build in networks.items():
        rate = search(name, [4e-3, 8e-3, 1.6e-2], min(2, epochs) * steps)
        runs = [{"seed": seed, **run(name, rate["learning_rate"], seed, epochs * steps)} for seed in seeds]
        columns = {key: [run[key] for run in runs] for key in ("validation_accuracy", "train_seconds")}
        of_sprint = search(name, [8e-3, 1.6e-2, 3.2e-2], sprint[0], few)
        found[name] = {
            "num_parameters": count_parameters(build()), **rate, "summary": summaries(columns), "runs": runs,
            "sprint": of_sprint,
        }  # fmt: skip
    save("variants", {
        "dataset": data.name, "seeds": seeds, "epochs": epochs, "steps": epochs * steps, "batch_size": batch_size,
        "optimizer": "AdamW, weight decay 0.05", "precision": "float32", "training_images": len(labels),
        "validation_images": len(true), "networks": found})  # fmt: skip


def photographs(count=200):
    """The shipped model on test digits redrawn as pictures of every kind: how many of each it calls right."""
    data = load_dataset("mnist")
    model = load_pretrained("mnist")
    chosen = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:count]
    digits = data.test[chosen]
    plain = predict_logits(model, digits.images, data).argmax(1)
    kinds = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in drawn.INK:
            draw = np.random.default_rng(0)
            right = refused = unsure = wrong_but_sure = 0
            for digit, label in zip(digits.images[:, 0].numpy(), digits.labels.tolist(), strict=True):
                path = drawn.draw(kind, digit, Path(folder) / "digit", draw)
                try:
                    image = read_image(path, data.image_shape, data.pictures)
                except DataError:
                    refused += 1
                    continue
                (first, second), (called, _) = predict_logits(model, image[None], data).softmax(1)[0].topk(2)
                right += called.item() == label
                unsure += (first - second).item() < SURE
                wrong_but_sure += called.item() != label and (first - second).item() >= SURE
            kinds[kind] = {"accuracy": right / count, "refused": refused, "not_sure": unsure,
                           "wrong_but_sure": wrong_but_sure}  # fmt: skip
            print(f"{kind}: {right / count:.1%}", flush=True)
    accuracies = [found["accuracy"] for found in kinds.values()]
    summary = {
        "kinds": len(kinds), "lowest": min(accuracies), "mean": statistics.mean(accuracies),
        "at_least_95_percent": sum(accuracy >= 0.95 for accuracy in accuracies),
        "the_images_themselves": (plain == digits.labels).float().mean().item(),
    }  # fmt: skip
    save("photographs", {"seeds": [0], "images_of_each_kind": count, "summary": summary, "kinds": kinds})


def summaries(columns):
    """Mean, sample standard deviation, lowest, median and highest of each list of numbers."""
    return {
        key: {
            "mean": statistics.mean(values), "min": min(values),
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "median": statistics.median(values), "max": max(values),
        }
        for key, values in columns.items()
    }  # fmt: skip


def rounded(value, digits):
    if isinstance(value, dict):
        return {key: rounded(part, digits) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part, digits) for part in value]
    return round(value, digits) if isinstance(value, float) else value


def save(name, result):
    device = torch.device("cuda" if GPU else "cpu")
    write_result(RESULTS / f"{name}.json", result, f"python tools/measure.py {name.split('-')[0]}", device)


MEASUREMENTS = {
    "quick": lambda: seeds_of("quick", SEEDS),
    "minute": lambda: seeds_of("minute", SEEDS),
    "full": full,
    "pretrained": pretrained,
    "mixing": mixing_weights,
    "baselines": measure_baselines,
    "choices": choices,
    "variants": variants,
    "photographs": photographs,
}

if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - set(MEASUREMENTS)
    if unknown:
        sys.exit(f"There is no measurement {', '.join(unknown)}: choose from {', '.join(MEASUREMENTS)}.")
    for name in sys.argv[1:] or [name for name in MEASUREMENTS if name != "full"]:
        MEASUREMENTS[name]()
