"""Networks to compare a Mixer with: a linear model, an MLP, a small CNN and a ViT, sized to a number of parameters.

All map images (B, in_channels, H, W) to logits (B, num_classes). The first layer is called ``stem`` and the last
``head``, as in MlpMixer, so that the optimisers treat the layers between them alike.
"""

import math
from collections import OrderedDict

import torch
from torch import nn

from mixer_utils.model import MlpMixer, count_parameters

__all__ = ["cnn", "count_parameters", "linear", "mlp", "vit", "widest"]


def linear(image_shape, num_classes):
    """One linear map from all pixels to the classes: multinomial logistic regression."""
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=nn.Linear(math.prod(image_shape), num_classes)))


def mlp(image_shape, num_classes, num_parameters):
    """A plain MLP on all pixels, with two hidden layers of one width: the widest within ``num_parameters``."""

    def build(width):
        layers = OrderedDict(
            flatten=nn.Flatten(),
            stem=nn.Linear(math.prod(image_shape), width),
            act_0=nn.GELU(),
            hidden=nn.Linear(width, width),
            act_1=nn.GELU(),
            head=nn.Linear(width, num_classes),
        )
        return nn.Sequential(layers)

    return widest(build, num_parameters)


def cnn(image_shape, num_classes, num_parameters):
    """Three 3 x 3 convolutions, each halving the image, then a mean over positions: the widest within the budget."""

    def build(width):
        layers = OrderedDict(
            stem=nn.Conv2d(image_shape[0], width, 3, stride=2, padding=1),
            norm_0=nn.BatchNorm2d(width),
            act_0=nn.GELU(),
            conv_1=nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            norm_1=nn.BatchNorm2d(2 * width),
            act_1=nn.GELU(),
            conv_2=nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            norm_2=nn.BatchNorm2d(4 * width),
            act_2=nn.GELU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(4 * width, num_classes),
        )
        return nn.Sequential(layers)

    return widest(build, num_parameters)


class SelfAttention(nn.Module):
    """Self-attention with token mixing's interface: the weights of the sum over tokens are made from the tokens.

    Shape: (B, S, C) -> (B, S, C). Vaswani et al., NeurIPS 2017, equation 1, with ``num_heads`` heads. It is written
    out, for torch's nn.MultiheadAttention takes seven times as long in bfloat16 on a CPU.
    """

    def __init__(self, hidden_dim, num_heads=4):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_dim, 3 * hidden_dim)
        self.out = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, x):
        heads = self.qkv(x).unflatten(2, (3, self.num_heads, -1))  # (B, S, 3, heads, C / heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B, heads, S, C / heads)
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)  # (B, heads, S, S)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class StemWithPlaces(nn.Module):
    """A stem whose tokens are told where they stand, by a learned vector for each place: attention cannot know."""

    def __init__(self, stem, num_tokens, hidden_dim):
        super().__init__()
        self.stem = stem
        self.place = nn.Parameter(torch.randn(num_tokens, hidden_dim) * 0.02)

    def forward(self, images):
        return self.stem(images) + self.place


def vit(image_shape, num_classes, num_parameters, patch_size, num_blocks):
    """A Vision Transformer: a Mixer with attention instead of token mixing, and with places; the widest in the budget.

    The width is a multiple of the four heads. Dosovitskiy et al., ICLR 2021, https://arxiv.org/abs/2010.11929; with the
    Mixer's mean over tokens instead of their class token.
    """

    def build(width):
        C = 4 * width
        channels, *size = image_shape
        model = MlpMixer(image_size=tuple(size), in_channels=channels, patch_size=patch_size, num_classes=num_classes,
                         num_blocks=num_blocks, hidden_dim=C, tokens_mlp_dim=1, channels_mlp_dim=4 * C,
                         gelu="erf")  # fmt: skip
        for block in model.blocks:
            block.token_mixing = SelfAttention(C)
        model.stem = StemWithPlaces(model.stem, model.num_tokens, C)
        return model

    return widest(build, num_parameters)


def widest(build, num_parameters):
    """The model ``build(width)`` with the largest width whose parameters are at most ``num_parameters``.

    Raises ValueError where even width 1 has more.
    """
    width = 1
    if count_parameters(build(1)) > num_parameters:
        raise ValueError(f"num_parameters is {num_parameters}: even the narrowest such model has more.")
    while count_parameters(build(width + 1)) <= num_parameters:
        width += 1
    return build(width)
