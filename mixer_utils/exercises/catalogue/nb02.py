"""Exercises of notebook 02, token mixing."""

import torch
from torch import nn
from torch.nn import functional as F

from mixer_utils.exercises.exercise import Exercise
from mixer_utils.model import MixerBlock, MlpBlock


def one_step_too_far(num_tokens):
    mix = torch.zeros(num_tokens, num_tokens)
    for s in range(num_tokens):
        mix[s + 1, s] = 1
    return mix


def some_halves():
    """(x, norm, mlp) with a norm whose scale and shift differ from channel to channel, so that leaving it out shows."""
    torch.manual_seed(0)
    cases = []
    for B, S, C in [(2, 6, 4), (3, 5, 8)]:
        norm = nn.LayerNorm(C, eps=1e-6).requires_grad_(False)
        mlp = MlpBlock(S, 7).requires_grad_(False)
        norm.weight.copy_(torch.rand(C) + 0.5)
        norm.bias.copy_(torch.randn(C))
        cases.append((torch.randn(B, S, C), norm, mlp))
    return cases


def half_of_the_package(x, norm, mlp):
    """What a MixerBlock with these weights returns where its channel half adds nothing."""
    _, S, C = x.shape
    block = MixerBlock(S, C, len(mlp.dense_0.weight), 1).requires_grad_(False)
    block.norm_0.load_state_dict(norm.state_dict())
    block.token_mixing.load_state_dict(mlp.state_dict())
    nn.init.zeros_(block.channel_mixing.dense_1.weight)
    nn.init.zeros_(block.channel_mixing.dense_1.bias)
    return block(x)


def turned(mlp, x):
    """The MLP over positions: (B, S, C) -> (B, S, C)."""
    return mlp(x.transpose(1, 2)).transpose(1, 2)


def some_layers():
    """(layer, x): tokens that hear only earlier ones, only themselves, and all."""
    torch.manual_seed(0)
    matrix = torch.rand(5, 5).add(0.5).tril()
    norm = nn.LayerNorm(3).requires_grad_(False)
    themselves = MlpBlock(6, 7).requires_grad_(False)
    everyone = MixerBlock(6, 4, 5, 7).requires_grad_(False)

    def earlier(x):
        return matrix @ norm(x)

    return [
        (earlier, torch.randn(2, 5, 3)),
        (themselves, torch.randn(2, 4, 6)),
        (everyone, torch.randn(3, 6, 4)),
    ]


def changes(layer, x, change):
    """(B, S, S): in which image which output tokens (rows) change when ``change(x, j)`` has changed input token j."""
    before = layer(x)
    columns = [(layer(change(x, j)) - before).abs().amax(dim=2) > 1e-5 for j in range(x.shape[1])]
    return torch.stack(columns, dim=2)


def listening(layer, x, change):
    return changes(layer, x, change).any(dim=0)


def replaced(x, j):
    other = x.clone()
    other[:, j] = torch.randn(x[:, j].shape, generator=torch.Generator().manual_seed(j))
    return other


def all_up_to(x, j):
    for earlier in range(j + 1):
        x = replaced(x, earlier)
    return x


def image_replaced(x, j):
    other = x.clone()
    other[j] = 0
    return other


EXERCISES = {
    "02.1": Exercise(
        reference=lambda S: torch.eye(S).roll(1, dims=0).tril(),
        inputs=lambda: [(5,), (3,), (8,)],
        mistakes={
            "this moves tokens back by one: "
            "rows are outputs and columns inputs, so the ones belong below the diagonal": (
                lambda S: torch.eye(S).roll(-1, dims=0).triu()
            ),
            "the last token comes back in at position 0: that row should be all zeros": (
                lambda S: torch.eye(S).roll(1, dims=0)
            ),
            "this is the identity, every token stays: move the ones one row down": lambda S: torch.eye(S),
            "each output adds up all the tokens before it: row s needs a single one, in column s - 1": (
                lambda S: torch.ones(S, S).tril(-1)
            ),
            "position 0 keeps its own token: it has no token before it, so row 0 is all zeros": (
                lambda S: torch.eye(S)[[0, *range(S - 1)]]
            ),
            "one row and one column too many: one step below the diagonal there is room for num_tokens - 1 ones": (
                lambda S: torch.diag(torch.ones(S), -1)
            ),
            "the last token has no place to go: let the loop stop one step earlier": one_step_too_far,
        },
        hints=(
            "write the matrix for three tokens on paper: which input does each output want?",
            "row s is the recipe for output s, and holds a single one, in column s - 1",
            "so the ones stand one step below the diagonal: torch.diag can put them there, or a loop over s from 1",
        ),
    ),
    "02.2": Exercise(
        reference=half_of_the_package,
        inputs=some_halves,
        mistakes={
            "the residual is missing: add x to the result": lambda x, norm, mlp: turned(mlp, norm(x)),
            "the residual carries the normalised tokens: add x itself, as it came in": (
                lambda x, norm, mlp: norm(x) + turned(mlp, norm(x))
            ),
            "the norm is missing: the MLP works on norm(x)": lambda x, norm, mlp: x + turned(mlp, x),
            "the norm comes after the residual: the Mixer normalises first, inside the branch (pre-norm)": (
                lambda x, norm, mlp: norm(x + turned(mlp, x))
            ),
            "the norm comes after the MLP: the Mixer normalises before it (pre-norm)": (
                lambda x, norm, mlp: x + norm(turned(mlp, x))
            ),
            "reshape was used to turn the tensor: it cuts the numbers anew, so use transpose(1, 2) both times": (
                lambda x, norm, mlp: x + mlp(norm(x).reshape(len(x), x.shape[2], x.shape[1])).reshape(x.shape)
            ),
            "the result was turned back with reshape: use transpose(1, 2)": (
                lambda x, norm, mlp: x + mlp(norm(x).transpose(1, 2)).reshape(x.shape)
            ),
            "the result was not turned back: transpose it to (B, S, C) and add x": (
                lambda x, norm, mlp: mlp(norm(x).transpose(1, 2))
            ),
            "the transpose is missing: the MLP works over the last dimension, which must be S, so give it "
            "norm(x).transpose(1, 2)": lambda x, norm, mlp: x + mlp(norm(x)),
            "the second transpose is missing: x is (B, S, C) and what the MLP returns is (B, C, S), so turn it back "
            "before x is added": lambda x, norm, mlp: x + mlp(norm(x).transpose(1, 2)),
            "what the MLP returns is (B, C, S): turn it back with a second transpose, then add x": (
                lambda x, norm, mlp: mlp(norm(x).transpose(1, 2)) + x
            ),
            "the norm was given the turned tensor and so ran over the tokens: it works over C, so give it x and "
            "transpose after it": lambda x, norm, mlp: x + mlp(norm(x.transpose(1, 2))).transpose(1, 2),
            "normalised over tokens: mean and variance are those of the C numbers of each token, so use norm(x)": (
                lambda x, norm, mlp: x + mlp(F.layer_norm(x.transpose(1, 2), x.shape[1:2])).transpose(1, 2)
            ),
        },
        hints=(
            "which dimension are the tokens, and over which does an MlpBlock work?",
            "the order is: norm, transpose(1, 2), mlp, transpose(1, 2); only then the residual",
            "inside the brackets of mlp stands the norm of x, turned; x itself is added at the very end",
        ),
    ),
    "02.3": Exercise(
        reference=lambda layer, x: listening(layer, x, replaced),
        inputs=some_layers,
        mistakes={
            "rows and columns are swapped: entry [i, j] is about output token i and input token j": (
                lambda layer, x: listening(layer, x, replaced).T
            ),
            "no token was seen to change. If you added one number to all channels, a LayerNorm over C takes it away: "
            "put random numbers in. If you changed x itself, before and after are the same: use x.clone()": (
                lambda layer, x: torch.zeros(x.shape[1], x.shape[1])
            ),
            "tokens that were changed stay changed when the next one is tried: "
            "start each time from a fresh x.clone()": lambda layer, x: listening(layer, x, all_up_to),
            "True and False are swapped: True is for tokens that change": (
                lambda layer, x: ~listening(layer, x, replaced)
            ),
            "this says whether a token hears anything at all: return (S, S), one column for each input token": (
                lambda layer, x: listening(layer, x, replaced).any(dim=1)
            ),
            "the diagonal is left out: whether a token listens to itself is asked as well": (
                lambda layer, x: listening(layer, x, replaced) & ~torch.eye(x.shape[1], dtype=torch.bool)
            ),
            "this has one matrix for each image: collect the changes over the batch as well": (
                lambda layer, x: changes(layer, x, replaced)
            ),
            "x[j] is image j, all its tokens: token j of every image is x[:, j]": (
                lambda layer, x: listening(layer, x, image_replaced)
            ),
        },
        hints=(
            "change one thing at a time: one input token, then look at which output tokens are not what they were",
            "each input token is an experiment of its own, and fills one column of the matrix",
            "put random numbers into other[:, j] of a fresh copy: a change that is the same in all channels can be "
            "undone by a LayerNorm over C",
            "(layer(other) - layer(x)).abs() > 1e-5 is (B, S, C): ask any over the channels and over the batch",
        ),
    ),
}

PREDICTIONS = {"02.1": 3, "02.2": 3, "02.3": 2, "02.4": 3}
