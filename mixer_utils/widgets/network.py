"""The picture of the whole network: an image on its way through a Mixer, every stage to be opened. See network.js."""

import numpy as np
import torch
import traitlets

from mixer_utils import mixing, plotting
from mixer_utils.data import DataError, load_dataset, normalize
from mixer_utils.widgets import digit
from mixer_utils.widgets.base import (
    SORTS,
    DrawnView,
    Index,
    about,
    as_it_is,
    choice,
    example_images,
    packed,
    packed_colours,
    packed_mixer,
    room,
)
from mixer_utils.widgets.mixing import mixing_data

STAGES = ("", "image", "patches", "stem", "token mixing", "channel mixing", "mean", "head")


def explore(model, images=None, before=None):
    """The whole network in one picture, an image flowing through it: draw, hover, and open any stage.

    From left to right: image, patches, stem, the blocks (what token mixing and channel mixing add to the tokens, and
    the skip connection around each), the mean over the patches, the head. A stage opens in place and shows its
    arithmetic.

    model: any MlpMixer; the view keeps it as it is now. images: uint8 (N, in_channels, H, W) to choose from, else test
    images of the data that the model was trained on, MNIST where it does not say, and the model's worst mistakes among
    them. Images are normalised by the model's own mean and std, else by the data's, else to -1 to 1 as the paper's
    authors did. before: another MlpMixer of the same sizes whose units a switch shows in place of ``model``'s, else the
    architecture as it was before training, as in ``explore_mixing``. Where all fits into 10 MB the weights are sent,
    and the browser runs the model; of a larger one (B/16) only the maps of token mixing are, and Python computes what
    is shown, so that a page without a kernel keeps what it had. Raises ValueError for something else than an MlpMixer,
    for two of unlike sizes, for images that the model cannot take or that are too many to send, and for a model larger
    than L/16.
    """
    return NetworkView(model, images, before)


class NetworkView(DrawnView):
    """The whole network in one picture. Traits: stage, block, unit, hidden_unit, patch, channel, class_index, show,
    scale, sort, before, tab, tool, start, pixels, hidden, probabilities, computed.

    ``stage`` is the one that is open, "" for none, and ``block`` whose token or channel mixing it is. ``pixels`` are
    the image's in_channels * H * W bytes, black 0; they follow when the pen is lifted. ``hidden`` lists the patches
    that reach the model black, ``start`` is the example last loaded, -1 once the image is another. ``probabilities``
    are the answer. ``computed`` holds what Python computed of a model that is too large to send: what is shown, of
    which choices.
    """

    view = traitlets.Unicode("network").tag(sync=True)
    stage = choice(*STAGES)
    block = Index("num_blocks")
    unit = Index("num_units")
    hidden_unit = Index("num_hidden_units")
    patch = Index("num_patches")
    channel = Index("num_channels")
    class_index = Index("num_classes")
    show = choice("norm", "channel")
    colours = choice("each", "shared")
    scale = choice("shared", "each")
    sort = choice(*SORTS)
    before = traitlets.Bool(False).tag(sync=True)
    tab = choice("units", "patches")
    computed = traitlets.Dict().tag(sync=True)

    def __init__(self, model, images=None, before=None):
        sent = mixing_data(model, before)
        self.model = as_it_is(model)
        self.stages = {}  # of the image at hand, filled when they are asked for
        self.followed = None  # what was last computed for the front-end
        shown = images_to_start_from(model, self.model, images)
        self.examples = shown.pop("images")
        config = model.config
        super().__init__(
            data={
                **shown,
                **weights_that_fit(model, sent, self.examples),
                "config": config,
                "image_shape": list(model.image_shape),
                "grid": list(mixing.patch_grid(model)),
                "num_blocks": config["num_blocks"],
                "num_units": config["tokens_mlp_dim"],
                "num_hidden_units": config["channels_mlp_dim"],
                "num_patches": model.num_tokens,
                "num_channels": config["hidden_dim"],
                "num_classes": config["num_classes"],
                "examples": packed(self.examples),
                "colours": packed_colours(),
            },
            pixels=bytes(int(np.prod(model.image_shape))),
        )
        self.start = 0 if len(self.examples) else -1
        self.choose_what_is_large()
        self.follow()
        self.observe(self.follow, names=FOLLOWED)

    # --- what its traits take ---

    @traitlets.validate("pixels")
    def check_pixels(self, proposal):
        channels, height, width = self.data["image_shape"]
        count = len(proposal["value"])
        if count != channels * height * width:
            planes = "" if channels == 1 else f" in each of {channels} channels"
            raise traitlets.TraitError(
                f"pixels holds {count} bytes: it must hold {channels * height * width}, a value from 0 to 255 for each "
                f"of {height} × {width} pixels{planes}."
            )
        return proposal["value"]

    @traitlets.validate("before")
    def check_before(self, proposal):
        if proposal["value"] and len(self.data["mixing"]["sides"]) == 1:
            raise traitlets.TraitError("before is True: this model was sent alone, with nothing to compare it with.")
        return proposal["value"]

    @traitlets.observe("pixels", "hidden")
    def leave_example(self, change):
        self.stages = {}
        if self.start >= 0 and bytes(self.pixels) != self.example():
            self.start = -1

    # --- from the image to the answer ---

    def trace(self):
        """Every stage of the image by name, as ``stages_of`` gives it."""
        if not self.stages:
            image = normalize(torch.from_numpy(self.image())[None], self.data["mean"], self.data["std"])
            self.stages = stages_of(self.model, image)
        return self.stages

    def choose_what_is_large(self):
        """What is seen first is no zero: the patch with the largest token, its largest channel, the answer's votes."""
        trace = self.trace()
        tokens = trace["blocks"][-1]
        self.patch = int(tokens.norm(dim=1).argmax())
        self.channel = int(trace["normed"][0][self.patch].abs().argmax())
        outputs = token_mixing_units(self.model.blocks[0], trace["normed"][0])
        writes = self.model.blocks[0].token_mixing.dense_1.weight[self.patch].float().cpu()
        self.unit = int((outputs[:, self.channel] * writes).abs().argmax())
        self.hidden_unit = int(
            channel_mixing_units(self.model.blocks[0], trace["normed_between"][0])[self.patch].argmax()
        )
        self.class_index = int(trace["logits"].argmax())

    def follow(self, change=None):
        """What Python computes for the front-end: the answer, and of a model too large to send all that is shown."""
        if "mixer" in self.data:
            if change is None or change["name"] in ("pixels", "hidden"):
                self.probabilities = self.trace()["logits"].softmax(0).tolist()
            return
        of = {name: getattr(self, name) for name in CHOICES}
        picture = (bytes(self.pixels), list(self.hidden))
        if self.followed == (of, picture):
            return  # several traits changed at once
        self.followed = (of, picture)
        self.probabilities = self.trace()["logits"].softmax(0).tolist()
        parts = {name: {key: packed(array, "float32") for key, array in part.items()}
                 for name, part in self.parts().items()}  # fmt: skip
        self.computed = {"of": of, **parts}

    # --- the numbers that are shown, as numbers.js computes them of a model that was sent ---

    def parts(self):
        """What is drawn: {"overview": arrays by name} and, where a stage is open, its arrays by its name."""
        parts = {"overview": self.overview()}
        if self.stage in PARTS:
            parts[self.stage] = getattr(self, PARTS[self.stage])()
        return parts

    def squares(self, tokens):
        """A number for each token, (S,): its norm, or the chosen channel."""
        return (tokens.norm(dim=-1) if self.show == "norm" else tokens[..., self.channel]).numpy()

    def overview(self):
        """The small maps, (num_blocks, S) each ("stem": (S,)), the mean (C,), the logits (num_classes,)."""
        trace = self.trace()
        names = ("token_mixing", "between", "channel_mixing", "blocks")
        maps = {name: self.squares(torch.stack(trace[name])) for name in names}
        return {"stem": self.squares(trace["stem"]), **maps, "mean": trace["mean"], "logits": trace["logits"]}

    def stem(self):
        """The chosen channel's filter (in_channels * P * P,) and bias (1,), and the channel after the stem (S,)."""
        stem = self.model.stem.proj
        return {
            "filter": stem.weight[self.channel].flatten().float().cpu(),
            "bias": stem.bias[self.channel].reshape(1).float().cpu(),
            "values": self.trace()["stem"][:, self.channel],
        }

    def token_mixing(self):
        """The chosen channel before token mixing of the block and what that adds to it, (S,) each; and how much each
        patch moves the chosen one, (S,), and is moved by it, (S,): ``mixing.influence``.
        """
        trace = self.trace()
        influence = mixing.block_influence(
            self.model.blocks[self.block], trace["entering"][self.block], trace["normed"][self.block]
        )
        return {
            "values": trace["normed"][self.block][:, self.channel],
            "added": trace["token_mixing"][self.block][:, self.channel],
            "moves": influence[self.patch],
            "moved": influence[:, self.patch],
        }

    def channel_mixing(self):
        """The chosen patch in channel mixing of the block: the C numbers that go in, the D_C hidden units, the C
        numbers that are added; what the chosen hidden unit reads and writes, (C,) each, its bias (1,), and its value
        in every patch (S,).
        """
        trace = self.trace()
        block = self.model.blocks[self.block]
        hidden = channel_mixing_units(block, trace["normed_between"][self.block])
        first, second = block.channel_mixing.dense_0, block.channel_mixing.dense_1
        return {
            "normed": trace["normed_between"][self.block][self.patch],
            "hidden": hidden[self.patch],
            "added": trace["channel_mixing"][self.block][self.patch],
            "reads": first.weight[self.hidden_unit].float().cpu(),
            "bias": first.bias[self.hidden_unit].reshape(1).float().cpu(),
            "writes": second.weight[:, self.hidden_unit].float().cpu(),
            "over": hidden[:, self.hidden_unit],
        }

    def mean(self):
        """The chosen channel of the normalised tokens, (S,)."""
        return {"values": self.trace()["last"][:, self.channel]}

    def head(self):
        """Each patch's share in the chosen class's logit, (S,), and the bias, (1,): together they are the logit."""
        head = self.model.head
        weight = head.weight[self.class_index].float().cpu()
        return {
            "votes": self.trace()["last"] @ weight / self.model.num_tokens,
            "bias": head.bias[self.class_index].reshape(1).float().cpu(),
        }

    # --- where nothing live is ---

    def picture(self):
        trace = self.trace()
        probabilities = trace["logits"].softmax(0).numpy()
        names = self.data["class_names"]
        best = int(probabilities.argmax())
        num_blocks = self.data["num_blocks"]
        blocks = range(num_blocks) if num_blocks <= 4 else [0, 1, num_blocks - 2, num_blocks - 1]
        maps = [("stem", trace["stem"]), *((f"block {i}", trace["blocks"][i]) for i in blocks)]
        what = "norm" if self.show == "norm" else f"channel {self.channel}"
        hidden = f", {len(self.hidden)} of its patches hidden," if self.hidden else ""
        alt = (
            f"An image{hidden} on its way through a Mixer of {num_blocks} blocks, from left to right: the image, a "
            f"small map of its {self.data['num_patches']} tokens ({what}) after the stem and after "
            f"{'every block' if num_blocks <= 4 else 'the first two and the last two blocks'}, and the answer as bars: "
            f"{names[best]} with a probability of {probabilities[best]:.1%}."
        )
        widths = [1.2, *[1] * len(maps), 1.4]
        picture, axes = plotting.figure(1, len(widths), (1.35 * sum(widths), 1.9), alt, width_ratios=widths)
        axes[0].imshow(plotting.as_picture(self.image()), cmap="gray", vmin=0, vmax=255)
        axes[0].set_title("image", fontsize=9)
        for ax, (name, tokens) in zip(axes[1:-1], maps, strict=True):
            values = self.squares(tokens).reshape(self.data["grid"])
            top = float(np.abs(values).max()) or 1
            ax.imshow(values, cmap=plotting.SIGNED, vmin=-top, vmax=top)
            ax.set_title(name, fontsize=9)
        for ax in axes[:-1]:
            ax.axis("off")
        shown = np.sort(np.argsort(-probabilities, kind="stable")[:10])
        axes[-1].barh([names[k] for k in shown], probabilities[shown], color=plotting.BLUE)
        axes[-1].invert_yaxis()
        axes[-1].set(xlim=(0, 1), xticks=[])
        axes[-1].tick_params(labelsize=8, length=0)
        axes[-1].set_title(f"{names[best]}, {probabilities[best]:.1%}", fontsize=9)
        return picture


CHOICES = ("stage", "block", "patch", "channel", "hidden_unit", "class_index", "show")  # what `computed` depends on
FOLLOWED = [*CHOICES, "pixels", "hidden"]
PARTS = {  # the stages whose numbers are computed, and the method that does
    "stem": "stem",
    "token mixing": "token_mixing",
    "channel mixing": "channel_mixing",
    "mean": "mean",
    "head": "head",
}


@torch.no_grad()
def stages_of(model, image):
    """Every stage of one normalised image (1, in_channels, H, W), float32 on the CPU; those of blocks are lists.

    "stem", "last" (after the last LayerNorm), "mean" and "logits"; of every block "entering", "normed" (what token
    mixing is given), "token_mixing" (what it adds), "between", "normed_between", "channel_mixing" and "blocks" (what
    leaves it).
    """
    stages = {name: [] for name in BLOCK_STAGES}
    here = model.stem.proj.weight
    x = model.stem(image.to(here))
    stages["stem"] = x
    for block in model.blocks:
        normed = block.norm_0(x)
        mixed = block.token_mixing(normed)
        between = x + mixed
        normed_between = block.norm_1(between)
        added = block.channel_mixing(normed_between)
        leaving = between + added
        of_block = (x, normed, mixed, between, normed_between, added, leaving)
        for name, tokens in zip(BLOCK_STAGES, of_block, strict=True):
            stages[name].append(tokens)
        x = leaving
    stages["last"] = model.pre_head_layer_norm(x)
    stages["mean"] = stages["last"].mean(dim=1)
    stages["logits"] = model.head(stages["mean"])
    return {name: [here_of(one) for one in stage] if isinstance(stage, list) else here_of(stage)
            for name, stage in stages.items()}  # fmt: skip


BLOCK_STAGES = ("entering", "normed", "token_mixing", "between", "normed_between", "channel_mixing", "blocks")


def here_of(tokens):
    """The first and only image's tensor as float32 on the CPU."""
    return tokens[0].float().cpu()


@torch.no_grad()
def token_mixing_units(block, normed):
    """What the hidden units of a block's token mixing give, (D_S, C), from what they read, (S, C)."""
    first = block.token_mixing.dense_0
    return block.token_mixing.act(first(normed.T.to(first.weight))).T.float().cpu()


@torch.no_grad()
def channel_mixing_units(block, normed):
    """What the hidden units of a block's channel mixing give, (S, D_C), from what they read, (S, C)."""
    first = block.channel_mixing.dense_0
    return block.channel_mixing.act(first(normed.to(first.weight))).float().cpu()


# --- what is sent -----------------------------------------------------------------------------------------------------


def weights_that_fit(model, sent, images):
    """{"mixing", "biases" (of its units), and "mixer", the whole model, or "filters", the stem's}.

    The units before training and the filters are left away where there is no room for them, and the model where there
    is none for it; then Python computes what is shown. Raises ValueError where not even images and maps can be sent.
    """
    biases = [block.token_mixing.dense_0.bias.detach().float().cpu().numpy() for block in model.blocks]
    with_maps = {"mixing": sent, "biases": packed(np.stack(biases))}
    maps_alone = {**with_maps, "mixing": {**sent, "sides": sent["sides"][:1]}}
    filters = {"filters": packed(model.stem.proj.weight.detach().float().cpu().numpy(), "float16")}
    choices = [{**with_maps, **filters}, {**maps_alone, **filters}, maps_alone]
    count = sum(tensor.numel() for tensor in model.parameters())
    if 2 * count <= room():  # else it is too large in half precision, too, and is not packed to find that out
        mixer = {"mixer": packed_mixer(model)}
        if bytes_in({**maps_alone, **mixer}) <= room():
            choices = [{**with_maps, **mixer}, {**maps_alone, **mixer}]
    for data in choices:
        if bytes_in(data) + images.nbytes <= room():
            return data
    most = max(0, room(bytes_in(choices[-1])) // images[0].nbytes)
    raise ValueError(f"{len(images)} images are too many to send: give at most {most} of them.")


def bytes_in(value):
    """Bytes that a packed array, or a dict or list with such in it, takes."""
    if isinstance(value, dict):
        return sum(map(bytes_in, value.values()))
    if isinstance(value, list):
        return sum(map(bytes_in, value))
    return len(value) if isinstance(value, bytes) else 0


# --- images -----------------------------------------------------------------------------------------------------------


def images_to_start_from(model, copy, images):
    """{"starts": [{"group", "label"}], "images": uint8 (N, in_channels, H, W), "mean", "std", "class_names", "note",
    "pictures": how a photograph is made into an image}.

    Raises ValueError for images that the model does not take.
    """
    data, note = (None, "") if images is not None else data_of(model)
    names = about(model).get("class_names") or (data.class_names if data else range(model.config["num_classes"]))
    names = [str(name) for name in names]
    starts = []
    if images is not None:
        images, mean, std = example_images(model, images)
        starts = [{"group": "Images", "label": f"image {i}"} for i in range(len(images))]
    elif data:
        mean, std = digit.mean_and_std(model, data)
        starts, images = examples(copy, data, mean, std, names)
    else:
        channels = model.image_shape[0]
        mean = about(model).get("mean", [0.5] * channels)
        std = about(model).get("std", [0.5] * channels)
        images = np.zeros((0, *model.image_shape), np.uint8)
    return {
        "starts": starts,
        "images": images,
        "mean": list(mean),
        "std": list(std),
        "class_names": names,
        "note": note,
        "pictures": digit.pictures_for(model, data),
    }


def data_of(model):
    """The Dataset a model was trained on, MNIST where it does not say, and ""; or None, and a note that says why."""
    name = about(model).get("dataset", "mnist")
    try:
        data = load_dataset(name)
    except (DataError, ValueError):
        return None, f"There are no images to start from, as {name} could not be had."
    if not digit.suits(model, data):
        return None, f"There are no images to start from, as the model is not for those of {name}."
    return data, ""


def examples(model, data, mean, std, names):
    """Three test images of each class, 30 at most, then the model's worst mistakes: starts, and images (N, C, H, W)."""
    labels = data.test.labels.cpu()
    chosen = [i for k in range(len(names)) for i in (labels == k).nonzero()[:3, 0].tolist()][:30]
    starts = [{"group": "Test images", "label": f"{names[labels[i]]} (test image {i})"} for i in chosen]
    worst, called, tried = digit.highest_losses(model, data, mean, std)
    group = f"The model's worst mistakes in {tried:,} test images"
    for i, k in zip(worst, called, strict=True):
        starts.append({"group": group, "label": f"{names[labels[i]]}, called {names[k]} (test image {i})"})
    return starts, data.test.images[chosen + worst].cpu().numpy()
