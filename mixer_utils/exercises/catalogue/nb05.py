"""Exercises of notebook 05: accuracy, cross-entropy, a schedule with a cosine, and two batch sizes compared."""

import math
import statistics

import torch
from torch.nn import functional as F

from mixer_utils.exercises.exercise import Exercise


def batches():
    """Logits (B, classes) and labels (B,), never as many images as classes."""
    generator = torch.Generator().manual_seed(5)
    return [
        (3 * torch.randn(b, k, generator=generator), torch.randint(0, k, (b,), generator=generator))
        for b, k in [(8, 3), (5, 10)]
    ]


def accuracy(logits, labels):
    return (logits.argmax(dim=1) == labels).float().mean()


def probability_of_label(logits, labels, dim=1):
    return logits.softmax(dim)[torch.arange(len(labels)), labels]


def cosine(step, steps, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    return falling(step, warmup, peak, (step - warmup) / (steps - warmup))


def falling(step, warmup, peak, fallen):
    """The right warm-up, then half a cosine of which the share ``fallen`` is over."""
    return peak * (step + 1) / warmup if step < warmup else peak * (1 + math.cos(math.pi * fallen)) / 2


def made_up_run(advantage, seed_matters):
    """A ``run(batch_size, seed)`` that trains nothing: a lucky seed is lucky for both sizes."""

    def run(batch_size, seed):
        if batch_size not in (64, 256):
            raise ValueError(f"there is no run with a batch size of {batch_size}: give 64 or 256")
        shared = torch.randn(3, generator=torch.Generator().manual_seed(seed))
        own = torch.randn(3, generator=torch.Generator().manual_seed(1000 * batch_size + seed))
        wins = torch.tensor([3.0, 1.0, 0.5]) * (advantage if batch_size == 64 else 0)  # more so on what it has seen
        accuracies = torch.tensor([0.970, 0.960, 0.955]) + wins + seed_matters * shared + 0.0005 * own
        train, validation, test = accuracies.tolist()
        return {"train_accuracy": train, "validation_accuracy": validation, "test_accuracy": test}

    return run


def comparisons():
    """(run, seeds): a batch of 64 is better in the first, worse in the second, and too close to tell in the third."""
    return [
        (made_up_run(0.002, 0.004), [0, 1, 2, 3, 4]),
        (made_up_run(-0.003, 0.006), [11, 5, 8]),
        (made_up_run(-0.0002, 0.003), range(20, 28)),
    ]


def measured(run, seeds, which="validation"):
    """The accuracies of batches of 64, and of 256, seed by seed."""
    return [[run(batch_size, seed)[f"{which}_accuracy"] for seed in seeds] for batch_size in (64, 256)]


def compared(run, seeds, which="validation"):
    differences = [a - b for a, b in zip(*measured(run, seeds, which), strict=True)]
    return [statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))]


def unpaired(run, seeds):
    variances = map(statistics.variance, measured(run, seeds))
    return [compared(run, seeds)[0], math.sqrt(sum(variances) / len(seeds))]


EXERCISES = {
    "05.1": Exercise(
        reference=accuracy,
        inputs=batches,
        mistakes={
            "this counts the right ones: divide by the number of images, or take the mean": (
                lambda z, y: (z.argmax(1) == y).sum()
            ),
            "this says of each image whether it is right: take the mean over the images": lambda z, y: z.argmax(1) == y,
            "True and False have no mean in PyTorch: make them numbers first, with .float()": (
                lambda z, y: (z.argmax(1) == y).mean()
            ),
            "this is in percent: an accuracy here runs from 0 to 1": lambda z, y: 100 * accuracy(z, y),
            "this is the share of wrong ones: compare with == rather than !=": lambda z, y: 1 - accuracy(z, y),
            "this is the mean probability of the right class: an image counts as right when its class has the highest "
            "logit": lambda z, y: probability_of_label(z, y).mean(),
            "the highest logit was sought over the images: seek it over the classes, dim=1": (
                lambda z, y: (z.argmax(0) == y).float().mean()
            ),
            "argmax without dim gives one number for the whole batch: each image has its own, dim=1": (
                lambda z, y: (z.argmax() == y).float().mean()
            ),
        },
        hints=(
            "which class does the model answer for an image? The one with the highest logit",
            "logits.argmax(dim=1) is that class, for each image; compare it with labels",
            "True and False become 1.0 and 0.0 with .float(); the share of ones is their mean",
        ),
    ),
    "05.2": Exercise(
        reference=F.cross_entropy,
        inputs=batches,
        mistakes={
            "this is the sum over the images: take the mean": lambda z, y: F.cross_entropy(z, y, reduction="sum"),
            "this is the loss of each image: take the mean": lambda z, y: F.cross_entropy(z, y, reduction="none"),
            "softmax was taken twice: work on the logits as they come": lambda z, y: F.cross_entropy(z.softmax(1), y),
            "the softmax runs over the images: it must run over the classes, dim=1": (
                lambda z, y: -probability_of_label(z, y, dim=0).log().mean()
            ),
            "the sign is missing: a loss is the negative logarithm": lambda z, y: -F.cross_entropy(z, y),
            "this is one minus the probability: take minus its logarithm": (
                lambda z, y: 1 - probability_of_label(z, y).mean()
            ),
            "the mean was taken before the logarithm: take the logarithm of each image's probability": (
                lambda z, y: -probability_of_label(z, y).mean().log()
            ),
            "this logarithm has the base 2: torch.log has the base e": lambda z, y: F.cross_entropy(z, y) / math.log(2),
            "the softmax is missing: subtract logits.logsumexp(dim=1) from the logit of the label": (
                lambda z, y: -z[torch.arange(len(y)), y].mean()
            ),
            "[:, labels] takes every image's label from every image: index with [torch.arange(len(labels)), labels]": (
                lambda z, y: -z.log_softmax(1)[:, y].mean()
            ),
            "logsumexp gives (B,) here, which does not go with (B, classes): keep the dimension with keepdim=True": (
                lambda z, y: z - z.logsumexp(dim=1)
            ),
        },
        hints=(
            "the loss of one image is minus the logarithm of the probability of its label",
            "the logarithm of a softmax is the logit minus logits.logsumexp(dim=1)",
            "logits[torch.arange(len(labels)), labels] picks, for each image, the logit of its label",
            "take logsumexp minus that logit for each image, then the mean over the images",
        ),
    ),
    "05.3": Exercise(
        reference=cosine,
        inputs=lambda: [
            (3, 100, 0.01, 10),
            (10, 100, 0.01, 10),
            (70, 100, 0.01, 10),
            (99, 100, 0.01, 10),
            (19, 60, 0.3, 20),
            (40, 60, 0.3, 20),
        ],
        mistakes={
            "in the warm-up, step 0 must not have rate 0: use (step + 1) / warmup": (
                lambda step, steps, peak, warmup: (
                    peak * step / warmup if step < warmup else cosine(step, steps, peak, warmup)
                )
            ),
            "the rise from 0 reaches peak in time, but step 0 then changes nothing: use (step + 1) / warmup": (
                lambda step, steps, peak, warmup: (
                    peak * step / (warmup - 1) if step < warmup else cosine(step, steps, peak, warmup)
                )
            ),
            "the cosine was begun at step 0: count from the end of the warm-up, step - warmup": (
                lambda step, steps, peak, warmup: falling(step, warmup, peak, step / steps)
            ),
            "the warm-up is missing: for step < warmup the rate rises": (
                lambda step, steps, peak, warmup: peak * (1 + math.cos(math.pi * step / steps)) / 2
            ),
            "the first steps are not multiplied by peak": (
                lambda step, steps, peak, warmup: (
                    (step + 1) / warmup if step < warmup else cosine(step, steps, peak, warmup)
                )
            ),
            "1 + cos runs from 2 to 0: divide by 2, so that the fall starts at peak": (
                lambda step, steps, peak, warmup: cosine(step, steps, peak, warmup) * (1 if step < warmup else 2)
            ),
            "step - warmup was divided by steps: the fall takes only steps - warmup of them": (
                lambda step, steps, peak, warmup: falling(step, warmup, peak, (step - warmup) / steps)
            ),
            "this reaches zero at the last step: zero belongs at `steps`, one later, so divide by steps - warmup": (
                lambda step, steps, peak, warmup: falling(step, warmup, peak, (step - warmup) / (steps - warmup - 1))
            ),
            "that is a whole cosine, down and up again: half of one takes an angle from 0 to pi": (
                lambda step, steps, peak, warmup: falling(step, warmup, peak, 2 * (step - warmup) / (steps - warmup))
            ),
            "this falls in a straight line, as in the recipe: here it is half a cosine": (
                lambda step, steps, peak, warmup: peak * min((step + 1) / warmup, (steps - step) / (steps - warmup))
            ),
        },
        hints=(
            "two cases: step < warmup, and the rest",
            "in the warm-up, step + 1 runs from 1 to warmup; the rate is that share of peak",
            "after it, the share of the fall that is over is (step - warmup) / (steps - warmup), from 0 towards 1",
            "math.cos of pi times that share runs from 1 to -1: shift and halve it to run from 1 to 0, then times peak",
        ),
        tolerance=1e-6,
    ),
    "05.4": Exercise(
        reference=compared,
        inputs=comparisons,
        mistakes={
            "this was measured on the training images: what counts are images that were not trained on": (
                lambda run, seeds: compared(run, seeds, "train")
            ),
            "this was measured on the test images: "
            "choices are made on validation images, the test set is for the end": (
                lambda run, seeds: compared(run, seeds, "test")
            ),
            "the best seed of each was taken: that rewards luck, take the mean over all seeds": (
                lambda run, seeds: [
                    max(measured(run, seeds)[0]) - max(measured(run, seeds)[1]),
                    compared(run, seeds)[1],
                ]
            ),
            "this is unpaired, though both share the seeds: subtract seed by seed, then take the deviation": (unpaired),
            "this is the standard deviation over seeds: divide by the root of their number for the standard error": (
                lambda run, seeds: [compared(run, seeds)[0], compared(run, seeds)[1] * math.sqrt(len(seeds))]
            ),
            "the standard deviation was divided by the number of seeds: divide by its square root": (
                lambda run, seeds: [compared(run, seeds)[0], compared(run, seeds)[1] / math.sqrt(len(seeds))]
            ),
            "this variance divides by n: with few seeds that is too small, divide by n - 1": (
                lambda run, seeds: [compared(run, seeds)[0], compared(run, seeds)[1] * math.sqrt(1 - 1 / len(seeds))]
            ),
            "this is a variance: a standard error is its square root": (
                lambda run, seeds: [compared(run, seeds)[0], compared(run, seeds)[1] ** 2]
            ),
            "the sign is turned: take the accuracy with 64 minus the one with 256": (
                lambda run, seeds: [-compared(run, seeds)[0], compared(run, seeds)[1]]
            ),
            "every run got the same seed, so nothing was repeated: give each seed to one run of either size": (
                lambda run, seeds: compared(run, [seeds[0]] * len(seeds))
            ),
            "this is the mean alone: return a list, the mean and its standard error": (
                lambda run, seeds: compared(run, seeds)[0]
            ),
            "the arguments are swapped: it is run(batch_size, seed)": lambda run, seeds: run(seeds[0], 64),
        },
        hints=(
            "which of the three accuracies may help to choose? And which belongs to the very end?",
            "a lucky seed is lucky for both sizes: take the difference seed by seed, and go on with these alone",
            "a standard error is the standard deviation of the differences by the root of their number",
            "torch.tensor(differences).std() divides by n - 1; so does statistics.stdev",
        ),
        tolerance=1e-6,
    ),
}

PREDICTIONS = {"05.1": 3, "05.2": 3, "05.3": 2, "05.4": 3}
