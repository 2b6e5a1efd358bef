"""Networks to compare a Mixer with: a linear model, a plain MLP and a small CNN, sized to a number of parameters.

All map images (B, in_channels, H, W) to logits (B, num_classes). The first layer is called ``stem`` and the last
``head``, as in MlpMixer, so that the optimisers treat the layers between them alike.
"""

import math
from collections import OrderedDict

from torch import nn

from mixer_utils.model import count_parameters

__all__ = ["cnn", "count_parameters", "linear", "mlp", "widest"]


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
