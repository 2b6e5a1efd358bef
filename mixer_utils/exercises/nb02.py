"""Exercises of notebook 02, token mixing."""

import torch
from torch import nn

from mixer_utils.exercises.exercise import Exercise
from mixer_utils.model import MixerBlock, MlpBlock


def some_halves():
    """(x, norm, mlp) with a norm whose scale and shift differ from channel to channel, so that leaving it out shows."""
    torch.manual_seed(0)
    for B, S, C in [(2, 6, 4), (3, 5, 8)]:
        norm, mlp = nn.LayerNorm(C, eps=1e-6).requires_grad_(False), MlpBlock(S, 7).requires_grad_(False)
        norm.weight.copy_(torch.rand(C) + 0.5)
        norm.bias.copy_(torch.randn(C))
        yield torch.randn(B, S, C), norm, mlp


def some_layers():
    """(layer, x): tokens that hear only earlier ones, only themselves, and all."""
    torch.manual_seed(0)
    earlier, norm = torch.rand(5, 5).add(0.5).tril(), nn.LayerNorm(3).requires_grad_(False)
    alone, all_of_them = MlpBlock(6, 7).requires_grad_(False), MixerBlock(6, 4, 5, 7).requires_grad_(False)
    yield lambda x: earlier @ norm(x), torch.randn(2, 5, 3)
    yield alone, torch.randn(2, 4, 6)
    yield all_of_them, torch.randn(3, 6, 4)


def listening(layer, x, change):
    """(S, S): which output tokens (rows) change when ``change(x, j)`` has changed input token j (columns)."""
    before = layer(x)
    columns = [(layer(change(x, j)) - before).abs().amax(dim=(0, 2)) > 1e-5 for j in range(x.shape[1])]
    return torch.stack(columns, dim=1)


def replaced(x, j):
    other = x.clone()
    other[:, j] = torch.randn(x[:, j].shape, generator=torch.Generator().manual_seed(j))
    return other


def all_up_to(x, j):
    for earlier in range(j + 1):
        x = replaced(x, earlier)
    return x


EXERCISES = {
    "02.1": Exercise(
        reference=lambda S: torch.eye(S).roll(1, dims=0).tril(),
        inputs=lambda: [(5,), (3,), (8,)],
        mistakes={
            "this moves tokens back by one: rows are outputs and columns inputs, so the ones belong below the diagonal":
                lambda S: torch.eye(S).roll(-1, dims=0).triu(),
            "the last token comes back in at position 0: that row should be all zeros":
                lambda S: torch.eye(S).roll(1, dims=0),
            "this is the identity, every token stays: move the ones one row down": lambda S: torch.eye(S),
            "each output adds up all the tokens before it: row s needs a single one, in column s - 1":
                lambda S: torch.ones(S, S).tril(-1),
        },
    ),
    "02.2": Exercise(
        reference=lambda x, norm, mlp: x + mlp(norm(x).transpose(1, 2)).transpose(1, 2),
        inputs=lambda: list(some_halves()),
        mistakes={
            "the residual is missing: add x to the result":
                lambda x, norm, mlp: mlp(norm(x).transpose(1, 2)).transpose(1, 2),
            "the residual carries the normalised tokens: add x itself, as it came in":
                lambda x, norm, mlp: norm(x) + mlp(norm(x).transpose(1, 2)).transpose(1, 2),
            "the norm is missing: the MLP works on norm(x)":
                lambda x, norm, mlp: x + mlp(x.transpose(1, 2)).transpose(1, 2),
            "the norm comes after the residual: the Mixer normalises first, inside the branch (pre-norm)":
                lambda x, norm, mlp: norm(x + mlp(x.transpose(1, 2)).transpose(1, 2)),
            "reshape was used to turn the tensor: it cuts the numbers anew, so use transpose(1, 2) both times":
                lambda x, norm, mlp: x + mlp(norm(x).reshape(len(x), x.shape[2], x.shape[1])).reshape(x.shape),
            "the result was turned back with reshape: use transpose(1, 2)":
                lambda x, norm, mlp: x + mlp(norm(x).transpose(1, 2)).reshape(x.shape),
            "the result was not turned back: transpose it to (B, S, C) and add x":
                lambda x, norm, mlp: mlp(norm(x).transpose(1, 2)),
        },
    ),
    "02.3": Exercise(
        reference=lambda layer, x: listening(layer, x, replaced),
        inputs=lambda: list(some_layers()),
        mistakes={
            "rows and columns are swapped: entry [i, j] is about output token i and input token j":
                lambda layer, x: listening(layer, x, replaced).T,
            "no token was seen to change. If you added one number to all channels, a LayerNorm over C takes it away: "
            "put random numbers in. If you changed x itself, before and after are the same: use x.clone()":
                lambda layer, x: torch.zeros(x.shape[1], x.shape[1]),
            "tokens that were changed stay changed when the next one is tried: start each time from a fresh x.clone()":
                lambda layer, x: listening(layer, x, all_up_to),
            "True and False are swapped: True is for tokens that change":
                lambda layer, x: ~listening(layer, x, replaced),
            "this says whether a token hears anything at all: return (S, S), one column for each input token":
                lambda layer, x: listening(layer, x, replaced).any(dim=1),
        },
    ),
}  # fmt: skip

PREDICTIONS = {}
