"""What the notebooks lean on: shape checks, and claims that hold on MNIST alone."""


def check_shape(tensor, shape):
    """Print the tensor's shape, and stop with one sentence unless it is ``shape``: ``check_shape(x, (B, S, C))``.

    Raises ValueError.
    """
    found = tuple(tensor.shape)
    if found != tuple(shape):
        raise ValueError(f"This tensor has the shape {found}; {tuple(shape)} was expected here.")
    print(" x ".join(map(str, found)) or "a single number")


def claim(text, holds, data=None, only_on="mnist"):
    """Print whether a claim about a measured number holds: ``claim("at least 98.34 %", accuracy >= 0.9834, data)``.

    A claim about MNIST is not checked on other data, and says so. Raises AssertionError where it does not hold.
    """
    if data is not None and data.name != only_on:
        print(f"{text}: not checked ({data.name} instead of {only_on})")
        return
    print(f"{text}: {bool(holds)}")
    if not holds:
        raise AssertionError(f"This was expected to hold and does not: {text}.")
