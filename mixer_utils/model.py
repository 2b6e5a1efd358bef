"""The MLP-Mixer, after the authors' own code.

Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", NeurIPS 2021, https://arxiv.org/abs/2105.01601;
code: https://github.com/google-research/vision_transformer, ``vit_jax/models_mixer.py``.

Letters in shapes: B batch, S tokens (patches), C channels (``hidden_dim``), P patch side, H and W image sides.
"""

import math
import numbers

import torch
from torch import nn
from torch.nn import functional as F

from mixer_utils._departures import departures, some_of, uncompiled, weights_of


class PatchEmbedding(nn.Module):
    """Cut an image into P x P patches and map each one, with the same weights, to C numbers (paper, section 2).

    Shape: (B, in_channels, H, W) -> (B, S, C), with S = (H / P) * (W / P), patches in row order.
    """

    def __init__(self, in_channels, patch_size, hidden_dim):
        super().__init__()
        self.proj = PatchConv2d(in_channels, hidden_dim, patch_size)

    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)


class PatchConv2d(nn.Conv2d):
    """An nn.Conv2d whose stride is its kernel's side: the same weights and numbers, by one matrix product.

    Such a convolution meets every pixel once, so each patch, as a row of numbers, times the weights is all there is to
    it. Shape: (B, in_channels, H, W) -> (B, C, H / P, W / P), with the C numbers of a patch side by side in memory,
    where the blocks read them. What that gains is timed in notebook 10.
    """

    def __init__(self, in_channels, out_channels, patch_size):  # no other stride: the product would be another map
        super().__init__(in_channels, out_channels, kernel_size=patch_size, stride=patch_size)

    def forward(self, images):
        P = self.kernel_size[0]
        patches = images.unfold(2, P, P).unfold(3, P, P)  # (B, in_channels, H / P, W / P, P, P)
        rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)  # (B, H / P, W / P, in_channels * P * P)
        return F.linear(rows, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class MlpBlock(nn.Module):
    """Linear, GELU, Linear over the last dimension; the size comes back unchanged (paper, equation 1).

    Shape: (..., dim) -> (..., dim), with ``mlp_dim`` hidden units between.
    """

    def __init__(self, dim, mlp_dim, gelu="tanh"):
        super().__init__()
        self.dense_0 = nn.Linear(dim, mlp_dim)
        self.act = nn.GELU(approximate="tanh" if gelu == "tanh" else "none")
        self.dense_1 = nn.Linear(mlp_dim, dim)

    def forward(self, x):
        return self.dense_1(self.act(self.dense_0(x)))


class TokenMixing(MlpBlock):
    """An MlpBlock over the tokens of every channel: transpose, MlpBlock, transpose (paper, equation 1).

    Shape: (B, S, C) -> (B, S, C).
    """

    def forward(self, x):
        turned = x.transpose(1, 2).contiguous()  # what is multiplied lies side by side: faster, see notebook 10
        return super().forward(turned).transpose(1, 2).contiguous()


class MixerBlock(nn.Module):
    """Token mixing, then channel mixing, each after its own LayerNorm and inside its own residual (paper, figure 1).

    Shape: (B, S, C) -> (B, S, C). ``drop`` is the probability that training skips a residual branch for an image
    (stochastic depth, paper, appendix B).
    """

    def __init__(self, num_tokens, hidden_dim, tokens_mlp_dim, channels_mlp_dim, drop=0.0, gelu="tanh"):
        super().__init__()
        self.norm_0 = nn.LayerNorm(hidden_dim, eps=1e-6)
        self.token_mixing = TokenMixing(num_tokens, tokens_mlp_dim, gelu)
        self.norm_1 = nn.LayerNorm(hidden_dim, eps=1e-6)
        self.channel_mixing = MlpBlock(hidden_dim, channels_mlp_dim, gelu)
        self.drop = drop

    def forward(self, x):
        x = x + self.keep(self.token_mixing(self.norm_0(x)))
        return x + self.keep(self.channel_mixing(self.norm_1(x)))

    def keep(self, branch):
        if not self.training or self.drop == 0:
            return branch
        # One coin per image. Dividing by the chance of staying leaves the expected value as it is at test time.
        coin = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop
        return branch * coin / (1 - self.drop)


class MlpMixer(nn.Module):
    """Stem, ``num_blocks`` Mixer blocks, LayerNorm, mean over tokens, linear head.

    Shape: (B, in_channels, H, W) -> logits (B, num_classes). Sizes are the paper's: ``hidden_dim`` is C,
    ``tokens_mlp_dim`` is D_S, ``channels_mlp_dim`` is D_C. ``stochastic_depth`` is the last block's probability of
    skipping; it rises linearly from 0 at the first. ``gelu`` is "tanh" (the authors') or "erf" (timm's).

    Raises ValueError, naming the parameter, for a size that cannot work.
    """

    def __init__(self, image_size=28, in_channels=1, patch_size=4, num_classes=10, num_blocks=4, hidden_dim=128,
                 tokens_mlp_dim=64, channels_mlp_dim=512, stochastic_depth=0.0, gelu="tanh"):  # fmt: skip
        super().__init__()
        self.config = check_config(
            image_size=image_size, in_channels=in_channels, patch_size=patch_size, num_classes=num_classes,
            num_blocks=num_blocks, hidden_dim=hidden_dim, tokens_mlp_dim=tokens_mlp_dim,
            channels_mlp_dim=channels_mlp_dim, stochastic_depth=stochastic_depth, gelu=gelu,
        )  # fmt: skip
        height, width = image_sides(self.config["image_size"])

        self.image_shape = (in_channels, height, width)
        self.num_tokens = (height // patch_size) * (width // patch_size)
        self.stem = PatchEmbedding(in_channels, patch_size, hidden_dim)
        drops = [stochastic_depth * i / max(num_blocks - 1, 1) for i in range(num_blocks)]
        self.blocks = nn.ModuleList(
            MixerBlock(self.num_tokens, hidden_dim, tokens_mlp_dim, channels_mlp_dim, drop, gelu) for drop in drops
        )
        self.pre_head_layer_norm = nn.LayerNorm(hidden_dim, eps=1e-6)
        self.head = nn.Linear(hidden_dim, num_classes)

        self.apply(init_lecun_normal)
        nn.init.zeros_(self.head.weight)  # every class starts equally likely: the first loss is log(num_classes)

    def forward(self, images, intermediates=None):
        """Logits (B, num_classes). A dict given as ``intermediates`` is filled with every stage by name."""
        check_images(images, self.image_shape)
        note = {} if intermediates is None else intermediates
        x = note["stem"] = self.stem(images)
        for i, block in enumerate(self.blocks):
            x = note[f"block_{i}"] = block(x)
        x = note["pre_head_layer_norm"] = self.pre_head_layer_norm(x)
        x = note["pre_logits"] = x.mean(dim=1)  # over tokens: what is in the image, wherever it was
        x = note["logits"] = self.head(x)
        return x


def init_lecun_normal(module):
    """LeCun-normal weights (variance 1 / fan-in) and zero bias, as flax's Dense and Conv start."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        fan_in = module.weight[0].numel()
        # flax truncates at two standard deviations and makes up for the variance this takes away
        std = math.sqrt(1 / fan_in) / 0.87962566103423978
        truncated_normal(module.weight, std)
        nn.init.zeros_(module.bias)


@torch.no_grad()
def truncated_normal(weight, std):
    """Fill ``weight`` with normal numbers; those beyond two standard deviations are drawn again.

    As ``nn.init.trunc_normal_`` does since torch 2.12. Before, it drew other numbers from the same seed.
    """
    if weight.is_meta:  # has a shape, and no numbers
        return
    weight.normal_(0, std)
    while (outside := weight.abs() > 2 * std).any():
        again = torch.empty_like(weight).normal_(0, std)
        weight.copy_(torch.where(outside, again, weight))


def check_images(images, image_shape):
    """Raise ValueError unless images are (B, *image_shape)."""
    if torch.jit.is_tracing():  # sizes are tensors then, and a comparison would be written into the trace
        return
    if images.ndim != 4 or tuple(images.shape[1:]) != image_shape:
        raise ValueError(
            f"MlpMixer got images of shape {tuple(images.shape)} but was built for (B, "
            f"{', '.join(map(str, image_shape))}): resize the images or build it with their image_size."
        )


def check_config(image_size, patch_size, stochastic_depth, gelu, **sizes):
    """The configuration of an MlpMixer as a dict, in Python's own numbers: NumPy's count as whole numbers, too.

    Raises ValueError, naming the parameter, unless an MlpMixer can be built from these sizes.
    """
    try:
        height, width = image_sides(image_size)
    except (TypeError, ValueError):
        raise ValueError(f"image_size is {image_size!r}: it must be a whole number or a pair (H, W).") from None
    sizes = {"patch_size": patch_size, **sizes}
    for name, value in {"image_size (height)": height, "image_size (width)": width, **sizes}.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}: it must be a whole number, 1 or more.")
    if height % patch_size or width % patch_size:
        fitting = [p for p in range(1, min(height, width) + 1) if height % p == width % p == 0]
        raise ValueError(
            f"patch_size {patch_size} does not divide the image_size {height} x {width}: "
            f"choose one of {', '.join(map(str, fitting))}."
        )
    if not isinstance(stochastic_depth, numbers.Real) or not 0 <= stochastic_depth < 1:
        raise ValueError(f"stochastic_depth is {stochastic_depth!r}: it must be at least 0 and below 1.")
    if gelu not in ("tanh", "erf"):
        raise ValueError(f'gelu is {gelu!r}: it must be "tanh" (the authors\') or "erf" (timm\'s).')
    if isinstance(image_size, numbers.Integral):
        image_size = int(image_size)
    else:
        image_size = [int(height), int(width)] if isinstance(image_size, list) else (int(height), int(width))
    sizes = {name: int(value) for name, value in sizes.items()}
    return {"image_size": image_size, **sizes, "stochastic_depth": float(stochastic_depth), "gelu": gelu}


def image_sides(image_size):
    """Height and width in pixels of an ``image_size``, which is one whole number for both or a pair (H, W)."""
    height, width = (image_size, image_size) if isinstance(image_size, numbers.Integral) else image_size
    return height, width


def paper_config(num_blocks, patch_size, hidden_dim):
    """A row of the paper's Table 1; D_S = C / 2 and D_C = 4 C hold in all of them."""
    return dict(image_size=224, in_channels=3, patch_size=patch_size, num_classes=1000, num_blocks=num_blocks,
                hidden_dim=hidden_dim, tokens_mlp_dim=hidden_dim // 2, channels_mlp_dim=4 * hidden_dim)  # fmt: skip


CONFIGS = {
    "S/32": paper_config(8, 32, 512),
    "S/16": paper_config(8, 16, 512),
    "B/32": paper_config(12, 32, 768),
    "B/16": paper_config(12, 16, 768),
    "L/32": paper_config(24, 32, 1024),
    "L/16": paper_config(24, 16, 1024),
    "H/14": paper_config(32, 14, 1280),
    # This project's own, for 28 x 28 grey images.
    "mnist/quick": dict(patch_size=7, num_blocks=2, hidden_dim=64, tokens_mlp_dim=64, channels_mlp_dim=256, gelu="erf"),
    "mnist/7": dict(patch_size=7, num_blocks=3, hidden_dim=96, tokens_mlp_dim=48, channels_mlp_dim=384, gelu="erf"),
    "mnist/full": dict(patch_size=7, num_blocks=4, hidden_dim=192, tokens_mlp_dim=64, channels_mlp_dim=768, gelu="erf"),
    "mnist/mixing": dict(patch_size=2, num_blocks=3, hidden_dim=64, tokens_mlp_dim=32, channels_mlp_dim=256,
                         gelu="erf"),
    "mnist/4": dict(patch_size=4, num_blocks=4, hidden_dim=128, tokens_mlp_dim=64, channels_mlp_dim=512),
    # And for 32 x 32 images in colour.
    "cifar/4": dict(image_size=32, in_channels=3, patch_size=4, num_blocks=4, hidden_dim=96, tokens_mlp_dim=48,
                    channels_mlp_dim=384, gelu="erf"),
}  # fmt: skip


def create_mixer(name, **overrides):
    """An untrained MlpMixer of a named configuration: ``create_mixer("B/16", num_classes=10)``.

    Raises ValueError for a name that is not in ``CONFIGS``.
    """
    if name not in CONFIGS:
        raise ValueError(f"There is no configuration {name!r}: choose one of {', '.join(CONFIGS)}.")
    return MlpMixer(**{**CONFIGS[name], **overrides})


# --- a model that is changed ------------------------------------------------------------------------------------------


def with_classes(model, num_classes):
    """A copy of an MlpMixer with a new head for ``num_classes`` classes, to be fine-tuned: zero, as every head starts.

    Everything else stays, device, dtype and training or eval mode as well; nothing is shared. A Linear put in the place
    of ``model.head`` by hand works, too, but the model's configuration then names other classes than it has, and a file
    of it could not be loaded again: ``save_checkpoint`` and ``train(out=...)`` refuse it.

    Raises ValueError unless ``num_classes`` is a whole number, 1 or more, and for a model with other changes than such
    a head.
    """
    model = uncompiled(model)
    if not isinstance(model, MlpMixer):
        raise ValueError(f"with_classes is for an MlpMixer, and this model is a {type(model).__name__}.")
    with torch.device("meta"):  # shapes without numbers, which come below
        result = MlpMixer(**{**model.config, "num_classes": num_classes})
    changes = [change for change in departures(model, result) if not change.startswith("head.")]
    if changes:
        raise ValueError(f"This MlpMixer is no longer what its configuration says ({some_of(changes)}): copy another.")
    tensors = {name: tensor.clone() for name, tensor in weights_of(model).items() if not name.startswith("head.")}
    for name, tensor in result.head.state_dict().items():
        tensors[f"head.{name}"] = tensors["stem.proj.weight"].new_zeros(tensor.shape)
    result.load_state_dict(tensors, assign=True)
    return result.train(model.training)


# --- what a model costs -----------------------------------------------------------------------------------------------


def count_parameters(model):
    """The number of weights and biases that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def multiply_adds(config):
    """Multiply-adds of one image's forward pass; ``config`` names an MlpMixer's sizes, as ``model.config`` does.

    A Linear from n to m numbers takes n * m for each vector it is given. So: the stem takes S patches of
    P * P * in_channels numbers to C; in each block, token mixing takes each of C channels from S to D_S numbers and
    back, and channel mixing each of S tokens from C to D_C and back; the head takes one vector from C to num_classes.
    LayerNorm, GELU, biases and residuals are left out: each takes a few operations a number, not a sum over a row.
    One multiply-add is two FLOPs, and a training step takes three times as many as the forward pass: going back there
    are two products for each one, for the gradient of the input and for that of the weights.
    With D_S fixed, this is linear in S: the paper's point about images of any size (section 2).
    """
    image_size = config["image_size"]
    P = config["patch_size"]
    C = config["hidden_dim"]
    height, width = image_sides(image_size)
    S = (height // P) * (width // P)
    stem = S * config["in_channels"] * P**2 * C
    token_mixing = 2 * S * config["tokens_mlp_dim"] * C
    channel_mixing = 2 * S * C * config["channels_mlp_dim"]
    return stem + config["num_blocks"] * (token_mixing + channel_mixing) + C * config["num_classes"]
