"""The views on a page of their own: one HTML file that needs no kernel, no network and no other file."""

import base64
import copy
import html
import importlib.metadata
import json
import string
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import traitlets

from mixer_utils import __version__
from mixer_utils._files import at_home, write_atomically
from mixer_utils.mixing import patch_grid
from mixer_utils.model import MlpMixer, count_parameters
from mixer_utils.published import load_pretrained
from mixer_utils.snapshots import load_recorded_run
from mixer_utils.widgets.base import Index, View, about, check_model
from mixer_utils.widgets.front_end import FOLDER, STYLE, joined
from mixer_utils.widgets.learn import train_in_browser
from mixer_utils.widgets.network import explore
from mixer_utils.widgets.training import explore_training

MOST_BYTES = 6_000_000  # of the page


class Section(NamedTuple):
    """A view of the page: its name, which a link to it ends in; the heading; what to look for, as HTML; the view."""

    name: str
    heading: str
    text: str  # {recorded} stands for how the recorded run was trained
    view: Callable[[MlpMixer], View]


def write_explorer(out, model=None):
    """Write ``out``/index.html, the explorer: a Mixer opened up on one page. Returns the file's path.

    The page needs nothing but itself, and has at most 6 MB; the model's forward pass runs in the browser. ``model`` is
    an MlpMixer for grey images, by default "mnist-14x14"; what ``load_checkpoint`` knows about.

    Raises ValueError for a model that a view cannot show or that is too large, CheckpointError where the file cannot
    be written; an older page is then left as it was.
    """
    page = explorer_page(load_pretrained("mnist-14x14") if model is None else model).encode()
    if len(page) > MOST_BYTES:
        raise ValueError(too_large(f"its page has {len(page) / 1e6:.1f} MB"))
    path = at_home(out) / "index.html"
    write_atomically(path, page)
    return path


def explorer_page(model):
    """The explorer as a page of its own, for an MlpMixer: HTML."""
    explorer, end = explorer_parts(model)
    template = string.Template((FOLDER / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        first=SECTIONS[0].name,
        explorer=explorer,
        series="\n".join(listed(*notebook) for notebook in SERIES),
        version=__version__,
        repository=repository_link(),
        end=end,
    )


def explorer_parts(model):
    """The explorer as a part of any page, for an MlpMixer: HTML for its place, and HTML for the end of the page."""
    check_model(model)
    weights = count_parameters(model)
    if 2 * weights > MOST_BYTES:  # two bytes a weight; compressed and written as text they are no shorter
        raise ValueError(too_large(f"it has {weights / 1e6:.1f} million weights"))
    precision = ""
    if 4 * weights > MOST_BYTES:  # the shipped ones are in half precision as they are
        model = copy.deepcopy(model).half().float()
        precision = " (in half precision)"
    views = {section.name: section.view(model) for section in SECTIONS}
    places, end = embedded({f"{name}-view": view.get_state() for name, view in views.items()})
    recorded = load_recorded_run().about
    run = f"{recorded['model']['num_blocks']} blocks{trained(recorded)}"
    parts = [
        '<div class="mixer-explorer" id="mixer-explorer">',
        intro(model, f"{weights:,} weights{precision} of a Mixer{trained(about(model))}"),
        *(in_section(one, place, run) for one, place in zip(SECTIONS, places, strict=True)),
        "</div>",
    ]
    of_page = {"traits": {name: addressable(view) for name, view in views.items()}, "steps": TOUR}
    about_page = f'<script type="application/json" id="mixer-page">{json_in_html(of_page)}</script>'
    style = f"<style>\n{(FOLDER / 'page.css').read_text(encoding='utf-8')}</style>"
    return "\n".join(parts), "\n".join([style, about_page, end])


def intro(model, weights):
    """What stands above the views: what a Mixer is, whose weights these are, and the page's buttons and links."""
    rows, columns = patch_grid(model)
    _, height, width = model.image_shape
    P = model.config["patch_size"]
    links = "\n".join(f'<a href="#{section.name}">{section.heading}</a>' for section in SECTIONS)
    C, num_blocks = model.config["hidden_dim"], model.config["num_blocks"]
    return f"""<p class="mixer-intro">An MLP-Mixer recognises images without convolution and without attention: it cuts
an image of {height} × {width} pixels into {rows} × {columns} = {rows * columns} patches of {P} × {P} pixels, makes a
list of {C} numbers, its channels, out of each, and in each of {num_blocks} blocks lets first the patches exchange
information (<em>token mixing</em>), then the channels of every patch (<em>channel mixing</em>). This page holds
all {weights}: it asks for nothing else, and nothing that you draw leaves it.</p>
<noscript>
<p class="mixer-instead">The views are drawn by a script: allow scripts on this page to see them.</p>
</noscript>
<div class="mixer-bar-of-page">
<button type="button" id="mixer-begin" hidden>Take the tour</button>
<button type="button" id="mixer-copy" hidden>Copy link</button>
<nav aria-label="Views">
{links}
</nav>
<p id="mixer-said" role="status"></p>
</div>"""


def in_section(section, place, run):
    """A view of the page with its heading and what to look for."""
    name, heading, text, _ = section
    return f"""<section aria-labelledby="{name}">
<h2 id="{name}" tabindex="-1">{heading}</h2>
<p class="mixer-intro">{text.format(recorded=run)}</p>
{place}
</section>"""


def listed(name, title, question):
    """A notebook of the series, as an item of a list."""
    (address,) = repository_addresses() or [""]
    shown = html.escape(title)
    link = f'<a href="{address}/blob/main/notebooks/{name}.ipynb">{shown}</a>' if address else shown
    return f"<li>{link}: {html.escape(question)}</li>"


def addressable(view):
    """What of a view can stand in the page's address: {trait: kind}, as address.js takes them."""
    kinds = {}
    for name, trait in sorted(view.traits(sync=True).items()):
        if isinstance(trait, Index):
            kinds[name] = view.data[trait.count]
        elif isinstance(trait, traitlets.Enum):
            kinds[name] = list(trait.values)
        elif isinstance(trait, traitlets.Bool) and name != "playing":  # nothing moves before it is asked to
            kinds[name] = [False, True]
    if "patch_sizes" in view.data:
        kinds["patch_size"] = view.data["patch_sizes"]
    if "start" in view.trait_names():  # a drawing
        kinds["start"] = len(view.data["starts"])
        kinds["pixels"] = {"pixels": len(view.pixels)}
        kinds["hidden"] = {"patches": view.data["num_patches"]}
    return kinds


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
    """A link to the repository; nothing where its address is not known."""
    links = (f'<a href="{address}">{address}</a>' for address in repository_addresses())
    return "".join(f"Code and notebooks: {link}." for link in links)


def repository_addresses():
    """The repository's address, as the installed package states it, in a list; empty where it is not installed."""
    try:
        urls = importlib.metadata.metadata("mlp-mixer-tutorial").get_all("Project-URL", [])
    except importlib.metadata.PackageNotFoundError:
        return []
    return [html.escape(url.removeprefix("Repository, ")) for url in urls if url.startswith("Repository, ")]


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


# --- what is on the page ----------------------------------------------------------------------------------------------

SECTIONS = (
    Section(
        "network",
        "The network, with a digit flowing through it",
        "Draw, or choose an image, and open any stage by a click, down to its arithmetic. <strong>Look for</strong> "
        "the stroke that changes the model's mind, and for the units of token mixing: some read a single patch, some "
        "compare two places, some take in the whole image.",
        explore,
    ),
    Section(
        "learn",
        "Train one yourself",
        "The button trains a small Mixer from random weights, here in your browser. <strong>Look for</strong> the "
        "moment when its maps begin to have a form: is the accuracy high by then, or still low?",
        lambda model: train_in_browser(),
    ),
    Section(
        "training",
        "A recorded run, step by step",
        "A Mixer of {recorded}. <strong>Look for</strong> the order of events: when is the accuracy close to where it "
        "ends, and when have the maps settled? Which units change most?",
        lambda model: explore_training(load_recorded_run()),
    ),
)

# The tour through the view "network". Steps of a view that is not on the page are left out.
TOUR = [
    {
        "view": "network",
        "set": {"stage": stage},
        "target": f'#network-view .mixer-pane[data-pane="{stage}"]',
        "text": text,
    }
    for stage, text in [
        ("image", "The image is all that the network gets: draw on it, and every other number is computed anew."),
        ("patches", "It is cut into patches that do not overlap, and from here on each of them is one row of a list."),
        ("stem", "The stem, one linear map that is the same for all patches, makes each of them a token of numbers."),
        (
            "token mixing",
            "In token mixing the patches exchange information: a hidden unit reads one number from every patch, with "
            "the weights of its map, and writes to all of them.",
        ),
        (
            "channel mixing",
            "Channel mixing works on one patch at a time: it combines the numbers of this patch and sees no other, "
            "with the same weights everywhere.",
        ),
        ("head", "At the end only the mean over the patches is left, and the head weighs it into one score a class."),
    ]
]

# The notebooks: a file, a title and a question each, as in README's map.
SERIES = (
    ("00_start_here", "Start here", "What is an MLP-Mixer, and what does one look like at work?"),
    ("01_patch_embedding", "Patch embedding", "How does an image become a sequence of tokens?"),
    ("02_token_mixing", "Token mixing", "How can a fixed linear map let patches talk to each other?"),
    ("03_channel_mixing", "Channel mixing", "What happens inside one token?"),
    ("04_mlp_mixer", "The MLP-Mixer", "How do the parts make a network?"),
    ("05_training", "Training", "How do labelled digits turn random numbers into a classifier?"),
    ("06_evaluation", "Evaluation", "How good is it, where does it fail, and is it worth more than simpler models?"),
    (
        "07_mixing_weights",
        "Mixing weights you can see",
        "What do the units of token mixing read and write, and which stories about them hold?",
    ),
    (
        "08_what_mixing_buys",
        "What mixing buys",
        "Which part does the work, what could stand in its place, and does the Mixer know what an image is?",
    ),
    ("09_imagenet_mixer", "The ImageNet Mixer", "Does what digits taught hold for the paper's own network?"),
    ("10_faster_and_bigger", "Faster and bigger", "Where does the time go, and how does one get more of it?"),
)


# --- how a page holds its views ---------------------------------------------------------------------------------------


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
