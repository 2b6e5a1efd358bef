"""How Mixers differ, feature by feature, read off the models themselves: python -m benchmarks.differences

docs/comparison.md says the same of the authors' code and of Keras' example, which are read from their sources:
https://github.com/google-research/vision_transformer (vit_jax/models_mixer.py) and
https://github.com/keras-team/keras-io (examples/vision/mlp_image_classification.py).
"""

import importlib.metadata
import importlib.util

import torch
from torch import nn

from benchmarks import peers
from mixer_utils.model import MlpMixer

# No two sizes are equal, so that a size tells which it is.
SHAPE = peers.Shape("told apart", 4, 200, 100, 800, 3, batch_size=2, image_size=24)


def timm_by_default():
    from timm.models.mlp_mixer import MlpMixer as Mixer

    return Mixer(img_size=24, in_chans=1, patch_size=4, num_blocks=3, embed_dim=200)


def lucidrains_by_default():
    from mlp_mixer_pytorch import MLPMixer

    return MLPMixer(image_size=24, channels=1, patch_size=4, dim=200, depth=3, num_classes=10)


MODELS = {  # name -> (module to be installed, model of SHAPE, model of SHAPE with the widths it has by default)
    "this project": ("mixer_utils", lambda: MlpMixer(24, 1, 4, 10, 3, 200, 100, 800), None),
    "timm": ("timm", lambda: peers.timm(SHAPE), timm_by_default),
    "lucidrains": ("mlp_mixer_pytorch", lambda: peers.lucidrains(SHAPE), lucidrains_by_default),
}


def features(name):
    """{feature: what this Mixer does}, or None where its package is not installed."""
    module, build, default = MODELS[name]
    if importlib.util.find_spec(module) is None:
        return None
    torch.manual_seed(0)
    model = build()
    norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
    sizes = {(SHAPE.hidden_dim,): "over C", (SHAPE.num_tokens,): "over S"}
    dense = [part for part in model.modules() if isinstance(part, nn.Linear | nn.Conv1d)]
    *_, head = dense
    hidden = [part for part in dense if part is not head]
    gelus = {"tanh" if part.approximate == "tanh" else "erf" for part in model.modules() if isinstance(part, nn.GELU)}
    return {
        "norms in a block": one({(len(norms) - len(norms) % SHAPE.num_blocks) // SHAPE.num_blocks}),
        "they normalise": one({sizes[tuple(norm.normalized_shape)] for norm in norms}),
        "eps": one({f"{norm.eps:.0e}".replace("e-0", "e-") for norm in norms}),
        "GELU": one(gelus),
        "D_S, D_C by default": widths(default()) if default else "given as sizes",
        "norm before the head": "yes" if len(norms) % SHAPE.num_blocks else "no",
        "mean over": "tokens" if head.in_features == SHAPE.hidden_dim else "channels",
        "head starts": "at zero" if not head.weight.any() else "at random",
        "other weights start": one({distribution(part.weight) for part in hidden}),
        "H or W no multiple of P": refuses(model),
    }


def one(found):
    (only,) = found
    return str(only)


def widths(model):
    """The hidden widths of the first block's two MLPs, in C: "0.5 C, 4 C"."""
    outputs = [part.weight.shape[:2] for part in model.modules() if isinstance(part, nn.Linear | nn.Conv1d)]
    D_S = next(out for out, into in outputs if into == SHAPE.num_tokens)
    D_C = next(out for out, into in outputs if into == SHAPE.hidden_dim)
    return ", ".join(f"{width / SHAPE.hidden_dim:g} C" for width in (D_S, D_C))


def distribution(weight):
    """The name of the distribution that fresh weights (out, in, …) were drawn from."""
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


def refuses(model):
    try:
        model(torch.zeros(1, 1, 24, 26))
    except Exception:
        return "refused"
    return "accepted"


def main():
    found = {name: features(name) for name in MODELS}
    names = [name for name in MODELS if found[name]]
    print("| |", " | ".join(names), "|")
    print("|---" * (1 + len(names)) + "|")
    for feature in found["this project"]:
        print(f"| {feature} |", " | ".join(found[name][feature] for name in names), "|")
    for name, (module, *_) in MODELS.items():
        if not found[name]:
            print(f"{name}: not installed; pip install '.[bench]' brings it.")
        elif name != "this project":
            print(f"{name}: version {importlib.metadata.version(module.replace('_', '-'))}")


if __name__ == "__main__":
    main()
