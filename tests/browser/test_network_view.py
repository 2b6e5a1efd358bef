"""The picture of the network in a browser: every stage shows the model's numbers, opens, follows pointer, keys and
pen.
"""

import json

import numpy as np
import pytest
import torch
from check_network import check_network, expect_shown, numbers, settle, stage_button, state
from helpers import FRAMES, latency, screenshot, show_view
from PIL import Image, ImageDraw

from mixer_utils import load_pretrained
from mixer_utils.widgets import base, explore


@pytest.fixture
def opened(page, tmp_path):
    """A function: the view on a page of its own, and its element."""

    def open_(view, page=page):
        show_view(page, view, tmp_path)
        return page.locator(".mixer-network")

    return open_


def grey(count=2, side=28):
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_every_stage_shows_the_numbers_of_the_model_and_every_control_does_what_it_says(page, opened, tiny_mixer):
    model = tiny_mixer(patch_size=7)
    check_network(page, opened(explore(model, grey())), explore(model, grey()))


def test_so_does_a_model_of_oblong_images_in_colour_with_twelve_classes(page, opened, tiny_mixer):
    model = tiny_mixer(image_size=(12, 20), in_channels=3, patch_size=4, num_classes=12, num_blocks=1)
    images = torch.randint(0, 256, (2, 3, 12, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    check_network(page, opened(explore(model, images)), explore(model, images))


def test_all_stages_of_the_shipped_model_are_pytorch_s(page, opened):
    model = load_pretrained("mnist")
    view = explore(model)
    root = opened(view)
    for start in (3, 31):
        root.locator("[data-trait=start]").select_option(str(start))
        view.start = start
        expect_shown(root, view)
    root.locator("canvas[data-map='token mixing 2']").click()
    view.stage, view.block, view.patch = "token mixing", 2, state(page, "patch")
    expect_shown(root, view)
    screenshot(root, "network")
    latency(root.locator("[data-trait=start]"), ["ArrowDown", "ArrowUp"], root.locator("canvas[data-map=image]"),
            "network: another digit")  # fmt: skip


def test_arrow_keys_go_from_stage_to_stage_and_enter_opens_one(page, opened, tiny_mixer):
    root = opened(explore(tiny_mixer(), grey()))
    mixings = [f"{kind} mixing of block {block}" for block in (0, 1) for kind in ("Token", "Channel")]
    opening = ["Image, opens a board to draw on", "Patches, opens them enlarged"]
    opening += [f"{name}, opens its arithmetic" for name in ("Stem", *mixings, "Mean", "Head")]
    buttons = root.get_by_role("button", name=", opens ")
    assert buttons.evaluate_all("(all) => all.map((one) => one.ariaLabel)") == opening
    assert buttons.evaluate_all("(all) => all.filter((one) => one.tabIndex === 0).length") == 1
    focused = "document.activeElement.ariaLabel"
    buttons.first.focus()
    for name in opening[1:]:
        page.keyboard.press("ArrowRight")
        assert page.evaluate(focused) == name
    page.keyboard.press("ArrowRight")  # the end
    assert page.evaluate(focused) == "Head, opens its arithmetic"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    settle(root)
    assert (state(page, "stage"), state(page, "block")) == ("channel mixing", 1)
    assert root.locator(".mixer-pane h3").inner_text() == "Channel mixing of block 1"
    page.keyboard.press("Escape")
    settle(root)
    assert state(page, "stage") == "" and page.evaluate(focused) == "Channel mixing of block 1, opens its arithmetic"
    page.keyboard.press("Home")
    assert page.evaluate(focused) == opening[0]


def test_the_image_is_drawn_on_by_keys(page, opened, tiny_mixer):
    view = explore(tiny_mixer(), grey())
    root = opened(view)
    root.locator("[data-do=clear]").click()
    stage_button(root, "image", None).press("Enter")
    board = root.locator(".mixer-pane canvas")
    for key in ["Shift+ArrowUp"] * 3 + ["Shift+ArrowLeft"] * 3 + ["Space"] + ["ArrowRight"] * 9 + ["Space", "h"]:
        board.press(key)
    settle(root)
    image = np.array(state(page, "pixels")).reshape(28, 28)
    assert (image[0, :9] == 255).all() and image[0, 12] == 0 and image[4:].max() == 0
    view.pixels, view.hidden, view.stage = image.astype(np.uint8).tobytes(), [0], "image"
    view.start = -1
    assert state(page, "hidden") == [0]
    expect_shown(root, view)


def test_a_picture_of_one_s_own_goes_through_the_network(page, opened, tiny_mixer, tmp_path):
    paper = Image.new("L", (200, 200), 235)
    ImageDraw.Draw(paper).line([(70, 40), (120, 160)], fill=30, width=14)
    paper.save(tmp_path / "one.png")
    view = explore(tiny_mixer(), grey())
    root = opened(view)
    stage_button(root, "image", None).click()
    root.locator("input[type=file]").set_input_files(tmp_path / "one.png")
    said = root.locator(".mixer-photo-said").filter(has_text="%")
    said.wait_for()
    settle(root)
    view.stage = "image"
    view.pixels = bytes(state(page, "pixels"))
    assert 150 < max(view.pixels) and sum(map(bool, view.pixels)) < 200
    expect_shown(root, view)
    best = int(np.argmax(view.probabilities))
    assert said.inner_text().startswith(f"one.png: {best} ({100 * view.probabilities[best]:.1f} %)")


def test_another_digit_runs_through_the_network_and_with_calm_it_is_there_at_once(new_page, opened, tiny_mixer):
    view = explore(tiny_mixer(), grey())
    for calm in (False, True):
        page = new_page(reduced_motion="reduce" if calm else "no-preference")
        root = opened(view, page)
        running = root.evaluate("""(root) => new Promise((done) => {
          const flow = root.querySelector(".mixer-flow");
          const seen = new MutationObserver(() => { if (flow.dataset.running === "true") done(true); });
          seen.observe(flow, { attributes: true });
          const select = root.querySelector("[data-trait=start]");
          select.value = "1";
          select.dispatchEvent(new Event("change"));
          setTimeout(() => done(false), 400);
        })""")
        assert running is not calm
        settle(root)
        other = explore(tiny_mixer(), grey())
        other.start = 1
        expect_shown(root, other)


def test_twenty_four_blocks_stand_in_rows_and_each_opens(page, opened, tiny_mixer):
    root = opened(explore(tiny_mixer(num_blocks=24), grey()))
    tops = root.locator(".mixer-at-block").evaluate_all("(all) => all.map((one) => one.offsetTop)")
    assert len(tops) == 24 and 1 < len(set(tops)) < 12
    stage_button(root, "channel mixing", 23).click()
    settle(root)
    assert state(page, "block") == 23
    pane, block = root.locator(".mixer-pane").bounding_box(), root.locator(".mixer-at-block").last.bounding_box()
    assert pane["y"] >= block["y"] + block["height"]  # below its row


def test_on_a_phone_nothing_is_wider_than_the_page(new_page, opened, tiny_mixer):
    page = new_page(viewport={"width": 360, "height": 740})
    root = opened(explore(tiny_mixer(patch_size=2, hidden_dim=64, channels_mlp_dim=256), grey()), page)
    for stage in ("image", "patches", "stem", "token mixing", "channel mixing", "mean", "head"):
        button = stage_button(root, stage, 1 if "mixing" in stage else None)
        button.click()
        settle(root)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, stage
        box = root.locator(".mixer-pane").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360


def test_a_model_that_python_computes_keeps_what_it_had_without_a_kernel_and_says_so(
    page, opened, tiny_mixer, monkeypatch
):
    monkeypatch.setattr(base, "MOST_SENT", 9_000)
    view = explore(tiny_mixer(), grey())
    root = opened(view)
    waiting = root.locator(".mixer-waiting")
    assert waiting.inner_text() == ""
    expect_shown(root, view)
    stage_button(root, "head", None).click()
    settle(root)
    assert waiting.inner_text() == "Python computes this model's numbers: without a kernel they stay as they were."
    assert root.locator(".mixer-pane").count() == 1
    view.stage = "head"
    answer(page, view)
    expect_shown(root, view)
    assert waiting.inner_text() == ""
    said = root.locator(".mixer-arithmetic")
    total = float(said.get_attribute("data-sum")) + float(said.get_attribute("data-bias"))
    np.testing.assert_allclose(total, view.trace()["logits"][view.class_index], atol=1e-4)
    for stage in ("stem", "token mixing", "channel mixing", "mean"):
        stage_button(root, stage, 1 if "mixing" in stage else None).click()
        view.stage = stage
        if "mixing" in stage:
            view.block = 1
        answer(page, view)
        expect_shown(root, view)
        assert waiting.inner_text() == ""
    root.locator("[data-do=clear]").click()
    settle(root)
    assert "without a kernel" in waiting.inner_text()
    view.pixels = bytes(784)
    answer(page, view)
    expect_shown(root, view)


def answer(page, view):
    """What a kernel does: hands the view's answer to the page."""
    plain = json.dumps(view.computed, default=lambda content: {"content": list(content)})
    page.evaluate(
        """(text) => window.mixerViews.then((all) => {
          const filled = (_, value) => value?.content ? new DataView(Uint8Array.from(value.content).buffer) : value;
          [...all.values()][0].set("computed", JSON.parse(text, filled));
        })""",
        plain,
    )


def test_everything_that_is_drawn_has_a_name(page, opened, tiny_mixer):
    root = opened(explore(tiny_mixer(), grey()))
    for stage in ("image", "patches", "stem", "token mixing", "channel mixing", "mean", "head"):
        stage_button(root, stage, 0 if "mixing" in stage else None).click()
        settle(root)
        nameless = root.locator("canvas:not([aria-hidden])").evaluate_all(
            """(all) => all.filter((one) => one.checkVisibility() && !(one.ariaLabel && one.role === "img"))
              .map((one) => one.dataset.map)"""
        )
        assert nameless == []
    root.locator("canvas[data-map=stem]").hover(position={"x": 10, "y": 10})
    root.evaluate(FRAMES)
    line = root.get_by_role("status").filter(has_text="Tokens after the stem, patch 0 (row 0, column 0): ")
    assert line.count() == 1
    assert len(numbers(root, "overview")["stem"]) == 4
