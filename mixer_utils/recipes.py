"""Recipes: everything that decides a training run but the seed and the device."""

import dataclasses
import numbers

# What a value of each type may be; NumPy's numbers are among them.
KINDS = {int: (numbers.Integral, "a whole number"), float: (numbers.Real, "a number"), str: (str, "a text")}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run but the seed and the device.

    ``learning_rate`` is the highest one reached; it rises linearly over the ``warmup`` share of all steps (or that many
    steps, from 1 on) and falls linearly to zero. ``optimizer`` is "muon" (Muon on the blocks' matrices, AdamW on the
    rest) or "adamw" (on all); ``momentum`` is Muon's. ``shift, translation, elastic`` are in pixels, ``rotation`` in
    degrees, ``scale`` and ``shear`` are shares. ``flip`` is the chance of a mirror image, ``erase`` the side in pixels
    of a square set to zero. ``mixup`` is the alpha of its Beta distribution. A ``clip_norm`` of 0 clips nothing.
    ``validation`` training images are held out and never trained on.
    """

    name: str
    dataset: str = "mnist"
    model: str = "mnist/7"  # a name in CONFIGS
    epochs: int = 8
    batch_size: int = 256
    optimizer: str = "muon"
    learning_rate: float = 1.5e-2
    momentum: float = 0.95
    weight_decay: float = 0.05
    warmup: float = 0.1
    shift: int = 1
    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    translation: float = 0.0
    elastic: float = 0.0
    flip: float = 0.0
    erase: int = 0
    mixup: float = 0.0
    label_smoothing: float = 0.0
    stochastic_depth: float = 0.0
    clip_norm: float = 1.0
    validation: int = 5000

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.type not in KINDS:
                continue  # of a recipe that someone else derived from this one
            value = getattr(self, field.name)
            kind, called = KINDS[field.type]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{field.name} is {value!r}: it must be {called}.")
            least = 1 if field.name in ("epochs", "batch_size") else 0
            if kind is not str and not value >= least:  # not a number is not at least anything
                raise ValueError(f"{field.name} is {value!r}: it must be at least {least}.")
            if type(value) not in (int, float, str):  # NumPy's: JSON holds Python's alone
                object.__setattr__(self, field.name, field.type(value))

    def learning_rate_at(self, step, steps):
        """The learning rate of step ``step`` (from 0) of ``steps``."""
        warmup = max(1, round(self.warmup if self.warmup >= 1 else self.warmup * steps))
        return self.learning_rate * min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))

    @property
    def affine(self):
        """The arguments of ``random_affine``."""
        return {name: getattr(self, name) for name in ("rotation", "scale", "shear", "translation", "elastic")}


RECIPES = {
    recipe.name: recipe
    for recipe in [
        Recipe("quick", model="mnist/quick", epochs=3, batch_size=384, learning_rate=4.5e-2, momentum=0.9, clip_norm=0),
        Recipe("minute"),
        Recipe("full", model="mnist/full", epochs=50, learning_rate=1e-2, shift=0, rotation=15, scale=0.15, shear=0.15,
               translation=2, elastic=1.2),
        # The paper's 14 x 14 patches, for maps that can be seen: strong decay leaves little of chance in them.
        Recipe("mixing", model="mnist/mixing", epochs=30, batch_size=128, learning_rate=5e-3, weight_decay=0.2, shift=0,
               rotation=15, scale=0.15, shear=0.15, translation=2, elastic=0.8),
        Recipe("digits", dataset="digits", epochs=30, batch_size=64, validation=200),
        # The paper's, for ImageNet alone (appendix B); RandAugment and random crops are the data set's.
        Recipe("imagenet", dataset="imagenet", model="B/16", epochs=300, batch_size=4096, optimizer="adamw",
               learning_rate=1e-3, weight_decay=0.1, warmup=10_000, shift=0, mixup=0.5, stochastic_depth=0.1,
               validation=10_000),
    ]
}  # fmt: skip


def find_recipe(recipe):
    """The Recipe, given itself or by its name. Raises ValueError for a name that is not known."""
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise ValueError(f"There is no recipe {recipe!r}: choose one of {', '.join(RECIPES)}.")
        recipe = RECIPES[recipe]
    return recipe


def changed(recipe, settings):
    """The recipe with some values changed, each given as the text "name=value". Raises ValueError for an unfit one."""
    recipe = find_recipe(recipe)
    fields = {field.name: field.type for field in dataclasses.fields(recipe)}
    changes = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in fields:
            raise ValueError(f"A recipe has no {name!r}: choose one of {', '.join(fields)}.")
        try:
            changes[name] = fields[name](value)
        except ValueError:
            _, called = KINDS[fields[name]]
            raise ValueError(f"{name} is {value!r}: it must be {called}.") from None
    return dataclasses.replace(recipe, **changes)
