"""View 6 in a browser: a Mixer is trained in it, and what is shown is what was learnt."""

import numpy as np
import pytest
from check_learn import (
    button,
    expect_answers,
    expect_maps,
    maps_shown,
    part,
    step,
    train_to_the_end,
    trained,
    wait_for_step,
)
from helpers import FRAMES, screenshot, show_view, wait_until

from mixer_utils.widgets import learn, train_in_browser
from mixer_utils.widgets.front_end import joined


@pytest.fixture
def view(few_digits, monkeypatch):
    """A run of a second or two."""
    monkeypatch.setattr(learn, "SETTINGS", {**learn.SETTINGS, "steps": 40})
    return train_in_browser(few_digits)


@pytest.fixture
def long(few_digits, monkeypatch):
    """A run that is still going on when it is looked at."""
    monkeypatch.setattr(learn, "SETTINGS", {**learn.SETTINGS, "steps": 100_000})
    return train_in_browser(few_digits)


def test_it_trains_to_the_end_and_shows_what_was_learnt(opened, view):
    page, root = opened(view)
    wait_for_step(root, 0)
    assert trained(root) is None and part(root, "share").inner_text() == "–"
    assert root.locator(".mixer-readout").inner_text().startswith("The weights are random so far: press Train")
    assert not root.locator(".mixer-answers").first.is_visible()
    before = maps_shown(root, view, 7)
    train_to_the_end(root)
    images = view.data["train"]["labels"]["shape"][0]
    assert part(root, "pace").inner_text().endswith(" images a second · on one core of the processor")
    assert step(root) == 40 and f"epoch {40 // (images // 25)} " in part(root, "pace").inner_text()
    expect_maps(root, view, 7, 0)
    expect_answers(root, view)
    assert float(part(root, "share").inner_text().split()[0]) > 20  # chance is 10
    assert root.locator(".mixer-readout").inner_text().startswith("Trained: ")
    after = maps_shown(root, view, 7)
    assert (after != before).mean() > 0.5

    # The switch shows the maps of the start in the same places; the block is that of the slider.
    root.locator("[data-trait=before]").check()
    page.evaluate(FRAMES)
    assert "before training" in part(root, "maps").get_attribute("aria-label")
    shown = maps_shown(root, view, 7)
    assert (shown != after).mean() > 0.5
    root.locator("[data-trait=before]").uncheck()
    root.locator("[data-trait=block]").press("End")
    page.evaluate(FRAMES)
    expect_maps(root, view, 7, 1)

    # The same seed gives the same weights; another seed others. A new run forgets what was learnt.
    first = trained(root)[0].state_dict()
    train_to_the_end(root)  # anew
    again = trained(root)[0].state_dict()
    assert all((first[name] == again[name]).all() for name in first)
    root.locator("[data-trait=seed]").fill("3")
    root.locator("[data-trait=seed]").press("Enter")
    wait_until(page, lambda: step(root) == 0)
    assert trained(root) is None and not root.locator(".mixer-answers").first.is_visible()
    root.locator("[data-trait=patch_size]").select_option("4")
    train_to_the_end(root)
    expect_maps(root, view, 4, 1)
    expect_answers(root, view)
    assert trained(root)[0].config["patch_size"] == 4
    screenshot(root, "view-learn")


def test_a_pause_stops_the_steps_and_leaves_the_run_as_it_would_have_been(opened, view):
    page, root = opened(view)
    train_to_the_end(root)
    whole = trained(root)[0].state_dict()
    button(root, "again").click()
    wait_until(page, lambda: 0 < step(root) < 40)  # not the last run's 40 any longer
    button(root, "train").click()
    assert "Go on" in button(root, "train").inner_text()
    page.wait_for_timeout(300)
    paused = step(root)
    assert 0 < paused < 40 and root.locator(".mixer-readout").inner_text().startswith("Paused: ")
    page.wait_for_timeout(700)
    assert step(root) == paused
    train_to_the_end(root)
    assert all((tensor == whole[name]).all() for name, tensor in trained(root)[0].state_dict().items())


def test_another_patch_size_or_rate_begins_a_new_run_that_goes_on_if_one_was(opened, long):
    page, root = opened(long)
    button(root, "train").click()
    wait_for_step(root, 3)
    root.locator("[data-trait=patch_size]").select_option("4")
    wait_until(page, lambda: trained(root) is not None and trained(root)[0].config["patch_size"] == 4)
    assert "Pause" in button(root, "train").inner_text()
    button(root, "train").click()
    root.locator("[data-trait=learning_rate]").select_option("0.001")
    wait_until(page, lambda: step(root) == 0)
    assert "Train" in button(root, "train").inner_text()
    assert len(page.workers) == 1  # one for all runs


# Shows a view a second time, as anywidget would, and keeps what ends it.
RENDER = """async (script) => {
  const state = [...(await window.mixerViews).values()][0];
  const module = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  const place = document.createElement("div");
  place.id = "second";
  document.body.append(place);
  window.end = module.default.render({ model: state, el: place });
}"""


def test_the_worker_ends_when_the_view_is_closed(opened, long):
    page, _ = opened(long)
    page.evaluate(RENDER, joined("index"))
    second = page.locator("#second .mixer-view")
    button(second, "train").click()
    wait_for_step(second, 1)
    assert len(page.workers) == 2
    page.evaluate("window.end()")
    wait_until(page, lambda: len(page.workers) == 1)


def test_a_view_that_is_taken_off_the_page_pauses_and_goes_on_when_it_is_back(opened, long):
    page, root = opened(long)
    button(root, "train").click()
    wait_for_step(root, 1)
    page.evaluate(
        "window.root = document.querySelector('.mixer-view'); window.place = root.parentElement; root.remove()"
    )
    text = "window.root.querySelector('[data-control=train]').textContent"
    wait_until(page, lambda: "Go on" in page.evaluate(text))
    page.evaluate("window.place.append(window.root)")
    page.wait_for_timeout(300)
    paused = step(root)
    page.wait_for_timeout(500)
    assert step(root) == paused
    button(root, "train").click()
    wait_for_step(root, paused + 1)


def test_the_accuracy_is_spoken_at_most_every_five_seconds(opened, long):
    page, root = opened(long)
    wait_for_step(root, 0)  # what stands there at first is no news
    root.locator(".mixer-readout").evaluate(
        """(readout) => {
          window.spoken = [];
          new MutationObserver(() => window.spoken.push([performance.now(), readout.textContent])).observe(
            readout, { childList: true, characterData: true, subtree: true });
        }"""
    )
    assert root.locator(".mixer-readout").get_attribute("role") == "status"
    button(root, "train").click()
    wait_until(page, lambda: len(page.evaluate("window.spoken")) >= 2)
    times, sentences = zip(*page.evaluate("window.spoken"), strict=True)
    assert np.diff(times).min() > 4900
    assert all(sentence.startswith("Training: ") and "held-out images are called rightly" in sentence
               for sentence in sentences)  # fmt: skip


def test_it_works_by_keyboard_and_its_controls_have_names(opened, view):
    page, root = opened(view)
    for name in ["▶ Train", "Start again"]:
        assert page.get_by_role("button", name=name, exact=True).count() == 1
    for role, name in [("combobox", "Patches"), ("combobox", "Learning rate"), ("spinbutton", "Seed"),
                       ("slider", "Block"), ("checkbox", "before training")]:  # fmt: skip
        assert page.get_by_role(role, name=name).count() == 1, name
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("Object.values(document.activeElement.dataset).filter((v) => v !== 'true')[0]"))
    assert reached == ["train", "again", "patch_size", "learning_rate", "seed", "block", "before"]
    button(root, "train").press("Space")
    wait_for_step(root, 40)
    for name in ["maps", "accuracy", "losses"]:
        canvas = part(root, name)
        assert canvas.get_attribute("role") == "img" and "step 40" in canvas.get_attribute("aria-label"), name


def test_on_a_phone_and_in_the_dark_nothing_is_wider_than_the_page(opened, view):
    page, root = opened(view, viewport={"width": 360, "height": 740}, color_scheme="dark")
    train_to_the_end(root)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.outside == []
    screenshot(root, "view-learn-phone")


def test_where_the_training_cannot_be_run_a_sentence_says_so(browser, few_digits, monkeypatch, tmp_path):
    source = joined("trainer_worker")
    broken = source.replace("  loadNext() {", "  loadNext() { throw new Error('on purpose');")
    monkeypatch.setattr(learn, "joined", lambda entry: broken)
    page = browser.new_page()  # one whose errors nobody watches
    root = show_view(page, train_in_browser(few_digits), tmp_path)
    button(root, "train").click()
    wait_until(page, lambda: root.locator(".mixer-readout").inner_text().startswith("The training could not be run"))
    assert broken != source and "Train" in button(root, "train").inner_text()
    page.close()


def test_a_seed_that_is_none_is_not_taken(opened, view):
    page, root = opened(view)
    for text in ["-1", "", "1.5"]:
        root.locator("[data-trait=seed]").fill(text)
        root.locator("[data-trait=seed]").press("Tab")
        assert root.locator("[data-trait=seed]").input_value() == "0"
