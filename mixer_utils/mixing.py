"""What token mixing does, read from the weights: the units' maps, their order, and the influence of patch on patch.

A hidden unit of a block's token-mixing MLP reads all patches with one row of W_1 and writes to all patches with one
column of W_2. Both are maps over the patch grid, and the same for every channel (paper, section 2 and figure 5).
"""

import numpy as np
import torch
from torch.nn import functional as F


def patch_grid(model):
    """Rows and columns of patches: (H / P, W / P)."""
    _, height, width = model.image_shape
    patch_size = model.config["patch_size"]
    return height // patch_size, width // patch_size


def unit_maps(model):
    """The weights of all token-mixing units, float32 (num_blocks, 2, D_S, S): what they read, and what they write.

    ``[l, 0, h]`` is row h of block l's W_1, ``[l, 1, h]`` is column h of its W_2.
    """
    maps = [torch.stack([b.token_mixing.dense_0.weight, b.token_mixing.dense_1.weight.T]) for b in model.blocks]
    return torch.stack(maps).detach().float().cpu()


# --- orders of units --------------------------------------------------------------------------------------------------


def by_norm(reads):
    """Units (D_S,) from the largest norm of what they read, (D_S, S), to the smallest."""
    return np.argsort(-np.linalg.norm(reads, axis=1), kind="stable")


def frequency(reads, grid):
    """The mean spatial frequency of every map, (D_S,), in cycles per patch: 0 for a constant map, at most about 0.71.

    The mean runs over the map's two-dimensional Fourier spectrum, weighted by power.
    """
    rows, columns = grid
    power = np.abs(np.fft.fft2(np.asarray(reads).reshape(-1, rows, columns))) ** 2
    distance = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None])
    return (power * distance).sum((1, 2)) / np.maximum(power.sum((1, 2)), 1e-12)


def by_frequency(reads, grid):
    """Units (D_S,) from the smoothest map to the one that changes most from patch to patch."""
    return np.argsort(frequency(reads, grid), kind="stable")


def opposite_pairs(reads):
    """Pairs of units that read the same pattern with opposite signs, most opposite first: indices and cosines.

    Every unit is in one pair (one is left out where D_S is odd): the two most opposite maps are paired, then the two
    most opposite of the rest, and so on. Returns an int array (D_S // 2, 2) and the pairs' cosines (D_S // 2,), where
    -1 is the same map with its signs turned.
    """
    reads = np.asarray(reads, dtype=np.float64)
    unit = reads / np.maximum(np.linalg.norm(reads, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, np.inf)
    pairs = []
    cosines = []
    for _ in range(len(reads) // 2):
        i, j = sorted(np.unravel_index(cosine.argmin(), cosine.shape))
        pairs.append((i, j))
        cosines.append(cosine[i, j])
        cosine[[i, j]] = cosine[:, [i, j]] = np.inf  # taken
    return np.array(pairs, dtype=int).reshape(-1, 2), np.array(cosines)


def by_pairs(reads):
    """Units (D_S,) with the two of an opposite pair side by side, most opposite first, as in the paper's figure 5."""
    pairs, _ = opposite_pairs(reads)
    return np.concatenate([pairs.ravel(), np.setdiff1d(np.arange(len(reads)), pairs)]).astype(int)


# --- how much structure a map has -------------------------------------------------------------------------------------


def morans_i(maps, grid):
    """How much neighbouring weights of every map (N, S) agree, (N,): Moran's I over patches that share a side.

    1 at most, about -1 for a checkerboard; for weights drawn at random -1 / (S - 1) on average. A map of equal weights
    has no differences to compare, and 0 stands for it. Source: Moran, "Notes on Continuous Stochastic Phenomena",
    Biometrika 37 (1950). Raises ValueError for maps that do not have the grid's number of patches.
    """
    maps = on_grid(maps, grid)
    x = maps - maps.mean((1, 2), keepdims=True)
    across = (x[:, :, 1:] * x[:, :, :-1]).sum((1, 2))
    down = (x[:, 1:] * x[:, :-1]).sum((1, 2))
    rows, columns = grid
    neighbours = rows * (columns - 1) + columns * (rows - 1)
    variance = (x**2).mean((1, 2))
    flat = variance <= 1e-12 * (maps**2).mean((1, 2))
    return np.where(flat, 0.0, (across + down) / neighbours / np.where(flat, 1.0, variance))


def low_frequency_share(maps, grid, highest=0.2):
    """The share of every map's power, (N,), in waves of at most ``highest`` cycles per patch; 0 for a map of zeros.

    0.2 cycles per patch is a wave of five patches. For weights drawn at random it is the share of such waves among all.
    """
    maps = on_grid(maps, grid)
    rows, columns = grid
    power = np.abs(np.fft.fft2(maps)) ** 2
    low = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None]) <= highest
    return (power * low).sum((1, 2)) / np.maximum(power.sum((1, 2)), 1e-12)


def participation_ratio(maps):
    """Over how many patches every map (N, S) is spread, (N,): (sum w^2)^2 / sum w^4.

    1 for a map with one weight that is not 0, S for weights of equal size, about S / 3 for normal ones.
    """
    square = np.asarray(maps, dtype=np.float64) ** 2
    return square.sum(1) ** 2 / np.maximum((square**2).sum(1), 1e-300)


def alike_and_opposite(reads, least=0.5):
    """How many pairs of units read alike, cosine ``least`` or more, and how many opposite, -``least`` or less.

    By chance both are as many: turning the sign of every other unit makes the one kind the other. Pairs are all two
    units of one block; reads is (D_S, S).
    """
    reads = np.asarray(reads, dtype=np.float64)
    unit = reads / np.maximum(np.linalg.norm(reads, axis=1, keepdims=True), 1e-12)
    cosines = (unit @ unit.T)[np.triu_indices(len(reads), 1)]
    return int((cosines >= least).sum()), int((cosines <= -least).sum())


def by_structure(reads, grid):
    """Units (D_S,) from the map whose neighbouring weights agree most to the one where they agree least."""
    return np.argsort(-morans_i(reads, grid), kind="stable")


def on_grid(maps, grid):
    """Maps (N, S) as float64 (N, rows, columns). Raises ValueError for another number of patches."""
    maps = np.asarray(maps, dtype=np.float64)
    rows, columns = grid
    if maps.ndim != 2 or maps.shape[1] != rows * columns:
        raise ValueError(f"maps is {maps.shape}: for {rows} x {columns} patches it must be (N, {rows * columns}).")
    return maps.reshape(-1, rows, columns)


# --- patch on patch ---------------------------------------------------------------------------------------------------


def token_mixing_inputs(model, image):
    """What enters token mixing in every block, after its LayerNorm, for one image: (num_blocks, S, C) float32.

    Shape: (in_channels, H, W), normalised, -> (num_blocks, S, C).
    """
    return follow(model, image)[0]


def influence(model, image):
    """How much each patch moves each other one in a block's token mixing, for one image: (num_blocks, S, S) float32.

    ``[l, i, j]`` is the derivative of what block l's token mixing (LayerNorm and MLP, without the skip connection)
    adds to patch i, by patch j, in the same channel, averaged over the channels. A derivative by another channel comes
    about through the LayerNorm alone and is left out.

    Shape: (in_channels, H, W), normalised, -> (num_blocks, S, S).
    """
    return follow(model, image)[1]


@torch.no_grad()
def follow(model, image, num_blocks=None):
    """``token_mixing_inputs`` and ``influence`` in one go, of the first ``num_blocks`` blocks."""
    inputs = []
    influences = []
    for block, (x, normed) in zip(model.blocks[:num_blocks], entering(model, image), strict=False):
        inputs.append(normed)
        influences.append(block_influence(block, x, normed))
    return torch.stack(inputs).float().cpu(), torch.stack(influences).float().cpu()


def block_influence(block, x, normed):
    """``influence`` of one block, (S, S), from what enters it, (S, C), and what its first LayerNorm makes of that."""
    mix = block.token_mixing
    norm = block.norm_0
    C = x.shape[1]
    mean = x.mean(1, keepdim=True)
    variance = x.var(1, unbiased=False, keepdim=True)
    deviation = (variance + norm.eps).sqrt()
    standard = (x - mean) / deviation
    by_own_channel = norm.weight / deviation * (1 - (1 + standard**2) / C)  # LayerNorm's derivative, (S, C)
    by_gelu = gelu_derivative(mix.dense_0.weight @ normed + mix.dense_0.bias[:, None], mix.act.approximate)
    # A sum over channels for every unit and patch first: then no array is larger than a weight matrix.
    gain = by_gelu @ by_own_channel.T / C  # (D_S, S)
    return mix.dense_1.weight @ (gain * mix.dense_0.weight)


def composed(influences):
    """Influence of patch on patch over all blocks up to each: (num_blocks, S, S) -> the same.

    The product of I + J over the blocks, so with the skip connections; channel mixing, which moves nothing from patch
    to patch, is left out.
    """
    result = []
    product = torch.eye(influences.shape[-1]).to(influences)
    for influence_of_block in influences:
        product = product + influence_of_block @ product
        result.append(product)
    return torch.stack(result)


def gelu_derivative(x, approximate):
    """GELU's derivative at every entry of x; ``approximate`` is torch's, "tanh" or "none"."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(F.gelu(x, approximate=approximate).sum(), x)
    return slope


def entering(model, image):
    """What enters every block, (S, C), and what its first LayerNorm makes of it."""
    weights = next(model.parameters())
    x = model.stem(image[None].to(weights))
    for block in model.blocks:
        yield x[0], block.norm_0(x)[0]
        x = x + block.token_mixing(block.norm_0(x))  # not block(x): in training mode that skips branches by chance
        x = x + block.channel_mixing(block.norm_1(x))
