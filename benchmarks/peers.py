"""MlpMixer beside two other ways of writing it, and beside timm's, lucidrains' and the usual small MNIST Mixer."""

import collections
import dataclasses
import functools

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.timing import alternate, autocast, medians, precisions, ratio
from mixer_utils.model import MlpBlock, MlpMixer


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a Mixer and of the batches it is timed on."""

    name: str
    patch_size: int
    hidden_dim: int
    tokens_mlp_dim: int
    channels_mlp_dim: int
    num_blocks: int
    batch_size: int
    image_size: int = 28
    in_channels: int = 1
    num_classes: int = 10

    @property
    def num_tokens(self):
        return (self.image_size // self.patch_size) ** 2

    def batch(self, device):
        """Made-up images (B, in_channels, H, W) and labels (B,)."""
        make = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch_size, self.in_channels, self.image_size, self.image_size, generator=make)
        labels = torch.randint(self.num_classes, (self.batch_size,), generator=make)
        return images.to(device), labels.to(device)


SHAPES = [
    Shape("P7 C96 x3", 7, 96, 48, 384, 3, batch_size=256),
    Shape("P4 C128 x4", 4, 128, 64, 512, 4, batch_size=256),
    Shape("P4 C512 x3", 4, 512, 256, 2048, 3, batch_size=64),
    Shape("S/16", 16, 512, 256, 2048, 8, batch_size=4, image_size=224, in_channels=3, num_classes=1000),
]
TINY = Shape("tiny", 14, 16, 8, 64, 2, batch_size=4)


# --- the models -------------------------------------------------------------------------------------------------------


def ours(shape):
    """This project's Mixer, with the GELU that the others have."""
    sizes = dataclasses.asdict(shape)
    return MlpMixer(**{key: sizes[key] for key in sizes if key not in ("name", "batch_size")}, gelu="erf")


def plain(shape):
    """The same as one would first write it: a convolution that convolves, transposes that move nothing."""
    model = ours(shape)
    model.stem.proj.__class__ = nn.Conv2d  # the same weights, used otherwise
    for block in model.blocks:
        block.token_mixing.__class__ = PlainMixing
    return model


class PlainMixing(MlpBlock):
    """Transpose, MlpBlock, transpose."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def from_the_left(shape):
    """The same with token mixing as W_2 gelu(W_1 x): no transposes, but the layers are read, not called."""
    model = ours(shape)
    for block in model.blocks:
        block.token_mixing.__class__ = MixingFromTheLeft
    return model


class MixingFromTheLeft(MlpBlock):
    """Weights on the left of the tokens, (B, S, C) -> (B, S, C)."""

    def forward(self, x):
        return left(self.dense_1, self.act(left(self.dense_0, x)))


def left(dense, x):
    """A Linear over the second dimension instead of the last: (B, in, C) -> (B, out, C)."""
    return torch.baddbmm(dense.bias[:, None], dense.weight.expand(len(x), -1, -1), x)


def timm(shape):
    """timm's Mixer (timm/models/mlp_mixer.py)."""
    from timm.models.mlp_mixer import MlpMixer

    C = shape.hidden_dim
    return MlpMixer(
        num_classes=shape.num_classes, img_size=shape.image_size, in_chans=shape.in_channels,
        patch_size=shape.patch_size, num_blocks=shape.num_blocks, embed_dim=C,
        mlp_ratio=(shape.tokens_mlp_dim / C, shape.channels_mlp_dim / C),
    )  # fmt: skip


def lucidrains(shape):
    """lucidrains' Mixer (mlp_mixer_pytorch); what it calls ``expansion_factor_token`` widens the channel-mixing MLP."""
    from mlp_mixer_pytorch import MLPMixer

    C = shape.hidden_dim
    return MLPMixer(
        image_size=shape.image_size, channels=shape.in_channels, patch_size=shape.patch_size, dim=C,
        depth=shape.num_blocks, num_classes=shape.num_classes,
        expansion_factor=shape.tokens_mlp_dim / C, expansion_factor_token=shape.channels_mlp_dim / C,
    )  # fmt: skip


class SmallMixer(nn.Module):
    """The small MNIST Mixer that most people start from: not the paper's in four points.

    The token half's LayerNorm is over S, there is no LayerNorm before the head, pooling is over channels, so that the
    head has S inputs, and every initial value is torch's default.
    """

    def __init__(self, shape):
        super().__init__()
        S, C = shape.num_tokens, shape.hidden_dim
        self.patches = nn.Conv2d(shape.in_channels, C, shape.patch_size, shape.patch_size)
        self.blocks = nn.Sequential(*[SmallBlock(S, C, shape) for _ in range(shape.num_blocks)])
        self.head = nn.Linear(S, shape.num_classes)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)  # (B, S, C)
        return self.head(self.blocks(x).mean(dim=2))


class SmallBlock(nn.Module):
    """A LayerNorm, an MLP and a residual over the tokens, then over the channels. Shape: (B, S, C) -> (B, S, C)."""

    def __init__(self, S, C, shape):
        super().__init__()
        self.tokens, self.channels = (
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
            for dim, hidden in [(S, shape.tokens_mlp_dim), (C, shape.channels_mlp_dim)]
        )

    def forward(self, x):
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return x + self.channels(x)


MODELS = {
    "ours": ours,
    "plain": plain,
    "from the left": from_the_left,
    "timm": timm,
    "lucidrains": lucidrains,
    "small MNIST Mixer": SmallMixer,
}


def build(name, shape, device):
    """The model called ``name`` in MODELS, of the sizes of ``shape``, in training mode.

    Raises ImportError where its package is not installed, AssertionError where its sizes are others than asked for.
    """
    torch.manual_seed(0)
    model = MODELS[name](shape)
    if name != "small MNIST Mixer":
        found, expected = parameter_shapes(model), parameter_shapes(ours(shape))
        assert found == expected, f"{name} has parameters of other shapes: {found} instead of {expected}"
    for parameter in model.parameters():
        if parameter.ndim == 2 and not parameter.any():  # a head of zeros sends zeros back: less work for a GPU
            nn.init.normal_(parameter, std=0.02)
    return model.to(device)


def parameter_shapes(model):
    """How often each shape occurs among a model's parameters, a convolution's counted as the matrix it is."""
    return collections.Counter(tuple(p.flatten(min(1, p.ndim - 1)).shape) for p in model.parameters())


# --- the comparison ---------------------------------------------------------------------------------------------------


def training_step(model, images, labels, precision):
    """Forward, cross-entropy, backward; the gradients are dropped."""
    with autocast(precision, images.device):
        logits = model(images)
    F.cross_entropy(logits.float(), labels).backward()
    model.zero_grad()


@torch.inference_mode()
def inference(model, images, labels, precision):
    """Forward alone."""
    with autocast(precision, images.device):
        model(images)


MODES = {"training": training_step, "inference": inference}


def run(device, smoke=False):
    """Time every model on every shape, precision and mode; yields what was found so far, after every case.

    ``seconds`` are medians of one step or one forward pass of a batch, ``ratio`` how many times as long as ours.
    """
    cases, skipped = [], {}
    for precision in precisions(device):
        for shape in [TINY] if smoke else SHAPES:
            images, labels = shape.batch(device)
            models = {}
            for name in MODELS:
                try:
                    models[name] = build(name, shape, device)
                except ImportError as error:
                    if name not in skipped:
                        skipped[name] = str(error)
                        print(f"  {name}: skipped, {error} (pip install -e '.[bench]' brings it)", flush=True)
            for mode, call in MODES.items():
                calls = {
                    name: functools.partial(call, model.train(mode == "training"), images, labels, precision)
                    for name, model in models.items()
                }
                times = alternate(calls, device, least=2) if smoke else alternate(calls, device, least=5, seconds=8)
                cases.append({
                    "shape": shape.name, "precision": precision, "mode": mode, "batch_size": shape.batch_size,
                    "rounds": len(times["ours"]), "seconds": medians(times),
                    "ratio": {name: ratio(times["ours"], times[name]) for name in models if name != "ours"},
                })  # fmt: skip
                print("  " + line(cases[-1]), flush=True)
                yield {"shapes": [dataclasses.asdict(shape) for shape in SHAPES], "skipped": skipped, "cases": cases}


def line(case):
    """One case as one line of text."""
    others = ", ".join(f"{name} {found['median']:.2f}x" for name, found in case["ratio"].items())
    return (f"{case['shape']}, B {case['batch_size']}, {case['precision']}, {case['mode']}: "
            f"ours {case['seconds']['ours'] * 1000:.2f} ms; {others or 'no other model'}")  # fmt: skip
