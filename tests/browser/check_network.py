"""Opens every stage of ``explore``, moves its controls, draws and hides, and compares what is shown with Python's
numbers.
"""

import json

import numpy as np
from helpers import FRAMES, colours_of

STAGES_OF_BLOCK = ("token mixing", "channel mixing")
# What numbers.js found: {"overview": {name: list}, ...}. As a text: Playwright takes seconds for long lists.
NUMBERS = """(root, name) => JSON.stringify(root.numbers.part(name), (_, value) =>
  ArrayBuffer.isView(value) ? Array.from(value) : value)"""
# The colours of a canvas at places given in CSS pixels.
COLOURS = """(canvas, places) => {
  const ratio = canvas.width / parseFloat(canvas.style.width);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return JSON.stringify(JSON.parse(places).map(([x, y]) => {
    const at = 4 * (Math.floor(y * ratio) * canvas.width + Math.floor(x * ratio));
    return [data[at], data[at + 1], data[at + 2]];
  }));
}"""
# How many pixels of a canvas are about as the accent's colour.
MARKED = """(canvas) => {
  const accent = getComputedStyle(canvas).getPropertyValue("--mixer-accent").match(/[0-9a-f]{2}/g);
  const [red, green, blue] = accent.map((one) => parseInt(one, 16));
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    count += Math.abs(data[i] - red) + Math.abs(data[i + 1] - green) + Math.abs(data[i + 2] - blue) < 12;
  }
  return count;
}"""


def check_network(page, root, view):
    """``root`` is the view's element, ``view`` the same widget in Python; at the end the state is not what it was."""
    expect_shown(root, view)
    choose(root, view, "colours", "shared")
    expect_shown(root, view)
    choose(root, view, "show", "channel")
    slide(root, view, "channel", "End")
    expect_shown(root, view)
    choose(root, view, "colours", "each")
    check_stages(page, root, view)
    check_hover(page, root, view)
    check_drawing(page, root, view)
    choose(root, view, "show", "norm")
    expect_shown(root, view)


def check_stages(page, root, view):
    last = view.data["num_blocks"] - 1
    for stage in ("image", "patches", "stem", "token mixing", "channel mixing", "mean", "head"):
        block = last if stage in STAGES_OF_BLOCK else None
        button = stage_button(root, stage, block)
        assert button.get_attribute("aria-expanded") == "false"
        button.click()
        view.stage = stage
        if block is not None:
            view.block = block
        expect_shown(root, view)
        assert button.get_attribute("aria-expanded") == "true"
        pane = root.locator(".mixer-pane")
        assert pane.count() == 1 and pane.get_attribute("data-pane") == stage
        CHECKS[stage](root, view, pane)
        expect_shown(root, view)
    page.keyboard.press("Escape")
    view.stage = ""
    expect_shown(root, view)
    assert root.locator(".mixer-pane").count() == 0
    button = stage_button(root, "stem", None)
    button.click()
    button.click()  # the second closes
    root.evaluate(FRAMES)
    assert root.locator(".mixer-pane").count() == 0


def check_patches(root, view, pane):
    """A click hides a patch, and Space shows it again."""
    canvas = pane.locator("canvas[data-map=pieces]")
    count = view.data["num_patches"]
    canvas.click(position=middle(canvas, view, count - 1))
    view.patch, view.hidden = count - 1, [count - 1]
    expect_shown(root, view)
    canvas.press("Space")
    view.hidden = []


def check_stem(root, view, pane):
    slide(pane, view, "channel", "Home")
    expect_shown(root, view)
    said = float(pane.locator(".mixer-arithmetic").get_attribute("data-value"))
    np.testing.assert_allclose(said, view.stem()["values"][view.patch], atol=1e-4)
    expect_colours(pane.locator("[data-map=channel]"), view, view.stem()["values"])
    filters = pane.locator("[data-map=filters]")
    filters.press("ArrowRight")
    view.channel = 1
    expect_shown(root, view)


def check_tokens(root, view, pane):
    """One unit's arithmetic; the switch to the units before training; which patch moves which."""
    mlp = view.model.blocks[view.block].token_mixing
    found = view.token_mixing()
    said = pane.locator(".mixer-arithmetic")
    weight = mlp.dense_0.weight[view.unit].detach()
    total = float(found["values"] @ weight + mlp.dense_0.bias[view.unit].detach())
    np.testing.assert_allclose(float(said.get_attribute("data-sum")), total, atol=1e-4)
    writes = mlp.dense_1.weight[:, view.unit].detach().numpy() * float(said.get_attribute("data-gelu"))
    expect_colours(pane.locator("[data-map=weights]"), view, weight.numpy())
    expect_colours(pane.locator("[data-map=writes]"), view, writes)
    expect_colours(pane.locator("[data-map=added]"), view, found["added"].numpy())

    tiles = pane.locator(".mixer-tiles canvas").first
    assert tiles.get_attribute("data-shown") == view.data["mixing"]["sides"][0]["title"]
    pane.locator("[data-trait=before]").press("Space")
    root.evaluate(FRAMES)
    assert tiles.get_attribute("data-shown") == "before training"
    pane.locator("[data-trait=before]").press("Space")
    tiles.press("ArrowRight")
    root.evaluate(FRAMES)
    order = tiles.get_attribute("data-order").split()
    view.unit = int(order[order.index(str(view.unit)) + 1])
    assert f"unit {view.unit} computes" in pane.locator("h4").inner_text()

    choose(root, view, "tab", "patches")
    expect_shown(root, view)
    found = view.token_mixing()
    scale = max(found["moves"].abs().max(), found["moved"].abs().max())
    expect_colours(pane.locator("[data-map=moves]"), view, found["moves"].numpy(), scale)
    expect_colours(pane.locator("[data-map=moved]"), view, found["moved"].numpy(), scale)
    choose(root, view, "tab", "units")


def check_channels(root, view, pane):
    hidden = pane.locator("[data-map=hidden]")
    hidden.press("ArrowRight")
    columns = min(view.data["num_hidden_units"], int(np.ceil(np.sqrt(4 * view.data["num_hidden_units"]))))
    if view.hidden_unit % columns < columns - 1:
        view.hidden_unit += 1
    expect_shown(root, view)
    found = view.channel_mixing()
    said = pane.locator(".mixer-arithmetic")
    total = float(found["normed"] @ found["reads"].detach() + found["bias"].detach())
    np.testing.assert_allclose(float(said.get_attribute("data-sum")), total, atol=1e-4)
    active = float(found["hidden"][view.hidden_unit])
    np.testing.assert_allclose(float(said.get_attribute("data-gelu")), active, atol=1e-4)
    expect_colours(pane.locator("[data-map=over]"), view, found["over"].numpy())


def check_mean(root, view, pane):
    said = float(pane.locator(".mixer-arithmetic").get_attribute("data-value"))
    np.testing.assert_allclose(said, view.trace()["mean"][view.channel], atol=1e-4)
    expect_colours(pane.locator("[data-map=values]"), view, view.mean()["values"].numpy())


def check_head(root, view, pane):
    for chosen in (0, view.data["num_classes"] - 1):
        pane.locator(f"button[data-class='{chosen}']").click()
        view.class_index = chosen
        expect_shown(root, view)
        said = pane.locator(".mixer-arithmetic")
        total, bias, logit = (float(said.get_attribute(f"data-{name}")) for name in ("sum", "bias", "logit"))
        np.testing.assert_allclose(total + bias, logit, atol=1e-4)
        np.testing.assert_allclose(logit, view.trace()["logits"][chosen], atol=1e-4)
        expect_colours(pane.locator("[data-map=votes]"), view, view.head()["votes"].detach().numpy())


CHECKS = {
    "image": lambda root, view, pane: None,
    "patches": check_patches,
    "stem": check_stem,
    "token mixing": check_tokens,
    "channel mixing": check_channels,
    "mean": check_mean,
    "head": check_head,
}


def check_hover(page, root, view):
    """The patch under the pointer is marked in every map, in the pane that is open, too, and told in the line below."""
    stage_button(root, "mean", None).click()
    view.stage = "mean"
    expect_shown(root, view)
    seen = [root.locator(f"canvas[data-map='{name}']") for name in
            ("image", "patches", "stem", "token mixing 0", "after channel mixing 0", "values")]  # fmt: skip
    patch = 1
    for canvas in (seen[2], seen[5]):
        page.mouse.move(0, 0)
        root.evaluate(FRAMES)
        assert [one.evaluate(MARKED) for one in seen] == [0] * 6
        canvas.hover(position=middle(canvas, view, patch))
        root.evaluate(FRAMES)
        assert min(one.evaluate(MARKED) for one in seen) > 4
        assert "patch 1 (row 0, column 1)" in root.locator(".mixer-readout").last.inner_text()
    page.keyboard.press("Escape")
    stage_button(root, "mean", None).press("Escape")
    view.stage = ""
    page.mouse.move(0, 0)
    expect_shown(root, view)


def check_drawing(page, root, view):
    """All follows a stroke on the image, before the pen is lifted; then the traits do."""
    root.locator("[data-do=clear]").click()
    channels, height, width = view.data["image_shape"]
    view.pixels = bytes(channels * height * width)
    expect_shown(root, view)
    board = root.locator("canvas[data-map=image]")
    box = board.bounding_box()
    before = numbers(root, "overview")["logits"]
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"], steps=3)
    settle(root)
    assert numbers(root, "overview")["logits"] != before
    assert max(state(page, "pixels")) == 0
    page.mouse.up()
    page.mouse.move(0, 0)
    settle(root)
    view.pixels = bytes(state(page, "pixels"))
    assert max(view.pixels) == 255
    np.testing.assert_allclose(state(page, "probabilities"), view.probabilities, atol=1e-4)
    expect_shown(root, view)


# --- what is shown ----------------------------------------------------------------------------------------------------


def expect_shown(root, view):
    """The numbers in the browser are Python's, and the small maps and bars show them."""
    settle(root)
    for name, part in view.parts().items():
        found = numbers(root, name)
        for key, values in found.items():
            np.testing.assert_allclose(values, np.asarray(part[key].detach() if hasattr(part[key], "detach") else
            part[key]),
                                       atol=1e-4, err_msg=f"{name}: {key}")  # fmt: skip
    overview = view.overview()
    last = view.data["num_blocks"] - 1
    tokens = max(np.abs(overview[name]).max() for name in ("stem", "between", "blocks"))
    added = max(np.abs(overview[name]).max() for name in ("token_mixing", "channel_mixing"))
    for name, values, top in [
        ("stem", overview["stem"], tokens),
        ("token mixing 0", overview["token_mixing"][0], added),
        ("after token mixing 0", overview["between"][0], tokens),
        (f"channel mixing {last}", overview["channel_mixing"][last], added),
        (f"after channel mixing {last}", overview["blocks"][last], tokens),
    ]:
        own = view.colours == "each"
        low = values.min() if own and view.show == "norm" else 0
        canvas = root.locator(f"canvas[data-map='{name}']")
        expect_colours(canvas, view, values - low, (np.abs(values).max() - low) if own else top)
        assert canvas.get_attribute("role") == "img" and "every patch" in canvas.get_attribute("aria-label")
    for bar in root.locator(".mixer-votes li").all():
        chosen = int(bar.get_attribute("data-class"))
        np.testing.assert_allclose(float(bar.get_attribute("data-probability")), view.probabilities[chosen], atol=1e-4)


def expect_colours(canvas, view, values, scale=None):
    """A map shows values: near the corner of every square, where no number stands, is their colour."""
    values = np.asarray(values, dtype=float)
    scale = float(np.abs(values).max() if scale is None else scale) or 1
    aside = [0.5 * side - max(0.25 * side, min(3.2, 0.5 * side)) for side in square(canvas, view, 0)[2:]]
    # The line around a square under the pointer reaches three pixels into those beside it.
    spots = [[x - aside[0], y - aside[1]] for x, y, _, _ in (square(canvas, view, s) for s in range(len(values)))]
    found = np.array(json.loads(canvas.evaluate(COLOURS, json.dumps(spots))))
    places = np.floor(128 + 127.5 * values / scale).clip(0, 255).astype(int)
    table = colours_of(canvas).astype(int)
    close = [
        np.abs(table[max(0, at - 1) : at + 2] - one).max(1).min() <= 3 for at, one in zip(places, found, strict=True)
    ]
    wrong = [s for s, good in enumerate(close) if not good and s != view.patch]  # around that one is a line
    assert wrong == [], (canvas.get_attribute("data-map"), wrong, found[wrong[:3]], table[places[wrong[:3]]])


def square(canvas, view, s):
    """Middle, width and height of a patch's square on a canvas, CSS pixels."""
    width, height, gap = (float(canvas.get_attribute(f"data-{name}")) for name in ("width", "height", "gap"))
    row, column = divmod(s, view.data["grid"][1])
    return 2 + column * (width + gap) + width / 2, 2 + row * (height + gap) + height / 2, width, height


def middle(canvas, view, s):
    x, y, _, _ = square(canvas, view, s)
    return {"x": x, "y": y}


def numbers(root, name):
    return json.loads(root.evaluate(NUMBERS, name))


def settle(root):
    """Waits until everything is computed and drawn."""
    root.evaluate(FRAMES)
    root.page.wait_for_function(
        """() => document.querySelector(".mixer-network").dataset.busy === "false" &&
          document.querySelector(".mixer-flow").dataset.running === "false" """
    )
    root.evaluate(FRAMES)


def state(page, name):
    return page.evaluate(
        """(name) => window.mixerViews.then((all) => {
          const value = [...all.values()][0].get(name);
          return ArrayBuffer.isView(value) ? Array.from(new Uint8Array(value.buffer)) : value;
        })""",
        name,
    )


# --- controls ---------------------------------------------------------------------------------------------------------


def stage_button(root, stage, block):
    at = "" if block is None else f"[data-block='{block}']"
    return root.locator(f"button[data-stage='{stage}']{at}")


def choose(root, view, name, value):
    root.locator(f"[data-trait={name}]").first.select_option(value)
    setattr(view, name, value)


def slide(root, view, name, key):
    control = root.locator(f"[data-trait={name}]").first
    control.press(key)
    setattr(view, name, int(control.input_value()))
