"""The views on a page of their own: one HTML file that needs no kernel, no network and no other file."""

import base64
import copy
import html
import importlib.metadata
import json
import string
import zlib

import numpy as np

from mixer_utils import __version__
from mixer_utils._files import Unreachable, at_home, write_atomically
from mixer_utils.data import load_dataset
from mixer_utils.mixing import patch_grid
from mixer_utils.model import count_parameters
from mixer_utils.published import load_pretrained
from mixer_utils.snapshots import load_recorded_run
from mixer_utils.widgets.base import about, check_model
from mixer_utils.widgets.digit import draw_digit
from mixer_utils.widgets.front_end import FOLDER, STYLE, joined
from mixer_utils.widgets.influence import explore_influence
from mixer_utils.widgets.mixing import explore_mixing
from mixer_utils.widgets.training import explore_training

MOST_BYTES = 4_000_000  # of the page


def write_explorer(out, model=None):
    """Write ``out``/index.html, the explorer: four views of a Mixer on one page. Returns the file's path.

    The page needs nothing but itself, and at most 4 MB; the model's forward pass runs in the browser. ``model`` is an
    MlpMixer for grey images, by default the shipped one; what ``load_checkpoint`` knows about it is told on the page.

    Raises ValueError for a model that a view cannot show or that is too large, CheckpointError where the file cannot
    be written; an older page is then left as it was.
    """
    page = explorer_page(load_pretrained("mnist") if model is None else model).encode()
    if len(page) > MOST_BYTES:
        raise ValueError(too_large(f"its page has {len(page) / 1e6:.1f} MB"))
    path = at_home(out) / "index.html"
    write_atomically(path, page)
    return path


def explorer_page(model):
    """The explorer's HTML for an MlpMixer."""
    check_model(model)
    weights = count_parameters(model)
    if 2 * weights > MOST_BYTES:  # two bytes a weight; compressed and written as text they are no shorter
        raise ValueError(too_large(f"it has {weights / 1e6:.1f} million weights"))
    precision = ""
    if 4 * weights > MOST_BYTES:  # the shipped ones are in half precision as they are
        model = copy.deepcopy(model).half().float()
        precision = " (in half precision)"
    recorded = load_recorded_run()
    views = {
        "mixing": explore_mixing(model),
        "influence": influence_view(model),
        "digit": draw_digit(model),
        "training": explore_training(recorded),
    }
    places, end = embedded({f"{name}-view": view.get_state() for name, view in views.items()})
    rows, columns = patch_grid(model)
    _, height, width = model.image_shape
    P = model.config["patch_size"]
    template = string.Template((FOLDER / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        {f"{name}_view": place for name, place in zip(views, places, strict=True)},
        **{name: model.config[name] for name in ("num_blocks", "hidden_dim", "tokens_mlp_dim", "num_classes")},
        image=f"{height} × {width} pixels",
        patches=f"{rows} × {columns} = {rows * columns} patches of {P} × {P}",
        story=f"all {weights:,} weights{precision} of a Mixer{trained(about(model))}",
        run=f"{recorded.about['model']['num_blocks']} blocks{trained(recorded.about)}",
        version=__version__,
        repository=repository_link(),
        end=end,
    )


def influence_view(model):
    """View 2 on the images the model was trained on; where they cannot be had, on digits, and one line says so."""
    try:
        return explore_influence(model)
    except Unreachable as error:
        print(f"The page has no images to start a drawing from, and small digits in the view of influence: {error}")
        digits = load_dataset("digits").test
        return explore_influence(model, digits.images[[digits.labels.tolist().index(k) for k in range(10)]])


def too_large(found):
    """The sentence for a model too large for the page."""
    return (
        f"This model is too large for a page of {MOST_BYTES / 1e6:.0f} MB ({found}): give a smaller one, or look at it "
        "in a notebook, with mixer_utils.widgets."
    )


def trained(known):
    """How a model was trained, as far as is known about it: the end of a sentence."""
    if "recipe" not in known:
        return ""
    recipe = known["recipe"]
    dataset = known["dataset"].replace("mnist", "MNIST")
    return html.escape(f", trained on {dataset} for {recipe['epochs']} epochs (recipe {recipe['name']})")


def repository_link():
    """A link to the repository, by the address that the installed package states; nothing where it is not installed."""
    try:
        urls = importlib.metadata.metadata("mlp-mixer-tutorial").get_all("Project-URL", [])
    except importlib.metadata.PackageNotFoundError:
        return ""
    addresses = [html.escape(url.removeprefix("Repository, ")) for url in urls if url.startswith("Repository, ")]
    return "".join(f'Code and notebooks: <a href="{address}">{address}</a>.' for address in addresses)


def embedded(states):
    """HTML that shows views on any page: a place for each state, their data, the style and the script.

    states: dicts of a view's traits, as ``view.get_state()`` gives them, or such dicts by the id of their place. Bytes
    that occur several times are written once. Every piece stands alone: returns the list of places, and what is written
    once at the end of the page.
    """
    named = states if isinstance(states, dict) else {f"view-{i}": state for i, state in enumerate(states)}
    buffers = {}  # bytes -> (number, width of a number in bytes)
    places = {
        name: f'<div class="mixer-view-here" id="{html.escape(name)}"><script type="application/json">'
        f"{json_in_html(numbered(state, buffers))}</script></div>"
        for name, state in named.items()
    }
    scripts = [
        f'<script type="text/plain" class="mixer-buffer" data-width="{width}">{deflated(content, width)}</script>'
        for content, (_, width) in buffers.items()
    ]
    end = [f"<style>\n{STYLE}</style>", *scripts, f'<script type="module">\n{joined("page")}</script>']
    return list(places.values()), "\n".join(end)


def json_in_html(value):
    """JSON that can stand in a script: no text in it can end the script."""
    return json.dumps(value).replace("<", "\\u003c")


def numbered(value, buffers, width=1):
    """The value with bytes replaced by {"buffer": number}; ``buffers`` collects them."""
    if isinstance(value, dict):
        width = np.dtype(value["dtype"]).itemsize if "dtype" in value else 1
        return {name: numbered(item, buffers, width) for name, item in value.items() if not name.startswith("_")}
    if isinstance(value, list | tuple):
        return [numbered(item, buffers) for item in value]
    if isinstance(value, bytes | memoryview):
        number, _ = buffers.setdefault(bytes(value), (len(buffers), width))
        return {"buffer": number}
    return value


def deflated(content, width):
    """Base64 of the bytes, compressed: like bytes of the numbers lie side by side, which makes them shorter."""
    planes = np.frombuffer(content, dtype=np.uint8).reshape(-1, width).T.tobytes()
    return base64.b64encode(zlib.compress(planes, 9)).decode()
