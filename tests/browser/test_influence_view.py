"""View 2 in a browser: its numbers against PyTorch's, its pixels against its numbers."""

import base64
import json

import numpy as np
import pytest
import torch
from check_influence import MAPS, check_influence, click, expect_shown, of
from helpers import FRAMES, latency, screenshot, show_view

from mixer_utils import MlpMixer, create_mixer, load_pretrained, mixing
from mixer_utils.widgets import explore_influence
from mixer_utils.widgets.base import packed_mixer
from mixer_utils.widgets.front_end import joined

# As a text: Playwright takes seconds for long lists.
RUN = """(text) => {
  const [spec, images] = JSON.parse(text);
  for (const one of Object.values(spec.tensors)) one.bytes = Uint8Array.from(atob(one.bytes), (c) => c.charCodeAt(0));
  const mixer = new window.Mixer(spec), list = (array) => Array.from(array);
  return JSON.stringify(images.map((image) => {
    const stages = mixer.forward(Float32Array.from(image)), influence = mixer.influence(stages);
    return { stem: list(stages.stem), blocks: stages.blocks.map(list), normed: stages.normed.map(list),
      logits: list(stages.logits), probabilities: list(stages.probabilities), influence: influence.map(list) };
  }));
}"""


@pytest.fixture(scope="module")
def model():
    return load_pretrained("mnist")


@pytest.fixture
def opened(page, tmp_path):
    """A function: the view on a page of its own, and its element."""

    def open_(view, **size):
        if size:
            page.set_viewport_size(size)
        return show_view(page, view, tmp_path)

    return open_


def follow(page, model, images):
    """What the browser's Mixer computes for normalised images, stage by stage."""
    page.add_script_tag(content=f"{joined('mixer')}\nwindow.Mixer = Mixer;", type="module")
    page.wait_for_function("window.Mixer !== undefined")
    spec = packed_mixer(model)
    for one in spec["tensors"].values():
        one["bytes"] = base64.b64encode(one["bytes"]).decode()
    text = json.dumps([spec, [image.flatten().tolist() for image in images]])
    return json.loads(page.evaluate(RUN, text))


def expect_stages(page, model, images):
    stages = {}
    with torch.no_grad():
        logits = model.eval()(images, intermediates=stages)
    for i, found in enumerate(follow(page, model, images)):
        expected = {
            "stem": stages["stem"][i],
            "blocks": torch.stack([stages[f"block_{l}"][i] for l in range(len(model.blocks))]),  # noqa: E741
            "normed": mixing.token_mixing_inputs(model, images[i]),
            "logits": logits[i],
            "probabilities": logits[i].softmax(0),
        }
        for name, tensor in expected.items():
            tensor = tensor.numpy()
            np.testing.assert_allclose(
                np.reshape(found[name], tensor.shape), tensor, rtol=1e-4, atol=1e-4, err_msg=name
            )
        influence = mixing.influence(model, images[i]).numpy()
        np.testing.assert_allclose(np.reshape(found["influence"], influence.shape), influence, rtol=0, atol=1e-4)


def test_the_shipped_model_computes_in_the_browser_what_it_computes_in_pytorch(page, model, mnist):
    expect_stages(page, model, mnist.normalize(mnist.test.images[:3]))


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
def test_so_does_any_model(page, tiny_mixer, gelu):
    model = tiny_mixer(image_size=(21, 14), in_channels=2, patch_size=7, hidden_dim=10, num_blocks=3, gelu=gelu)
    expect_stages(page, model, torch.randn(3, 2, 21, 14, generator=torch.Generator().manual_seed(0)))


def test_every_control_shows_what_python_computes(page, opened, model):
    root = opened(explore_influence(model))
    screenshot(root, "influence")
    check_influence(page, root, explore_influence(model))


def test_so_it_does_for_patches_that_are_no_square_and_images_in_colour(page, opened, tiny_mixer):
    model = tiny_mixer(image_size=(21, 14), in_channels=3, patch_size=7, hidden_dim=10, num_blocks=3)
    images = torch.randint(256, (4, 3, 21, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    check_influence(page, opened(explore_influence(model, images)), explore_influence(model, images))


def test_so_it_does_for_a_model_too_large_to_send(page, opened):
    torch.manual_seed(0)
    model, image = create_mixer("B/16"), torch.randint(256, (1, 3, 224, 224), dtype=torch.uint8)
    root = opened(explore_influence(model, image))
    assert root.locator("[data-trait=image]").count() == 0
    screenshot(root, "influence-b16")
    check_influence(page, root, explore_influence(model, image))
    latency(
        root.locator("[data-trait=block]"), ["ArrowLeft", "ArrowRight"], of(root, "units"), "influence, B/16: block"
    )


def test_by_keyboard_alone(page, opened, model):
    root, view = opened(explore_influence(model)), explore_influence(model)
    keys = {"channel": "Home", "show": "ArrowDown", "row": "ArrowLeft", "block": "ArrowRight", "image": "ArrowRight",
            "units": "ArrowRight"}  # fmt: skip
    reached = []
    while "writes" not in reached:
        page.keyboard.press("Tab")
        here = page.evaluate("document.activeElement.dataset.trait || document.activeElement.dataset.map || ''")
        assert here and len(reached) < 13, f"Tab went by {reached}, then elsewhere."
        reached.append(here)
        if here in keys:
            page.keyboard.press(keys[here])
            root.evaluate(FRAMES)
    assert reached == ["image", "block", "show", "direction", "image", "row", "units", "channel", "values", "weights",
                       "products", "column", "writes"]  # fmt: skip
    view.image = view.block = 1
    view.show, view.channel = "composed", 0
    # One to the right on the image and one to the left on the map beside it: the patch is the same again.
    order = view.order()
    view.unit = order[list(order).index(view.unit) + 1]
    names = ["image", "block", "patch", "unit", "channel", "show", "direction"]
    state = page.evaluate("(names) => window.mixerViews.then((all) => names.map([...all.values()][0].get, "
                          "[...all.values()][0]))", names)  # fmt: skip
    assert state == [getattr(view, name) for name in names]
    expect_shown(root, view)


def test_shift_and_arrow_read_a_number_without_choosing_the_patch(page, opened, model):
    root, view = opened(explore_influence(model)), explore_influence(model)
    of(root, "row").press("Shift+ArrowRight")
    of(root, "row").press("Shift+ArrowUp")
    beside = view.patch + 1 - 4
    assert f"patch {beside} (row 1, column 3) moves patch {view.patch}" in root.locator(".mixer-readout").inner_text()
    expect_shown(root, view)


def test_it_fits_a_telephone(page, opened, model):
    root, view = opened(explore_influence(model), width=360, height=800), explore_influence(model)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    click(root, "image", 3, 3)
    view.patch = 15
    expect_shown(root, view)
    screenshot(root, "influence-telephone")


def test_traits_set_from_elsewhere_are_drawn(page, opened, model):
    root, view = opened(explore_influence(model)), explore_influence(model)
    values = {"image": 4, "block": 2, "patch": 1, "unit": 9, "channel": 7, "show": "composed", "direction": "writes"}
    page.evaluate("(values) => window.mixerViews.then((all) => Object.entries(values).forEach(([name, value]) => "
                  "[...all.values()][0].set(name, value)))", values)  # fmt: skip
    for name, value in values.items():
        setattr(view, name, value)
    root.evaluate(FRAMES)
    expect_shown(root, view)


def test_every_key_press_changes_the_picture(page, opened, model):
    root = opened(explore_influence(model))
    named = {name: of(root, name) for name in ["image", "units"]} | {"block": root.locator("input[data-trait=block]")}
    for name, control in named.items():
        target = of(root, "units" if name == "block" else name)
        latency(control, ["ArrowRight", "ArrowLeft"], target, f"influence: {name}")


def test_at_the_papers_grid_maps_stand_in_the_place_of_numbers(page, opened):
    torch.manual_seed(0)
    model = MlpMixer(28, patch_size=2, hidden_dim=16, tokens_mlp_dim=20, channels_mlp_dim=8, num_blocks=2)
    images = torch.randint(256, (3, 1, 28, 28), dtype=torch.uint8)
    root = opened(explore_influence(model, images))
    side = {name: float(of(root, name).get_attribute("data-side")) for name in (*MAPS, "units")}
    assert min(side.values()) >= 8 and side["image"] == 20
    check_influence(page, root, explore_influence(model, images))
    screenshot(root, "influence-14x14")
