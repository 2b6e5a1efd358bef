"""Where the Mixer struggles: Fashion-MNIST with few images and many, for a Mixer, a CNN, an MLP and a ViT of one size.

    python tools/study.py run [0/2]   the runs that are missing, into build/study; or one half of them: the other is 1/2
    python tools/study.py save        when all are there: results/study.json

Every network has as many parameters as the Mixer, or just fewer, and AdamW with the same number of steps. Validation
images choose its learning rate, from a grid that is widened until the best rate is not at its end. The test images are
not read. One thread each: two halves take two hours of two cores.
"""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.provenance import write_result
from benchmarks.variants import bracketed
from mixer_utils import MlpMixer, Recipe, baselines, load_dataset
from mixer_utils.checkpoints import write_atomically
from mixer_utils.devices import autocast
from mixer_utils.evaluation import loss_and_accuracy
from mixer_utils.model import count_parameters
from mixer_utils.optimizers import make_optimizers, set_learning_rate
from mixer_utils.training import augment, hold_out, random_numbers

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "build" / "study"
VALIDATION = 5000
SIZES = (1000, 5000, 15_000, 55_000)
SEEDS = (0, 1, 2)
RATES = (1e-3, 2e-3, 4e-3, 8e-3)  # the first ones tried
LOOKED_AT = (50, 100, 200, 400, 700, 1000, 1400, 2000)  # steps after which accuracies are taken
MIXER = dict(patch_size=4, num_blocks=3, hidden_dim=64, tokens_mlp_dim=32, channels_mlp_dim=256, gelu="erf")
NETWORKS = ("Mixer", "CNN", "MLP", "ViT")
# What is changed of the plain run, and how.
CURES = {
    "plain": {},
    "augmentation": {"shift": 2, "flip": 0.5},
    "mixup": {"mixup": 0.4},
    "weight decay": {"weight_decay": 0.5},
    "all three": {"shift": 2, "flip": 0.5, "mixup": 0.4, "weight_decay": 0.5},
}
MEDIUM = 5000  # images for which rates are chosen and cures are compared
PATHS = (("mnist", "fashion-mnist"), ("fashion-mnist", "mnist"), (None, "fashion-mnist"), (None, "mnist"))  # transfer
SHOTS = (10, 100, 1000)  # images of the data set that it leads to
TUNED = 300  # steps on them


def build(name, image_shape, num_classes):
    """The network of that name: all have the Mixer's number of parameters or just fewer."""
    channels, *size = image_shape
    mixer = MlpMixer(image_size=tuple(size), in_channels=channels, num_classes=num_classes, **MIXER)
    budget = count_parameters(mixer)
    if name == "Mixer":
        return mixer
    if name == "ViT":
        return baselines.vit(image_shape, num_classes, budget, MIXER["patch_size"], MIXER["num_blocks"])
    return {"CNN": baselines.cnn, "MLP": baselines.mlp}[name](image_shape, num_classes, budget)


def recipe_for(rate, **changes):
    return Recipe("study", **{"optimizer": "adamw", "learning_rate": rate, "weight_decay": 0.05, "shift": 0,
                              "batch_size": 128, **changes})  # fmt: skip


def fit(model, training, data, recipe, steps, seed, look=lambda step: None):
    """Train the model in place for ``steps`` steps; ``look(step)`` is called after each."""
    optimizers = make_optimizers(model, recipe)
    torch.manual_seed(seed)
    for step in range(steps):
        chosen = torch.randint(len(training), (min(recipe.batch_size, len(training)),))
        images, targets = augment(training.images[chosen], training.labels[chosen],
                                  random_numbers(len(chosen), recipe), recipe, data, seed + step)  # fmt: skip
        model.train()
        with autocast(torch.device("cpu")):
            logits = model(images)
        F.cross_entropy(logits.float(), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        set_learning_rate(optimizers, recipe.learning_rate_at(step, steps))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        look(step + 1)


def curves(model, training, validation, data, recipe, steps, seed):
    """Train, and take loss and accuracy along the way, on images of both kinds as they are."""
    found = {"steps": [], "train": [], "validation": []}
    seen = training[torch.arange(min(2000, len(training)))]

    def look(step):
        if step in LOOKED_AT or step == steps:
            found["steps"].append(step)
            found["train"].append(loss_and_accuracy(model, seen, data))
            found["validation"].append(loss_and_accuracy(model, validation, data))

    fit(model, training, data, recipe, steps, seed, look)
    return found


# --- the runs ---------------------------------------------------------------------------------------------------------


def parts_of(name, count, seed):
    """The data set, ``count`` of its training images, others for every seed, and the validation images of all runs."""
    data = load_dataset(name)
    training, validation = hold_out(data.train, VALIDATION)
    chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))[:count]
    return data, training[chosen], validation


def learn(network, count, seed, cure, rate):
    """One run on Fashion-MNIST."""
    data, training, validation = parts_of("fashion-mnist", count, seed)
    torch.manual_seed(seed)
    model = build(network, data.image_shape, len(data.class_names))
    recipe = recipe_for(rate, **CURES[cure])
    found = curves(model, training, validation, data, recipe, LOOKED_AT[-1], seed)
    return {"num_parameters": count_parameters(model), **found}


def transfer(network, source, target, seed, rate):
    """Train on all images of ``source``, or on none, then shortly on a few of ``target``, at the same rate.

    Returns {number of those few: accuracy on the validation images of ``target``}.
    """
    data, training, _ = parts_of(source or target, SIZES[-1], seed)
    torch.manual_seed(seed)
    model = build(network, data.image_shape, len(data.class_names))
    if source:
        fit(model, training, data, recipe_for(rate), LOOKED_AT[-1], seed)
    torch.nn.init.zeros_(model.head.weight)  # other classes
    torch.nn.init.zeros_(model.head.bias)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = {}
    for shots in SHOTS:
        data, few, validation = parts_of(target, shots, seed)
        model.load_state_dict(before)
        fit(model, few, data, recipe_for(rate), TUNED, seed)
        found[shots] = loss_and_accuracy(model, validation, data)[1]
    return found


def keep(name, make):
    """What a run found: from its file, else by make(), and then in its file."""
    path = RUNS / f"{name}.json"
    if not path.exists():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found).encode())
        print(name, flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def best_rate(network):
    """The rate with the highest validation accuracy, and what each gave, from a grid in which it is not at an end."""

    def tried(rate):
        return keep(f"rate/{network}-{rate:g}", lambda: learn(network, MEDIUM, 0, "plain", rate))["validation"][-1][1]

    return bracketed(tried, RATES)


def jobs():
    """Every run: (name, function of the network's rate)."""
    for network, count, seed in itertools.product(NETWORKS, SIZES, SEEDS):
        for cure in CURES if count == MEDIUM else ("plain", "augmentation"):
            name = f"{network}-{count}-{cure}-{seed}"
            yield network, name, lambda rate, a=(network, count, seed, cure): learn(*a, rate)
    for network, (source, target), seed in itertools.product(("Mixer", "CNN"), PATHS, SEEDS):
        name = f"transfer/{network}-{source or 'nothing'}-{target}-{seed}"
        yield network, name, lambda rate, a=(network, source, target, seed): transfer(*a, rate)


def run(part=0, parts=1):
    rates = {name: best_rate(name)[0] for name in NETWORKS[part::parts]}
    rates |= {name: best_rate(name)[0] for name in NETWORKS if name not in rates}
    for network, name, make in list(jobs())[part::parts]:
        keep(name, lambda network=network, make=make: make(rates[network]))


def save():
    runs = {name: keep(name, missing) for _, name, _ in jobs()}
    rates = {}
    for network in NETWORKS:
        rate, tried = best_rate(network)
        rates[network] = {"learning_rate": rate, "validation_accuracy_by_rate": {f"{r:g}": a for r, a in tried.items()}}
    result = {"seeds": SEEDS, "mixer": MIXER, "steps": LOOKED_AT[-1], "sizes": SIZES, "cures": CURES,
              "recipe_of_all": dataclasses.asdict(recipe_for(0.0)), "rates": rates, "runs": runs}  # fmt: skip
    write_result(ROOT / "results" / "study.json", result, "python tools/study.py run, save", torch.device("cpu"))


def missing():
    sys.exit("Some runs are missing: python tools/study.py run.")


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *rest = sys.argv[1:] or ["run"]
    if what == "run":
        run(*map(int, rest[0].split("/")) if rest else ())
    else:
        save()
