"""Exercises of notebook 03, channel mixing."""

import torch
from torch import nn

from mixer_utils.exercises.exercise import Exercise


def normalise(x, dims=-1, eps=1e-6, correction=0):
    mean, var = x.mean(dims, keepdim=True), x.var(dims, keepdim=True, correction=correction)
    return (x - mean) / (var + eps).sqrt()


def nearly_flat_tokens():
    torch.manual_seed(31)
    return [(torch.randn(2, 5, 6) * 1e-3 + torch.randn(2, 5, 1),), (torch.randn(3, 4, 7) * 2 + 1,)]


def token_share(S, C, D_S, D_C):
    return D_S / (D_S + D_C)


class OverPositions(nn.Module):
    """A Linear over positions: it leaks into other tokens and treats each differently."""

    def __init__(self, num_tokens):
        super().__init__()
        self.dense = nn.Linear(num_tokens, num_tokens)

    def forward(self, x):
        return self.dense(x.mT).mT


def layers():
    torch.manual_seed(33)
    x = torch.randn(2, 6, 5)
    inside, between = nn.Linear(5, 5), OverPositions(6)
    return [
        (between, x),
        (inside, x),
        (lambda x: x - x.mean(1, keepdim=True), x),
        (lambda x: x + torch.arange(x.shape[1])[:, None], x),
    ]


@torch.no_grad()
def inside_tokens(layer, x, token=0, others=slice(1, None), largest=torch.amax, axis=1):
    nudged = x.clone()
    nudged[:, token] += 1
    leak = largest((layer(nudged) - layer(x))[:, others].abs(), (0, 1, 2))
    mismatch = largest((layer(x.flip(axis)) - layer(x).flip(axis)).abs(), (0, 1, 2))
    return [leak.item(), mismatch.item()]


EXERCISES = {
    "03.1": Exercise(
        reference=normalise,
        inputs=nearly_flat_tokens,
        mistakes={
            "you averaged over the tokens (dimension 1): use the last dimension, the channels of one token":
                lambda x: normalise(x, 1),
            "you averaged over tokens and channels together: each token needs a mean and a variance of its own":
                lambda x: normalise(x, (1, 2)),
            "you divided by the variance: take its square root first":
                lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6),
            "your variance divides by n - 1: LayerNorm divides by n, give var the argument correction=0":
                lambda x: normalise(x, correction=1),
            "you added eps to the standard deviation: it belongs to the variance, under the root":
                lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + 1e-6),
            "eps is missing: add it to the variance, under the root":
                lambda x: normalise(x, eps=0),
            "the mean is still there: subtract it before you divide":
                lambda x: x / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt(),
        },
    ),
    "03.2": Exercise(
        reference=token_share,
        inputs=lambda: [(49, 96, 48, 384), (16, 100, 30, 70)],
        mistakes={
            "that is the share of channel mixing: put the token MLP's cost on top":
                lambda S, C, D_S, D_C: D_C / (D_S + D_C),
            "you divided by channel mixing alone: a share divides by the sum of both":
                lambda S, C, D_S, D_C: D_S / D_C,
            "you counted weights: a token MLP's weight is used once a channel, a channel MLP's once a token":
                lambda S, C, D_S, D_C: S * D_S / (S * D_S + C * D_C),
            "the multipliers are swapped: the token MLP runs once a channel, the channel MLP once a token":
                lambda S, C, D_S, D_C: S * S * D_S / (S * S * D_S + C * C * D_C),
            "the widths are swapped: D_S is the token MLP's hidden width, D_C the channel MLP's":
                lambda S, C, D_S, D_C: S * D_C / (S * D_C + C * D_S),
            "one half counts one of its two Linear layers: both MLPs have two":
                lambda S, C, D_S, D_C: D_S / (D_S + 2 * D_C),
        },
    ),
    "03.3": Exercise(
        reference=inside_tokens,
        inputs=layers,
        mistakes={
            "the leak includes token 0 itself, which must change: look at the other tokens, [:, 1:]":
                lambda layer, x: inside_tokens(layer, x, others=slice(None)),
            "the two numbers are in the wrong order: leak first, mismatch second":
                lambda layer, x: inside_tokens(layer, x)[::-1],
            "you averaged the differences: take the largest, a single token that leaks is enough":
                lambda layer, x: inside_tokens(layer, x, largest=torch.mean),
            "you flipped the channels (dimension 2): the tokens are dimension 1":
                lambda layer, x: inside_tokens(layer, x, axis=2),
            "you disturbed the first image (x[0]) instead of the first token of each image (x[:, 0])":
                lambda layer, x: first_image_disturbed(layer, x),
            "the leak is 0 because x itself was changed before the second run: work on x.clone()":
                lambda layer, x: [0.0, inside_tokens(layer, x)[1]],
        },
    ),
}  # fmt: skip


@torch.no_grad()
def first_image_disturbed(layer, x):
    nudged = x.clone()
    nudged[0] += 1
    return [(layer(nudged) - layer(x))[:, 1:].abs().max().item(), inside_tokens(layer, x)[1]]

PREDICTIONS = {}
