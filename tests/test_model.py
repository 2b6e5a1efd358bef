import math

import numpy as np
import pytest
import torch
from scipy.special import erf
from told import assert_told
from torch import nn
from torch.nn import functional as F

from mixer_utils import CONFIGS, MixerBlock, MlpBlock, MlpMixer, PatchEmbedding, create_mixer
from mixer_utils.model import TokenMixing, truncated_normal

# --- the paper's equations once more, in numpy's float64 and with einsum -----------------------------------


def paper_gelu(x, form):
    if form == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def paper_layer_norm(x, weights, name, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def paper_mixer(weights, images, patch_size, num_blocks, gelu, eps=1e-6):
    """Logits by the paper's equation 1. i: in_channels; d, e: hidden units."""
    B, _, H, W = images.shape
    P = patch_size
    patches = images.reshape(B, -1, H // P, P, W // P, P)
    x = np.einsum("Bihpwq,Cipq->BhwC", patches, weights["stem.proj.weight"]) + weights["stem.proj.bias"]
    x = x.reshape(B, (H // P) * (W // P), -1)
    for block in range(num_blocks):
        start = f"blocks.{block}."
        w = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
        y = paper_layer_norm(x, w, "norm_0", eps)
        hidden = np.einsum("dS,BSC->BdC", w["token_mixing.dense_0.weight"], y)
        hidden = paper_gelu(hidden + w["token_mixing.dense_0.bias"][:, None], gelu)
        y = np.einsum("Sd,BdC->BSC", w["token_mixing.dense_1.weight"], hidden)
        x = x + y + w["token_mixing.dense_1.bias"][:, None]
        y = paper_layer_norm(x, w, "norm_1", eps)
        hidden = np.einsum("eC,BSC->BSe", w["channel_mixing.dense_0.weight"], y)
        hidden = paper_gelu(hidden + w["channel_mixing.dense_0.bias"], gelu)
        x = x + np.einsum("Ce,BSe->BSC", w["channel_mixing.dense_1.weight"], hidden)
        x = x + w["channel_mixing.dense_1.bias"]
    x = paper_layer_norm(x, weights, "pre_head_layer_norm", eps).mean(axis=1)
    return np.einsum("kC,BC->Bk", weights["head.weight"], x) + weights["head.bias"]


COLOUR = dict(image_size=(12, 20), in_channels=3, patch_size=4, num_classes=7, num_blocks=3, hidden_dim=10,
              tokens_mlp_dim=6, channels_mlp_dim=24)  # fmt: skip


def with_random_weights(seed=0, **changes):
    """A small Mixer for 12 x 20 colour images, with every weight, bias and LayerNorm random, and images."""
    torch.manual_seed(seed)
    model = MlpMixer(**{**COLOUR, **changes}).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model, torch.randn(5, *model.image_shape)


def by_the_paper(model, images, gelu, **changes):
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    patch_size, num_blocks = model.config["patch_size"], model.config["num_blocks"]
    return paper_mixer(weights, images.double().numpy(), patch_size, num_blocks, gelu, **changes)


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
@pytest.mark.parametrize(
    "sizes", [{}, dict(image_size=28, in_channels=1, patch_size=7, hidden_dim=16), dict(num_blocks=1)]
)
def test_the_logits_are_those_of_the_papers_equations(sizes, gelu):
    model, images = with_random_weights(gelu=gelu, **sizes)
    logits = model(images).detach().numpy()
    assert np.std(logits) > 0.1  # there is something to compare
    np.testing.assert_allclose(logits, by_the_paper(model, images, gelu), rtol=0, atol=1e-5)


def test_gelu_takes_its_tanh_form_unless_told_otherwise():
    model, images = with_random_weights()
    logits = model.double()(images.double()).detach().numpy()  # in float64: the two forms differ by some 1e-5
    np.testing.assert_allclose(logits, by_the_paper(model, images, "tanh"), rtol=0, atol=1e-12)
    assert np.abs(logits - by_the_paper(model, images, "erf")).max() > 1e-6


def test_the_layer_norms_add_one_millionth_to_the_variance():
    model, images = with_random_weights()
    for name, parameter in model.named_parameters():
        if "norm" not in name and "head" not in name:
            parameter.data *= 1e-3  # tokens of variance about 1e-6: now eps counts
    model.stem.proj.bias.data.zero_()
    logits = model(images).detach().numpy()
    np.testing.assert_allclose(logits, by_the_paper(model, images, "tanh"), rtol=0, atol=1e-5)
    assert np.abs(logits - by_the_paper(model, images, "tanh", eps=1e-5)).max() > 1e-2


def test_every_layer_norm_is_over_the_channels_and_no_two_halves_share_one():
    model, _ = with_random_weights()
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 2 * 3 + 1
    assert {(norm.normalized_shape, norm.eps) for norm in norms} == {((10,), 1e-6)}


# --- the parts ---------------------------------------------------------------------------------------------


def test_the_stem_gives_what_cutting_patches_by_hand_gives_in_row_order():
    torch.manual_seed(0)
    stem = PatchEmbedding(in_channels=3, patch_size=4, hidden_dim=6)
    images = torch.randn(2, 3, 8, 12)
    tokens = stem(images)
    assert tokens.shape == (2, 6, 6)
    kernel = stem.proj.weight.reshape(6, -1)
    for b in range(2):
        for row in range(2):
            for column in range(3):
                patch = images[b, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                by_hand = kernel @ patch.flatten() + stem.proj.bias
                torch.testing.assert_close(tokens[b, 3 * row + column], by_hand, rtol=0, atol=1e-5)


@pytest.mark.parametrize("in_channels, patch_size, sides", [(3, 4, (8, 20)), (2, 3, (15, 6)), (1, 7, (28, 28))])
def test_the_stem_is_a_convolution_whose_stride_is_its_kernel(in_channels, patch_size, sides):
    torch.manual_seed(0)
    stem = PatchEmbedding(in_channels, patch_size, hidden_dim=5)
    images = torch.randn(2, in_channels, *sides)
    maps = F.conv2d(images, stem.proj.weight, stem.proj.bias, stride=patch_size)
    torch.testing.assert_close(stem(images), maps.flatten(2).transpose(1, 2), rtol=0, atol=1e-5)


def test_the_stem_leaves_tokens_in_memory_in_the_order_in_which_the_blocks_read_them():
    stem, images = PatchEmbedding(in_channels=3, patch_size=4, hidden_dim=6), torch.randn(2, 3, 8, 12)
    assert stem(images).is_contiguous()
    assert stem(images.to(memory_format=torch.channels_last)).is_contiguous()
    assert MixerBlock(6, 6, 3, 8)(stem(images)).is_contiguous()


def test_an_mlp_block_is_linear_gelu_linear_over_the_last_dimension():
    torch.manual_seed(0)
    block, x = MlpBlock(5, 7), torch.randn(2, 3, 5)
    w0, b0, w1, b1 = (parameter.detach().double().numpy() for parameter in block.parameters())
    expected = paper_gelu(x.double().numpy() @ w0.T + b0, "tanh") @ w1.T + b1
    assert (w0.shape, w1.shape) == ((7, 5), (5, 7))
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
def test_token_mixing_is_an_mlp_block_on_the_transposed_tokens(gelu):
    torch.manual_seed(0)
    mixing, block = TokenMixing(6, 3, gelu), MlpBlock(6, 3, gelu)
    block.load_state_dict(mixing.state_dict())
    x = torch.randn(2, 6, 4)
    torch.testing.assert_close(mixing(x), block(x.transpose(1, 2)).transpose(1, 2), rtol=0, atol=1e-6)

    target = torch.randn(2, 6, 4)
    (mixing(x) * target).sum().backward()
    (block(x.transpose(1, 2)).transpose(1, 2) * target).sum().backward()
    for ours, other in zip(mixing.parameters(), block.parameters(), strict=True):
        assert other.grad.abs().max() > 0.01
        torch.testing.assert_close(ours.grad, other.grad, rtol=0, atol=1e-5)


def test_a_hook_on_token_mixing_sees_tokens_and_one_on_its_act_sees_every_channels_hidden_units():
    B, S, C, D_S = 2, 6, 4, 3
    block, seen = MixerBlock(S, C, D_S, channels_mlp_dim=8), {}
    for name in ("token_mixing", "token_mixing.act"):
        block.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: (inputs[0].shape, output.shape)})
        )
    block(torch.randn(B, S, C))
    assert seen == {"token_mixing": ((B, S, C), (B, S, C)), "token_mixing.act": ((B, C, D_S), (B, C, D_S))}


def test_token_mixing_carries_nothing_from_one_channel_to_another():
    torch.manual_seed(0)
    block = MixerBlock(num_tokens=6, hidden_dim=4, tokens_mlp_dim=3, channels_mlp_dim=8)
    y = torch.randn(1, 6, 4)
    changed = y.clone()
    changed[0, 0, 2] += 1
    moved = (block.token_mixing(changed) - block.token_mixing(y)).abs()[0]
    assert (moved.amax(dim=0) > 1e-4).tolist() == [False, False, True, False]
    assert (moved[:, 2] > 1e-4).all()  # within the channel it reaches every token


@pytest.mark.parametrize("tokens", [5, 7])
def test_token_mixing_refuses_another_number_of_tokens(tokens):
    with pytest.raises(RuntimeError, match=f"6.*{tokens}|{tokens}.*6"):  # torch names both numbers
        TokenMixing(6, 3)(torch.zeros(2, tokens, 4))


def test_a_dict_is_filled_with_every_stage_by_name():
    model, images = with_random_weights()
    stages = {}
    logits = model(images, intermediates=stages)
    assert {name: tuple(stage.shape) for name, stage in stages.items()} == {
        "stem": (5, 15, 10), "block_0": (5, 15, 10), "block_1": (5, 15, 10), "block_2": (5, 15, 10),
        "pre_head_layer_norm": (5, 15, 10), "pre_logits": (5, 10), "logits": (5, 7),
    }  # fmt: skip
    assert torch.equal(stages["logits"], logits) and torch.equal(logits, model(images))
    assert torch.equal(stages["block_1"], model.blocks[1](stages["block_0"]))
    assert torch.equal(stages["pre_logits"], stages["pre_head_layer_norm"].mean(dim=1))
    assert torch.equal(model.head(stages["pre_logits"]), logits)


# --- sizes -------------------------------------------------------------------------------------------------

# Table 1: blocks, P, C, S, D_C, D_S; parameters without head, with a head of 1000 classes.
TABLE_1 = {
    "S/32": (8, 32, 512, 49, 2048, 256, 18_591_624, 19_104_624),
    "S/16": (8, 16, 512, 196, 2048, 256, 18_015_264, 18_528_264),
    "B/32": (12, 32, 768, 49, 3072, 384, 59_524_428, 60_293_428),
    "B/16": (12, 16, 768, 196, 3072, 384, 59_111_472, 59_880_472),
    "L/32": (24, 32, 1024, 49, 4096, 512, 205_914_264, 206_939_264),
    "L/16": (24, 16, 1024, 196, 4096, 512, 207_171_168, 208_196_168),
    "H/14": (32, 14, 1280, 256, 5120, 640, 431_069_952, 432_350_952),
}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", TABLE_1)
def test_the_papers_configurations_have_its_sizes_and_exactly_as_many_parameters(name):
    with torch.device("meta"):  # shapes without numbers: H/14 would take 1.7 GB
        model = create_mixer(name)
    blocks, P, C, S, D_C, D_S, headless, whole = TABLE_1[name]
    block = model.blocks[0]
    assert len(model.blocks) == blocks
    assert model.stem.proj.weight.shape == (C, 3, P, P)
    assert model.num_tokens == S
    assert block.token_mixing.dense_0.weight.shape == (D_S, S)
    assert block.channel_mixing.dense_0.weight.shape == (D_C, C)
    assert model.head.weight.shape == (1000, C)
    assert count(model) == whole
    assert count(model) - count(model.head) == headless


def test_the_small_mnist_mixer_has_6_396_317_parameters():
    model = MlpMixer(patch_size=4, num_blocks=3, hidden_dim=512, tokens_mlp_dim=256, channels_mlp_dim=2048)
    assert count(model) == 6_396_317


def test_this_projects_own_configurations_are_for_mnist_and_for_cifar_10():
    own = [name for name in CONFIGS if name not in TABLE_1]
    assert set(own) >= {"mnist/7", "mnist/4", "cifar/4"}
    for name in own:
        image_shape = {"mnist": (1, 28, 28), "cifar": (3, 32, 32)}[name.partition("/")[0]]
        assert create_mixer(name)(torch.zeros(2, *image_shape)).shape == (2, 10), name


def test_the_configuration_for_cifar_10_has_64_patches_and_329_258_parameters():
    model = create_mixer("cifar/4")
    assert (model.image_shape, model.num_tokens, model.config["patch_size"]) == ((3, 32, 32), 64, 4)
    block = 2 * 2 * 96 + (64 * 48 + 48 + 48 * 64 + 64) + (96 * 384 + 384 + 384 * 96 + 96)
    assert count(model) == (3 * 4 * 4 * 96 + 96) + 4 * block + 2 * 96 + (96 * 10 + 10) == 329_258


def test_a_named_configuration_can_be_changed():
    model = create_mixer("mnist/4", num_classes=3, num_blocks=1)
    assert (model.head.out_features, len(model.blocks), model.config["hidden_dim"]) == (3, 1, 128)


def test_the_configuration_builds_the_same_model_again():
    model, images = with_random_weights(gelu="erf", stochastic_depth=0.2)
    again = MlpMixer(**model.config).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images), model(images))


# --- the start of training ---------------------------------------------------------------------------------


def test_an_untrained_model_finds_every_class_equally_likely():
    model = create_mixer("mnist/7")
    logits = model(torch.randn(16, 1, 28, 28))
    assert torch.equal(logits, torch.zeros(16, 10))
    loss = F.cross_entropy(logits, torch.arange(16) % 10)
    assert loss.item() == pytest.approx(math.log(10), abs=1e-6)


def test_weights_start_lecun_normal_and_biases_zero():
    torch.manual_seed(0)
    model = create_mixer("B/32", num_blocks=1)
    block = model.blocks[0]
    for layer, fan_in in [
        (model.stem.proj, 3 * 32 * 32),
        (block.token_mixing.dense_0, 49),
        (block.token_mixing.dense_1, 384),
        (block.channel_mixing.dense_0, 768),
        (block.channel_mixing.dense_1, 3072),
    ]:
        std = fan_in**-0.5
        assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.03 * std)
        # flax cuts its normal distribution off at two of the standard deviations it had before the cut
        assert 1.95 < layer.weight.abs().max().item() / (std / 0.8796) <= 2.0001
        assert not layer.bias.any()
    assert not model.head.weight.any() and not model.head.bias.any()
    assert (block.norm_0.weight == 1).all() and not block.norm_0.bias.any()


def test_gradients_are_finite_and_reach_every_parameter_that_can_matter():
    model, images = with_random_weights()
    logits = model.double().train()(images.double())
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 4])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        reached = parameter.grad.abs().max().item()
        if name.endswith("token_mixing.dense_1.bias"):
            # One number a token, added to all its channels: every LayerNorm that follows subtracts it again.
            assert reached < 1e-15, name
        else:
            assert reached > 1e-6, name


def test_the_last_bias_of_token_mixing_cannot_change_the_logits():
    model, images = with_random_weights()
    before = model(images)
    for block in model.blocks:
        nn.init.normal_(block.token_mixing.dense_1.bias, std=3)
    torch.testing.assert_close(model(images), before, rtol=0, atol=1e-5)


def test_with_its_zero_head_the_first_step_moves_the_head_alone():
    model = create_mixer("mnist/7")
    F.cross_entropy(model(torch.randn(8, 1, 28, 28)), torch.arange(8)).backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad.abs().max() > 0}
    assert moved == {"head.weight", "head.bias"}


# --- stochastic depth --------------------------------------------------------------------------------------


def test_the_probability_of_skipping_rises_linearly_from_zero():
    drops = [block.drop for block in MlpMixer(num_blocks=5, stochastic_depth=0.4).blocks]
    assert drops == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert [block.drop for block in MlpMixer(num_blocks=1, stochastic_depth=0.4).blocks] == [0]
    assert [block.drop for block in MlpMixer(num_blocks=3).blocks] == [0, 0, 0]


def test_a_skipped_branch_is_skipped_for_the_whole_image_and_keeps_its_expected_value():
    torch.manual_seed(0)
    block = MixerBlock(4, 3, 2, 5, drop=0.25).train()
    branch = torch.rand(20_000, 4, 3) + 0.5
    factors = block.keep(branch) / branch
    per_image = factors[:, 0, 0]
    torch.testing.assert_close(factors, per_image[:, None, None].expand_as(factors))
    kept = per_image > 0
    torch.testing.assert_close(per_image[kept], torch.full((int(kept.sum()),), 1 / 0.75))
    assert kept.float().mean().item() == pytest.approx(0.75, abs=4 * math.sqrt(0.25 * 0.75 / 20_000))


def test_both_branches_of_a_block_can_be_skipped():
    torch.manual_seed(0)
    block = MixerBlock(4, 3, 2, 5, drop=0.5).train()
    x = torch.randn(1, 4, 3).expand(400, 4, 3)
    outcomes = block(x).detach().flatten(1).round(decimals=4).unique(dim=0)
    assert len(outcomes) == 4  # neither, either, both
    assert (outcomes - x[0].flatten()).abs().amax(dim=1).min() < 1e-4  # both skipped: the image passes through


def test_nothing_is_skipped_in_eval_mode():
    dropping, images = with_random_weights(stochastic_depth=0.9)
    steady, _ = with_random_weights()
    assert torch.equal(dropping(images), steady(images))
    assert not torch.equal(dropping.train()(images), steady(images))


# --- permutations (paper, section 3.4) ---------------------------------------------------------------------


def test_shuffling_patches_and_pixels_and_the_matching_weights_gives_the_same_logits():
    model, images = with_random_weights()
    B, _, H, W = images.shape
    P, S = 4, model.num_tokens
    patch_order, pixel_order = torch.randperm(S), torch.randperm(P * P)

    patches = images.reshape(B, 3, H // P, P, W // P, P).permute(0, 2, 4, 1, 3, 5).reshape(B, S, 3, P * P)
    shuffled = patches[:, patch_order][..., pixel_order]
    shuffled = shuffled.reshape(B, H // P, W // P, 3, P, P).permute(0, 3, 1, 4, 2, 5).reshape(images.shape)

    before = model(images)
    assert (model(shuffled) - before).abs().max() > 0.01  # the weights do care
    with torch.no_grad():
        kernel = model.stem.proj.weight
        kernel.copy_(kernel.flatten(2)[..., pixel_order].reshape(kernel.shape))
        for block in model.blocks:
            mlp = block.token_mixing
            mlp.dense_0.weight.copy_(mlp.dense_0.weight[:, patch_order])
            mlp.dense_1.weight.copy_(mlp.dense_1.weight[patch_order])
            mlp.dense_1.bias.copy_(mlp.dense_1.bias[patch_order])
    torch.testing.assert_close(model(shuffled), before, rtol=0, atol=1e-5)


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image_size, patch_size, fitting",
    [(28, 5, "1, 2, 4, 7, 14, 28"), ((28, 20), 7, "1, 2, 4"), ((20, 28), 7, "1, 2, 4"), (7, 14, "1, 7")],
)
def test_a_patch_that_does_not_divide_the_image_is_refused_with_those_that_do(image_size, patch_size, fitting):
    with pytest.raises(ValueError) as error:
        MlpMixer(image_size=image_size, patch_size=patch_size)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    size = f"image_size {height} x {width}:"
    assert_told(error.value, f"patch_size {patch_size} ", size, f"choose one of {fitting}.")


SIZES = ("in_channels", "patch_size", "num_classes", "num_blocks", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim")
BAD = {
    "image_size": (0, -28, 3.5, "28", None, (28,), (28, 28, 1), (28, 0), (28.0, 28), True),
    **{name: (0, -1, 2.0, "4", None, True) for name in SIZES},
    "stochastic_depth": (-0.1, 1, 1.5, math.nan, "0.1", None),
    "gelu": ("relu", None, True),
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values])
def test_a_size_that_cannot_work_is_refused_by_name(name, value):
    with pytest.raises(ValueError) as error:
        MlpMixer(**{name: value})
    sentence = str(error.value)
    assert sentence.startswith(name) and "must be" in sentence
    assert repr(value) in sentence or any(f"is {side!r}:" in sentence for side in value)  # or the one bad side


@pytest.mark.parametrize("shape", [(2, 1, 12, 20), (2, 3, 20, 12), (3, 12, 20), (2, 12, 20, 3), (1, 2, 3, 12, 20)])
def test_images_of_another_shape_are_refused_with_both_shapes(shape):
    model, _ = with_random_weights()
    with pytest.raises(ValueError) as error:
        model(torch.zeros(shape))
    assert_told(error.value, f"shape {shape}", "built for (B, 3, 12, 20)", "resize the images", "image_size")


def test_an_unknown_configuration_is_refused_with_the_known_ones():
    with pytest.raises(ValueError) as error:
        create_mixer("B/8")
    assert "'B/8'" in str(error.value)
    assert all(name in str(error.value) for name in CONFIGS)


def test_weights_are_drawn_from_a_seed_as_by_torch_since_2_12_and_so_by_every_torch():
    std = 0.25
    weight = torch.empty(300, 40)
    torch.manual_seed(0)
    truncated_normal(weight, std)
    assert weight.abs().max() <= 2 * std
    assert weight.std() == pytest.approx(std * 0.8796, rel=0.02)
    torch.manual_seed(0)
    plain = torch.randn(300, 40) * std
    inside = plain.abs() <= 2 * std
    torch.testing.assert_close(weight[inside], plain[inside])
    if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 12):
        torch.manual_seed(0)
        theirs = torch.nn.init.trunc_normal_(torch.empty(300, 40), std=std, a=-2 * std, b=2 * std)
        assert torch.equal(weight, theirs)
