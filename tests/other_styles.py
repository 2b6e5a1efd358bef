"""Right answers written in another style than in solutions.py: the checks must take them as well."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

OTHER_STYLES = {}

# --- notebook 00 ----------------------------------------------------------------------------------------------------


def patches_cut_out(height, width, patch_size):
    patches = torch.zeros(height, width).unfold(0, patch_size, patch_size).unfold(1, patch_size, patch_size)
    return patches.shape[0] * patches.shape[1]


def corners_counted(height, width, patch_size):
    return len([(top, left) for top in range(0, height, patch_size) for left in range(0, width, patch_size)])


def every_bit_turned_over(images):
    return ~images


def looked_up(images):
    return torch.arange(255, -1, -1)[images.long()]


OTHER_STYLES |= {"00.1": [patches_cut_out, corners_counted], "00.2": [every_bit_turned_over, looked_up]}


# --- notebook 01 ----------------------------------------------------------------------------------------------------


def tokens_counted(height, width, patch_size):
    return sum(1 for _ in range(0, height, patch_size) for _ in range(0, width, patch_size))


def tokens_of_a_convolution(height, width, patch_size):
    return nn.Conv2d(1, 1, patch_size, stride=patch_size)(torch.zeros(1, 1, height, width)).numel()


def placed_one_by_one(patches, in_channels, height, width, patch_size):
    P = patch_size
    images = torch.zeros(len(patches), in_channels, height, width)
    for s in range(patches.shape[1]):
        row, column = divmod(s, width // P)
        top = row * P
        left = column * P
        images[:, :, top : top + P, left : left + P] = patches[:, s].view(-1, in_channels, P, P)
    return images


def folded(patches, in_channels, height, width, patch_size):
    return F.fold(patches.mT, (height, width), patch_size, stride=patch_size)


def rearranged_by_letters(patches, in_channels, height, width, patch_size):
    sizes = (height // patch_size, width // patch_size)
    pieces = patches.unflatten(2, (in_channels, patch_size, patch_size)).unflatten(1, sizes)
    return torch.einsum("bhwcpq->bchpwq", pieces).flatten(4, 5).flatten(2, 3)


def compared_token_by_token(stem, images, row, column):
    other = images.clone()
    other[:, :, row, column] = -other[:, :, row, column] - 3
    pairs = zip(stem(images)[0], stem(other)[0], strict=True)
    return [not torch.allclose(before, after) for before, after in pairs]


def by_the_slope(stem, images, row, column):
    slopes = torch.autograd.functional.jacobian(lambda images: stem(images)[0], images)  # (S, C, B, in_channels, H, W)
    return slopes[:, :, 0, 0, row, column].abs().amax(dim=1) > 1e-6


OTHER_STYLES |= {
    "01.1": [tokens_counted, tokens_of_a_convolution],
    "01.2": [placed_one_by_one, folded, rearranged_by_letters],
    "01.3": [compared_token_by_token, by_the_slope],
}


# --- notebook 02 ----------------------------------------------------------------------------------------------------


def moved_by_a_loop(num_tokens):
    mix = torch.zeros(num_tokens, num_tokens)
    for s in range(1, num_tokens):
        mix[s, s - 1] = 1
    return mix


def moved_in_lists(num_tokens):
    return [[int(column == row - 1) for column in range(num_tokens)] for row in range(num_tokens)]


def padded_identity(num_tokens):
    return F.pad(torch.eye(num_tokens - 1), (0, 1, 1, 0))


def first_half_by_einsum(x, norm, mlp):
    hidden = torch.einsum("ds,bsc->bdc", mlp.dense_0.weight, norm(x)) + mlp.dense_0.bias[:, None]
    return torch.einsum("sd,bdc->bsc", mlp.dense_1.weight, mlp.act(hidden)) + mlp.dense_1.bias[:, None] + x


def first_half_channel_by_channel(x, norm, mlp):
    y = x.clone()
    for c in range(x.shape[2]):
        y[:, :, c] += mlp(norm(x)[:, :, c])
    return y


def first_half_in_place(x, norm, mlp):
    x += mlp(norm(x).permute(0, 2, 1)).permute(0, 2, 1)
    return x


def all_tokens_at_once(layer, x):
    B, S, C = x.shape
    others = x.repeat(S, 1, 1, 1)
    for j in range(S):
        others[j, :, j] = torch.linspace(-2, 3, C) ** 2
    after = layer(others.flatten(0, 1)).view(S, B, S, C)
    return ((after - layer(x)).abs().amax(dim=(1, 3)) > 1e-5).T


def by_the_jacobian(layer, x):
    slopes = torch.autograd.functional.jacobian(layer, x)  # (B, S, C, B, S, C)
    return slopes.abs().amax(dim=(0, 2, 3, 5)) > 1e-5


OTHER_STYLES |= {
    "02.1": [moved_by_a_loop, moved_in_lists, padded_identity],
    "02.2": [first_half_by_einsum, first_half_channel_by_channel, first_half_in_place],
    "02.3": [all_tokens_at_once, by_the_jacobian],
}


# --- notebook 03 ----------------------------------------------------------------------------------------------------


def norm_over_channels_by_a_module(x):
    return nn.LayerNorm(x.shape[-1], eps=1e-6)(x)


def norm_over_channels_turned_first(x):
    return F.layer_norm(x.mT.contiguous().mT, (x.size(2),), None, None, 1e-6)


def layer_norm_token_by_token(x, eps=1e-6):
    result = torch.empty_like(x)
    for b in range(x.shape[0]):
        for s in range(x.shape[1]):
            token = x[b, s] - sum(x[b, s]) / x.shape[2]
            result[b, s] = token / math.sqrt(sum(token**2) / x.shape[2] + eps)
    return result


def layer_norm_in_numpy(x, eps=1e-6):
    values = x.numpy().astype(np.float64)
    return (values - values.mean(2, keepdims=True)) / np.sqrt(values.var(2, keepdims=True) + eps)


def token_share_cancelled(S, C, D_S, D_C):
    return 1 / (1 + D_C / D_S)


def inside_tokens_token_by_token(layer, x):
    S = x.shape[1]
    nudge = F.one_hot(torch.tensor(0), S)[:, None]  # 1 in row 0 of (S, 1)
    before = layer(x)
    after = layer(x + nudge)
    turned = layer(x[:, list(reversed(range(S)))])
    leak = max((after[:, s] - before[:, s]).abs().max() for s in range(1, S))
    mismatch = max((turned[:, S - 1 - s] - before[:, s]).abs().max() for s in range(S))
    return torch.stack([leak, mismatch])


OTHER_STYLES |= {
    "03.1": [norm_over_channels_by_a_module, norm_over_channels_turned_first],
    "03.2": [layer_norm_token_by_token, layer_norm_in_numpy],
    "03.3": [token_share_cancelled],
    "03.4": [inside_tokens_token_by_token],
}


# --- notebook 04 ----------------------------------------------------------------------------------------------------


def end_of_network_head_first(x, norm, head):
    return head(norm(x)).mean(1)  # a Linear of a mean is the mean of the Linear


def end_of_network_image_by_image(x, norm, head):
    return torch.stack([head(sum(norm(token) for token in image) / len(image)) for image in x])


def block_parameters_counted(S, C, D_S, D_C):
    def mlp(dim, width):
        return nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, dim))

    parts = nn.ModuleList([nn.LayerNorm(C), mlp(S, D_S), nn.LayerNorm(C), mlp(C, D_C)])
    return sum(p.numel() for p in parts.parameters())


def block_parameters_in_one_line(S, C, D_S, D_C):
    return sum(dim * (2 * width + 1) + width for dim, width in [(S, D_S), (C, D_C)]) + 4 * C


def block_forward_row_by_row(x, norm_0, token_mixing, norm_1, channel_mixing):
    y = norm_0(x)
    x += torch.stack([token_mixing(y[:, :, c]) for c in range(x.shape[2])], dim=2)
    for s in range(x.shape[1]):
        x[:, s] += channel_mixing(norm_1(x[:, s]))
    return x


def block_forward_by_einsum(x, norm_0, token_mixing, norm_1, channel_mixing):
    t = token_mixing
    hidden = t.act(torch.einsum("hs,bsc->bhc", t.dense_0.weight, norm_0(x)) + t.dense_0.bias[:, None])
    x = x + torch.einsum("sh,bhc->bsc", t.dense_1.weight, hidden) + t.dense_1.bias[:, None]
    return torch.add(x, channel_mixing(norm_1(x)))


def reach_block_by_block(model, images):
    corner = torch.zeros_like(images)
    corner[..., 0, 0] = 1
    a = images
    b = images + corner
    shares = []
    for layer in [model.stem, *model.blocks]:
        a = layer(a)
        b = layer(b)
        changed = sum((difference.abs() > 1e-6).any() for difference in (a - b).flatten(0, 1))
        shares.append(changed / (a.shape[0] * a.shape[1]))
    return torch.stack(shares)


OTHER_STYLES |= {
    "04.1": [end_of_network_head_first, end_of_network_image_by_image],
    "04.2": [block_parameters_counted, block_parameters_in_one_line],
    "04.3": [block_forward_row_by_row, block_forward_by_einsum],
    "04.4": [reach_block_by_block],
}


# --- notebook 05 ----------------------------------------------------------------------------------------------------


def accuracy_by_counting(logits, labels):
    right = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        right += row.index(max(row)) == label
    return right / len(labels)


def accuracy_by_top_1(logits, labels):
    return np.mean(logits.topk(1).indices[:, 0].numpy() == labels.numpy())


def cross_entropy_image_by_image(logits, labels):
    losses = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        powers = [math.exp(logit) for logit in row]
        losses.append(-math.log(powers[label] / sum(powers)))
    return sum(losses) / len(losses)


def cross_entropy_with_one_hot(logits, labels):
    chosen = F.one_hot(labels, logits.shape[1]).float()
    return -torch.einsum("bk,bk->", chosen, F.log_softmax(logits, dim=1)) / len(labels)


def schedule_by_pytorch(step, steps, peak, warmup):
    fall = torch.hann_window(2 * (steps - warmup), dtype=torch.float64)[steps - warmup :]
    rise = torch.linspace(1 / warmup, 1, warmup, dtype=torch.float64)
    return peak * torch.cat([rise, fall])[step]


def schedule_by_sine_squared(step, steps, peak, warmup):
    left = (steps - step) / (steps - warmup)
    return peak * (min(1, (step + 1) / warmup) if step < warmup else np.sin(np.pi / 2 * left) ** 2)


def compare_with_numpy(run, seeds):
    small, large = (np.array([run(size, seed)["validation_accuracy"] for seed in seeds]) for size in (64, 256))
    difference = small - large
    return np.array([difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5])


def compare_by_sums(run, seeds):
    total = 0.0
    squares = 0.0
    for seed in seeds:
        difference = run(64, seed)["validation_accuracy"] - run(256, seed)["validation_accuracy"]
        total += difference
        squares += difference**2
    n = len(seeds)
    return total / n, math.sqrt((squares - total**2 / n) / (n - 1) / n)


def compare_by_covariance(run, seeds):
    pairs = torch.tensor([[run(size, seed)["validation_accuracy"] for seed in seeds] for size in (64, 256)])
    (of_64, both), (_, of_256) = torch.cov(pairs)
    return torch.stack([pairs[0].mean() - pairs[1].mean(), ((of_64 + of_256 - 2 * both) / len(seeds)).sqrt()])


OTHER_STYLES |= {
    "05.1": [accuracy_by_counting, accuracy_by_top_1],
    "05.2": [cross_entropy_image_by_image, cross_entropy_with_one_hot],
    "05.3": [schedule_by_pytorch, schedule_by_sine_squared],
    "05.4": [compare_with_numpy, compare_by_sums, compare_by_covariance],
}


# --- notebook 06 ----------------------------------------------------------------------------------------------------


def recall_in_a_loop(matrix, k):
    images = 0
    for count in matrix[k]:
        images += count
    return torch.tensor(float(matrix[k][k])) / float(images)


def macro_f1_from_counts(matrix):
    scores = []
    for k in range(len(matrix)):
        hit = matrix[k, k]
        missed = matrix[k].sum() - hit
        wrongly_called = matrix[:, k].sum() - hit
        scores.append(hit / (hit + (missed + wrongly_called) / 2))
    return sum(scores) / len(scores)


def calibration_error_by_counting(confidence, right, bins):
    where = (confidence * bins).astype(int)
    return np.abs(np.bincount(where, confidence) - np.bincount(where, right)).sum() / len(right)


def compare_by_the_formula_of_section_3(predict_a, predict_b, splits):
    images, labels = splits["test"]
    pairs = [(a == y, b == y) for a, b, y in zip(predict_a(images), predict_b(images), labels, strict=True)]
    only_a = pairs.count((True, False))
    only_b = pairs.count((False, True))
    return (only_a - only_b) / len(pairs), math.sqrt(only_a + only_b) / len(pairs)


def compare_with_n_minus_1(predict_a, predict_b, splits):
    images, labels = map(torch.as_tensor, splits["test"])
    right = [torch.as_tensor(predict(images.numpy())).eq(labels).double() for predict in (predict_a, predict_b)]
    difference = right[0] - right[1]
    return torch.stack([difference.mean(), difference.std() / len(difference) ** 0.5])


OTHER_STYLES |= {
    "06.1": [recall_in_a_loop],
    "06.2": [macro_f1_from_counts],
    "06.3": [calibration_error_by_counting],
    "06.4": [compare_by_the_formula_of_section_3, compare_with_n_minus_1],
}


# --- notebook 07 ----------------------------------------------------------------------------------------------------


def written_patch_by_patch(patches, reads, bias, writes):
    z = sum(weight * value for weight, value in zip(reads, patches, strict=True)) + bias
    value = z * (1 + torch.erf(z / math.sqrt(2))) / 2  # the GELU by its formula
    return torch.stack([weight * value for weight in writes])


def most_opposite_pair_by_pair(reads):
    result = []
    for own in reads:
        cosines = [F.cosine_similarity(own, other, dim=0).item() for other in reads]
        result.append(cosines.index(min(cosines)))
    return result


def share_entry_by_entry(influence):
    own = 0.0
    others = 0.0
    for i, row in enumerate(influence.tolist()):
        for j, value in enumerate(row):
            if i == j:
                own += abs(value)
            else:
                others += abs(value)
    return others / (own + others)


def stand_in_by_what_is_left(accuracy_without, i, j):
    left = {units: accuracy_without(list(units)) for units in [(), (i,), (j,), (i, j)]}
    return left[i,] + left[j,] - left[()] - left[i, j]


OTHER_STYLES |= {
    "07.1": [written_patch_by_patch],
    "07.2": [most_opposite_pair_by_pair],
    "07.3": [share_entry_by_entry],
    "07.4": [stand_in_by_what_is_left],
}


# --- notebook 08 ----------------------------------------------------------------------------------------------------


def pooling_by_asking_the_mean(num_tokens):
    unit_vectors = torch.eye(num_tokens)
    return unit_vectors.mean(dim=0).repeat(num_tokens, 1)


def pooling_in_loops(num_tokens):
    return [[1 / num_tokens for _ in range(num_tokens)] for _ in range(num_tokens)]


def unshuffled_by_assigning(images, patches, pixels, patch_size):
    rows = F.unfold(images, patch_size, stride=patch_size)
    whole = torch.empty_like(rows)
    whole[:, pixels[:, None], patches] = rows
    return F.fold(whole, images.shape[2:], patch_size, stride=patch_size)


def unshuffled_patch_by_patch(images, patches, pixels, patch_size):
    P = patch_size
    columns = images.shape[3] // P
    whole = images.clone()
    for now, before in enumerate(patches.tolist()):
        i, j = divmod(now, columns)
        k, m = divmod(before, columns)
        patch = images[:, 0, i * P : i * P + P, j * P : j * P + P].flatten(1)
        back = torch.stack([patch[:, pixels == p][:, 0] for p in range(P * P)], dim=1)
        whole[:, 0, k * P : k * P + P, m * P : m * P + P] = back.view(-1, P, P)
    return whole


def matched_by_products(matrix, patches):
    order = F.one_hot(patches).to(matrix.dtype)
    return torch.einsum("is,st,jt->ij", order, matrix, order)


def matched_number_by_number(matrix, patches):
    return torch.stack([torch.stack([matrix[i, j] for j in patches]) for i in patches])


def ablation_as_a_table(measure, variants, rates, choosing, reporting):
    chosen = torch.tensor([[[measure(v, rate, s) for s in choosing] for rate in rates] for v in variants])
    best = [rates[i] for i in chosen.mean(dim=2).argmax(dim=1)]
    final = torch.tensor([[measure(v, rate, s) for s in reporting] for v, rate in zip(variants, best, strict=True)])
    return final.mean(dim=1) - final[0].mean()


def ablation_with_dictionaries(measure, variants, rates, choosing, reporting):
    table = {v: {rate: sum(measure(v, rate, s) for s in choosing) for rate in rates} for v in variants}
    best = {v: sorted(table[v], key=table[v].get)[-1] for v in variants}
    totals = {v: sum(measure(v, best[v], s) for s in reporting) for v in variants}
    return np.array([(totals[v] - totals[variants[0]]) / len(reporting) for v in variants])


OTHER_STYLES |= {
    "08.1": [pooling_by_asking_the_mean, pooling_in_loops],
    "08.2": [unshuffled_by_assigning, unshuffled_patch_by_patch],
    "08.3": [matched_by_products, matched_number_by_number],
    "08.4": [ablation_as_a_table, ablation_with_dictionaries],
}


# --- notebook 09 ----------------------------------------------------------------------------------------------------


def authors_input_by_brightness(images):
    return 2 * (images / 255) - 1


def authors_input_looked_up(images):
    return torch.linspace(-1, 1, 256)[images.long()]


def top_k_by_rank(logits, labels, k):
    own = logits.gather(1, labels[:, None])
    better = (logits > own).sum(dim=1)  # how many classes stand above the right one
    return (better < k).double().mean().item()


def top_k_image_by_image(logits, labels, k):
    hits = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        classes_by_logit = sorted(range(len(row)), key=row.__getitem__)
        hits += label in classes_by_logit[-k:]
    return hits / len(labels)


def larger_reads_in_place(W1, K, rows, columns):
    D_S, _ = W1.shape
    result = torch.zeros(K, K, D_S, K, rows, K, columns)
    for i in range(K):
        for j in range(K):
            result[i, j, :, i, :, j] = W1.view(D_S, rows, columns)
    return result.view(K * K * D_S, -1)


def larger_reads_by_product(W1, K, rows, columns):
    tile = torch.eye(K)
    grid = W1.view(-1, rows, columns)
    return torch.einsum("ai,bj,hrc->abhirjc", tile, tile, grid).reshape(K * K * len(W1), -1)


def worth_as_tables(accuracy, counts, count, draws):
    def table(method):
        return torch.tensor([[accuracy(method, k, d) for d in draws] for k in counts], dtype=torch.float64)

    target = table("head").mean(dim=1)[counts.index(count)]
    pixels = table("pixels").mean(dim=1)
    i = int((pixels <= target).sum()) - 1
    share = (target - pixels[i]) / (pixels[i + 1] - pixels[i])
    return counts[i] * (counts[i + 1] / counts[i]) ** share / count


def worth_step_by_step(accuracy, counts, count, draws):
    def mean(method, k):
        return sum(accuracy(method, k, draw) for draw in draws) / len(draws)

    target = mean("head", count)
    for below, above in zip(counts, counts[1:], strict=False):
        if mean("pixels", above) >= target:
            low = mean("pixels", below)
            high = mean("pixels", above)
            log = math.log2(below) + (target - low) / (high - low) * math.log2(above / below)
            return 2**log / count


OTHER_STYLES |= {
    "09.1": [authors_input_by_brightness, authors_input_looked_up],
    "09.2": [top_k_by_rank, top_k_image_by_image],
    "09.3": [larger_reads_in_place, larger_reads_by_product],
    "09.4": [worth_as_tables, worth_step_by_step],
}


# --- notebook 10 ----------------------------------------------------------------------------------------------------


def least_seconds_by_intensity(flop, moved, peak, bandwidth):
    reached = min(peak, bandwidth * flop / moved)  # the roof over this intensity
    return flop / reached


def share_of_peak_by_images(multiply_adds, images_per_second, peak):
    forward = 2 * multiply_adds
    backward = 2 * forward
    most_images_per_second = peak / (forward + backward)
    return images_per_second / most_images_per_second


def gradient_by_product(gradients, counts):
    return torch.einsum("p,pw->w", counts / counts.sum(), gradients)


def gradient_process_by_process(gradients, counts):
    total = torch.zeros(gradients.shape[1])
    for row, count in zip(gradients, counts, strict=True):
        total += count * row
    return total / sum(counts.tolist())


def speed_ratio_by_comprehension(time_a, time_b, rounds):
    (_, *ratios) = [time_a() / time_b() for _ in range(rounds + 1)]
    return np.median(ratios)


def speed_ratio_by_sorting(time_a, time_b, rounds):
    time_b()  # in which order they warm up does not matter
    time_a()
    seconds = torch.tensor([[clock() for clock in (time_a, time_b)] for _ in range(rounds)])
    return (seconds[:, 0] / seconds[:, 1]).sort().values[rounds // 2]


OTHER_STYLES |= {
    "10.1": [least_seconds_by_intensity],
    "10.2": [share_of_peak_by_images],
    "10.3": [gradient_by_product, gradient_process_by_process],
    "10.4": [speed_ratio_by_comprehension, speed_ratio_by_sorting],
}
