"""A picture of one's own in view 3: the browser prepares it as ``mixer_utils.photograph`` does, stage by stage."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from check_digit import expect_shown
from helpers import FLAGS, browser_path, screenshot, show_view, wait_until, watched_page
from PIL import Image
from test_photograph import faint_beside_an_edge
from told import assert_told

from benchmarks import drawn
from mixer_utils import load_pretrained
from mixer_utils.__main__ import answer
from mixer_utils.data import DataError, read_image
from mixer_utils.photograph import stages
from mixer_utils.widgets import draw_digit

# The name of a stage, its size, and the grey values as they are seen: as texts, for Playwright takes seconds for lists.
SEEN = """(canvases) => JSON.stringify(canvases.map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (let i = 0; i < data.length; i += 4) text += String.fromCharCode(data[i]);
  return [canvas.dataset.photo, canvas.height, canvas.width, btoa(text)];
}))"""
PIXELS = """() => window.mixerViews.then((all) => {
  const [state] = all.values();
  return Array.from(new Uint8Array(state.get("pixels").buffer));
})"""
GIVE = """(root, [kind, files]) => {
  const data = new DataTransfer();
  for (const [name, text] of files) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    data.items.add(new File([bytes], name));
  }
  if (kind === "drop") root.dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
  else document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
}"""


@pytest.fixture(scope="module")
def model():
    return load_pretrained("mnist")


@pytest.fixture(scope="module")
def photo(browser, model, tmp_path_factory):
    """The view on one page for the whole file: (its element, the same widget in Python)."""
    with watched_page(browser) as page:
        yield show_view(page, draw_digit(model, data=False), tmp_path_factory.mktemp("page")), draw_digit(model, False)


def give(root, path):
    """Chooses a file; returns the sentence that follows."""
    root.locator("input[type=file]").set_input_files(path)
    return said_after(root)


def said_after(root):
    said = root.locator(".mixer-photo-said")
    wait_until(root.page, lambda: said.inner_text() and not said.inner_text().startswith(("Reading", "Waiting")))
    return said.inner_text()


def seen(root):
    """The stages as they are seen: {name: uint8 (H, W)}."""
    found = json.loads(root.locator("canvas[data-photo]").evaluate_all(SEEN))
    return {name: np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width)
            for name, height, width, text in found}  # fmt: skip


def on_board(root):
    return np.array(root.page.evaluate(PIXELS), np.uint8)


def expect_as_in_python(root, view, path):
    """Every stage is Python's to one grey level; the board and the words follow from the last."""
    words = give(root, path)
    expected = stages(path)
    found = seen(root)
    assert list(found) == list(expected)
    for name, values in expected.items():
        levels = values if name == "frame" else np.rint(255 * values)
        assert found[name].shape == levels.shape, name
        np.testing.assert_allclose(found[name].astype(int), levels, atol=1, err_msg=name)
    np.testing.assert_array_equal(on_board(root).reshape(28, 28), found["frame"])
    view.pixels = found["frame"].tobytes()
    probabilities, _ = view.forward()
    said = answer(torch.from_numpy(probabilities), list("0123456789"))  # by `python -m mixer_utils predict`
    expected = f"{path.name}: {said}.".replace("%", " %")
    assert PERCENT.sub("", words) == PERCENT.sub("", expected)
    np.testing.assert_allclose(percents(words), percents(expected), atol=0.11)


PERCENT = re.compile(r"\d+\.\d(?= %)")


def percents(text):
    return [float(number) for number in PERCENT.findall(text)]


KINDS = [
    "black on white",
    "pencil",
    "yellow paper",
    "wide picture",
    "photograph of 5 megapixels",
    "60 pixels",
    "stored on its side",
    "white ink on transparency",
    "black ink on transparency",
    "chalk",
    "as in MNIST, inverted",
    "turned sheet on a table",
    "sheet on a table, side light",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_is_python_s(kind, photo, mnist, tmp_path):
    digit = mnist.train.images[100 + KINDS.index(kind), 0].numpy()
    path = drawn.draw(kind, digit, tmp_path / "mine", np.random.default_rng(0))
    expect_as_in_python(*photo, path)


def test_a_close_answer_is_not_sure_as_predict_has_it(photo, mnist, tmp_path):
    path = tmp_path / "close.png"
    Image.fromarray(mnist.test.images[674, 0].numpy()).save(path)
    assert re.fullmatch(r"close\.png: 5 \(5\d\.\d %\), not sure: perhaps 3 \(4\d\.\d %\)\.", give(photo[0], path))
    expect_as_in_python(*photo, path)


def test_the_stages_go_once_something_else_is_on_the_board(photo, mnist, tmp_path):
    root, view = photo
    path = drawn.draw("black on white", mnist.train.images[0, 0].numpy(), tmp_path / "mine", None)
    give(root, path)
    assert len(seen(root)) == 5
    root.get_by_role("button", name="Clear").click()
    assert seen(root) == {} and root.locator(".mixer-photo-said").inner_text() == ""
    view.pixels = bytes(784)
    expect_shown(root, view)


# --- what cannot be read ----------------------------------------------------------------------------------------------


def expect_refused(root, path, *parts):
    """One sentence, and the board as it was."""
    before = on_board(root)
    words = give(root, path)
    assert_told(words, path.name, *parts)
    np.testing.assert_array_equal(on_board(root), before)
    return words


UNREADABLE = {
    "notes.pdf": (b"%PDF-1.7 and more", "it is a PDF: export its page as PNG"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is an SVG drawing: export it as PNG"),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "this browser does not read HEIC: save it as JPEG"),
    "empty.png": (b"", "the file is empty: copy it again"),
    "damaged.jpg": (b"\xff\xd8\xff\xe0 and nothing", "damaged", "save it anew as PNG or JPEG"),
}


def test_a_file_that_is_no_picture_is_told_in_one_sentence(photo, tmp_path):
    for name, (content, *parts) in UNREADABLE.items():
        (tmp_path / name).write_bytes(content)
        expect_refused(photo[0], tmp_path / name, "cannot be read", *parts)


def test_where_nothing_or_too_much_is_drawn_the_sentence_is_python_s(photo, mnist, tmp_path):
    ink = [drawn.ink_of(mnist.train.images[i, 0].numpy()) for i in (0, 1, 2)]
    pictures = {
        "white.png": np.full((200, 300), 255, np.uint8),
        "noise.png": drawn.lit(np.zeros(drawn.SQUARE), noise=0.02, rng=np.random.default_rng(0)),
        "grey.png": np.full((28, 28), 128, np.uint8),
        "transparent.png": np.zeros((100, 100, 4), np.uint8),
        "small.png": np.eye(9, dtype=np.uint8) * 255,
        "three.png": drawn.lit(np.hstack(ink)),
        "faint.png": faint_beside_an_edge(),
    }
    for name, pixels in pictures.items():
        path = tmp_path / name
        Image.fromarray(pixels).save(path)
        with pytest.raises(DataError) as told:
            stages(path)
        words = expect_refused(photo[0], path)
        assert words == str(told.value).replace(str(path), name)


def test_a_picture_is_dropped_or_pasted_and_of_several_none_is_guessed(photo, mnist, tmp_path):
    root, _ = photo
    for kind, name in [("drop", "mine.png"), ("paste", "The pasted picture")]:
        path = drawn.draw("black on white", mnist.train.images[5, 0].numpy(), tmp_path / "mine", None)
        file = ["mine.png", base64.b64encode(path.read_bytes()).decode()]
        root.get_by_role("button", name="Clear").click()
        root.locator("canvas.mixer-board").focus()
        root.evaluate(GIVE, [kind, [file]])
        assert said_after(root).startswith(f"{name}: ")
        np.testing.assert_array_equal(on_board(root).reshape(28, 28), stages(path)["frame"])
    before = on_board(root)
    root.evaluate(GIVE, ["drop", [file, file]])
    assert said_after(root) == "2 files were given: give one picture."
    np.testing.assert_array_equal(on_board(root), before)


def test_a_model_of_other_images_gets_the_picture_fitted(browser, tiny_mixer, mnist, tmp_path):
    model = tiny_mixer(image_size=(12, 20), patch_size=4, num_classes=12)
    path = drawn.draw("blue ink on transparency", mnist.train.images[3, 0].numpy(), tmp_path / "mine", None)
    with watched_page(browser) as page:
        root = show_view(page, draw_digit(model, data=False), tmp_path)
        assert give(root, path).startswith("mine.webp: ")
        assert seen(root) == {}
        expected = read_image(path, (1, 12, 20)).numpy().ravel()
        np.testing.assert_allclose(on_board(root).astype(int), expected, atol=1)


# --- the camera -------------------------------------------------------------------------------------------------------

CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
TRACKS = """() => { const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  window.tracks = [];
  navigator.mediaDevices.getUserMedia = async (asked) => {
    const stream = await get(asked);
    window.tracks.push(...stream.getTracks());
    return stream;
  }; }"""
STATES = "() => window.tracks.map((track) => track.readyState)"


@pytest.fixture
def filming(browser):
    """A page of a browser whose camera shows Chromium's moving pattern, and which asks nobody."""
    with browser.browser_type.launch(executable_path=browser_path(), args=[*FLAGS, *CAMERA]) as filming:
        with watched_page(filming) as page:
            yield page


def test_the_camera_s_picture_is_taken_and_the_camera_is_off_afterwards(filming, model, tmp_path):
    page = filming
    root = show_view(page, draw_digit(model, data=False), tmp_path)
    page.evaluate(TRACKS)
    video = root.locator("video")

    def start():
        root.get_by_role("button", name="Camera").click()
        wait_until(page, lambda: video.evaluate("(video) => video.videoWidth > 0 && video.currentTime > 0"))
        assert page.evaluate(STATES)[-1] == "live" and video.is_visible()

    def expect_off():
        wait_until(page, lambda: set(page.evaluate(STATES)) == {"ended"})

    start()
    root.get_by_role("button", name="Stop").click()
    expect_off()
    assert not video.is_visible() and root.locator(".mixer-photo-said").inner_text() == ""

    start()
    screenshot(root, "photo-camera")
    root.get_by_role("button", name="Take it").click()
    assert said_after(root).startswith("The camera's picture: ")  # a digit, or that none is there
    expect_off()
    assert not video.is_visible()

    start()
    root.evaluate("(root) => root.remove()")
    expect_off()
    assert len(page.evaluate(STATES)) == 3


REFUSALS = {
    "NotAllowedError": "The camera may not be used: allow it in the browser's settings, or choose a file.",
    "NotFoundError": "No camera was found: connect one, or choose a file.",
    "OddError": "The camera did not start (odd): choose a file.",
}


@pytest.mark.parametrize(("name", "sentence"), REFUSALS.items())
def test_a_camera_that_cannot_be_used_is_told_in_one_sentence(photo, name, sentence):
    root, _ = photo
    root.page.evaluate("""(name) => { navigator.mediaDevices.getUserMedia = async () => {
      throw Object.assign(new Error("odd"), { name }); }; }""", name)  # fmt: skip
    root.get_by_role("button", name="Camera").click()
    assert said_after(root) == sentence
    assert root.get_by_role("button", name="Camera").is_enabled()


def test_without_a_way_to_film_there_is_no_camera_button(browser, model, tmp_path):
    with watched_page(browser) as page:
        page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined });")
        root = show_view(page, draw_digit(model, data=False), tmp_path)
        assert root.get_by_role("button", name="Photograph…").count() == 1
        assert root.get_by_role("button", name="Camera").count() == 0
