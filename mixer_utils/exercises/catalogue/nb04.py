"""Exercises of notebook 04, the MLP-Mixer."""

import torch
from torch import nn
from torch.nn import functional as F

from mixer_utils.exercises.exercise import Exercise
from mixer_utils.model import MixerBlock, MlpBlock, MlpMixer


def some_norm(C):
    """As after training: its gain and bias differ from channel to channel."""
    norm = nn.LayerNorm(C, eps=1e-6)
    nn.init.normal_(norm.weight, 1, 0.5)
    nn.init.normal_(norm.bias, 0, 0.5)
    return norm.requires_grad_(False)


def ends():
    """(x, norm, head)."""
    torch.manual_seed(41)
    sizes = [(2, 6, 4, 10), (3, 5, 7, 2), (1, 4, 8, 3)]
    return [
        (torch.randn(B, S, C), some_norm(C), nn.Linear(C, classes).requires_grad_(False)) for B, S, C, classes in sizes
    ]


def counted_parameters(S, C, D_S, D_C):
    with torch.device("meta"):
        return sum(p.numel() for p in MixerBlock(S, C, D_S, D_C).parameters())


def block_parameters(S, C, D_S, D_C):
    return 4 * C + (2 * S * D_S + D_S + S) + (2 * C * D_C + D_C + C)


def block_parts():
    """(x, norm_0, token_mixing, norm_1, channel_mixing)."""
    torch.manual_seed(42)
    cases = []
    for B, S, C in [(2, 6, 4), (3, 5, 7)]:
        token_mixing = MlpBlock(S, 3).requires_grad_(False)
        channel_mixing = MlpBlock(C, 9).requires_grad_(False)
        cases.append((torch.randn(B, S, C), some_norm(C), token_mixing, some_norm(C), channel_mixing))
    return cases


def block_of_the_package(x, norm_0, token_mixing, norm_1, channel_mixing):
    """What a MixerBlock with the weights of these parts returns."""
    _, S, C = x.shape
    block = MixerBlock(S, C, len(token_mixing.dense_0.weight), len(channel_mixing.dense_0.weight))
    block.requires_grad_(False)
    block.norm_0.load_state_dict(norm_0.state_dict())
    block.token_mixing.load_state_dict(token_mixing.state_dict())
    block.norm_1.load_state_dict(norm_1.state_dict())
    block.channel_mixing.load_state_dict(channel_mixing.state_dict())
    return block(x)


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


def residual_after_the_norm(x, norm_0, token_mixing, norm_1, channel_mixing):
    x = norm_0(x)
    x = norm_1(x + token_mixing(x.mT).mT)
    return x + channel_mixing(x)


def norms_after_the_sum(x, norm_0, token_mixing, norm_1, channel_mixing):
    x = norm_0(x + token_mixing(x.mT).mT)
    return norm_1(x + channel_mixing(x))


def without_norms(x, norm_0, token_mixing, norm_1, channel_mixing):
    return block_forward(x, nn.Identity(), token_mixing, nn.Identity(), channel_mixing)


def channels_first(x, norm_0, token_mixing, norm_1, channel_mixing):
    x = x + channel_mixing(norm_1(x))
    return x + token_mixing(norm_0(x).mT).mT


def turned_by_reshape(x, norm_0, token_mixing, norm_1, channel_mixing):
    B, S, C = x.shape
    x = x + token_mixing(norm_0(x).reshape(B, C, S)).reshape(B, S, C)
    return x + channel_mixing(norm_1(x))


def networks():
    """(model, images): one mixes; the first block of one mixes no tokens; the stem of one fills half its channels."""
    torch.manual_seed(43)
    images = torch.randn(2, 1, 8, 12)
    sizes = dict(image_size=(8, 12), num_blocks=2, hidden_dim=8, tokens_mlp_dim=4, channels_mlp_dim=16)
    mixing = MlpMixer(**sizes).requires_grad_(False)
    still = MlpMixer(**sizes).requires_grad_(False)
    nn.init.zeros_(still.blocks[0].token_mixing.dense_1.weight)
    half = MlpMixer((4, 12), in_channels=3, num_blocks=3, hidden_dim=10, tokens_mlp_dim=5, channels_mlp_dim=7)
    half.requires_grad_(False)
    nn.init.zeros_(half.stem.proj.weight[:5])
    return [(mixing, images), (still, images), (half, torch.randn(3, 3, 4, 12))]


TOP_LEFT = (slice(None), slice(None), 0, 0)


def differences(model, images, nudged=TOP_LEFT):
    """{stage: whether each number changes} for all that the model notes."""
    other = images.clone()
    other[nudged] += 1
    before = {}
    after = {}
    model(images, intermediates=before)
    model(other, intermediates=after)
    return {stage: (after[stage] - before[stage]).abs() > 1e-6 for stage in before}


def changed(model, images, nudged=TOP_LEFT):
    """For the stem and every block, which numbers change: bool (B, S, C)."""
    stages = differences(model, images, nudged)
    return [numbers for name, numbers in stages.items() if name == "stem" or name.startswith("block_")]


def reach(model, images, nudged=TOP_LEFT):
    return [numbers.any(dim=2).float().mean().item() for numbers in changed(model, images, nudged)]


EXERCISES = {
    "04.1": Exercise(
        reference=lambda x, norm, head: head(F.adaptive_avg_pool1d(norm(x).mT, 1).flatten(1)),
        inputs=ends,
        mistakes={
            "you averaged over the channels (dimension 2), but the head wants all C of them: tokens are dimension 1": (
                lambda x, norm, head: head(norm(x).mean(2))
            ),
            "you averaged over the images (dimension 0), but each has logits of its own: tokens are dimension 1": (
                lambda x, norm, head: head(norm(x).mean(0))
            ),
            "the norm came after the mean: normalise each token first": lambda x, norm, head: head(norm(x.mean(1))),
            "the norm is missing: the mean is taken of norm(x)": lambda x, norm, head: head(x.mean(1)),
            "you added the tokens up: take their mean": lambda x, norm, head: head(norm(x).sum(1)),
            "you took the first token: a Mixer has no class token, so take the mean over all": (
                lambda x, norm, head: head(norm(x)[:, 0])
            ),
            "you took the largest over the tokens: take the mean": lambda x, norm, head: head(norm(x).amax(1)),
            "the mean over the tokens is missing: there are logits for every token": (
                lambda x, norm, head: head(norm(x))
            ),
            "the mean kept the token dimension, with size 1: leave keepdim=True out": (
                lambda x, norm, head: head(norm(x).mean(1, keepdim=True))
            ),
            "the head is missing: these are C numbers an image, the logits are one for each class": (
                lambda x, norm, head: norm(x).mean(1)
            ),
            "these are probabilities: return the logits, cross-entropy takes the softmax itself": (
                lambda x, norm, head: head(norm(x).mean(1)).softmax(1)
            ),
        },
        hints=(
            "Three steps in a row; section 5 has them all in its second code cell.",
            "Normalise the tokens, then one of the three dimensions has to go: which one is S?",
            "norm(x).mean(dim=1) has shape (B, C). Only the head is left to apply.",
        ),
    ),
    "04.2": Exercise(
        reference=counted_parameters,
        inputs=lambda: [(49, 96, 48, 384), (16, 100, 30, 70), (6, 4, 3, 9)],
        mistakes={
            "2 C are missing: a block has two norms, and each has a gain and a bias for every channel": (
                lambda S, C, D_S, D_C: block_parameters(S, C, D_S, D_C) - 2 * C
            ),
            "both norms are missing: a LayerNorm has a gain and a bias for each channel": (
                lambda S, C, D_S, D_C: block_parameters(S, C, D_S, D_C) - 4 * C
            ),
            "the biases of the Linear layers are missing: D_S and S in the token MLP, D_C and C in the channel MLP": (
                lambda S, C, D_S, D_C: 4 * C + 2 * S * D_S + 2 * C * D_C
            ),
            "the token half's norm is over S: it is over C, like the other": (
                lambda S, C, D_S, D_C: block_parameters(S, C, D_S, D_C) - 2 * C + 2 * S
            ),
            "the expansion widths are swapped: D_S belongs to the MLP over S tokens, D_C to the one over C channels": (
                lambda S, C, D_S, D_C: block_parameters(S, C, D_C, D_S)
            ),
            "you counted one Linear layer in each MLP: there are two, into the hidden width and back": (
                lambda S, C, D_S, D_C: 4 * C + (S * D_S + D_S) + (C * D_C + D_C)
            ),
            "the second Linear of each MLP has the bias of the first: a Linear back to S or C has that many biases": (
                lambda S, C, D_S, D_C: 4 * C + 2 * (S * D_S + D_S) + 2 * (C * D_C + D_C)
            ),
            "you multiplied by tokens or channels: weights are shared, count each once": (
                lambda S, C, D_S, D_C: 4 * C + C * (2 * S * D_S + D_S + S) + S * (2 * C * D_C + D_C + C)
            ),
        },
        hints=(
            "Go through MixerBlock of section 3 line by line: two norms, two MLPs of two Linear layers.",
            "A Linear from a to b has a·b weights and b biases; a LayerNorm over C has 2·C parameters.",
            "The token MLP is a Linear from S to D_S and one from D_S back to S. The channel MLP: C and D_C instead.",
        ),
    ),
    "04.3": Exercise(
        reference=block_of_the_package,
        inputs=block_parts,
        mistakes={
            "the residuals are missing: add each branch to x": without_residuals,
            "the second residual is missing: add the channel-mixing branch to x as well": second_residual_forgotten,
            "channel mixing reads the old x: give it the x that token mixing has already changed": side_by_side,
            "the second sum starts from the first x: token mixing's result is lost from the straight path": (
                second_sum_from_the_start
            ),
            "the residual is taken after the norm: "
            "add the branch to x as it came in, and normalise inside the branch": residual_after_the_norm,
            "you normalised after the sums: a Mixer is pre-norm, the norm comes before each MLP": norms_after_the_sum,
            "channel mixing came first: a Mixer block mixes tokens first": channels_first,
            "one norm is shared by both MLPs: the channel half has its own, norm_1": (
                lambda x, norm_0, tokens, norm_1, channels: block_forward(x, norm_0, tokens, norm_0, channels)
            ),
            "one norm is shared by both MLPs: the token half has its own, norm_0": (
                lambda x, norm_0, tokens, norm_1, channels: block_forward(x, norm_1, tokens, norm_1, channels)
            ),
            "the norms are swapped: norm_0 goes before token mixing, norm_1 before channel mixing": (
                lambda x, norm_0, tokens, norm_1, channels: block_forward(x, norm_1, tokens, norm_0, channels)
            ),
            "the norms are missing: normalise inside each branch, before its MLP": without_norms,
            "the transpose is missing: the token MLP works on the last dimension, which must be the tokens": (
                lambda x, norm_0, tokens, norm_1, channels: x + tokens(norm_0(x))
            ),
            "token mixing's result was not turned back: transpose it to (B, S, C) before you add it": (
                lambda x, norm_0, tokens, norm_1, channels: x + tokens(norm_0(x).mT)
            ),
            "you transposed before the norm: it works on channels, so turn what it returns": (
                lambda x, norm_0, tokens, norm_1, channels: x + tokens(norm_0(x.mT)).mT
            ),
            "you transposed for the channel MLP as well: its channels are last already": (
                lambda x, norm_0, tokens, norm_1, channels: x + channels(norm_1(x).mT).mT
            ),
            "reshape was used to turn the tensor: it cuts the numbers anew, so use transpose(1, 2) both times": (
                turned_by_reshape
            ),
        },
        hints=(
            "Two lines, one for each half. Both have the form x = x + mlp(norm(x)); one of them needs a transpose.",
            "The token MLP works on the last dimension, so turn (B, S, C) to (B, C, S) before it, and back after it.",
            "The branch of the second half is channel_mixing(norm_1(x)), with the x that the first half has made.",
        ),
    ),
    "04.4": Exercise(
        reference=reach,
        inputs=networks,
        mistakes={
            "no token was seen to change: alter images.clone(), and give each run a dictionary of its own to fill": (
                lambda model, images: [0.0 for _ in changed(model, images)]
            ),
            "you counted tokens: divide by their number, a share lies between 0 and 1": (
                lambda model, images: [numbers[0].any(1).sum().item() for numbers in changed(model, images)]
            ),
            "you counted tokens in all images together: divide by B·S, a share lies between 0 and 1": (
                lambda model, images: [numbers.any(2).sum().item() for numbers in changed(model, images)]
            ),
            "that is the share of tokens that stay the same: ask for a difference above 1e-6": (
                lambda model, images: [1 - share for share in reach(model, images)]
            ),
            "only the first image was altered: add 1 to the pixel in every image, images[:, :, 0, 0]": (
                lambda model, images: reach(model, images, (0, 0, 0, 0))
            ),
            "you altered a whole row of pixels: the top left pixel is images[:, :, 0, 0]": (
                lambda model, images: reach(model, images, (slice(None), slice(None), 0))
            ),
            "that is the share of numbers: a token counts in full as soon as one of its channels changes": (
                lambda model, images: [numbers.float().mean().item() for numbers in changed(model, images)]
            ),
            "you asked that all channels change: one is enough": (
                lambda model, images: [numbers.all(2).float().mean().item() for numbers in changed(model, images)]
            ),
            "the stem is missing: its share comes first in the list": lambda model, images: reach(model, images)[1:],
            'this goes on after the blocks, where tokens are averaged: keep "stem" and the names that hold "block_"': (
                lambda model, images: [
                    numbers.any(-1).float().mean() for numbers in differences(model, images).values()
                ]
            ),
            'a stage after the blocks has no tokens left: keep "stem" and the names that hold "block_"': (
                lambda model, images: [numbers.any(2).float().mean() for numbers in differences(model, images).values()]
            ),
        },
        hints=(
            "Compare two runs that differ in one pixel. The argument intermediates takes a dictionary to fill.",
            "Alter a clone: other = images.clone(), then add 1 to other[:, :, 0, 0]. Give each run its own dictionary.",
            "A stage is (B, S, C): a difference above 1e-6 in any channel, .any(dim=2), means that the token changed.",
            "The share is the mean of these True and False, as .float(), for the stem and each block in turn.",
        ),
    ),
}

PREDICTIONS = {"04.1": 3, "04.2": 3, "04.3": 3, "04.4": 3}
