"""Colours that colour-blind readers can tell apart, and colour maps whose lightness alone says what the colour says."""

import itertools
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mixer_utils.plotting import COLOURS, COUNTED, SIGNED
from mixer_utils.widgets.base import signed_colours

ROOT = Path(__file__).parent.parent
# What readers without one kind of cone see, in linear RGB: Machado, Oliveira and Fernandes 2009, severity 1,
# https://doi.org/10.1109/TVCG.2009.113
SEEN_BY = {
    name: np.reshape([float(number) for number in numbers.split()], (3, 3))
    for name, numbers in {
        "all cones": "1 0 0 0 1 0 0 0 1",
        "protanopia": "0.152286 1.052583 -0.204868 0.114503 0.786281 0.099216 -0.003882 -0.048116 1.051998",
        "deuteranopia": "0.367322 0.860646 -0.227968 0.280085 0.672501 0.047413 -0.011820 0.042940 0.968881",
        "tritanopia": "1.255528 -0.076749 -0.178779 -0.078411 0.930809 0.147602 0.004733 0.691367 0.303900",
    }.items()
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(rgb, cones=SEEN_BY["all cones"]):
    """CIE L*a*b* of sRGB colours (n, 3) as seen with these cones; 2.3 is the least difference that is noticed."""
    rgb = np.asarray(rgb, dtype=float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ cones.T, 0, 1) @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def test_white_grey_and_black_have_the_lightness_they_should():
    assert lab([[1, 1, 1], [0, 0, 0], [0.5, 0.5, 0.5]])[:, 0] == pytest.approx([100, 0, 53.4], abs=0.1)
    for cones in SEEN_BY.values():  # greys look the same to all
        assert lab([[0.5, 0.5, 0.5]], cones) == pytest.approx(lab([[0.5, 0.5, 0.5]]), abs=0.5)


@pytest.mark.parametrize("reader", SEEN_BY)
def test_every_reader_can_tell_any_two_of_our_colours_apart(reader):
    seen = lab([to_rgb(colour) for colour in COLOURS], SEEN_BY[reader])
    for one, other in itertools.combinations(range(len(COLOURS)), 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 15, (COLOURS[one], COLOURS[other])


@pytest.mark.parametrize("reader", SEEN_BY)
def test_in_maps_of_weights_the_size_is_the_lightness_and_the_sign_is_seen_by_every_reader(reader):
    seen = lab(matplotlib.colormaps[SIGNED](np.linspace(0, 1, 101))[:, :3], SEEN_BY[reader])
    lightness = seen[:, 0]
    assert lightness[50] > 95 and (np.diff(lightness[5:51]) > 0).all() and (np.diff(lightness[50:96]) < 0).all()
    for distance in (15, 25, 50):  # from the middle
        assert np.linalg.norm(seen[50 - distance] - seen[50 + distance]) > 20


@pytest.mark.parametrize("reader", SEEN_BY)
def test_in_the_dark_the_size_is_the_lightness_and_the_sign_is_seen_by_every_reader(reader):
    seen = lab(signed_colours(dark=True) / 255, SEEN_BY[reader])
    below, above = seen[127::-1], seen[128:]  # from the middle outwards
    for side in (below, above):
        assert side[0, 0] < 17 and side[-1, 0] > 77
        assert (side[4:, 0] > side[:-4, 0]).all()
    for distance in (38, 64, 127):
        assert np.linalg.norm(below[distance] - above[distance]) > 35
    assert np.abs(below[:, 0] - above[:, 0]).max() < 12  # a value and its opposite are about as light


def test_in_the_dark_equal_steps_of_a_value_look_equally_large():
    seen = lab(signed_colours(dark=True) / 255)
    steps = np.linalg.norm(seen[16:] - seen[:-16], axis=1)
    across = np.abs(np.arange(len(steps)) - 120) < 12  # over the middle, where the colour turns
    assert steps[~across].max() < 1.25 * steps[~across].min()
    assert steps.min() > 8


def test_in_the_dark_the_order_is_that_of_the_figures_blue_below_zero_and_red_above():
    for dark in (False, True):
        red, _, blue = signed_colours(dark).astype(int).T
        assert (blue[:100] > red[:100] + 10).all() and (red[156:] > blue[156:] + 10).all()
    assert np.ptp(signed_colours(dark=True)[127:129], axis=1).max() < 12  # zero is grey, near the paper
    assert signed_colours(dark=True)[127:129].max() < 50


@pytest.mark.parametrize("reader", SEEN_BY)
def test_in_maps_of_counts_more_is_darker_for_every_reader(reader):
    lightness = lab(matplotlib.colormaps[COUNTED](np.linspace(0, 1, 101))[:, :3], SEEN_BY[reader])[:, 0]
    assert (np.diff(lightness) < 0).all()


def test_no_other_colour_map_and_no_named_colour_is_used():
    sources = [*ROOT.glob("mixer_utils/*.py"), *ROOT.glob("figures/*.py"), *ROOT.glob("notebooks/*.ipynb")]
    for path in sources:
        text = path.read_text(encoding="utf-8")
        maps = set(re.findall(r"cmap=\\?[\"']?([\w.]+)", text))
        assert maps <= {"SIGNED", "COUNTED", "gray", "Greys", "cmap", "plotting.SIGNED", "plotting.COUNTED"}, (
            f"{path.name}: {maps}"
        )
        assert not re.search(r"\b(color|c|facecolor)=\\?[\"'](red|green|blue|C\d|tab:\w+)", text), path.name
