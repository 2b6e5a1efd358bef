"""Exercises of notebook 09: preparing images, top-k accuracy, larger images, and what features are worth."""

import math
import statistics

import numpy as np
import torch

from mixer_utils.data import normalize
from mixer_utils.exercises.exercise import Exercise
from mixer_utils.model import MlpMixer
from mixer_utils.resolution import at_higher_resolution


def some_bytes(B, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (B, 3, height, width), dtype=torch.uint8, generator=generator)
    images[0, 0, 0, :2] = torch.tensor([0, 255])
    return images


def authors_input(images):
    return normalize(images, (0.5,) * 3, (0.5,) * 3)


def as_torchvision(images):
    return normalize(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def some_logits(N, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (N,), generator=generator)
    return torch.randn(N, classes, generator=generator) + torch.eye(classes)[labels], labels


def top_k_accuracy(logits, labels, k):
    from sklearn.metrics import top_k_accuracy_score

    return top_k_accuracy_score(labels.numpy(), logits.numpy(), k=k, labels=range(logits.shape[1]))


def hits(logits, labels, k, largest=True):
    """Where the right class stands among the k highest (or lowest) logits: bool (N, k)."""
    return logits.topk(k, dim=1, largest=largest).indices == labels[:, None]


def some_reads(D_S, K, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(D_S, rows * columns, generator=generator), K, rows, columns


def larger_reads(W1, K, rows, columns):
    """Asked of the package: a Mixer with one block and this W1, enlarged."""
    model = MlpMixer(
        image_size=(rows, columns),
        patch_size=1,
        num_classes=2,
        num_blocks=1,
        hidden_dim=2,
        tokens_mlp_dim=len(W1),
        channels_mlp_dim=2,
    )
    model.blocks[0].token_mixing.dense_0.weight.data = W1
    return at_higher_resolution(model, K).blocks[0].token_mixing.dense_0.weight.detach()


def tile_after_tile(W1, K):
    return torch.block_diag(*[W1] * (K * K))


def places(K, rows, columns, axes=(0, 2, 1, 3)):
    """The place in row order of every patch, as they come tile after tile."""
    return torch.arange(K * K * rows * columns).view(K, rows, K, columns).permute(axes).flatten()


def made_up_laboratory(counts, head, pixels, luck):
    """An ``accuracy(method, count, draw)`` that trains nothing: known curves, and luck that belongs to a draw."""
    curves = {"head": dict(zip(counts, head, strict=True)), "pixels": dict(zip(counts, pixels, strict=True))}

    def accuracy(method, count, draw):
        if method not in curves:
            raise ValueError(f'method is {method!r}: it must be "head" or "pixels"')
        if count not in curves[method]:
            raise ValueError(f"count is {count!r}: only {', '.join(map(str, counts))} can be trained on")
        generator = torch.Generator().manual_seed(7 * draw + 1000 * counts.index(count) + 10**5 * (method == "head"))
        return curves[method][count] + luck * torch.randn((), generator=generator).item()

    return accuracy


def laboratories():
    """(accuracy, counts, count, draws): the pixels pass the head between two counts, nearer to the first or second."""
    digits = [1, 5, 20, 100]
    first = made_up_laboratory(digits, (0.75, 0.84, 0.93, 0.96), (0.4, 0.62, 0.78, 0.9), 0.02)
    flowers = [2, 4, 10, 30, 90]
    second = made_up_laboratory(flowers, (0.52, 0.58, 0.68, 0.77, 0.85), (0.21, 0.33, 0.44, 0.56, 0.73), 0.03)
    return [(first, digits, 1, [0, 1, 2, 3]), (first, digits, 5, [4, 5, 6]), (second, flowers, 4, [0, 1, 2, 3, 4])]


def averaged(accuracy, method, counts, draws, mean=statistics.mean):
    return [mean([accuracy(method, count, draw) for draw in draws]) for count in counts]


def passes(curve, counts, target, scale=math.log, back=math.exp):
    """The count at which a rising curve reaches the target, between two counts along a straight line of ``scale``."""
    i = max(i for i in range(len(counts) - 1) if i == 0 or curve[i] <= target)
    share = (target - curve[i]) / (curve[i + 1] - curve[i])
    return back(scale(counts[i]) + share * (scale(counts[i + 1]) - scale(counts[i])))


def needed(accuracy, counts, count, draws, mean=statistics.mean, **how):
    (target,) = averaged(accuracy, "head", [count], draws, mean)
    return passes(averaged(accuracy, "pixels", counts, draws, mean), counts, target, **how)


def worth(accuracy, counts, count, draws):
    return needed(accuracy, counts, count, draws) / count


def measured_count(accuracy, counts, count, draws, choose):
    """The count that ``choose`` takes of those below the target and those that reach it."""
    (target,) = averaged(accuracy, "head", [count], draws)
    curve = averaged(accuracy, "pixels", counts, draws)
    below = [counts[i] for i in range(len(counts)) if curve[i] < target]
    enough = [counts[i] for i in range(len(counts)) if curve[i] >= target]
    return choose(below, enough) / count


def exchanged(accuracy, counts, count, draws):
    (target,) = averaged(accuracy, "pixels", [count], draws)
    return np.exp(np.interp(target, averaged(accuracy, "head", counts, draws), np.log(counts))) / count


def at_the_same_count(accuracy, counts, count, draws):
    """The accuracies of the head and of the pixels."""
    return [averaged(accuracy, method, [count], draws)[0] for method in ("head", "pixels")]


EXERCISES = {
    "09.1": Exercise(
        reference=authors_input,
        inputs=lambda: [(some_bytes(2, 5, 4, 0),), (some_bytes(3, 2, 7, 1),)],
        mistakes={
            "these numbers run from 0 to 1: the authors' run from -1 to 1": lambda images: images / 255,
            "these run from -0.5 to 0.5: divide by 127.5, half of the range": lambda images: (images - 127.5) / 255,
            "these run from 0 to 2: subtract the middle, 127.5, before you divide": lambda images: images / 127.5,
            "these are centred but still as large as bytes: divide by 127.5": lambda images: images - 127.5,
            "that is torchvision's normalisation: the authors take 127.5 for every colour": as_torchvision,
            "the middle of 0 to 255 is 127.5: with 128 in both places the numbers never reach 1": (
                lambda images: (images - 128.0) / 128
            ),
            "the middle of 0 to 255 is 127.5: with 128 below it they do not run from -1 to 1": (
                lambda images: (images - 128.0) / 127.5
            ),
            "uint8 knows no negative numbers, so subtracting a whole number wraps around: call .float() first": (
                lambda images: (images - 127) / 127.5
            ),
            "the division came first, only 1 was subtracted: put the difference into brackets": (
                lambda images: images - 127.5 / 127.5
            ),
            "dark and light are exchanged: 0 becomes -1, and 255 becomes 1": lambda images: (127.5 - images) / 127.5,
            "you took the images' own mean and deviation: the authors' numbers are the same for every image": (
                lambda images: (images.float() - images.float().mean()) / images.float().std()
            ),
            "// cuts off what is behind the point: divide with /": lambda images: (images - 127.5) // 127.5,
        },
        hints=(
            "what must become of 0, of 255, and of the number in the middle between them?",
            "first move the middle to 0, then scale: 127.5 is needed in both steps",
            "a tensor of bytes minus 127.5, with a point in it, becomes float32 by itself",
        ),
        tolerance=1e-5,
    ),
    "09.2": Exercise(
        reference=top_k_accuracy,
        inputs=lambda: [(*some_logits(17, 7, 0), 3), (*some_logits(9, 11, 2), 5), (*some_logits(25, 5, 1), 2)],
        mistakes={
            "that is top-1 accuracy: the right class may be any of the k highest": (
                lambda logits, labels, k: (logits.argmax(1) == labels).float().mean()
            ),
            "those are the k lowest logits: take the highest": (
                lambda logits, labels, k: hits(logits, labels, k, largest=False).any(1).float().mean()
            ),
            "that is the number of images: divide it by all images": (
                lambda logits, labels, k: hits(logits, labels, k).any(1).sum()
            ),
            "you divided by k as well: an image counts as right if any of its k classes is": (
                lambda logits, labels, k: hits(logits, labels, k).float().mean()
            ),
            "that asks whether the right class is in place k: any of the first k places will do": (
                lambda logits, labels, k: hits(logits, labels, k)[:, -1].float().mean()
            ),
            "that is the share of images whose right class is not among the k: the others were asked for": (
                lambda logits, labels, k: 1 - hits(logits, labels, k).any(1).float().mean()
            ),
            "these are the answers image by image: return their mean": (
                lambda logits, labels, k: hits(logits, labels, k).any(1)
            ),
            "you compared labels with logits: topk gives values and indices, take the indices": (
                lambda logits, labels, k: (logits.topk(k).values == labels[:, None]).any(1).float().mean()
            ),
            "the k classes of an image stand in a row: compare them with labels[:, None]": (
                lambda logits, labels, k: logits.topk(k).indices == labels
            ),
            "the k highest were taken over the images: classes lie along dim=1": (
                lambda logits, labels, k: logits.topk(k, dim=0).indices == labels[:, None]
            ),
        },
        hints=(
            "logits.topk(k, dim=1).indices has the k classes of each image, (N, k)",
            "compare with labels[:, None], so that each image's label meets its own k classes",
            "any(dim=1) is true where one of the k is the label; of that, take the mean as a float",
        ),
    ),
    "09.3": Exercise(
        reference=larger_reads,
        inputs=lambda: [some_reads(4, 2, 2, 3, 0), some_reads(5, 2, 3, 2, 1), some_reads(2, 3, 1, 4, 2)],
        mistakes={
            "this is right tile after tile: its columns still have to be put into row order": (
                lambda W1, K, rows, columns: tile_after_tile(W1, K)
            ),
            "the columns were moved the wrong way round: take the argsort of that order": (
                lambda W1, K, rows, columns: tile_after_tile(W1, K)[:, places(K, rows, columns)]
            ),
            "here every tile reads every other: off the diagonal the blocks must be zero": (
                lambda W1, K, rows, columns: W1.repeat(K * K, K * K)
            ),
            "there are K copies: an image K times as high and as wide has K * K tiles": (
                lambda W1, K, rows, columns: torch.block_diag(*[W1] * K)
            ),
            "all tiles share the same units: D_S grows by K * K as well, each tile has units of its own": (
                lambda W1, K, rows, columns: W1.repeat(1, K * K)
            ),
            "every single weight became a diagonal block: whole copies of W1 stand on the diagonal (kron(eye, W1))": (
                lambda W1, K, rows, columns: torch.kron(W1, torch.eye(K * K))
            ),
            "rows and columns of the grid are exchanged: in row order, a patch's number is row * width + column": (
                lambda W1, K, rows, columns: tile_after_tile(W1, K)[:, places(K, columns, rows).argsort()]
            ),
            "the tiles are counted down the columns: count them row by row, as patches": (
                lambda W1, K, rows, columns: tile_after_tile(W1, K)[:, places(K, rows, columns, (2, 0, 1, 3)).argsort()]
            ),
            "the copies were divided by K * K: a unit reads its tile with the same weights as before": (
                lambda W1, K, rows, columns: larger_reads(W1, K, rows, columns) / K**2
            ),
            "the result is transposed: units are rows, patches are columns": (
                lambda W1, K, rows, columns: larger_reads(W1, K, rows, columns).T
            ),
        },
        hints=(
            "torch.block_diag(A, A, A, A) makes a block-diagonal matrix: that is the answer tile after tile",
            "number the patches of the whole image in row order, torch.arange(...).view(K, rows, K, columns): which "
            "two dimensions must change places to read them tile after tile?",
            "permute(0, 2, 1, 3).flatten() then says for each column of the block-diagonal matrix where it belongs",
            "if column i belongs to place order[i], then matrix[:, order.argsort()] has every column in its place",
        ),
    ),
    "09.4": Exercise(
        reference=worth,
        inputs=laboratories,
        mistakes={
            "that is the number of images that the pixels need: divide it by count": needed,
            "the ratio is upside down: the pixels' images stand above, the head's below": (
                lambda *inputs: 1 / worth(*inputs)
            ),
            "you interpolated along the count itself: take the logarithm of the counts first": (
                lambda *inputs: needed(*inputs, scale=float, back=float) / inputs[2]
            ),
            "the logarithm is still in the result: take its exp before you divide": (
                lambda *inputs: needed(*inputs, back=float) / inputs[2]
            ),
            "that is the first count that is enough: interpolate between it and the one below": (
                lambda *inputs: measured_count(*inputs, lambda below, enough: enough[0])
            ),
            "that is the last count that is not enough: interpolate between it and the next": (
                lambda *inputs: measured_count(*inputs, lambda below, enough: below[-1])
            ),
            "that is one draw: average both accuracies over all draws": (
                lambda accuracy, counts, count, draws: worth(accuracy, counts, count, draws[:1])
            ),
            "that takes the best draw of each: average over the draws": (
                lambda *inputs: needed(*inputs, mean=max) / inputs[2]
            ),
            "that takes the medians over the draws: means were asked for": (
                lambda *inputs: needed(*inputs, mean=statistics.median) / inputs[2]
            ),
            "you averaged a factor for each draw: average the accuracies first, then ask once": (
                lambda accuracy, counts, count, draws: statistics.mean(
                    worth(accuracy, counts, count, [draw]) for draw in draws
                )
            ),
            "head and pixels are exchanged: the accuracy to reach is the head's": exchanged,
            "that is how much more accurate the head is at the same count: ask how many images make up for it": (
                lambda *inputs: at_the_same_count(*inputs)[0] - at_the_same_count(*inputs)[1]
            ),
            "that is a ratio of accuracies: a ratio of numbers of images was asked for": (
                lambda *inputs: at_the_same_count(*inputs)[0] / at_the_same_count(*inputs)[1]
            ),
            "that is how many more images the pixels need: divide instead of subtracting": (
                lambda *inputs: needed(*inputs) - inputs[2]
            ),
            "the interpolated count cannot be trained on: interpolate what was measured at counts": (
                lambda accuracy, counts, count, draws: accuracy("pixels", counts[0] + 0.5, draws[0])
            ),
        },
        hints=(
            "you need the head's mean accuracy at one count, and the pixels' mean accuracy at all counts",
            "the same draws for both, and the mean over them before anything is compared",
            "np.interp(target, rising accuracies, values) interpolates: which values, if it is to be the logarithm?",
            "np.interp(head, pixels, np.log(counts)) is the logarithm of the number of images",
        ),
    ),
}

PREDICTIONS = {"09.1": 3, "09.2": 3, "09.3": 3, "09.4": 3}
