"""View 6 with a GPU: the training runs there, and where the GPU fails it goes on without.

No GPU is needed: Chromium's software, SwiftShader, plays one, which the view takes in these tests only.
"""

import pytest
from check_learn import expect_answers, expect_maps, part, step, train_to_the_end, wait_for_step
from helpers import GPU_FLAGS, wait_until

from mixer_utils.widgets import learn, train_in_browser
from mixer_utils.widgets.front_end import joined

FAILED = " · on one core of the processor, as the GPU failed"


@pytest.fixture(scope="module")
def browser_flags():
    return GPU_FLAGS


@pytest.fixture
def software(gpu_page, monkeypatch):
    """A function: the settings of views to come, which take SwiftShader for a GPU."""
    return lambda **settings: monkeypatch.setattr(
        learn, "SETTINGS", {**learn.SETTINGS, "software_gpu": True, **settings}
    )


def pace(root):
    return part(root, "pace").inner_text()


def test_it_trains_on_the_gpu_and_shows_what_was_learnt(opened, software, few_digits):
    software(steps=40)
    view = train_in_browser(few_digits)
    page, root = opened(view)
    train_to_the_end(root)
    assert step(root) == 40 and pace(root).endswith(" images a second · on the GPU")
    expect_maps(root, view, 7, 0)
    expect_answers(root, view)
    assert float(part(root, "share").inner_text().split()[0]) > 20  # chance is 10


def test_two_pixels_make_maps_of_the_paper_s_grid(opened, software, few_digits):
    software(steps=3)
    view = train_in_browser(few_digits)
    page, root = opened(view)
    root.locator("[data-trait=patch_size]").select_option("2")
    assert root.locator("option:checked").first.inner_text() == ("2 × 2 pixels (14 × 14 patches, slow without a GPU)")
    train_to_the_end(root)
    assert pace(root).endswith(" · on the GPU")
    expect_maps(root, view, 2, 0)
    expect_answers(root, view)


def test_software_that_plays_a_gpu_is_not_taken_for_one(opened, gpu_page, few_digits):
    page, root = opened(train_in_browser(few_digits))
    root.locator("[data-control=train]").click()
    wait_for_step(root, 1)
    assert pace(root).endswith(" · on one core of the processor")


def test_a_run_whose_gpu_is_lost_goes_on_without(opened, software, few_digits):
    software(steps=100_000)
    page, root = opened(train_in_browser(few_digits))
    root.locator("[data-control=train]").click()
    wait_for_step(root, 30)
    assert pace(root).endswith(" · on the GPU")
    page.workers[0].evaluate("gpu.device.destroy()")
    wait_until(page, lambda: pace(root).endswith(FAILED))
    reached = step(root)
    assert reached >= 30
    wait_for_step(root, reached + 30)
    root.locator("[data-control=again]").click()  # a new run asks anew
    wait_until(page, lambda: pace(root).endswith(" · on the GPU"))


@pytest.mark.parametrize("wrong", ["var along = none;", "var along = 0.1;"], ids=["is refused", "counts wrongly"])
def test_a_kernel_that_fails_leaves_the_training_to_the_processor(wrong, opened, software, few_digits, monkeypatch):
    software(steps=3)
    source = joined("trainer_worker")
    assert source.count("var along = 0.0;") == 1
    monkeypatch.setattr(learn, "joined", lambda entry: source.replace("var along = 0.0;", wrong))
    view = train_in_browser(few_digits)
    page, root = opened(view)
    train_to_the_end(root)
    assert step(root) == 3 and pace(root).endswith(FAILED)
    expect_answers(root, view)
