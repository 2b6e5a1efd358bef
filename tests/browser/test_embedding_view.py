"""The view of the patch embedding on a page of its own: what it shows, by keyboard alone, on a phone."""

import numpy as np
import pytest
import torch
from check_embedding import check_embedding, check_images, check_patches, check_tiles, part, touch
from helpers import latency, screenshot, show_view

from mixer_utils import MlpMixer, create_mixer, load_pretrained
from mixer_utils.widgets import explore_embedding


@pytest.fixture
def show(tmp_path):
    """A function: a view's page opened, and the place of the view in it."""

    return lambda page, view: show_view(page, view, tmp_path)


def colour_model(**sizes):
    """A Mixer for 24 x 16 colour images; its first filter is dead and its second and third are the same."""
    torch.manual_seed(0)
    model = MlpMixer((24, 16), 3, 4, hidden_dim=20, tokens_mlp_dim=6, channels_mlp_dim=8, **sizes)
    with torch.no_grad():
        model.stem.proj.weight[0] = 0
        model.stem.proj.weight[2] = model.stem.proj.weight[1]
        model.stem.proj.bias.normal_()
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 24, 16), dtype=np.uint8)
    return model, images


def test_the_shipped_model_s_view_shows_what_python_computes(page, show):
    view = explore_embedding(load_pretrained("mnist"))
    root = show(page, view)
    screenshot(root, "embedding")
    check_embedding(page, root, view)
    assert page.outside == []


def test_so_it_does_at_another_zoom(new_page, show):
    view = explore_embedding(load_pretrained("mnist"))
    root = show(new_page(device_scale_factor=2), view)
    touch(root, view)
    check_tiles(part(root, "filters"), view)


def test_a_view_of_colour_images_with_dead_filters_shows_what_python_computes(page, show):
    view = explore_embedding(*colour_model())
    root = show(page, view)
    assert "20 filters of the stem, 1 of them dead" in root.inner_text()
    check_embedding(page, root, view)
    view.sort = "number"
    root.locator("[data-trait=sort]").select_option("number")
    check_images(root, view)
    screenshot(root, "embedding-colour")


def test_on_a_phone_nothing_is_wider_than_the_page(new_page, show):
    page, view = new_page(viewport={"width": 360, "height": 740}), explore_embedding(load_pretrained("mnist"))
    root = show(page, view)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    screenshot(page, "embedding-phone")
    touch(root, view)
    check_tiles(part(root, "filters"), view)


def test_every_control_works_by_keyboard_alone(page, show):
    view = explore_embedding(load_pretrained("mnist"))
    root = show(page, view)
    focused = "[document.activeElement.dataset.trait, document.activeElement.dataset.part].find(Boolean)"
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focused))
        keys = {"image": ["ArrowRight"], "patch_size": ["ArrowLeft"], "sort": ["f"], "k": ["ArrowRight"] * 3,
                "cut": ["ArrowRight"] * 2, "filters": ["ArrowDown"], "curve": ["Shift+ArrowLeft"]}  # fmt: skip
        for key in keys.get(reached[-1], []):
            page.keyboard.press(key)
        if reached[-1] == "curve":
            break
    wanted = ["image", "patch_size", "sort", "scale", "k", "cut", "filters", "curve"]
    assert [name for name in reached if name in wanted] == wanted
    view.image, view.patch_size, view.sort, view.k = 1, 14, "frequency", 9
    across = int(part(root, "filters").get_attribute("data-across"))
    order = view.sorts["frequency"]["order"].tolist()
    view.filter = order[order.index(view.filter) + across]
    check_images(root, view)
    check_patches(part(root, "cut"), view)


def test_every_key_press_changes_the_picture(page, show):
    root = show(page, explore_embedding(load_pretrained("mnist")))
    for trait, canvas in [("k", "rebuilt"), ("image", "cut"), ("patch_size", "cut")]:
        control = root.locator(f"[data-trait={trait}]")
        latency(control, ["ArrowRight", "ArrowLeft"], part(root, canvas), f"embedding, {trait}")
    filters = part(root, "filters")
    latency(filters, ["ArrowRight", "ArrowLeft"], part(root, "tokens"), "embedding, filter")


def test_the_large_stem_of_b_16_answers_keys_and_ends_with_the_right_image(page, show):
    model = create_mixer("B/16", num_blocks=1)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224), dtype=np.uint8)
    view = explore_embedding(model, images)
    root = show(page, view)
    view.k = 600
    root.locator("[data-trait=k]").fill("600")
    check_images(root, view)
    k = root.locator("[data-trait=k]")
    latency(k, ["ArrowRight", "ArrowLeft"], part(root, "rebuilt"), "embedding of B/16, k")
    image = root.locator("[data-trait=image]")
    latency(image, ["ArrowRight", "ArrowLeft"], part(root, "cut"), "embedding of B/16, image")
