"""The exercises of notebook 05: accuracy, cross-entropy, and a schedule with a cosine."""

import math

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


def cross_entropy(logits, labels):
    log_probabilities = logits - logits.logsumexp(dim=1, keepdim=True)
    return -log_probabilities[torch.arange(len(labels)), labels].mean()


def cosine(step, steps, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def probability_of_label(logits, labels, dim=1):
    return logits.softmax(dim)[torch.arange(len(labels)), labels]


EXERCISES = {
    "05.1": Exercise(
        accuracy,
        batches,
        {
            "this counts the right ones: divide by the number of images, or take the mean": lambda z, y: (
                z.argmax(1) == y
            ).sum(),
            "this is in percent: an accuracy here runs from 0 to 1": lambda z, y: 100 * accuracy(z, y),
            "this is the share of wrong ones: compare with == rather than !=": lambda z, y: 1 - accuracy(z, y),
            "this is the mean probability of the right class: an image counts as right when its class has the highest "
            "logit": lambda z, y: probability_of_label(z, y).mean(),
        },
    ),
    "05.2": Exercise(
        cross_entropy,
        batches,
        {
            "this is the sum over the images: take the mean": lambda z, y: F.cross_entropy(z, y, reduction="sum"),
            "the softmax was taken twice: work on the logits as they come": lambda z, y: F.cross_entropy(
                z.softmax(1), y
            ),
            "the softmax runs over the images: it must run over the classes, dim=1": lambda z, y: (
                -probability_of_label(z, y, dim=0).log().mean()
            ),
            "the sign is missing: a loss is the negative logarithm": lambda z, y: -cross_entropy(z, y),
            "this is one minus the probability: take minus its logarithm": lambda z, y: (
                1 - probability_of_label(z, y).mean()
            ),
            "this logarithm has the base 2: torch.log has the base e": lambda z, y: cross_entropy(z, y) / math.log(2),
        },
    ),
    "05.3": Exercise(
        cosine,
        lambda: [(3, 100, 0.01, 10), (10, 100, 0.01, 10), (70, 100, 0.01, 10), (99, 100, 0.01, 10), (40, 60, 0.3, 20)],
        {
            "in the warm-up, step 0 must not have rate 0: use (step + 1) / warmup": lambda step, steps, peak, warmup: (
                peak * step / warmup if step < warmup else cosine(step, steps, peak, warmup)
            ),
            "the warm-up is missing: for step < warmup the rate rises": lambda step, steps, peak, warmup: (
                peak * (1 + math.cos(math.pi * step / steps)) / 2
            ),
            "the first steps are not multiplied by peak": lambda step, steps, peak, warmup: (
                (step + 1) / warmup if step < warmup else cosine(step, steps, peak, warmup)
            ),
        },
        tolerance=1e-6,
    ),
}

PREDICTIONS = {}
