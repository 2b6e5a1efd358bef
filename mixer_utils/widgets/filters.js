// What SciPy, NumPy and Pillow do to pictures, to the last digit where a threshold could hang on it. Tested against them.
//
// A plane is {height, width, values}: numbers row by row. What is outside is the picture mirrored, as SciPy has it:
// d c b a | a b c d | d c b a.

/** A plane of the same size; without values, of zeros. */
export function planeLike({ height, width }, values = new Float64Array(height * width)) {
  return { height, width, values };
}

/** A plane of what `f` makes of every value. */
export function mapped(plane, f) {
  return planeLike(plane, Float64Array.from(plane.values, f));
}

/** Part of a plane: rows from `top` up to, not including, `bottom`, and columns likewise. */
export function cutOut({ width, values }, top, bottom, left, right) {
  const area = (bottom - top) * (right - left);
  const part = { height: bottom - top, width: right - left, values: new values.constructor(area) };
  for (let y = top; y < bottom; y++) {
    const row = values.subarray(y * width + left, y * width + right);
    part.values.set(row, (y - top) * part.width);
  }
  return part;
}

/** The values along the four edges; those of the corners twice. */
export function edgesOf({ height, width, values }) {
  const found = [];
  for (const y of [0, height - 1]) found.push(...values.subarray(y * width, (y + 1) * width));
  for (const x of [0, width - 1]) {
    for (let y = 0; y < height; y++) found.push(values[y * width + x]);
  }
  return found;
}

// --- statistics ------------------------------------------------------------------------------------------------------

/** Rounded as Python and NumPy do it: a half goes to the even number. */
export function roundEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

export function totalOf(values) {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}

export function average(values) {
  return totalOf(values) / values.length;
}

export function span(values) {
  let least = Infinity;
  let most = -Infinity;
  for (const value of values) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return [least, most];
}

/** The value below which a share of all lies; between two neighbours it is interpolated. */
export function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

export function median(values) {
  return quantile(values, 0.5);
}

/**
 * The threshold that parts values best in two groups: it makes the variance between their means the largest.
 *
 * Otsu, "A Threshold Selection Method from Gray-Level Histograms" (1979).
 */
export function otsu(values) {
  const { counts, edges } = histogram(values, 256);
  const centres = Float64Array.from(counts, (_, i) => (edges[i] + edges[i + 1]) / 2);
  const sums = new Float64Array(256);
  let sum = 0;
  for (let i = 0; i < 256; i++) {
    sum += counts[i] * centres[i];
    sums[i] = sum;
  }
  let below = 0;
  let most = 0;
  let best = 0;
  for (let i = 0; i < 256; i++) {
    below += counts[i];
    const above = values.length - below;
    if (below === 0 || above === 0) continue;
    const apart = sums[i] / below - (sum - sums[i]) / above;
    const between = below * above * (apart * apart);
    if (between > most) {
      most = between;
      best = i;
    }
  }
  return centres[best];
}

/** How many values lie in each of `bins` equal parts of their range, and the parts' edges. */
function histogram(values, bins) {
  let [first, last] = span(values);
  if (first === last) {
    first -= 0.5;
    last += 0.5;
  }
  const step = (last - first) / bins;
  const edges = Float64Array.from({ length: bins + 1 }, (_, i) => i * step + first);
  edges[bins] = last;
  const counts = new Float64Array(bins);
  for (const value of values) {
    let bin = Math.min(Math.floor(((value - first) / (last - first)) * bins), bins - 1);
    if (value < edges[bin]) bin--;
    if (bin < bins - 1 && value >= edges[bin + 1]) bin++;
    counts[bin]++;
  }
  return { counts, edges };
}

/** x in A x = b, by elimination. A: rows of numbers; both are overwritten. */
export function solved(A, b) {
  const n = b.length;
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let row = k + 1; row < n; row++) {
      if (Math.abs(A[row][k]) > Math.abs(A[pivot][k])) pivot = row;
    }
    [A[k], A[pivot]] = [A[pivot], A[k]];
    [b[k], b[pivot]] = [b[pivot], b[k]];
    for (let row = k + 1; row < n; row++) {
      const factor = A[row][k] / A[k][k];
      for (let column = k; column < n; column++) A[row][column] -= factor * A[k][column];
      b[row] -= factor * b[k];
    }
  }
  for (let k = n - 1; k >= 0; k--) {
    for (let column = k + 1; column < n; column++) b[k] -= A[k][column] * b[column];
    b[k] /= A[k][k];
  }
  return b;
}

// --- filters: every column, then every row ---------------------------------------------------------------------------

/** `filterLine(line, out)` gets `before` mirrored values, the line itself and `after` more, and fills `out`. */
function filtered({ height, width, values }, before, after, filterLine) {
  const result = values.slice();
  for (const [count, size, start, step] of [[width, height, 1, width], [height, width, width, 1]]) {
    const line = new Float64Array(before + size + after);
    const out = new Float64Array(size);
    for (let k = 0; k < count; k++) {
      for (let i = 0; i < line.length; i++) line[i] = result[k * start + mirrored(i - before, size) * step];
      filterLine(line, out);
      for (let i = 0; i < size; i++) result[k * start + i * step] = out[i];
    }
  }
  return { height, width, values: result };
}

function mirrored(i, size) {
  const period = 2 * size;
  const at = ((i % period) + period) % period;
  return at < size ? at : period - 1 - at;
}

/** scipy.ndimage.gaussian_filter: the bell ends at four deviations. */
export function gaussian(plane, deviation) {
  const radius = Math.floor(4 * deviation + 0.5);
  const bell = Float64Array.from({ length: radius + 1 }, (_, i) => Math.exp((-0.5 / (deviation * deviation)) * i * i));
  const all = 2 * totalOf(bell.subarray(1)) + bell[0];
  const weights = bell.map((weight) => weight / all);
  return filtered(plane, radius, radius, (line, out) => {
    for (let i = 0; i < out.length; i++) {
      const middle = i + radius;
      let sum = line[middle] * weights[0];
      for (let far = radius; far > 0; far--) sum += (line[middle - far] + line[middle + far]) * weights[far];
      out[i] = sum;
    }
  });
}

/** scipy.ndimage.uniform_filter: the mean of `size` x `size` pixels. */
export function boxMean(plane, size) {
  const before = Math.floor(size / 2);
  return filtered(plane, before, size - before - 1, (line, out) => {
    let sum = totalOf(line.subarray(0, size));
    out[0] = sum / size;
    for (let i = 1; i < out.length; i++) {
      sum += line[i + size - 1] - line[i - 1];
      out[i] = sum / size;
    }
  });
}

/** scipy.ndimage.grey_closing: the largest of `size` x `size` pixels, and then the smallest of these. */
export function greyClosing(plane, size) {
  const half = Math.floor(size / 2);
  const rest = size - half - 1;
  const opposite = ({ values }) => planeLike(plane, values.map((value) => -value));
  const largest = filtered(plane, rest, half, largestOf(size));
  return opposite(filtered(opposite(largest), half, rest, largestOf(size)));
}

/** The largest of `size` values from each place on. */
function largestOf(size) {
  return (line, out) => {
    const queue = new Int32Array(line.length); // places, the largest value first, each later one smaller
    let head = 0;
    let end = 0;
    for (let i = 0; i < line.length; i++) {
      while (end > head && line[queue[end - 1]] <= line[i]) end--;
      queue[end] = i;
      end++;
      const start = i - size + 1;
      if (queue[head] < start) head++;
      if (start >= 0) out[start] = line[queue[head]];
    }
  };
}

// --- regions: masks are Uint8Arrays of 0 and 1 -----------------------------------------------------------------------

const BESIDE = [[-1, 0], [0, -1], [0, 1], [1, 0]];
const ACROSS = [[-1, -1], [-1, 1], [1, -1], [1, 1]];

/**
 * Connected regions, numbered from 1 in the order of their first pixels: {of: Int32Array, the region of each pixel or 0,
 * boxes: [{top, bottom, left, right, area}]}, the box of region n at n - 1. Over corners they hang together if `corners`.
 */
export function regions({ height, width, values }, corners = false) {
  const steps = corners ? [...BESIDE, ...ACROSS] : BESIDE;
  const of = new Int32Array(height * width);
  const boxes = [];
  const open = [];
  for (let first = 0; first < of.length; first++) {
    if (!values[first] || of[first]) continue;
    const number = boxes.length + 1;
    const box = { top: height, bottom: 0, left: width, right: 0, area: 0 };
    of[first] = number;
    open.push(first);
    while (open.length) {
      const at = open.pop();
      const y = Math.floor(at / width);
      const x = at % width;
      box.area++;
      box.top = Math.min(box.top, y);
      box.bottom = Math.max(box.bottom, y + 1);
      box.left = Math.min(box.left, x);
      box.right = Math.max(box.right, x + 1);
      for (const [down, right] of steps) {
        const inside = y + down >= 0 && y + down < height && x + right >= 0 && x + right < width;
        const next = at + down * width + right;
        if (!inside || !values[next] || of[next]) continue;
        of[next] = number;
        open.push(next);
      }
    }
    boxes.push(box);
  }
  return { of, boxes };
}

/** The largest connected region of a mask. */
export function largestRegion(mask) {
  const { of, boxes } = regions(mask);
  if (!boxes.length) return mask;
  const areas = boxes.map((box) => box.area);
  const number = areas.indexOf(Math.max(...areas)) + 1;
  return planeLike(mask, Uint8Array.from(of, (region) => Number(region === number)));
}

/** The mask, and what it encloses. */
export function holesFilled(mask) {
  const { height, width } = mask;
  const { of, boxes } = regions(inverse(mask));
  const isHole = boxes.map(({ top, left, bottom, right }) => top > 0 && left > 0 && bottom < height && right < width);
  return planeLike(mask, mask.values.map((value, i) => Number(value || isHole[of[i] - 1])));
}

export function inverse(mask) {
  return planeLike(mask, mask.values.map((value) => 1 - value));
}

/** What is at most `steps` steps, up, down, left or right, from the mask. */
export function dilated(mask, steps) {
  const distances = stepsFrom(mask, 0);
  return planeLike(mask, Uint8Array.from(distances, (distance) => Number(distance <= steps)));
}

/** What is more than `steps` steps inside the mask; beyond the picture is no mask. */
export function eroded(mask, steps) {
  const distances = stepsFrom(inverse(mask), 1);
  return planeLike(mask, Uint8Array.from(distances, (distance) => Number(distance > steps)));
}

/** How many steps each pixel is from the mask; `outside` 1: all beyond the picture is mask, too. */
function stepsFrom({ height, width, values }, outside) {
  const far = height + width;
  const beyond = outside ? 0 : far;
  const distances = Int32Array.from(values, (value) => (value ? 0 : far));
  const at = (y, x) => (y < 0 || x < 0 || y >= height || x >= width ? beyond : distances[y * width + x]);
  const shorten = (y, x, side) => {
    const i = y * width + x;
    distances[i] = Math.min(distances[i], at(y + side, x) + 1, at(y, x + side) + 1);
  };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) shorten(y, x, -1);
  }
  for (let y = height - 1; y >= 0; y--) {
    for (let x = width - 1; x >= 0; x--) shorten(y, x, 1);
  }
  return distances;
}

/** Each pixel takes the value of the nearest one of the mask; of several as near, the leftmost one's, then the upper. */
export function fromNearest(plane, mask) {
  const { height, width, values } = plane;
  const rows = nearestRows(mask);
  return planeLike(plane, values.map((_, i) => {
    const y = Math.floor(i / width);
    const x = i % width;
    let best = null;
    let least = Infinity;
    for (let away = 0; away * away <= least && away < width; away++) {
      for (const column of [x + away, x - away]) {
        if (column < 0 || column >= width) continue;
        const row = rows[y * width + column];
        if (row < 0) continue;
        const distance = (row - y) ** 2 + away ** 2;
        const wins = distance < least || (distance === least && column < best.column);
        if (wins) best = { row, column };
        if (wins) least = distance;
      }
    }
    return values[best.row * width + best.column];
  }));
}

/** For every pixel the row of the nearest one of the mask in its column, the upper one of two; -1 where none is. */
function nearestRows({ height, width, values }) {
  const rows = new Int32Array(height * width).fill(-1);
  for (let x = 0; x < width; x++) {
    let last = -1;
    for (let y = 0; y < height; y++) {
      if (values[y * width + x]) last = y;
      rows[y * width + x] = last;
    }
    last = -1;
    for (let y = height - 1; y >= 0; y--) {
      if (values[y * width + x]) last = y;
      const above = rows[y * width + x];
      if (last >= 0 && (above < 0 || last - y < y - above)) rows[y * width + x] = last;
    }
  }
  return rows;
}

// --- sizes -----------------------------------------------------------------------------------------------------------

const CUBIC = {
  reach: 2,
  weight(x) {
    const far = Math.abs(x);
    if (far < 1) return (1.5 * far - 2.5) * far * far + 1;
    return far < 2 ? (((far - 5) * far + 8) * far - 4) * -0.5 : 0;
  },
};
const BOX = { reach: 0.5, weight: (x) => Number(x > -0.5 && x <= 0.5) };
const TENT = { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) };

/** For each of `to` places what is taken of `from`: [{first, weights}], as Pillow and torchvision have it. */
function taps(from, to, { reach, weight }, exact) {
  const scale = from / to;
  const wide = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * wide + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach * wide + 0.5));
    const weights = [];
    for (let at = first; at < end; at++) weights.push(weight((at - centre + 0.5) * (1 / wide)));
    const sum = totalOf(weights);
    return { first, weights: weights.map((one) => exact(one / sum)) };
  });
}

/** A plane of another size, rows first, then columns; `round` is what becomes of each number, `exact` of each weight. */
function resampled(plane, height, width, filter, round, exact = (weight) => weight) {
  const wide = width === plane.width ? plane : resampledRows(plane, taps(plane.width, width, filter, exact), round);
  if (height === plane.height) return wide;
  return turned(resampledRows(turned(wide), taps(plane.height, height, filter, exact), round));
}

function resampledRows({ height, width, values }, allTaps, round) {
  const result = { height, width: allTaps.length, values: new Float64Array(height * allTaps.length) };
  for (let y = 0; y < height; y++) {
    allTaps.forEach(({ first, weights }, x) => {
      const start = y * width + first;
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += values[start + k] * weights[k];
      result.values[y * result.width + x] = round(sum);
    });
  }
  return result;
}

/** Rows become columns. */
function turned({ height, width, values }) {
  const result = new Float64Array(values.length);
  for (let i = 0; i < values.length; i++) result[(i % width) * height + Math.floor(i / width)] = values[i];
  return { height: width, width: height, values: result };
}

/** Pillow's BICUBIC for whole numbers from 0 to 255: weights in 2^22nds. */
export function resizedCubic(plane, height, width) {
  const exact = (weight) => Math.trunc(weight * 2 ** 22 + Math.sign(weight) * 0.5);
  const round = (sum) => Math.max(0, Math.min(255, Math.floor((sum + 2 ** 21) / 2 ** 22)));
  return resampled(plane, height, width, CUBIC, round, exact);
}

/** Pillow's BOX for numbers in four bytes. */
export function resizedBox(plane, height, width) {
  return resampled(mapped(plane, Math.fround), height, width, BOX, Math.fround);
}

/** torchvision's antialiased bilinear resize of whole numbers from 0 to 255. */
export function resizedLinear(plane, height, width) {
  return mapped(resampled(plane, height, width, TENT, Math.fround), roundEven);
}

/** Pillow's reduce: the means of `factor` x `factor` whole numbers; at the right and the lower edge of fewer. */
export function reduced({ height, width, values }, factor) {
  const result = { height: Math.ceil(height / factor), width: Math.ceil(width / factor) };
  result.values = new Float64Array(result.height * result.width);
  for (let y = 0; y < result.height; y++) {
    const bottom = Math.min((y + 1) * factor, height);
    for (let x = 0; x < result.width; x++) {
      const right = Math.min((x + 1) * factor, width);
      let sum = 0;
      for (let row = y * factor; row < bottom; row++) {
        for (let column = x * factor; column < right; column++) sum += values[row * width + column];
      }
      const count = (bottom - y * factor) * (right - x * factor);
      const share = Math.floor(Math.fround(2 ** 24 / count));
      result.values[y * result.width + x] = Math.floor(((sum + Math.floor(count / 2)) * share) / 2 ** 24);
    }
  }
  return result;
}
