"""Exercises of notebook 03, channel mixing."""

import functools

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mixer_utils.exercises.exercise import Exercise
from mixer_utils.model import MlpBlock


def nearly_flat_tokens():
    """(x,): the first with a spread of 0.001, the root of eps, so that it shows where eps stands or that it is lost."""
    torch.manual_seed(31)
    nearly_flat = torch.randn(2, 5, 6) * 1e-3 + torch.randn(2, 5, 1) * 0.1
    wide = torch.randn(3, 4, 7) * 2 + 1
    return [(nearly_flat,), (wide,), (torch.randn(1, 8, 3),)]


def normalise(x, dims=-1, eps=1e-6, correction=0):
    mean = x.mean(dims, keepdim=True)
    variance = x.var(dims, keepdim=True, correction=correction)
    return (x - mean) / (variance + eps).sqrt()


@functools.cache
def counted_share(S, C, D_S, D_C):
    """The share of token mixing in what torch counts for the package's own two MLPs."""
    with torch.device("meta"):
        tokens = torch.empty(1, S, C)
        token_cost = counted_cost(MlpBlock(S, D_S), tokens.mT)
        channel_cost = counted_cost(MlpBlock(C, D_C), tokens)
    return token_cost / (token_cost + channel_cost)


def counted_cost(mlp, x):
    with FlopCounterMode(display=False) as counter:
        mlp(x)
    return counter.get_total_flops()


class OverPositions(nn.Module):
    """A Linear over positions: it leaks into other tokens and treats each differently."""

    def __init__(self, num_tokens):
        super().__init__()
        self.dense = nn.Linear(num_tokens, num_tokens)

    def forward(self, x):
        return self.dense(x.mT).mT


def layers():
    """(layer, x): layers that leak, that tell tokens apart, that do both, and that do neither."""
    torch.manual_seed(33)
    cases = []
    for B, S, C in [(2, 6, 5), (3, 4, 7)]:
        x = torch.randn(B, S, C)
        over_positions = OverPositions(S).requires_grad_(False)
        over_channels = nn.Linear(C, C).requires_grad_(False)
        cases += [(over_positions, x), (over_channels, x), (without_mean, x), (numbered, x)]
    return cases


def without_mean(x):
    """Leaks: the mean over the tokens has something of each."""
    return x - x.mean(1, keepdim=True)


def numbered(x):
    """Tells tokens apart: each has its number added."""
    return x + torch.arange(x.shape[1])[:, None]


def largest(x):
    return x.abs().amax((0, 1, 2))


def leak(layer, x, others=slice(1, None), size=largest):
    nudged = x.clone()
    nudged[:, 0] += 1
    return size((layer(nudged) - layer(x))[:, others]).item()


def mismatch(layer, x, dim=1, size=largest):
    return size(layer(x.flip(dim)) - layer(x).flip(dim)).item()


def inside_tokens(layer, x):
    return [leak(layer, x), mismatch(layer, x)]


def averaged(x):
    return x.abs().mean()


def changed_for_both_runs(layer, x):
    nudged = x
    nudged[:, 0] += 1
    return [largest((layer(nudged) - layer(x))[:, 1:]).item(), mismatch(layer, x)]


def changed_for_good(layer, x):
    before = layer(x).clone()
    x[:, 0] += 1
    return [largest((layer(x) - before)[:, 1:]).item(), mismatch(layer, x)]


def first_image_disturbed(layer, x):
    nudged = x.clone()
    nudged[0] += 1
    return [largest((layer(nudged) - layer(x))[:, 1:]).item(), mismatch(layer, x)]


EXERCISES = {
    "03.1": Exercise(
        reference=normalise,
        inputs=nearly_flat_tokens,
        mistakes={
            "this still normalises over the tokens: leave x as it is, and give the size of its last dimension": (
                lambda x: F.layer_norm(x.mT, x.shape[1:2], eps=1e-6).mT
            ),
            "the size is C now but x is still turned: take the .mT away as well": (
                lambda x: F.layer_norm(x.mT, x.shape[2:], eps=1e-6).mT
            ),
            "x is not turned any more, but the size is still S: give C, the last number of x.shape": (
                lambda x: F.layer_norm(x, x.shape[1:2], eps=1e-6)
            ),
            "the right numbers, but turned to (B, C, S): take the .mT at the end away too": (
                lambda x: F.layer_norm(x, x.shape[2:], eps=1e-6).mT
            ),
            "this averages over tokens and channels together: give the size of the last dimension alone, x.shape[2:]": (
                lambda x: F.layer_norm(x, x.shape[1:], eps=1e-6)
            ),
            "this averages over the images too: give the size of the last dimension alone, x.shape[2:]": (
                lambda x: F.layer_norm(x, x.shape, eps=1e-6)
            ),
            "eps got lost: without it torch takes 1e-5, a Mixer 1e-6": lambda x: F.layer_norm(x, x.shape[2:]),
        },
        hints=(
            "F.layer_norm averages over the last dimensions. Which one is last in x, and which in x.mT?",
            "x comes as (B, S, C): C is last already, so nothing has to be turned, neither before nor after.",
            "The second argument is the size of what is averaged: x.shape[1:2] is (S,). You want (C,).",
        ),
    ),
    "03.2": Exercise(
        reference=lambda x: F.layer_norm(x, x.shape[-1:], eps=1e-6),
        inputs=nearly_flat_tokens,
        mistakes={
            "you averaged over the tokens (dimension 1): use the last dimension, the channels of one token": (
                lambda x: normalise(x, 1)
            ),
            "you averaged over tokens and channels together: each token needs a mean and a variance of its own": (
                lambda x: normalise(x, (1, 2))
            ),
            "keepdim=True is missing: without it mean and variance have shape (B, S), which does not fit (B, S, C)": (
                lambda x: (x - x.mean(-1)) / (x.var(-1, correction=0) + 1e-6).sqrt()
            ),
            "you divided by the variance: take its square root first": (
                lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6)
            ),
            "your variance divides by n - 1: LayerNorm divides by n, give var the argument correction=0": (
                lambda x: normalise(x, correction=1)
            ),
            "you added eps to the standard deviation: it belongs to the variance, under the root": (
                lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + 1e-6)
            ),
            "eps is missing: add it to the variance, under the root": lambda x: normalise(x, eps=0),
            "the mean is still there: subtract it before you divide": (
                lambda x: x / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
            ),
        },
        hints=(
            "Each token has a mean and a variance of its own. Over which dimension do its numbers lie?",
            "keepdim=True leaves the mean as (B, S, 1), so that it can be subtracted from (B, S, C).",
            "torch's var divides by n - 1 unless you say correction=0.",
            "Divide by the square root of variance + eps: the root comes last.",
        ),
    ),
    "03.3": Exercise(
        reference=counted_share,
        inputs=lambda: [(49, 96, 48, 384), (16, 100, 30, 70), (196, 64, 512, 40)],
        mistakes={
            "that is the share of channel mixing: put the token MLP's cost on top": (
                lambda S, C, D_S, D_C: D_C / (D_S + D_C)
            ),
            "you divided by channel mixing alone: a share divides by the sum of both": lambda S, C, D_S, D_C: D_S / D_C,
            "you counted weights: a token MLP's weight is used once a channel, a channel MLP's once a token": (
                lambda S, C, D_S, D_C: S * D_S / (S * D_S + C * D_C)
            ),
            "the multipliers are swapped: the token MLP runs once a channel, the channel MLP once a token": (
                lambda S, C, D_S, D_C: S * S * D_S / (S * S * D_S + C * C * D_C)
            ),
            "the expansion widths are swapped: D_S is the token MLP's hidden width, D_C the channel MLP's": (
                lambda S, C, D_S, D_C: D_C * S / (D_C * S + D_S * C)
            ),
            "token mixing counts one of its two Linear layers: both MLPs have two": (
                lambda S, C, D_S, D_C: D_S / (D_S + 2 * D_C)
            ),
            "that is in per cent: a share lies between 0 and 1": lambda S, C, D_S, D_C: 100 * D_S / (D_S + D_C),
            "that is the cost of token mixing: divide it by the cost of both": lambda S, C, D_S, D_C: 2 * S * D_S * C,
        },
        hints=(
            "A weight costs one multiply-add each time it is used. How often is one of the token MLP's used?",
            "The token MLP has 2·S·D_S weights and runs once for each of C channels.",
            "The channel MLP has 2·C·D_C, and runs once for each of S tokens. Divide by the sum of both: what cancels?",
        ),
    ),
    "03.4": Exercise(
        reference=inside_tokens,
        inputs=layers,
        mistakes={
            "the leak includes token 0 itself, which must change: look at the other tokens, [:, 1:]": (
                lambda layer, x: [leak(layer, x, others=slice(None)), mismatch(layer, x)]
            ),
            "the two numbers are in the wrong order: leak first, mismatch second": (
                lambda layer, x: inside_tokens(layer, x)[::-1]
            ),
            "you averaged the differences: take the largest, a single token that leaks is enough": (
                lambda layer, x: [leak(layer, x, size=averaged), mismatch(layer, x, size=averaged)]
            ),
            "you took the largest difference with its sign: "
            "a large negative one counts as well, so take .abs() first": (
                lambda layer, x: [leak(layer, x, size=torch.max), mismatch(layer, x, size=torch.max)]
            ),
            "you flipped the channels (dimension 2): the tokens are dimension 1": (
                lambda layer, x: [leak(layer, x), mismatch(layer, x, dim=2)]
            ),
            "you compared layer(x.flip(1)) with layer(x): flip that one too, tokens may change places together": (
                lambda layer, x: [leak(layer, x), largest(layer(x.flip(1)) - layer(x)).item()]
            ),
            "you disturbed the first image (x[0]) instead of the first token of each image (x[:, 0])": (
                first_image_disturbed
            ),
            "the leak is 0 because x itself was changed, for both runs: work on x.clone()": changed_for_both_runs,
            "x was changed for good, so the mismatch is that of another x: disturb a copy, x.clone()": changed_for_good,
        },
        hints=(
            "An experiment compares two runs that differ in one thing. For the leak that is token 0, in every image.",
            "nudged = x.clone(), then add 1 to nudged[:, 0]. Subtract layer(x) from layer(nudged); leave token 0 out.",
            "Differences have signs: .abs().max() is the largest of either. The mismatch flips tokens, dimension 1.",
        ),
    ),
}

PREDICTIONS = {"03.1": 3, "03.2": 3, "03.3": 3, "03.4": 3}
