"""What tools/measure.py decides by itself: how many learning rates are enough."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from measure import bracketed


@pytest.mark.parametrize("best, expected", [
    (8, [4, 8, 16]), (4, [2, 4, 8, 16]), (1, [0.5, 1, 2, 4, 8, 16]), (64, [4, 8, 16, 32, 64, 128]),
])  # fmt: skip
def test_rates_go_on_until_the_best_has_a_worse_one_on_either_side(best, expected):
    asked = []

    def measure(rate):
        asked.append(rate)
        return -abs(math.log2(rate / best))

    tried = bracketed(measure, [4, 8, 16])
    assert list(tried) == expected
    assert max(tried, key=tried.get) == best
    assert sorted(asked) == expected  # each was measured once


def test_between_equals_the_higher_rate_is_followed():
    assert list(bracketed(lambda rate: min(rate, 16) - max(rate, 32), [4, 8, 16])) == [4, 8, 16, 32, 64]
