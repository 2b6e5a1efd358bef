"""What mixing.py reads from the weights: influence as autograd finds it, and units in the order their maps say."""

import numpy as np
import pytest
import torch
from torch.func import jacrev

from mixer_utils import mixing

ODD = dict(image_size=(21, 14), in_channels=2, patch_size=7, hidden_dim=10, num_blocks=3)  # 3 x 2 patches


@pytest.fixture
def image():
    return torch.randn(2, 21, 14, generator=torch.Generator().manual_seed(1))


def entering(model, image):
    """What enters every block, by the model's own forward pass."""
    stages = {}
    model.eval()(image[None], intermediates=stages)
    return [stages[name][0] for name in ["stem", "block_0", "block_1"]]


# --- maps -------------------------------------------------------------------------------------------------------------


def test_a_unit_reads_with_a_row_of_the_first_weights_and_writes_with_a_column_of_the_second(tiny_mixer):
    model = tiny_mixer(**ODD)
    maps = mixing.unit_maps(model)
    assert maps.shape == (3, 2, 5, 6) and maps.dtype == torch.float32 and not maps.requires_grad
    for block, (reads, writes) in zip(model.blocks, maps, strict=True):
        assert torch.equal(reads[4], block.token_mixing.dense_0.weight[4])
        assert torch.equal(writes[4], block.token_mixing.dense_1.weight[:, 4])


def test_the_patch_grid_is_rows_then_columns(tiny_mixer):
    assert mixing.patch_grid(tiny_mixer(**ODD)) == (3, 2)


# --- orders -----------------------------------------------------------------------------------------------------------


def test_the_longest_map_comes_first_and_equal_ones_keep_their_order():
    reads = np.array([[0, 1], [3, 4], [-6, 0], [0, 1]])
    assert mixing.by_norm(reads).tolist() == [2, 1, 0, 3]


def test_frequencies_of_maps_that_are_one_wave_each():
    row, column = np.mgrid[:4, :6]
    constant, stripes, checkerboard = np.ones((4, 6)), (-1.0) ** row, (-1.0) ** (row + column)
    slow, zero = np.cos(2 * np.pi * column / 6), np.zeros((4, 6))
    maps = np.stack([one.ravel() for one in [checkerboard, slow, constant, stripes, zero]])
    assert mixing.frequency(maps, (4, 6)) == pytest.approx([0.5**0.5, 1 / 6, 0, 0.5, 0])
    assert mixing.by_frequency(maps, (4, 6)).tolist() == [2, 4, 1, 3, 0]


def test_of_two_waves_the_stronger_one_counts_more():
    row, column = np.mgrid[:4, :4]
    both = 1 * (-1.0) ** row + 2 * np.cos(np.pi / 2 * column)  # powers 1 at 0.5 and 2**2 / 2 at 0.25
    assert mixing.frequency(both.reshape(1, 16), (4, 4)) == pytest.approx([(1 * 0.5 + 2 * 0.25) / 3])


def test_opposite_maps_are_paired_whatever_their_length():
    reads = np.array([[1, 0, 0], [0, 2, 0.1], [-5, 0, 0], [0, 0, 1], [0, -1, 0]])
    pairs, cosines = mixing.opposite_pairs(reads)
    assert pairs.tolist() == [[0, 2], [1, 4]]  # most opposite first; unit 3 is left out, five being odd
    assert cosines == pytest.approx([-1, -2 / np.hypot(2, 0.1)])
    assert mixing.by_pairs(reads).tolist() == [0, 2, 1, 4, 3]


def test_a_unit_is_in_one_pair_only():
    reads = np.array([[1, 0], [-1, 0], [-1, 0.2], [0.9, 0.1]])  # 0 is opposite to 1, nearly so to 2
    pairs, cosines = mixing.opposite_pairs(reads)
    assert pairs.tolist() == [[0, 1], [2, 3]]
    assert cosines[0] == pytest.approx(-1) and -1 < cosines[1] < -0.9


def test_a_unit_alone_has_no_pair():
    pairs, cosines = mixing.opposite_pairs(np.ones((1, 4)))
    assert pairs.shape == (0, 2) and cosines.shape == (0,)
    assert mixing.by_pairs(np.ones((1, 4))).tolist() == [0]


@pytest.mark.parametrize("order", [mixing.by_norm, lambda maps: mixing.by_frequency(maps, (3, 4)), mixing.by_pairs])
@pytest.mark.parametrize("units", [7, 8])
def test_every_unit_has_one_place_in_an_order(order, units):
    maps = np.random.default_rng(0).normal(size=(units, 12))
    assert sorted(order(maps)) == list(range(units))


# --- structure --------------------------------------------------------------------------------------------------------


def test_morans_i_of_maps_that_can_be_counted_by_hand():
    row, column = np.mgrid[:4, :4]
    checkerboard = (-1.0) ** (row + column)
    halves = np.where(row < 2, 1.0, -1.0)  # of 24 sides 4 lie between the halves: (20 - 4) / 24
    one = (row == 1) & (column == 1)
    maps = np.stack([checkerboard, halves, 5 + 0 * row, one, 7 - 3 * halves]).reshape(5, 16)
    # x is 15/16 once and -1/16 else, its mean square 15/256: 4 sides of -15/256 and 20 of 1/256.
    by_hand = (4 * -15 + 20) / 24 / 15
    assert mixing.morans_i(maps, (4, 4)) == pytest.approx([-1, 16 / 24, 0, by_hand, 16 / 24])
    assert mixing.by_structure(maps, (4, 4)).tolist() == [1, 4, 2, 3, 0]


def test_morans_i_of_weights_drawn_at_random_is_as_its_source_says():
    maps = np.random.default_rng(0).normal(size=(4000, 12))
    assert mixing.morans_i(maps, (3, 4)).mean() == pytest.approx(-1 / 11, abs=0.01)


def test_the_grid_of_the_structure_is_rows_then_columns():
    stripes = np.tile([1.0, -1.0], 6)[None]  # 4 x 3 has them along both, 6 x 2 down the columns
    assert mixing.morans_i(stripes, (4, 3)) == pytest.approx([-1])
    assert mixing.morans_i(stripes, (6, 2)) == pytest.approx([(10 - 6) / 16])


def test_the_share_of_low_frequencies_is_one_for_a_slow_wave_and_zero_for_stripes():
    row, column = np.mgrid[:10, :10]
    slow, stripes = np.cos(2 * np.pi * column / 10), (-1.0) ** row
    maps = np.stack([slow, stripes, slow + stripes, 0 * slow]).reshape(4, 100)
    # A cosine's mean square is 1/2, that of stripes 1.
    assert mixing.low_frequency_share(maps, (10, 10)) == pytest.approx([1, 0, 1 / 3, 0], abs=1e-9)
    assert mixing.low_frequency_share(maps, (10, 10), highest=0.05) == pytest.approx([0, 0, 0, 0], abs=1e-9)


def test_a_map_is_spread_over_as_many_patches_as_have_equal_weights():
    maps = np.array([[0, -3, 0, 0], [2, 2, -2, 0], [0, 0, 0, 0], [1, 0, 0, 2]])
    assert mixing.participation_ratio(maps) == pytest.approx([1, 3, 0, 25 / 17])


def test_pairs_that_read_alike_and_opposite_are_counted_apart():
    reads = np.array([[1, 0], [2, 0.1], [-1, 0], [0, 1], [1, 1]])
    # alike: 0-1, 0-4, 1-4, 3-4; opposite: 0-2, 1-2, 2-4
    assert mixing.alike_and_opposite(reads) == (4, 3)
    assert mixing.alike_and_opposite(reads, least=0.9) == (1, 2)


@pytest.mark.parametrize("name", ["morans_i", "low_frequency_share", "by_structure"])
def test_maps_of_another_grid_are_refused_in_one_sentence(name):
    with pytest.raises(ValueError, match=r"maps is \(2, 12\): for 3 x 5 patches it must be \(N, 15\)"):
        getattr(mixing, name)(np.zeros((2, 12)), (3, 5))


# --- patch on patch ---------------------------------------------------------------------------------------------------


def test_token_mixing_inputs_are_what_the_forward_pass_gives_to_it(tiny_mixer, image):
    model = tiny_mixer(**ODD)
    expected = [block.norm_0(x) for block, x in zip(model.blocks, entering(model, image), strict=True)]
    torch.testing.assert_close(mixing.token_mixing_inputs(model, image), torch.stack(expected))


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
def test_influence_is_what_autograd_finds(tiny_mixer, image, gelu):
    model = tiny_mixer(**ODD, gelu=gelu).double()
    found = mixing.influence(model, image)
    assert found.shape == (3, 6, 6) and found.dtype == torch.float32
    for one, block, x in zip(found, model.blocks, entering(model, image.double()), strict=True):
        jacobian = jacrev(lambda x, block=block: block.token_mixing(block.norm_0(x[None]))[0])(x)  # (S, C, S, C)
        expected = torch.einsum("icjc->ij", jacobian) / 10
        torch.testing.assert_close(one, expected.float(), rtol=1e-5, atol=1e-7)


def test_row_and_column_of_influence_are_not_exchanged(tiny_mixer, image):
    """Patch 4 is moved, and to patch 2 alone something is added."""
    model = tiny_mixer(**ODD)
    mix = model.blocks[0].token_mixing
    with torch.no_grad():
        mix.dense_0.weight[:, torch.arange(6) != 4] = 0
        mix.dense_1.weight[torch.arange(6) != 2] = 0
    assert mixing.influence(model, image)[0].nonzero().tolist() == [[2, 4]]


def test_influence_of_a_model_in_training_mode_skips_no_branch(tiny_mixer, image):
    model = tiny_mixer(**ODD, stochastic_depth=0.9).eval()
    expected = mixing.influence(model, image)
    assert torch.equal(mixing.influence(model.train(), image), expected)
    assert model.training  # and leaves the mode as it was


def test_composed_is_the_product_over_the_blocks_later_ones_on_the_left():
    first, second, third = influences = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    one = torch.eye(4)
    expected = [one + first, (one + second) @ (one + first), (one + third) @ (one + second) @ (one + first)]
    torch.testing.assert_close(mixing.composed(influences), torch.stack(expected))


@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_the_derivative_of_gelu_is_the_limit_of_its_differences(approximate):
    x, step = torch.linspace(-6, 6, 49, dtype=torch.float64), 1e-6
    gelu = torch.nn.GELU(approximate)
    differences = (gelu(x + step) - gelu(x - step)) / (2 * step)
    torch.testing.assert_close(mixing.gelu_derivative(x, approximate), differences, rtol=0, atol=1e-8)
