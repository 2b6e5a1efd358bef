import pytest
import torch

from mixer_utils import MlpMixer, baselines
from mixer_utils.model import count_parameters

SHAPE = (1, 28, 28)


@pytest.mark.parametrize("build", [
    baselines.mlp, baselines.cnn, lambda *args: baselines.vit(*args, patch_size=4, num_blocks=3),
], ids=["MLP", "CNN", "ViT"])  # fmt: skip
def test_a_network_is_the_widest_within_its_budget(build):
    model = build(SHAPE, 10, 111_549)
    assert 0.9 * 111_549 < count_parameters(model) <= 111_549
    assert model(torch.zeros(2, *SHAPE)).shape == (2, 10)
    assert count_parameters(build(SHAPE, 10, count_parameters(model))) == count_parameters(model)
    assert count_parameters(build(SHAPE, 10, count_parameters(model) - 1)) < count_parameters(model)


def test_a_budget_below_the_narrowest_is_refused():
    with pytest.raises(ValueError, match="num_parameters is 10: even the narrowest such model has more."):
        baselines.mlp(SHAPE, 10, 10)


def test_self_attention_is_torch_s():
    torch.manual_seed(0)
    own, theirs = baselines.SelfAttention(24), torch.nn.MultiheadAttention(24, 4, batch_first=True)
    theirs.in_proj_weight, theirs.in_proj_bias = own.qkv.weight, own.qkv.bias
    theirs.out_proj = own.out
    x = torch.randn(3, 10, 24)
    torch.testing.assert_close(own(x), theirs(x, x, x, need_weights=False)[0])


def test_a_vit_knows_its_places_and_its_attention_alone_would_not():
    torch.manual_seed(0)
    vit = baselines.vit(SHAPE, 10, 100_000, patch_size=4, num_blocks=2)
    torch.nn.init.normal_(vit.head.weight)
    tokens, order = torch.randn(2, 49, vit.config["hidden_dim"]), torch.randperm(49)
    attention = vit.blocks[0].token_mixing
    torch.testing.assert_close(attention(tokens)[:, order], attention(tokens[:, order]))
    images = torch.randn(2, *SHAPE)
    rows = torch.nn.functional.unfold(images, 4, stride=4)
    moved = torch.nn.functional.fold(rows[:, :, order], (28, 28), 4, stride=4)
    assert (vit(images) - vit(moved)).abs().max() > 1e-3
    assert isinstance(vit, MlpMixer) and vit.stem.place.shape == (49, vit.config["hidden_dim"])
