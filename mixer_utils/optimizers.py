"""Optimisers: Muon for the hidden layers' matrices and filters, AdamW for the rest."""

import math

import torch

from mixer_utils.devices import gains_from_bf16


def make_optimizers(model, recipe):
    """Muon on the matrices between the first layer and the last, AdamW on the rest; or AdamW alone.

    Muon is meant for hidden layers; here the first is called ``stem``, the last ``head``. The filters of a hidden
    convolution count as a matrix (``is_matrix``), as in Keller Jordan's Muon. Biases and LayerNorms are not decayed.
    On CUDA the learning rates are tensors, which a recorded step can read anew (``set_learning_rate``).
    """
    if recipe.optimizer not in ("muon", "adamw"):
        raise ValueError(f'optimizer is {recipe.optimizer!r}: it must be "muon" or "adamw".')
    matrices = []
    weights = []
    vectors = []
    for name, parameter in model.named_parameters():
        hidden = is_matrix(parameter) and not name.startswith(("stem", "head"))
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif hidden and recipe.optimizer == "muon":
            matrices.append(parameter)
        else:
            weights.append(parameter)
    device = next(model.parameters()).device
    rate = recipe.learning_rate
    if device.type == "cuda":
        rate = torch.tensor(rate, device=device)
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    optimizers = []
    if groups:
        fused = device.type in ("cpu", "cuda")
        optimizers.append(torch.optim.AdamW(groups, lr=rate, fused=fused, capturable=device.type == "cuda"))
    if matrices:
        optimizers.append(Muon(matrices, lr=rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay))
    return optimizers


def is_matrix(parameter):
    """Whether a parameter is one linear map: (out, in), or a convolution's filters (out, in, k, k).

    Filters of a single input channel are not: a depthwise convolution has a small map of its own for every channel.
    """
    return parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[1] > 1)


def set_learning_rate(optimizers, rate):
    """Give every optimiser the learning rate of the next step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if torch.is_tensor(group["lr"]):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


class Muon(torch.optim.Optimizer):
    """Momentum whose updates are made nearly orthogonal, so that no direction is learned much faster than another.

    Keller Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/. The arithmetic is torch.optim.Muon's with
    ``adjust_lr_fn="match_rms_adamw"``: updates have AdamW's usual size, and one learning rate serves both. Here all
    matrices of one shape or its transpose are worked on as one stack, which a small model's training time notices
    (notebook 10). Filters (out, in, k, k) are worked on as the matrix (out, in k k).
    """

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            stacks = {}
            for weights in group["params"]:
                if weights.grad is not None:
                    sides = (len(weights), weights.numel() // len(weights))
                    stacks.setdefault(tuple(sorted(sides)), []).append(weights)
            for (_, longer), stack in stacks.items():
                for weights in stack:
                    if not self.state[weights]:
                        self.state[weights]["momentum_buffer"] = torch.zeros_like(weights)
                gradients = [weights.grad for weights in stack]
                momenta = [self.state[weights]["momentum_buffer"] for weights in stack]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov: one step further
                updates = orthogonalized(torch.stack([wide(update.flatten(1)) for update in ahead]))
                updates *= group["lr"] * (0.2 * math.sqrt(longer))
                torch._foreach_mul_(stack, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_sub_(
                    stack, [as_before(update, weights) for update, weights in zip(updates, stack, strict=True)]
                )


# The polynomial a x + b x^3 + c x^5 that each step applies to the singular values: Keller Jordan's coefficients, chosen
# to lift small values fast (a is the slope at 0), at the price of an end between 0.7 and 1.2 and not at 1.
a, b, c = 3.4445, -4.7750, 2.0315


def wide(matrix):
    """A view of a matrix that has no more rows than columns."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def as_before(matrix, weights):
    """A matrix from ``wide(weights.flatten(1))`` in the shape of ``weights`` again."""
    return (matrix if len(weights) == len(matrix) else matrix.T).reshape(weights.shape)


def orthogonalized(matrices, steps=5):
    """About the nearest matrix with orthogonal rows to each of a stack (N, rows, columns), rows no more than columns.

    By Newton-Schulz iteration. Singular values come out between about 0.7 and 1.2, which is near enough; bfloat16 is
    exact enough, too, but slower for matrices of few rows.
    """
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    x = x.bfloat16() if x.shape[-2] > 32 and gains_from_bf16(x.device) else x
    for _ in range(steps):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)  # b (x xT) + c (x xT)²
        x = torch.baddbmm(x, polynomial, x, beta=a)  # a x + b (x xT) x + c (x xT)² x
    return x.to(matrices.dtype)
