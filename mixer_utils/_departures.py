"""What makes a model another one than it was built as: layers that were put into it, and what torch.compile adds."""

import re


def departures(model, expected):
    """What makes ``model`` another one than ``expected``, each in a few words; usually nothing.

    Compared are the names and shapes of all tensors; where those agree, what each layer says of itself (another
    activation, another eps), unless it holds other layers. Numbers are not: ``expected`` may be on the meta device.
    """
    found = {name: tuple(tensor.shape) for name, tensor in weights_of(model).items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.state_dict().items()}
    changes = [
        f"{name} is {found.get(name, 'missing')}, expected {shape}"
        for name, shape in wanted.items()
        if found.get(name) != shape
    ]
    changes += [f"{name} does not belong there" for name in found if name not in wanted]
    return changes or layers_changed(model, expected)


def layers_changed(model, expected):
    """The same, of layers whose tensors are as expected."""
    found = {without_compile(name): layer for name, layer in model.named_modules()}
    wanted = dict(expected.named_modules())
    changes = [f"{name} does not belong there" for name in found if name not in wanted]
    for name, layer in wanted.items():
        if any(layer.children()):
            continue
        if name not in found:
            changes.append(f"{name} is missing, expected {layer}")
        elif in_words(found[name].extra_repr()) != in_words(layer.extra_repr()):
            changes.append(f"{name} is {in_words(found[name])}, expected {layer}")
    return changes


def in_words(layer):
    """What a layer says of itself, on one line, with NumPy's numbers as Python's: np.int64(5) is 5."""
    return " ".join(re.sub(r"\bnp\.\w+\(([^()]*)\)", r"\1", str(layer)).split())


def some_of(changes):
    """The first three of many ``changes``, to be put into a sentence."""
    more = f"; and {len(changes) - 3} more" if len(changes) > 3 else ""
    return "; ".join(changes[:3]) + more


def uncompiled(model):
    """The module that ``torch.compile`` was given, where ``model`` is what it returned; else ``model`` itself."""
    return getattr(model, "_orig_mod", model)


def weights_of(model):
    """The ``state_dict`` of a module, under the names that it has where no part of it is compiled."""
    return {without_compile(name): tensor for name, tensor in model.state_dict().items()}


def without_compile(name):
    """The name of a tensor or a layer without what ``torch.compile`` puts into it."""
    return name.replace("_orig_mod.", "").removesuffix("._orig_mod").removesuffix("_orig_mod")
