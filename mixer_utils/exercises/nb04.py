"""Exercises of notebook 04, the MLP-Mixer."""

import torch
from torch import nn

from mixer_utils.exercises.exercise import Exercise
from mixer_utils.model import MlpBlock, MlpMixer


def block_parameters(S, C, D_S, D_C):
    return 4 * C + (2 * S * D_S + D_S + S) + (2 * C * D_C + D_C + C)


def block_parts():
    torch.manual_seed(42)
    cases = []
    for B, S, C in [(2, 6, 4), (3, 5, 7)]:
        norm_0, norm_1 = nn.LayerNorm(C, eps=1e-6), nn.LayerNorm(C, eps=1e-6)
        for norm in (norm_0, norm_1):  # as after training: two different norms
            nn.init.normal_(norm.weight, 1, 0.5)
            nn.init.normal_(norm.bias, 0, 0.5)
        parts = [norm_0, MlpBlock(S, 3), norm_1, MlpBlock(C, 9)]
        cases.append((torch.randn(B, S, C), *(part.requires_grad_(False) for part in parts)))
    return cases


def block_forward(x, norm_0, token_mixing, norm_1, channel_mixing):
    x = x + token_mixing(norm_0(x).mT).mT
    return x + channel_mixing(norm_1(x))


def without_residuals(x, norm_0, token_mixing, norm_1, channel_mixing):
    return channel_mixing(norm_1(token_mixing(norm_0(x).mT).mT))


def second_residual_forgotten(x, norm_0, token_mixing, norm_1, channel_mixing):
    return channel_mixing(norm_1(x + token_mixing(norm_0(x).mT).mT))


def side_by_side(x, norm_0, token_mixing, norm_1, channel_mixing):
    return x + token_mixing(norm_0(x).mT).mT + channel_mixing(norm_1(x))


def second_sum_from_the_start(x, norm_0, token_mixing, norm_1, channel_mixing):
    return x + channel_mixing(norm_1(x + token_mixing(norm_0(x).mT).mT))


def residual_from_the_norm(x, norm_0, token_mixing, norm_1, channel_mixing):
    x = norm_0(x) + token_mixing(norm_0(x).mT).mT
    return norm_1(x) + channel_mixing(norm_1(x))


def without_norms(x, norm_0, token_mixing, norm_1, channel_mixing):
    return block_forward(x, nn.Identity(), token_mixing, nn.Identity(), channel_mixing)


def norms_after_the_sum(x, norm_0, token_mixing, norm_1, channel_mixing):
    x = norm_0(x + token_mixing(x.mT).mT)
    return norm_1(x + channel_mixing(x))


def channels_first(x, norm_0, token_mixing, norm_1, channel_mixing):
    x = x + channel_mixing(norm_1(x))
    return x + token_mixing(norm_0(x).mT).mT


def models():
    torch.manual_seed(43)
    images = torch.randn(2, 1, 8, 12)
    mixing, still = (
        MlpMixer((8, 12), num_blocks=2, hidden_dim=8, tokens_mlp_dim=4, channels_mlp_dim=16) for _ in range(2)
    )
    nn.init.zeros_(still.blocks[0].token_mixing.dense_1.weight)  # its first block mixes no tokens
    return [(mixing, images), (still, images)]


TOP_LEFT = (slice(None), slice(None), 0, 0)


@torch.no_grad()
def changed(model, images, nudged=TOP_LEFT):
    """For the stem and every block, which tokens change: bool (B, S)."""
    other, before, after = images.clone(), {}, {}
    other[nudged] += 1
    model(images, intermediates=before)
    model(other, intermediates=after)
    stages = [stage for stage in before if stage == "stem" or stage.startswith("block_")]
    return [((after[stage] - before[stage]).abs() > 1e-6).any(dim=2) for stage in stages]


def reach(model, images, nudged=TOP_LEFT):
    return [tokens.float().mean().item() for tokens in changed(model, images, nudged)]


EXERCISES = {
    "04.1": Exercise(
        reference=block_parameters,
        inputs=lambda: [(49, 96, 48, 384), (16, 100, 30, 70)],
        mistakes={
            "2 C are missing: a block has two norms, and each has a gain and a bias for every channel":
                lambda S, C, D_S, D_C: block_parameters(S, C, D_S, D_C) - 2 * C,
            "both norms are missing: a LayerNorm has a gain and a bias for each channel":
                lambda S, C, D_S, D_C: block_parameters(S, C, D_S, D_C) - 4 * C,
            "the biases of the Linear layers are missing: D_S and S in the token MLP, D_C and C in the channel MLP":
                lambda S, C, D_S, D_C: 4 * C + 2 * S * D_S + 2 * C * D_C,
            "the token half's norm is over S: it is over C, like the other":
                lambda S, C, D_S, D_C: block_parameters(S, C, D_S, D_C) - 2 * C + 2 * S,
            "the widths are swapped: D_S belongs to the MLP over S tokens, D_C to the one over C channels":
                lambda S, C, D_S, D_C: block_parameters(S, C, D_C, D_S),
            "you counted one Linear layer in each MLP: there are two, into the hidden width and back":
                lambda S, C, D_S, D_C: 4 * C + (S * D_S + D_S) + (C * D_C + D_C),
            "you multiplied by tokens or channels: weights are shared, count each once":
                lambda S, C, D_S, D_C: 4 * C + C * (2 * S * D_S + D_S + S) + S * (2 * C * D_C + D_C + C),
        },
    ),
    "04.2": Exercise(
        reference=block_forward,
        inputs=block_parts,
        mistakes={
            "the residuals are missing: add each branch to x":
                without_residuals,
            "the second residual is missing: add the channel-mixing branch to x as well":
                second_residual_forgotten,
            "channel mixing reads the old x: give it the x that token mixing has already changed":
                side_by_side,
            "the second sum starts from the first x: token mixing's result is lost from the straight path":
                second_sum_from_the_start,
            "you added the branch to the normalised x: the norm belongs into the branch alone":
                residual_from_the_norm,
            "you normalised after the sums: a Mixer is pre-norm, the norm comes before each MLP":
                norms_after_the_sum,
            "channel mixing came first: a Mixer block mixes tokens first":
                channels_first,
            "norm_0 was used twice: the channel half has its own norm, norm_1":
                lambda x, norm_0, tokens, norm_1, channels: block_forward(x, norm_0, tokens, norm_0, channels),
            "the norms are swapped: norm_0 goes before token mixing, norm_1 before channel mixing":
                lambda x, norm_0, tokens, norm_1, channels: block_forward(x, norm_1, tokens, norm_0, channels),
            "the norms are missing: normalise inside each branch, before its MLP":
                without_norms,
        },
    ),
    "04.3": Exercise(
        reference=reach,
        inputs=models,
        mistakes={
            "nothing changed: the images were altered in place, so both runs saw the same ones; work on images.clone()":
                lambda model, images: [0.0 for _ in changed(model, images)],
            "you counted tokens: divide by their number, a share lies between 0 and 1":
                lambda model, images: [tokens[0].sum().item() for tokens in changed(model, images)],
            "that is the share of tokens that stay the same: ask for a difference above 1e-6":
                lambda model, images: [1 - share for share in reach(model, images)],
            "only the first image was altered: add 1 to the pixel in every image, images[:, :, 0, 0]":
                lambda model, images: reach(model, images, (0, 0, 0, 0)),
            "you altered a whole row of pixels: the top left pixel is images[:, :, 0, 0]":
                lambda model, images: reach(model, images, (slice(None), slice(None), 0)),
        },
    ),
}  # fmt: skip

PREDICTIONS = {}
