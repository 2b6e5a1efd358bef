import pytest
import torch
from told import assert_told

from mixer_utils import at_higher_resolution, load_checkpoint, save_checkpoint

GRIDS = {"square": 28, "wide": (28, 42), "a column": (42, 14)}  # patches are 14 x 14


def tile(parts, K):
    """K * K images (B, in_channels, H, W), or grids of tokens, put together row by row."""
    return torch.cat([torch.cat(parts[K * row : K * row + K], dim=3) for row in range(K)], dim=2)


def grid(tokens, height, width):
    """Tokens (B, S, C), in row order, as maps (B, C, height, width)."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("size", GRIDS.values(), ids=GRIDS)
def test_each_token_mixing_mlp_does_to_every_tile_what_the_old_one_did_to_an_image(size, K, tiny_mixer):
    model = tiny_mixer(image_size=size, in_channels=2)
    larger = at_higher_resolution(model, K)
    torch.manual_seed(1)
    images = [torch.randn(2, *model.image_shape) for _ in range(K * K)]
    h, w = (side // 14 for side in model.image_shape[1:])
    for block, old in zip(larger.blocks, model.blocks, strict=True):
        tokens = [model.stem(image) for image in images]
        expected = tile([grid(old.token_mixing(old.norm_0(x)), h, w) for x in tokens], K)
        found = block.token_mixing(block.norm_0(larger.stem(tile(images, K))))
        torch.testing.assert_close(grid(found, K * h, K * w), expected, rtol=0, atol=1e-5)
        assert expected.std() > 0.1


@pytest.mark.parametrize("K", [1, 2, 3])
@pytest.mark.parametrize("size", GRIDS.values(), ids=GRIDS)
def test_an_image_tiled_with_copies_of_one_has_the_logits_of_the_one(size, K, tiny_mixer):
    model = tiny_mixer(image_size=size)
    image = torch.randn(3, *model.image_shape)
    found = at_higher_resolution(model, K)(tile([image] * (K * K), K))
    torch.testing.assert_close(found, model(image), rtol=0, atol=1e-5)


def test_through_the_whole_network_tiles_do_not_touch_until_the_mean(tiny_mixer):
    model = tiny_mixer(image_size=(28, 42))
    images, stages, expected = [torch.randn(1, *model.image_shape) for _ in range(4)], {}, []
    at_higher_resolution(model, 2)(tile(images, 2), stages)
    for image in images:
        model(image, seen := {})
        expected.append(grid(seen["block_1"], 2, 3))
    torch.testing.assert_close(grid(stages["block_1"], 4, 6), tile(expected, 2), rtol=0, atol=1e-5)


def test_tokens_and_token_mixing_units_grow_by_k_squared_and_nothing_else_does(tiny_mixer):
    model = tiny_mixer(image_size=[28, 42], stochastic_depth=0.2, gelu="erf")
    larger = at_higher_resolution(model, 3)
    assert larger.config == {**model.config, "image_size": (84, 126), "tokens_mlp_dim": 45}
    assert larger.num_tokens == 9 * model.num_tokens
    for name, tensor in model.state_dict().items():
        found = larger.state_dict()[name]
        if ".token_mixing." not in name:
            assert torch.equal(found, tensor), name
        else:  # every number nine times, the rest zero
            assert torch.equal(found[found != 0].sort().values, tensor.flatten().repeat(9).sort().values), name


def test_the_enlarged_network_is_a_copy_of_the_same_kind_and_can_be_trained_and_saved(tiny_mixer, tmp_path):
    model = tiny_mixer().double()
    before = model.head.weight.detach().clone()
    larger = at_higher_resolution(model, 2)
    assert larger.training and not at_higher_resolution(model.eval(), 2).training
    larger(torch.randn(1, 1, 56, 56, dtype=torch.float64)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in larger.parameters())
    torch.optim.SGD(larger.parameters(), lr=1).step()
    assert torch.equal(model.head.weight, before) and not torch.equal(larger.head.weight, before)
    save_checkpoint(larger.float(), tmp_path / "model.safetensors")
    assert torch.equal(load_checkpoint(tmp_path / "model.safetensors").head.weight, larger.head.weight)


@pytest.mark.parametrize("K", [0, -1, 1.5, 2.0, True, "2", None])
def test_a_k_that_is_no_whole_number_is_refused(K, tiny_mixer):
    with pytest.raises(ValueError) as error:
        at_higher_resolution(tiny_mixer(), K)
    assert_told(error.value, f"K is {K!r}:", "whole number", "1 or more")
