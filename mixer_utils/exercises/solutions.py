"""A solution of every exercise, as a student would write it in the notebook: ``ex.solution("02.1")`` shows one.

Each function has the name and the parameters of its stub and can be pasted over it: it uses what the notebook has
imported. A teacher who removes this file hides the solutions; the checks do not need it.
"""

import math
import statistics

import numpy as np
import torch
from torch.nn import functional as F

SOLUTIONS = {}

# --- notebook 00 ----------------------------------------------------------------------------------------------------


def my_number_of_patches(height, width, patch_size):
    return (height // patch_size) * (width // patch_size)


def my_negative(images):
    return 255 - images


SOLUTIONS |= {"00.1": my_number_of_patches, "00.2": my_negative}


# --- notebook 01 ----------------------------------------------------------------------------------------------------


def number_of_tokens(height, width, patch_size):
    return (height // patch_size) * (width // patch_size)


def put_together(patches, in_channels, height, width, patch_size):
    P = patch_size
    pieces = patches.reshape(-1, height // P, width // P, in_channels, P, P)
    in_order = pieces.permute(0, 3, 1, 4, 2, 5)  # image, channel, patch row, row inside, patch column, column inside
    return in_order.reshape(-1, in_channels, height, width)


def tokens_that_see(stem, images, row, column):
    other = images.clone()
    other[0, 0, row, column] += 1
    difference = stem(other)[0] - stem(images)[0]  # (S, C)
    return (difference.abs() > 1e-6).any(dim=1)


SOLUTIONS |= {"01.1": number_of_tokens, "01.2": put_together, "01.3": tokens_that_see}


# --- notebook 02 ----------------------------------------------------------------------------------------------------


def move_on(num_tokens):
    return torch.diag(torch.ones(num_tokens - 1), -1)  # ones one step below the diagonal


def first_half(x, norm, mlp):
    mixed = mlp(norm(x).transpose(1, 2)).transpose(1, 2)
    return x + mixed


def listens_to(layer, x):
    before = layer(x)
    S = x.shape[1]
    listens = torch.zeros(S, S, dtype=torch.bool)
    for j in range(S):
        other = x.clone()
        other[:, j] = torch.randn(other[:, j].shape)  # another number in each channel: no LayerNorm takes this away
        listens[:, j] = ((layer(other) - before).abs() > 1e-5).any(dim=2).any(dim=0)
    return listens


SOLUTIONS |= {"02.1": move_on, "02.2": first_half, "02.3": listens_to}


# --- notebook 03 ----------------------------------------------------------------------------------------------------


def norm_over_channels(x):
    return F.layer_norm(x, x.shape[2:], eps=1e-6)


def layer_norm(x, eps=1e-6):
    mean = x.mean(dim=-1, keepdim=True)
    variance = x.var(dim=-1, keepdim=True, correction=0)
    return (x - mean) / (variance + eps).sqrt()


def token_share(S, C, D_S, D_C):
    token = 2 * S * D_S * C  # a pair of Linear layers over S, once for each channel
    channel = 2 * C * D_C * S  # a pair over C, once for each token
    return token / (token + channel)  # which is D_S / (D_S + D_C): half at D_S = D_C, 3072 for B/16


def inside_tokens(layer, x):
    nudged = x.clone()
    nudged[:, 0] += 1
    with torch.no_grad():
        leak = (layer(nudged) - layer(x))[:, 1:].abs().max().item()
        mismatch = (layer(x.flip(1)) - layer(x).flip(1)).abs().max().item()
    return [leak, mismatch]


SOLUTIONS |= {"03.1": norm_over_channels, "03.2": layer_norm, "03.3": token_share, "03.4": inside_tokens}


# --- notebook 04 ----------------------------------------------------------------------------------------------------


def end_of_network(x, norm, head):
    return head(norm(x).mean(dim=1))


def block_parameters(S, C, D_S, D_C):
    norm = 2 * C
    token = (S * D_S + D_S) + (D_S * S + S)
    channel = (C * D_C + D_C) + (D_C * C + C)
    return norm + token + norm + channel


def block_forward(x, norm_0, token_mixing, norm_1, channel_mixing):
    x = x + token_mixing(norm_0(x).transpose(1, 2)).transpose(1, 2)
    return x + channel_mixing(norm_1(x))


def reach(model, images):
    other = images.clone()
    other[:, :, 0, 0] += 1
    before = {}
    after = {}
    with torch.no_grad():
        model(images, intermediates=before)
        model(other, intermediates=after)
    stages = [name for name in before if name == "stem" or name.startswith("block_")]
    changed = [((after[name] - before[name]).abs() > 1e-6).any(dim=2) for name in stages]
    return [tokens.float().mean().item() for tokens in changed]


SOLUTIONS |= {"04.1": end_of_network, "04.2": block_parameters, "04.3": block_forward, "04.4": reach}


# --- notebook 05 ----------------------------------------------------------------------------------------------------


def my_accuracy(logits, labels):
    return (logits.argmax(dim=1) == labels).float().mean()


def my_cross_entropy(logits, labels):
    of_label = logits[torch.arange(len(labels)), labels]
    return (logits.logsumexp(dim=1) - of_label).mean()


def my_schedule(step, steps, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    fallen = (step - warmup) / (steps - warmup)  # from 0 towards 1
    return peak * (1 + math.cos(math.pi * fallen)) / 2


def compare(run, seeds):
    def accuracy(batch_size, seed):
        return run(batch_size, seed)["validation_accuracy"]

    differences = torch.tensor([accuracy(64, seed) - accuracy(256, seed) for seed in seeds])
    standard_error = differences.std() / math.sqrt(len(seeds))  # std divides by n - 1
    return [differences.mean().item(), standard_error.item()]


SOLUTIONS |= {"05.1": my_accuracy, "05.2": my_cross_entropy, "05.3": my_schedule, "05.4": compare}


# --- notebook 06 ----------------------------------------------------------------------------------------------------


def recall_of(matrix, k):
    return matrix[k, k] / matrix[k].sum()


def macro_f1(matrix):
    hits = matrix.diagonal()
    recall = hits / matrix.sum(axis=1)
    precision = hits / matrix.sum(axis=0)
    return (2 * precision * recall / (precision + recall)).mean()


def calibration_error(confidence, right, bins):
    where = (confidence * bins).astype(int)
    total = 0
    for b in np.unique(where):  # only ranges with answers
        inside = where == b
        total += inside.sum() * abs(confidence[inside].mean() - right[inside].mean())
    return total / len(confidence)


def compare(predict_a, predict_b, splits):
    images, labels = splits["test"]  # neither trained on nor chosen by
    right_a = predict_a(images) == labels
    right_b = predict_b(images) == labels
    difference = right_a.astype(int) - right_b.astype(int)  # image by image: 1, 0 or -1
    return [difference.mean(), difference.std() / np.sqrt(len(difference))]


SOLUTIONS |= {"06.1": recall_of, "06.2": macro_f1, "06.3": calibration_error, "06.4": compare}


# --- notebook 07 ----------------------------------------------------------------------------------------------------


def written_by(patches, reads, bias, writes):
    value = F.gelu(reads @ patches + bias)  # one number
    return writes * value


def most_opposite(reads):
    unit = F.normalize(reads, dim=1)
    return (unit @ unit.T).argmin(dim=1)


def share_from_others(influence):
    size = influence.abs()
    return 1 - size.diagonal().sum() / size.sum()


def stand_in(accuracy_without, i, j):
    whole = accuracy_without([])
    loss_of_i = whole - accuracy_without([i])
    loss_of_j = whole - accuracy_without([j])
    loss_of_both = whole - accuracy_without([i, j])
    return loss_of_both - (loss_of_i + loss_of_j)


SOLUTIONS |= {"07.1": written_by, "07.2": most_opposite, "07.3": share_from_others, "07.4": stand_in}


# --- notebook 08 ----------------------------------------------------------------------------------------------------


def pooling_matrix(num_tokens):
    return torch.ones(num_tokens, num_tokens) / num_tokens


def unshuffled(images, patches, pixels, patch_size):
    rows = F.unfold(images, patch_size, stride=patch_size)  # (B, pixels of a patch, patches)
    rows = rows[:, pixels.argsort()][:, :, patches.argsort()]
    return F.fold(rows, images.shape[2:], patch_size, stride=patch_size)


def matched_matrix(matrix, patches):
    return matrix[patches][:, patches]


def ablation(measure, variants, rates, choosing, reporting):
    def mean(variant, rate, seeds):
        return np.mean([measure(variant, rate, seed) for seed in seeds])

    accuracies = []
    for variant in variants:
        chosen = max(rates, key=lambda rate: mean(variant, rate, choosing))
        accuracies.append(mean(variant, chosen, reporting))
    return [accuracy - accuracies[0] for accuracy in accuracies]


SOLUTIONS |= {"08.1": pooling_matrix, "08.2": unshuffled, "08.3": matched_matrix, "08.4": ablation}


# --- notebook 09 ----------------------------------------------------------------------------------------------------


def authors_input(images):
    return (images.float() - 127.5) / 127.5


def top_k_accuracy(logits, labels, k):
    best = logits.topk(k, dim=1).indices
    return (best == labels[:, None]).any(dim=1).float().mean()


def larger_reads(W1, K, rows, columns):
    tile_after_tile = torch.block_diag(*[W1] * (K * K))
    numbers = torch.arange(K * K * rows * columns).view(K, rows, K, columns)  # in row order
    belongs_to = numbers.permute(0, 2, 1, 3).flatten()  # the same, read tile after tile
    return tile_after_tile[:, belongs_to.argsort()]


def worth(accuracy, counts, count, draws):
    head = np.mean([accuracy("head", count, draw) for draw in draws])
    pixels = [np.mean([accuracy("pixels", k, draw) for draw in draws]) for k in counts]
    needed = np.exp(np.interp(head, pixels, np.log(counts)))
    return needed / count


SOLUTIONS |= {"09.1": authors_input, "09.2": top_k_accuracy, "09.3": larger_reads, "09.4": worth}


# --- notebook 10 ----------------------------------------------------------------------------------------------------


def my_least_seconds(flop, moved, peak, bandwidth):
    return max(flop / peak, moved / bandwidth)


def my_share_of_peak(multiply_adds, images_per_second, peak):
    flop_per_image = 3 * 2 * multiply_adds  # forward and backward; two operations each
    return flop_per_image * images_per_second / peak


def my_gradient_of_all(gradients, counts):
    return (gradients * counts[:, None]).sum(dim=0) / counts.sum()


def speed_ratio(time_a, time_b, rounds):
    time_a()  # the warm-up is not counted
    time_b()
    ratios = []
    for _ in range(rounds):
        a = time_a()
        b = time_b()  # right after a: whatever slows the machine slows both
        ratios.append(a / b)
    return statistics.median(ratios)


SOLUTIONS |= {
    "10.1": my_least_seconds,
    "10.2": my_share_of_peak,
    "10.3": my_gradient_of_all,
    "10.4": speed_ratio,
}
