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


def off_the_diagonal(influence):
    """Summed as it was asked for: all entries that are not on the diagonal, over all entries."""
    others = ~torch.eye(len(influence), dtype=torch.bool)
    return influence[others].abs().sum() / influence.abs().sum()


def share_from_others(influence):
    sizes = influence.abs()
    return 1 - sizes.diagonal().sum() / sizes.sum()


def some_influence(S, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(S, S, generator=generator) + 2 * torch.eye(S)


class MadeUpNetwork:
    """``accuracy_without(units)`` of a network of which it is known who stands in for whom.

    Each unit costs its own share of the accuracy, and each pair in ``extra`` costs so much more once both are gone.
    """

    def __init__(self, accuracy, costs, extra):
        self.accuracy = accuracy
        self.costs = costs
        self.extra = extra

    def __call__(self, units):
        try:
            removed = {int(unit) for unit in units}
        except TypeError:
            raise TypeError("accuracy_without takes a list of units: [3] for one, [] for none") from None
        alone = sum(self.costs[unit] for unit in removed)
        together = sum(more for pair, more in self.extra.items() if set(pair) <= removed)
        return self.accuracy - alone - together


def known_extra(network, i, j):
    return network.extra.get((min(i, j), max(i, j)), 0.0)


def some_networks():
    """Two units that stand in for each other, two that do not, and two of which one is harmful without the other."""
    first = MadeUpNetwork(0.94, [0.01, 0.07, 0.02, 0.03, 0.16], {(1, 3): 0.4, (0, 2): 0.1})
    second = MadeUpNetwork(0.87, [0.05, 0.11, 0.02, 0.01, 0.03, 0.04, 0.09], {(4, 6): -0.05})
    return [(first, 1, 3), (first, 4, 2), (second, 6, 4)]


def lost(network, *units):
    return network([]) - network(list(units))


def minus_singles(network, i, j):
    return lost(network, i, j) - lost(network, i) - lost(network, j)


EXERCISES = {
    "07.1": Exercise(
        reference=written_by,
        inputs=lambda: [one_unit(6, 4), one_unit(16, 8)],
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
            "the products of weights and patches are not added up: a unit reads one sum, reads @ patches": (
                lambda patches, reads, bias, writes: writes * F.gelu(reads * patches + bias)
            ),
            "what a unit writes was added up: one number for each patch was asked for": (
                lambda patches, reads, bias, writes: (writes * written_by(patches, reads, bias, 1)).sum()
            ),
            "a unit has a single value, to which @ does not apply: multiply writes with it by *": (
                lambda patches, reads, bias, writes: writes @ F.gelu(reads @ patches + bias)
            ),
        },
        hints=(
            "section 1 adds up what all units write: one line of its loop is about one unit",
            "three steps: a weighted sum of the patches plus the bias, the GELU, a weight for each patch",
            "the sum is reads @ patches + bias, a single number",
        ),
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
            "the norms have lost their dimension, so they do not fit the rows: use norm(dim=1, keepdim=True)": (
                lambda reads: reads / reads.norm(dim=1)
            ),
            "the second map is not transposed: products of all pairs of rows are unit @ unit.T": (
                lambda reads: F.normalize(reads, dim=1) @ F.normalize(reads, dim=1)
            ),
        },
        hints=(
            "the cosine of two maps is their product, once each has been divided by its norm",
            "F.normalize(reads, dim=1) divides every row by its norm; a matrix product compares all pairs at once",
            "unit @ unit.T has a row for each unit: where does it have its lowest number?",
        ),
    ),
    "07.3": Exercise(
        reference=off_the_diagonal,
        inputs=lambda: [(some_influence(6, 0),), (some_influence(16, 3),)],
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
            "you squared: absolute values were asked for": lambda influence: share_from_others(influence.square()),
            "that is how much larger the others' share is than the patch's own: divide by the sum of both": (
                lambda influence: (influence.abs().sum() / influence.abs().diagonal().sum()) - 1
            ),
            "the absolute value came after the sum over the diagonal: take it entry by entry, before any sum": (
                lambda influence: 1 - influence.trace().abs() / influence.abs().sum()
            ),
        },
        hints=(
            "what patch i does to itself stands at [i, i]: everything else comes from other patches",
            "take absolute values first; diagonal() has the patches' own influence",
            "1 minus (the sum of the diagonal over the sum of everything)",
        ),
    ),
    "07.4": Exercise(
        reference=known_extra,
        inputs=some_networks,
        mistakes={
            "these are accuracies, not losses: a loss is accuracy_without([]) minus the accuracy that is left": (
                lambda network, i, j: network([i, j]) - network([i]) - network([j])
            ),
            "the accuracy of the whole network is still to be taken off, once: each of the three losses has it": (
                lambda network, i, j: network([i]) + network([j]) - network([i, j])
            ),
            "you measured losses from an accuracy of 1: the whole network has accuracy_without([]), start from there": (
                lambda network, i, j: network([i]) + network([j]) - network([i, j]) - 1
            ),
            "the sign is turned: it is positive where removing both costs more than the two alone, added up": (
                lambda network, i, j: -minus_singles(network, i, j)
            ),
            "that is what removing both costs: subtract what each costs alone": (
                lambda network, i, j: lost(network, i, j)
            ),
            "only the loss of i is subtracted: subtract that of j as well": (
                lambda network, i, j: lost(network, i, j) - lost(network, i)
            ),
            "only the loss of j is subtracted: subtract that of i as well": (
                lambda network, i, j: lost(network, i, j) - lost(network, j)
            ),
            "you subtracted the mean of the two single losses: subtract their sum": (
                lambda network, i, j: lost(network, i, j) - (lost(network, i) + lost(network, j)) / 2
            ),
            "you divided by the single losses: subtract them": (
                lambda network, i, j: lost(network, i, j) / (lost(network, i) + lost(network, j))
            ),
            "accuracy_without was given a bare number: it takes a list, [i] for one unit": (
                lambda network, i, j: network([]) - network(i)
            ),
            "accuracy_without was given two numbers: both units go into one list, [i, j]": (
                lambda network, i, j: network([]) - network(i, j)
            ),
            "accuracy_without was called with nothing: an empty list, [], removes no unit": (
                lambda network, i, j: network() - network([i])
            ),
        },
        hints=(
            "you need four accuracies: with all units, without i, without j, without both",
            "a loss is accuracy_without([]) minus the accuracy without some units; there are three",
            "take the loss of both, and subtract the two single losses from it",
        ),
    ),
}

PREDICTIONS = {"07.1": 3, "07.2": 3, "07.3": 3, "07.4": 3}
