"""A trained Mixer for larger images of the same patches, ready to be fine-tuned (paper, appendix C)."""

import numbers

import torch

from mixer_utils._departures import uncompiled
from mixer_utils.model import MlpMixer


def at_higher_resolution(model, K):
    """A copy of an MlpMixer for images K times as high and K times as wide, to be fine-tuned on them.

    S and D_S grow by K²; everything else stays. Seen as K x K tiles of the old size, the larger image is mixed tile by
    tile: the token-mixing matrices are block-diagonal, K² copies of the old W_1 (D_S, S) and W_2 (S, D_S). The paper
    takes the tokens one tile after another; here they stand in row order over the whole image, so that the columns of
    the new W_1 and the rows of the new W_2 are permuted to match. On an image tiled with copies of a small one the
    logits are those of the small one.

    Device, dtype and training or eval mode are the given model's. Raises ValueError unless K is a whole number, 1 or
    more. Source: paper, appendix C; the authors' code does not contain it.
    """
    if not isinstance(K, numbers.Integral) or isinstance(K, bool) or K < 1:
        raise ValueError(f"K is {K!r}: it must be a whole number, 1 or more.")
    K = int(K)
    model = uncompiled(model)
    config, P = model.config, model.config["patch_size"]
    _, height, width = model.image_shape
    larger = {"image_size": (K * height, K * width), "tokens_mlp_dim": K * K * config["tokens_mlp_dim"]}
    with torch.device("meta"):  # shapes without numbers, which come below
        result = MlpMixer(**{**config, **larger})

    tokens = torch.arange(result.num_tokens).view(K, height // P, K, width // P)
    tokens = tokens.permute(0, 2, 1, 3).flatten()  # (K * K * S,): tile after tile, each token's place in row order
    back = tokens.argsort()
    tensors = {}
    for name, tensor in model.state_dict().items():
        if ".token_mixing." in name:
            copies = [tensor] * (K * K)
            tensor = torch.block_diag(*copies) if tensor.ndim == 2 else torch.cat(copies)
            if name.endswith("dense_0.weight"):
                tensor = tensor[:, back]
            elif ".dense_1." in name:
                tensor = tensor[back]
        tensors[name] = tensor.clone()
    result.load_state_dict(tensors, assign=True)
    return result.train(model.training)
