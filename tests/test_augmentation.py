import pytest
import torch

from mixer_utils.augmentation import AFFINE_NUMBERS, GRID, mixup, random_affine, random_erase, random_flip, random_shift


@pytest.fixture
def noise():
    """A function: random images with no black pixel, always the same."""

    def build(batch=20, channels=3, height=28, width=28):
        generator = torch.Generator().manual_seed(0)
        return torch.randint(1, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator)

    return build


def drawn(batch, columns, seed=0):
    return torch.rand(batch, columns, generator=torch.Generator().manual_seed(seed))


def affine_numbers(batch=1, **columns):
    """Numbers that change nothing (one half), but for the given columns: ``affine_numbers(angle=1.0)``."""
    names = ["angle", "wide", "high", "slant", "right", "down"]
    numbers = torch.full((batch, AFFINE_NUMBERS), 0.5)
    for name, number in columns.items():
        numbers[:, names.index(name) if name in names else slice(6, None)] = number
    return numbers


def shifted(image, down, right):
    """One image (C, H, W) moved by whole pixels, with zeros behind it, pixel by pixel."""
    _, height, width = image.shape
    moved = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                moved[:, y, x] = image[:, y - down, x - right]
    return moved


def assert_same_up_to_rounding(images, expected):
    assert images.dtype == expected.dtype
    torch.testing.assert_close(images.int(), expected.int(), rtol=0, atol=1)


# --- random shifts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2])
def test_every_image_is_moved_as_a_whole_by_at_most_that_many_pixels_with_zeros_behind(most, noise):
    images = noise(150, 3, 5, 7)
    moved = random_shift(images, most, drawn(150, 2))
    assert (moved.shape, moved.dtype) == (images.shape, images.dtype)
    possible = [(down, right) for down in range(-most, most + 1) for right in range(-most, most + 1)]
    seen = []
    for before, after in zip(images, moved, strict=True):
        matching = [by for by in possible if torch.equal(after, shifted(before, *by))]
        assert len(matching) == 1
        seen += matching
    assert set(seen) == set(possible)  # and every way of moving does occur


def test_a_shift_by_at_most_nothing_changes_nothing(noise):
    assert torch.equal(random_shift(noise(), 0), noise())


def test_the_numbers_of_a_shift_are_shares_of_its_range(noise):
    (image,) = noise(1)
    for numbers, by in {(0.0, 0.0): (2, 2), (0.5, 0.5): (0, 0), (0.999, 0.5): (-2, 0), (0.39, 0.61): (1, -1)}.items():
        assert torch.equal(random_shift(image[None], 2, torch.tensor([numbers]))[0], shifted(image, *by))


def test_shifts_without_numbers_follow_torchs_seed(noise):
    def shifts(seed):
        torch.manual_seed(seed)
        return random_shift(noise(), 2)

    assert torch.equal(shifts(1), shifts(1)) and not torch.equal(shifts(1), shifts(2))


# --- turning, stretching, slanting, moving, bending --------------------------------------------------------

EVERYTHING = dict(rotation=20, scale=0.2, shear=0.2, translation=3, elastic=2)


@pytest.mark.parametrize("height, width", [(28, 28), (5, 7), (224, 224)])
def test_an_image_changed_by_at_most_nothing_is_the_same(height, width, noise):
    images = noise(2, 3, height, width)
    assert torch.equal(random_affine(images, numbers=drawn(2, AFFINE_NUMBERS)), images)


def test_numbers_of_one_half_change_nothing_however_much_may_be_changed(noise):
    assert torch.equal(random_affine(noise(), **EVERYTHING, numbers=affine_numbers(20)), noise())


def test_a_turn_goes_from_clockwise_to_counter_clockwise(noise):
    images = noise()
    for number, quarters in [(1.0, 1), (0.0, -1)]:  # torch.rot90 counts counter-clockwise
        turned = random_affine(images, rotation=90, numbers=affine_numbers(20, angle=number))
        assert_same_up_to_rounding(turned, images.rot90(quarters, (2, 3)))


def test_an_oblong_image_is_turned_without_being_squeezed():
    image = torch.zeros(1, 1, 9, 21, dtype=torch.uint8)
    image[..., 4, 8:13] = 200  # a line of five pixels through the middle
    turned = random_affine(image, rotation=90, numbers=affine_numbers(angle=1.0))
    expected = torch.zeros_like(image)
    expected[..., 2:7, 10] = 200
    assert_same_up_to_rounding(turned, expected)


@pytest.mark.parametrize("pixels", [1, 3])
def test_a_move_by_whole_pixels_is_a_shift_with_zeros_behind(pixels, noise):
    (image,) = noise(1, 3, 9, 13)
    for columns, (down, right) in [
        (dict(right=1.0), (0, -1)),
        (dict(right=0.0), (0, 1)),
        (dict(down=1.0), (-1, 0)),
        (dict(down=0.0), (1, 0)),
        (dict(down=0.0, right=1.0), (1, -1)),
    ]:
        moved = random_affine(image[None], translation=pixels, numbers=affine_numbers(**columns))
        assert_same_up_to_rounding(moved[0], shifted(image, pixels * down, pixels * right))


def test_a_stretch_goes_from_larger_to_smaller_in_each_direction_by_itself():
    square = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    square[..., 8:24, 8:24] = 255

    def size(**columns):
        (image,) = random_affine(square, scale=0.5, numbers=affine_numbers(**columns))[0]
        return (image[:, 16] > 127).sum().item(), (image[16] > 127).sum().item()  # height, width

    assert size() == (16, 16)
    assert size(wide=0.0) == (16, 32) and size(high=0.0) == (32, 16)  # half as much is taken in
    assert size(wide=1.0) == (16, 10) and size(high=1.0) == (10, 16)  # 1.5 times as much: 16 / 1.5 is 10.7


def test_a_slant_moves_each_row_in_proportion_to_its_height_over_the_middle():
    upright = torch.zeros(1, 1, 21, 31, dtype=torch.uint8)
    upright[..., 15] = 255
    slanted = random_affine(upright, shear=0.5, numbers=affine_numbers(slant=1.0))[0, 0]
    columns = torch.arange(31.0)
    centres = (slanted * columns).sum(1) / slanted.sum(1)
    torch.testing.assert_close(centres, 15 - 0.5 * (torch.arange(21) - 10), rtol=0, atol=0.01)


def displacements(elastic, numbers):
    """How many pixels to the right (first) and down (second) the pixels well inside an image are fetched from."""
    ramp = (torch.arange(28) * 9).to(torch.uint8).expand(len(numbers), 1, 28, 28)  # 9 steps of brightness a pixel
    images = torch.stack([ramp, ramp.mT], 1)[:, :, 0]
    bent = random_affine(images, elastic=elastic, numbers=numbers)
    return ((bent.float() - images.float()) / 9)[..., 6:22, 6:22]


def test_a_grid_that_moves_as_one_moves_the_image_by_that_many_pixels():
    moved = displacements(3, affine_numbers(grid=1.0))
    torch.testing.assert_close(moved, torch.full_like(moved, 3.0), rtol=0, atol=0.06)


def test_a_bent_image_is_moved_by_about_the_stated_pixels_at_most_and_differently_from_place_to_place():
    moved = displacements(2, drawn(100, AFFINE_NUMBERS))
    assert 1.5 < moved.abs().max() < 2.6
    assert moved.flatten(2).std(2).min() > 0.1
    assert moved.diff(dim=-1).abs().max() < 1  # smoothly: neighbours stay in order


def test_each_point_of_the_grid_bends_its_own_part_of_the_image():
    numbers = affine_numbers()
    numbers[0, 6 + (GRID // 2) * GRID + GRID // 2] = 1.0  # the middle, to the right
    ramp = (torch.arange(29) * 8).to(torch.uint8).expand(1, 1, 29, 29)
    moved = random_affine(ramp, elastic=2, numbers=numbers)[0, 0].int() - ramp[0, 0].int()
    assert moved[14, 14] == 16
    assert 0 < moved[14, 10] < 16  # halfway to the next point, at 7, which stays where it is
    assert (moved[:3, :3] == 0).all() and (moved[[7, 14, 21, 14], [14, 7, 14, 21]] == 0).all()


def test_the_same_numbers_make_the_same_images_in_any_batch(noise):
    images, numbers = noise(), drawn(20, AFFINE_NUMBERS)
    whole = random_affine(images, **EVERYTHING, numbers=numbers)
    assert (whole.dtype, whole.shape) == (torch.uint8, images.shape)
    parts = [random_affine(images[part], **EVERYTHING, numbers=numbers[part]) for part in (slice(7), slice(7, None))]
    assert torch.equal(torch.cat(parts), whole)
    other = random_affine(images, **EVERYTHING, numbers=drawn(20, AFFINE_NUMBERS, seed=1))
    assert (other != whole).flatten(1).any(1).all()


def test_changes_without_numbers_follow_torchs_seed(noise):
    def changed(seed):
        torch.manual_seed(seed)
        return random_affine(noise(), **EVERYTHING)

    assert torch.equal(changed(1), changed(1)) and not torch.equal(changed(1), changed(2))


# --- mixup -------------------------------------------------------------------------------------------------


def test_an_image_is_mirrored_where_its_number_is_below_the_chance(noise):
    images = noise(4)
    flipped = random_flip(images, 0.5, torch.tensor([[0.0], [0.49], [0.5], [0.99]]))
    assert torch.equal(flipped[:2], images[:2].flip(-1)) and torch.equal(flipped[2:], images[2:])
    assert torch.equal(random_flip(images, 0.0), images)
    assert torch.equal(random_flip(images, 1.0), images.flip(-1))


def test_a_square_is_erased_around_its_centre_and_may_stand_over_the_edge(noise):
    images = noise(3, height=12, width=20)
    erased = random_erase(images, 4, torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.999, 0.999]]))
    expected = images.clone()
    expected[0, :, 4:8, 8:12] = 0
    expected[1, :, :2, :2] = 0
    expected[2, :, 9:, 17:] = 0
    assert torch.equal(erased, expected)
    assert torch.equal(random_erase(images, 0), images)


def test_every_pixel_is_erased_as_often_away_from_the_edges(noise):
    share = (random_erase(noise(4000, 1), 8, drawn(4000, 2)) == 0).float().mean(0)[0]
    assert (share[4:-4, 4:-4] - 64 / 28**2).abs().max() < 0.025  # four standard errors and a half
    assert share[0, 0] < 0.5 * 64 / 28**2


def test_mixup_blends_each_image_with_the_next_one_and_the_labels_by_the_same_share():
    images, labels = torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 2, 3, 4])
    blended, shares = mixup(images, labels, num_classes=7, alpha=0.5, seed=3)
    assert (shares.shape, shares.dtype) == ((5, 7), torch.float32)
    torch.testing.assert_close(shares.sum(1), torch.ones(5))
    share = shares[0, 0].item()
    assert 0 < share < 1
    for i in range(5):
        after = (i + 1) % 5  # the last one with the first
        assert (shares[i, i].item(), shares[i, after].item()) == pytest.approx((share, 1 - share))
        torch.testing.assert_close(blended[i], share * images[i] + (1 - share) * images[after])


def test_two_neighbours_of_one_class_stay_wholly_in_it():
    _, shares = mixup(torch.rand(2, 1, 2, 2), torch.tensor([1, 1]), num_classes=3, alpha=1.0, seed=0)
    torch.testing.assert_close(shares, torch.tensor([[0.0, 1.0, 0.0]]).expand(2, 3))


def test_mixup_with_alpha_zero_changes_nothing():
    images, labels = torch.rand(3, 1, 2, 2), torch.tensor([2, 0, 1])
    blended, shares = mixup(images, labels, num_classes=3, alpha=0, seed=0)
    assert torch.equal(blended, images)
    assert shares.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 8.0])
def test_the_shares_of_many_batches_are_spread_as_beta_says(alpha):
    images, labels = torch.zeros(2, 1, 1, 1), torch.tensor([0, 1])
    shares = torch.stack([mixup(images, labels, 2, alpha, seed)[1][0, 0] for seed in range(2000)])
    expected = torch.distributions.Beta(alpha, alpha)
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(expected.variance.item(), rel=0.1)


def test_mixup_follows_its_seed_and_leaves_torchs_random_numbers_alone():
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    before = torch.get_rng_state()
    first, again, other = (mixup(images, labels, 2, 0.5, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
