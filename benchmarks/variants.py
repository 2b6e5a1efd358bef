"""The networks that notebook 08 compares, and the loop that trains them: a Mixer with parts taken out or exchanged.

The notebook shows all of this in its cells, and a test compares them. ``tools/measure.py variants`` trains the same
networks for longer. Letters: B batch, S tokens, C channels, P patch side.
"""

import torch
from torch import nn
from torch.nn import functional as F

from mixer_utils import MlpMixer
from mixer_utils.baselines import cnn, count_parameters, mlp
from mixer_utils.model import MlpBlock

B, S, C, P = 2, 16, 48, 7
D_S = C // 2
SIZES = dict(patch_size=P, num_blocks=3, hidden_dim=C, tokens_mlp_dim=D_S, channels_mlp_dim=4 * C, gelu="erf")


def mixer():
    return MlpMixer(**SIZES)


# --- without one half of the block ------------------------------------------------------------------------------------


class Nothing(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def with_token_mixing(make):
    """A Mixer that has make() in every block instead of its token mixing."""
    model = mixer()
    for block in model.blocks:
        block.token_mixing = make()
    return model


def without_channel_mixing():
    model = mixer()
    for block in model.blocks:
        block.channel_mixing = Nothing()
    return model


# --- something else in its place --------------------------------------------------------------------------------------


class FixedMatrix(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("matrix", torch.randn(S, S) / S**0.5)  # keeps the size of what it mixes

    def forward(self, x):
        return self.matrix @ x


class AveragePooling(nn.Module):
    def forward(self, x):
        return x.mean(dim=1, keepdim=True).expand_as(x)


class DepthwiseConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(C, C, kernel_size=3, padding=1, groups=C)  # groups=C: every channel by itself

    def forward(self, x):
        maps = x.transpose(1, 2).unflatten(2, (4, 4))  # (B, C, rows, columns)
        return self.conv(maps).flatten(2).transpose(1, 2)


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(C, num_heads=4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class StemWithPlaces(nn.Module):
    def __init__(self, stem):
        super().__init__()
        self.stem, self.place = stem, nn.Parameter(torch.randn(S, C))

    def forward(self, images):
        return self.stem(images) + self.place


def attention_with_places():
    model = with_token_mixing(SelfAttention)
    model.stem = StemWithPlaces(model.stem)
    return model


# --- one MLP for more, or for less ------------------------------------------------------------------------------------


def tied():
    model = mixer()
    for block in model.blocks:
        block.token_mixing = model.blocks[0].token_mixing
    return model


class Untied(nn.Module):
    """An MLP over the tokens for every channel, each with weights of its own."""

    def __init__(self):
        super().__init__()
        self.W_1 = nn.Parameter(torch.randn(C, S, D_S) / S**0.5)
        self.b_1 = nn.Parameter(torch.zeros(C, 1, D_S))
        self.W_2 = nn.Parameter(torch.randn(C, D_S, S) / D_S**0.5)
        self.b_2 = nn.Parameter(torch.zeros(C, 1, S))

    def forward(self, x):
        rows = x.permute(2, 0, 1)  # (C, B, S): a matrix for each channel
        hidden = F.gelu(rows @ self.W_1 + self.b_1)  # (C, B, D_S)
        return (hidden @ self.W_2 + self.b_2).permute(1, 2, 0)


class Grouped(nn.Module):
    """One MLP over the tokens of four channels together, the same for all twelve groups of four."""

    def __init__(self):
        super().__init__()
        self.mlp = MlpBlock(4 * S, 4 * D_S, gelu="erf")

    def forward(self, x):
        groups = x.unflatten(2, (C // 4, 4)).transpose(1, 2)  # (B, groups, S, 4)
        mixed = self.mlp(groups.flatten(2)).unflatten(2, (S, 4))
        return mixed.transpose(1, 2).flatten(2)


# --- all of them ------------------------------------------------------------------------------------------------------

NETWORKS = {
    "Mixer": mixer,
    "no token mixing": lambda: with_token_mixing(Nothing),
    "no channel mixing": without_channel_mixing,
    "tied MLP": tied,
    "fixed random matrix": lambda: with_token_mixing(FixedMatrix),
    "average pooling": lambda: with_token_mixing(AveragePooling),
    "depthwise convolution": lambda: with_token_mixing(DepthwiseConvolution),
    "self-attention": lambda: with_token_mixing(SelfAttention),
    "attention with places": attention_with_places,
    "an MLP per channel": lambda: with_token_mixing(Untied),
    "groups of channels": lambda: with_token_mixing(Grouped),
    "plain MLP": lambda: mlp((1, 28, 28), 10, count_parameters(mixer())),
    "small CNN": lambda: cnn((1, 28, 28), 10, count_parameters(mixer())),
}


# --- how they are trained ---------------------------------------------------------------------------------------------


def fit(model, images, labels, rate, seed, steps, batch_size=128):
    """Train the model in place; returns the loss of every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1, anneal_strategy="linear", cycle_momentum=False
    )
    generator, losses = torch.Generator().manual_seed(seed), []
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(labels), (batch_size,), generator=generator).to(images.device)
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@torch.inference_mode()
def accuracy(model, images, labels):
    model.eval()
    predicted = torch.cat([model(part).argmax(dim=1) for part in images.split(1000)])
    return (predicted == labels).float().mean().item()


def bracketed(score, rates):
    """Score each rate; while the best lies at an end, try one beyond it. Returns the best rate and all scores."""
    scores = {rate: score(rate) for rate in sorted(rates)}
    while (best := max(scores, key=scores.get)) in (min(scores), max(scores)):
        beyond = best / 2 if best == min(scores) else best * 2
        scores[beyond] = score(beyond)
    return best, dict(sorted(scores.items()))
