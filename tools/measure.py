"""Measure what results/ holds, from the beginning: about an hour on two cores. Validation chooses, the test images are
read once per seed at the end.

    python tools/measure.py                     everything
    python tools/measure.py minute              the recipe `minute` with five seeds, by the command line
    python tools/measure.py pretrained          train the model that ships in mixer_utils/weights (seed 0)
    python tools/measure.py baselines choices   comparisons with other models, and with one choice changed
"""

import dataclasses
import datetime
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from mixer_utils import RECIPES, baselines, evaluate, load_dataset, train
from mixer_utils.checkpoints import PRETRAINED, write_atomically
from mixer_utils.training import gains_from_bf16, mixer_for

RESULTS = Path(__file__).resolve().parent.parent / "results"
SEEDS = [0, 1, 2, 3, 4]
RATES = [1e-3, 3e-3, 6e-3, 1.2e-2, 2.4e-2]


def minute():
    """Five seeds of `minute`, each trained and evaluated by the command line, as a user would."""
    runs = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            command_line("train", "--recipe", "minute", "--seed", str(seed), "--out", folder)
            command_line("evaluate", folder)
            history = json.loads((Path(folder) / "history.json").read_text())
            metrics = json.loads((Path(folder) / "metrics.json").read_text())
        run = {"seed": seed, "metrics": metrics, "validation_accuracy": history["epochs"]["validation_accuracy"][-1]}
        if seed == 0:  # one run's curves are enough for the figures
            run["history"] = rounded(history, 5)
        runs.append(run)
    columns = {key: [run["metrics"][key] for run in runs] for key in (
        "accuracy", "precision", "recall", "f1", "train_seconds", "images_per_second")}  # fmt: skip
    recipe = dataclasses.asdict(RECIPES["minute"])
    save("minute", {"seeds": SEEDS, "recipe": recipe, "summary": summaries(columns), "runs": runs})


def pretrained():
    """Train the shipped model by the command line, put it into the package, and keep what it reaches."""
    with tempfile.TemporaryDirectory() as folder:
        command_line("train", "--recipe", "minute", "--seed", "0", "--out", folder)
        command_line("evaluate", folder)
        shutil.copyfile(Path(folder) / "model.safetensors", PRETRAINED["mnist"])
        metrics = json.loads((Path(folder) / "metrics.json").read_text())
    made_by = "python -m mixer_utils train --recipe minute --seed 0 --out DIR, then DIR/model.safetensors"
    save("pretrained-mnist", {"made_by": made_by, "seeds": [0], "metrics": metrics})


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
            "num_parameters": baselines.count_parameters(model),
            "summary": summaries(columns),
            "runs": runs,
        }
        print(f"{name}: {found[name]['summary']['accuracy']['mean']:.2%} at {rate:g}", flush=True)
    return found


def measure_baselines():
    """The Mixer of `minute` against a linear model, an MLP and a CNN with as many parameters, by the same recipe."""
    data, recipe = load_dataset("mnist"), RECIPES["minute"]
    shape, classes = data.image_shape, len(data.class_names)
    budget = baselines.count_parameters(mixer_for(recipe, data))
    variants = {
        "linear": (recipe, lambda: baselines.linear(shape, classes), RATES),
        "MLP": (recipe, lambda: baselines.mlp(shape, classes, budget), RATES),
        "CNN": (recipe, lambda: baselines.cnn(shape, classes, budget), RATES),
        "Mixer": (recipe, lambda: mixer_for(recipe, data), [recipe.learning_rate]),
    }
    save("baselines", {"seeds": SEEDS, "recipe": dataclasses.asdict(recipe), "models": compare(variants, data, SEEDS)})


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
        rates = [1e-3, 2e-3, 4e-3, 8e-3] if name == "AdamW for all" else [recipe.learning_rate]
        variants[name] = (dataclasses.replace(recipe, **changes), lambda: mixer_for(recipe, data), rates)
    seeds = SEEDS[:3]
    save(
        "choices",
        {"seeds": seeds, "recipe": dataclasses.asdict(recipe), "changed": compare(variants, data, seeds)},
    )


def command_line(*arguments):
    print("python -m mixer_utils", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "mixer_utils", *arguments], check=True)


def summaries(columns):
    """Mean, sample standard deviation, lowest, median and highest of each list of numbers."""
    return {
        key: {
            "mean": statistics.mean(values), "std": statistics.stdev(values), "min": min(values),
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


def save(name, found):
    device = torch.device("cpu") if not torch.cuda.is_available() else torch.device("cuda")
    where = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"{processor()}, {torch.get_num_threads()} threads"
    )
    about = {
        "command": f"python tools/measure.py {name.removesuffix('-mnist')}",
        "date": datetime.date.today().isoformat(),
        "device": f"{where}, {'bfloat16' if gains_from_bf16(device) else 'float32'} autocast",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    write_atomically(RESULTS / f"{name}.json", (json.dumps({**about, **found}, indent=1) + "\n").encode())


def processor():
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


MEASUREMENTS = {"minute": minute, "pretrained": pretrained, "baselines": measure_baselines, "choices": choices}

if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - set(MEASUREMENTS)
    if unknown:
        sys.exit(f"There is no measurement {', '.join(unknown)}: choose from {', '.join(MEASUREMENTS)}.")
    for name in sys.argv[1:] or MEASUREMENTS:
        MEASUREMENTS[name]()
