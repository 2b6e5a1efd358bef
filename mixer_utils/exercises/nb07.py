"""Exercises of notebook 07: mixing weights."""

import torch
from torch.nn import functional as F

from mixer_utils.exercises.exercise import Exercise


def written_by(patches, reads, bias, writes):
    return writes * F.gelu(reads @ patches + bias)


def one_unit(S, seed):
    generator = torch.Generator().manual_seed(seed)
    patches, reads, writes = torch.randn(3, S, generator=generator)
    return patches, reads, torch.tensor(0.7), writes


def cosines(reads):
    unit = F.normalize(reads, dim=1)
    return unit @ unit.T


def most_opposite(reads):
    return cosines(reads).argmin(dim=1)


def some_reads(D_S, S, seed):
    """Maps of very different norms, so that a product and a cosine choose different units."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(D_S, S, generator=generator) * torch.logspace(-1, 1, D_S)[:, None]


def share_from_others(influence):
    sizes = influence.abs()
    return 1 - sizes.diagonal().sum() / sizes.sum()


def some_influence(S, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(S, S, generator=generator) + 2 * torch.eye(S)


EXERCISES = {
    "07.1": Exercise(
        reference=written_by,
        inputs=lambda: [one_unit(6, 4), one_unit(16, 1)],
        mistakes={
            "the bias is missing: it is added to the sum, before the GELU": (
                lambda patches, reads, bias, writes: writes * F.gelu(reads @ patches)
            ),
            "the GELU is missing: the sum passes through it before it is written": (
                lambda patches, reads, bias, writes: writes * (reads @ patches + bias)
            ),
            "the bias came after the GELU: it is added to the sum that goes into it": (
                lambda patches, reads, bias, writes: writes * (F.gelu(reads @ patches) + bias)
            ),
            "that is the unit's value alone: it still has to be written to each patch": (
                lambda patches, reads, bias, writes: F.gelu(reads @ patches + bias)
            ),
            "you read with the map that writes, and wrote with the one that reads: exchange them": (
                lambda patches, reads, bias, writes: reads * F.gelu(writes @ patches + bias)
            ),
            "you applied the GELU to each patch: add up first, it acts on the one sum": (
                lambda patches, reads, bias, writes: writes * F.gelu(reads * patches + bias).sum()
            ),
            "a ReLU is not a GELU: use F.gelu": (
                lambda patches, reads, bias, writes: writes * F.relu(reads @ patches + bias)
            ),
        },
    ),
    "07.2": Exercise(
        reference=most_opposite,
        inputs=lambda: [(some_reads(9, 16, 0),), (some_reads(14, 6, 1),)],
        mistakes={
            "you compared products, which long maps win: divide each map by its norm first": (
                lambda reads: (reads @ reads.T).argmin(dim=1)
            ),
            "that is the most alike unit, which is always the unit itself: opposite is the lowest cosine": (
                lambda reads: cosines(reads).argmax(dim=1)
            ),
            "that is the most unrelated unit, cosine nearest to 0: opposite is the lowest cosine, near -1": (
                lambda reads: cosines(reads).abs().argmin(dim=1)
            ),
            "you normalised over the units: a map is a row, so its norm runs along the patches (dim=1)": (
                lambda reads: (F.normalize(reads, dim=0) @ F.normalize(reads, dim=0).T).argmin(dim=1)
            ),
            "that is the lowest cosine: its place was asked for, so argmin instead of min": (
                lambda reads: cosines(reads).min(dim=1).values
            ),
            "you compared the patches with each other: one number for every unit was asked for": (
                lambda reads: cosines(reads.T).argmin(dim=1)
            ),
        },
    ),
    "07.3": Exercise(
        reference=share_from_others,
        inputs=lambda: [(some_influence(6, 0),), (some_influence(16, 1),)],
        mistakes={
            "that is the share that comes from the patch itself: the rest comes from others": (
                lambda influence: 1 - share_from_others(influence)
            ),
            "you added numbers of both signs, which cancel: take absolute values first": (
                lambda influence: 1 - influence.diagonal().sum() / influence.sum()
            ),
            "that is the amount: divide it by the amount from all patches": (
                lambda influence: influence.abs().sum() - influence.abs().diagonal().sum()
            ),
            "you took the share in each row: add up over the whole matrix before you divide": (
                lambda influence: 1 - influence.abs().diagonal() / influence.abs().sum(dim=1)
            ),
            "you averaged the rows' shares: add up over the whole matrix before you divide": (
                lambda influence: (1 - influence.abs().diagonal() / influence.abs().sum(dim=1)).mean()
            ),
            "you squared: absolute values were asked for": (lambda influence: share_from_others(influence.square())),
            "that is how much larger the others' share is than the patch's own: divide by the sum of both": (
                lambda influence: (influence.abs().sum() / influence.abs().diagonal().sum()) - 1
            ),
        },
    ),
}

PREDICTIONS = {}
