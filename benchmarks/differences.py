"""How Mixers differ, found by building them, running them and changing what goes in: python -m benchmarks.differences

Nothing is looked up in an argument's name or a module's attribute where a measurement can tell: a norm shows what it
subtracts, a GELU its values, fresh weights their distribution, an image that does not fit which of its pixels count.
Of Keras' example the parts that come from the library are evaluated; how it puts them together is read from its source:
https://github.com/keras-team/keras-io (examples/vision/mlp_image_classification.py). The authors' code is read, too:
https://github.com/google-research/vision_transformer (vit_jax/models_mixer.py), and for stochastic depth, which is not
in that file, https://github.com/google-research/big_vision (big_vision/models/mlp_mixer.py). The whole table is in
docs/comparison.md.
"""

import importlib.metadata
import importlib.util
import os

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import peers
from mixer_utils.model import MlpMixer

# No two sizes are equal, so that a size tells which it is.
SHAPE = peers.Shape("told apart", 4, 200, 100, 800, 3, batch_size=2, image_size=24)
SKIPPED = 0.5  # the chance of skipping a branch, where stochastic depth is looked at
KERAS = "Keras' example"


def ours(image_size=24, skipped=0.0):
    return MlpMixer(image_size, 1, 4, 10, 3, 200, 100, 800, stochastic_depth=skipped)


def timm(image_size=24, skipped=0.0):
    """timm's Mixer with the hidden widths it has by default."""
    from timm.models.mlp_mixer import MlpMixer as Mixer

    return Mixer(10, image_size, in_chans=1, patch_size=4, num_blocks=3, embed_dim=200, drop_path_rate=skipped)


def lucidrains(image_size=24):
    """lucidrains' Mixer with the hidden widths it has by default."""
    from mlp_mixer_pytorch import MLPMixer

    return MLPMixer(image_size=image_size, channels=1, patch_size=4, dim=200, depth=3, num_classes=10)


MODELS = {  # name -> (module to be installed, model of SHAPE's widths, model by default, whether it can skip branches)
    "this project": ("mixer_utils", lambda: ours(), ours, True),
    "timm": ("timm", lambda: peers.timm(SHAPE), timm, True),
    "lucidrains": ("mlp_mixer_pytorch", lambda: peers.lucidrains(SHAPE), lucidrains, False),
}


@torch.no_grad()
def features(name):
    """{feature: what this Mixer does}, or None where its package is not installed."""
    module, build, default, skips = MODELS[name]
    if importlib.util.find_spec(module) is None:
        return None
    torch.manual_seed(0)
    model = build().eval()
    images = torch.randn(SHAPE.batch_size, SHAPE.in_channels, SHAPE.image_size, SHAPE.image_size)
    calls = watch(model, (nn.LayerNorm, nn.Linear, nn.Conv1d, nn.Conv2d), images)
    norms = [(part, out) for part, _, out in calls if isinstance(part, nn.LayerNorm)]
    (stem, *_), *hidden, (head, pooled, logits) = [call for call in calls if not isinstance(call[0], nn.LayerNorm)]
    hidden = [part for part, *_ in hidden]
    before_head = norms[-1][1] if calls[-2][0] is norms[-1][0] else None  # nothing between it and the head but the mean
    in_blocks = norms[: len(norms) - (before_head is not None)]
    return {
        "norms in a block": how_many([part for part, _ in in_blocks]),
        "they normalise": one({f"over {normalised(out)}" for _, out in norms}),
        "eps": one({f"{eps_of(part):.0e}".replace("e-0", "e-") for part, _ in norms}),
        "GELU": one({form(part) for part in model.modules() if isinstance(part, nn.GELU)}),
        "D_S, D_C by default": "given as sizes" if name == "this project" else widths(default()),
        "norm before the head": "no" if before_head is None else "yes",
        "mean over": mean_over(pooled, before_head if before_head is not None else norms[-1][1]),
        "head starts": "at random" if logits.any() else "at zero",
        "stem starts": distribution(stem.weight),
        "other weights start": one({distribution(part.weight) for part in hidden}),
        "biases start": one({biases(part.bias) for part in hidden}),
        "a skipped branch's chance": chances(default(skipped=SKIPPED)) if skips else "skips none",
        "a branch that is kept": kept(default(skipped=SKIPPED)) if skips else "skips none",
        "H or W no multiple of P": what_becomes_of_the_rest(default),
    }


def one(found):
    (only,) = found
    return str(only)


def watch(model, kinds, images):
    """[(layer, its input, its output)] for every layer of these kinds, in the order in which they are called."""
    calls = []
    hooks = [
        part.register_forward_hook(lambda part, inputs, output: calls.append((part, inputs[0], output)))
        for part in model.modules()
        if isinstance(part, kinds)
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    return calls


# --- norms, GELU, the end ---------------------------------------------------------------------------------------------


def how_many(norms):
    """From the norms of all blocks in the order of their calls: "2", or "1, used twice"."""
    calls, modules = len(norms) // SHAPE.num_blocks, len(set(norms)) // SHAPE.num_blocks
    return str(modules) if modules == calls else f"{modules}, used {'twice' if calls == 2 * modules else calls}"


def normalised(output):
    """ "C" or "S": over which dimension a fresh norm's output has mean 0 and variance 1."""
    sizes = {SHAPE.hidden_dim: "C", SHAPE.num_tokens: "S"}
    return one(
        sizes[output.shape[dim]]
        for dim in (1, 2)
        if output.mean(dim).abs().max() < 1e-3 and (output.var(dim, correction=0) - 1).abs().max() < 1e-2
    )


def eps_of(norm):
    """What a fresh LayerNorm adds to the variance v: numbers with v = 1e-6 leave it with v / (v + eps)."""
    x = torch.randn(4, *norm.normalized_shape)
    x = 1e-3 * F.layer_norm(x, norm.normalized_shape, eps=0.0)
    return 1e-6 * (1 / norm(x).var(dim=-1, correction=0).mean().item() - 1)


def form(gelu):
    """Which of the two forms of GELU a function is, by its values from -4 to 4."""
    x = torch.linspace(-4, 4, 801)
    apart = {name: (gelu(x) - F.gelu(x, approximate=how)).abs().max() for name, how in GELUS.items()}
    return min(apart, key=apart.get) if min(apart.values()) < 1e-5 else "another"


GELUS = {"tanh": "tanh", "erf": "none"}  # name -> torch's name; at most 4.7e-4 apart


def mean_over(pooled, tokens):
    """What the head is given, (B, C) or (B, S), beside the last norm's output, (B, S, C)."""
    for name, dim in [("tokens", 1), ("channels", 2)]:
        mean = tokens.mean(dim)
        if mean.shape == pooled.shape and torch.allclose(mean, pooled, atol=1e-5):
            return name
    return "neither"


# --- widths and first values ------------------------------------------------------------------------------------------


def widths(model):
    """The hidden widths of the first block's two MLPs, in C: "0.5 C, 4 C"."""
    outputs = [part.weight.shape[:2] for part in model.modules() if isinstance(part, nn.Linear | nn.Conv1d)]
    D_S = next(out for out, into in outputs if into == SHAPE.num_tokens)
    D_C = next(out for out, into in outputs if into == SHAPE.hidden_dim)
    return ", ".join(f"{width / SHAPE.hidden_dim:g} C" for width in (D_S, D_C))


def distribution(weight):
    """The name of the distribution that fresh weights (out, in, …) were drawn from, by their standard deviation."""
    fan_in, fan_out = weight[0].numel(), len(weight)
    variance, largest = weight.var().item(), weight.abs().max().item()
    uniform = largest < 1.8 * variance**0.5  # a uniform distribution ends at 1.73 standard deviations
    for name, expected, flat in [
        ("LeCun normal", 1 / fan_in, False),
        ("Xavier uniform", 2 / (fan_in + fan_out), True),
        ("PyTorch's default", 1 / (3 * fan_in), True),
    ]:
        if flat == uniform and abs(variance / expected - 1) < 0.1:
            return name
    return f"variance {variance:.2g}"


def biases(bias):
    largest = bias.abs().max().item()
    return "at zero" if largest == 0 else "within 1e-5 of zero" if largest < 1e-5 else "at random"


# --- stochastic depth -------------------------------------------------------------------------------------------------


def skipping(block, images=400):
    """The factor, (images,), by which training multiplies the first branch of a block: 0 where it skips it."""
    *_, last = [part for part in block.modules() if isinstance(part, nn.Linear)]
    nn.init.zeros_(last.weight)  # the second branch adds nothing: what is left is the first
    nn.init.zeros_(last.bias)
    x = torch.randn(1, SHAPE.num_tokens, SHAPE.hidden_dim)
    branch = block.eval()(x) - x
    added = block.train()(x.expand(images, -1, -1)) - x
    return (added * branch).sum((1, 2)) / branch.square().sum()


def chances(model):
    """How the chance of a skip goes from the first block to the last."""
    first, middle, last = [(skipping(block) == 0).float().mean().item() for block in model.blocks]
    assert abs(last - SKIPPED) < 0.1, last
    if abs(first - last) < 0.1 and abs(middle - last) < 0.1:
        return "the same in all blocks"
    assert abs(middle - (first + last) / 2) < 0.1, (first, middle, last)
    return f"{first:g} to p, block by block"


def kept(model):
    """What training does to a branch that it does not skip."""
    factors = skipping(model.blocks[-1])
    factor = factors[factors != 0].mean().item()
    names = {1: "as it is", 1 / (1 - SKIPPED): "divided by 1 − p"}
    return next((name for value, name in names.items() if abs(factor - value) < 1e-3), f"times {factor:.3g}")


# --- an image that does not fit ---------------------------------------------------------------------------------------


def what_becomes_of_the_rest(build):
    """What a Mixer for 26 x 26 images, of which patches of 4 x 4 leave 2 rows and 2 columns over, does with those."""
    try:
        model = build(image_size=26).eval()
        images = torch.randn(2, 1, 26, 26)
        model(images)
    except Exception:
        return "refused"
    for part in model.modules():
        if isinstance(part, nn.Linear) and part.out_features == SHAPE.num_classes:
            nn.init.normal_(part.weight)  # a head of zeros would hide every change
    return cropped_or_padded(model, images)


def cropped_or_padded(read, images):
    """Whether what is read of images (B, 1, 26, 26) changes with the 2 rows and 2 columns that are left over."""
    inside, rest = images.clone(), images.clone()
    inside[:, :, 12, 12] += 1
    rest[:, :, 24:] += 1
    rest[:, :, :, 24:] += 1
    assert not torch.equal(read(images), read(inside))
    return "cropped" if torch.equal(read(images), read(rest)) else "padded"


# --- Keras ------------------------------------------------------------------------------------------------------------


def features_of_keras():
    """{feature: what the parts do that Keras' example takes from the library}, or None where that is not installed.

    The example writes Dense(units, activation="gelu"), LayerNormalization(epsilon=1e-6), GlobalAveragePooling1D() and
    keras.ops.image.extract_patches(images, patch_size), everything else as it is by default.
    """
    if importlib.util.find_spec("keras") is None:
        return None
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(400)
    dense.build((None, 300))
    kernel, bias = (torch.tensor(keras.ops.convert_to_numpy(part)) for part in (dense.kernel, dense.bias))
    tokens = torch.randn(2, SHAPE.num_tokens, SHAPE.hidden_dim)

    def as_torch(layer):
        return lambda x: torch.tensor(keras.ops.convert_to_numpy(layer(x.numpy())))

    cut = as_torch(lambda images: keras.ops.image.extract_patches(images, 4))
    return {
        "they normalise": f"over {normalised(as_torch(keras.layers.LayerNormalization(epsilon=1e-6))(tokens))}",
        "GELU": form(as_torch(keras.layers.Activation("gelu"))),
        "mean over": mean_over(as_torch(keras.layers.GlobalAveragePooling1D())(tokens), tokens),
        "head starts": "at random" if kernel.any() else "at zero",
        "stem starts": distribution(kernel.T),
        "other weights start": distribution(kernel.T),
        "biases start": biases(bias),
        "H or W no multiple of P": cropped_or_padded(lambda x: cut(x.permute(0, 2, 3, 1)), torch.randn(2, 1, 26, 26)),
    }


def main():
    found = {name: features(name) for name in MODELS} | {KERAS: features_of_keras()}
    names = [name for name in found if found[name]]
    print("| |", " | ".join(names), "|")
    print("|---" * (1 + len(names)) + "|")
    for feature in found["this project"]:
        print(f"| {feature} |", " | ".join(found[name].get(feature, "read") for name in names), "|")
    for name, module in [*((name, module) for name, (module, *_) in MODELS.items()), (KERAS, "keras")]:
        if not found[name]:
            print(f"{name}: not installed; pip install '.[bench]' brings it.")
        elif name != "this project":
            print(f"{name}: version {importlib.metadata.version(module.replace('_', '-'))}")


if __name__ == "__main__":
    main()
