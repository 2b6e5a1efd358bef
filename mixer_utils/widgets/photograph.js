// A photograph of a handwritten digit, made into what MNIST's makers would have made of it: photograph.py, step by step,
// with the same names and the same values.

import {
  average, boxMean, cutOut, dilated, edgesOf, eroded, fromNearest, gaussian, greyClosing, holesFilled, inverse,
  largestRegion, mapped, median, otsu, planeLike, quantile, reduced, regions, resizedBox, resizedCubic, resizedLinear,
  roundEven, solved, span, totalOf,
} from "./filters.js";

const LARGEST_SIDE = 400; // pixels; more tell nothing about a digit, and cost time
const SMALLEST_SIDE = 12;
const FAINTEST = 0.07; // the smallest share of the paper's light that ink must take away

/** What is wrong with a picture, in words that follow its name. */
export class PictureError extends Error {}

/**
 * What is made of a picture, step by step, the last one the digit: planes by name.
 *
 * `brightness`, `sheet`, `ink` and `digit` run from 0 to 1; `frame` is whole numbers from 0 to 255, `size` x `size`, the
 * digit's longer side `box`. A picture is {height, width, rows}: rows(top, bottom) gives these rows' red, green, blue and
 * alpha, pixel by pixel, so that a large one need not be in memory four times over.
 * Throws PictureError where nothing is drawn and where several digits are.
 */
export function stagesOf(picture, box = 20, size = 28) {
  const brightness = brightnessOf(picture);
  if (picture.height === size && picture.width === size) return { brightness, frame: asFramed(brightness) };
  const { height, width } = brightness;
  if (Math.min(height, width) < SMALLEST_SIDE) {
    throw new PictureError(
      `it has ${width} x ${height} pixels: give a picture of ${SMALLEST_SIDE} or more each way.`);
  }
  const sheet = sheetOf(brightness);
  const ink = inkOn(sheet);
  const digit = digitOf(ink);
  return { brightness, sheet, ink, digit, frame: framed(digit, box, size) };
}

// --- from a picture to ink -------------------------------------------------------------------------------------------

/** The brightness, 0 to 1; what is transparent is the opposite of the ink. */
function brightnessOf(picture) {
  const [red, green, blue, alpha] = smaller(picture);
  const shade = mapped(greyOf([red, green, blue]), (value) => value / 255);
  const opacity = alpha.values.map((value) => value / 255);
  const [least, most] = span(opacity);
  if (least === 1) return shade;
  if (most === 0) throw new PictureError("nothing is drawn: all of the picture is transparent.");
  const weighted = totalOf(shade.values.map((value, i) => value * opacity[i])) / totalOf(opacity);
  const paper = weighted < 0.5 ? 1 : 0;
  return planeLike(shade, shade.values.map((value, i) => opacity[i] * value + (1 - opacity[i]) * paper));
}

/** The grey of red, green and blue, 0 to 255, as Pillow weights them. */
function greyOf([red, green, blue]) {
  return planeLike(red, red.values.map((_, i) => {
    const weighted = red.values[i] * 19595 + green.values[i] * 38470 + blue.values[i] * 7471;
    return Math.floor((weighted + 32768) / 65536);
  }));
}

/** Red, green, blue and alpha, at most LARGEST_SIDE pixels each way; colours count by their alpha meanwhile. */
function smaller(picture) {
  const factor = Math.floor(Math.max(picture.height, picture.width) / LARGEST_SIDE);
  const means = factor > 1 ? reducedInStrips(picture, factor) : planesOf(picture, 0, picture.height);
  const { height, width } = means[0];
  if (Math.max(height, width) <= LARGEST_SIDE) return means;
  const size = thumbnailSize(height, width);
  return resizedByAlpha(means, (plane) => resizedCubic(plane, ...size));
}

function planesOf({ width, rows }, top, bottom) {
  const data = rows(top, bottom);
  const height = bottom - top;
  return [0, 1, 2, 3].map((channel) => {
    return { height, width, values: Float64Array.from({ length: height * width }, (_, i) => data[4 * i + channel]) };
  });
}

function reducedInStrips(picture, factor) {
  const width = Math.ceil(picture.width / factor);
  const height = Math.ceil(picture.height / factor);
  const means = [0, 1, 2, 3].map(() => planeLike({ height, width }));
  for (let top = 0; top < picture.height; top += 16 * factor) {
    const bottom = Math.min(top + 16 * factor, picture.height);
    const strip = resizedByAlpha(planesOf(picture, top, bottom), (plane) => reduced(plane, factor));
    strip.forEach((plane, i) => means[i].values.set(plane.values, (top / factor) * width));
  }
  return means;
}

function resizedByAlpha(planes, resize) {
  return dividedByAlpha(weightedByAlpha(planes).map(resize));
}

function weightedByAlpha([red, green, blue, alpha]) {
  const weighted = (colour) => planeLike(colour, colour.values.map((value, i) => {
    return Math.round((value * alpha.values[i]) / 255);
  }));
  return [weighted(red), weighted(green), weighted(blue), alpha];
}

function dividedByAlpha([red, green, blue, alpha]) {
  const divided = (colour) => planeLike(colour, colour.values.map((value, i) => {
    const opacity = alpha.values[i];
    return opacity === 0 ? value : Math.min(255, Math.floor((255 * value) / opacity));
  }));
  return [divided(red), divided(green), divided(blue), alpha];
}

/** [height, width] with LARGEST_SIDE for the longer side and nearly the same shape. */
function thumbnailSize(height, width) {
  const aspect = width / height;
  const nearer = (side, off) => {
    const [below, above] = [Math.floor(side), Math.ceil(side)];
    return Math.max(off(above) < off(below) ? above : below, 1);
  };
  if (aspect <= 1) return [LARGEST_SIDE, nearer(LARGEST_SIDE * aspect, (side) => Math.abs(aspect - side / LARGEST_SIDE))];
  const off = (side) => (side === 0 ? 0 : Math.abs(aspect - LARGEST_SIDE / side));
  return [nearer(LARGEST_SIDE / aspect, off), LARGEST_SIDE];
}

/** A picture with MNIST's own frame: left as it is, or inverted where its border is light. */
function asFramed(shade) {
  const [least, most] = span(shade.values);
  if (most - least < FAINTEST) throw new PictureError("nothing is drawn: it is all of one brightness.");
  const isLight = average(edgesOf(shade)) > 0.5;
  return toUint8(isLight ? mapped(shade, (value) => 1 - value) : shade);
}

/** The sheet alone where a light sheet lies on something dark, else the picture as it is. */
function sheetOf(shade) {
  const { height, width } = shade;
  const side = Math.max(height, width);
  const light = gaussian(shade, side / 200);
  const bright = maskAbove(light, otsu(light.values));
  const sheet = holesFilled(largestRegion(bright));
  const steps = Math.max(1, Math.floor(side / 50));
  const inner = eroded(sheet, steps);
  const outer = dilated(sheet, steps);
  const within = shade.values.filter((_, i) => inner.values[i]);
  const ringIn = shade.values.filter((_, i) => sheet.values[i] && !inner.values[i]);
  const ringOut = shade.values.filter((_, i) => outer.values[i] && !sheet.values[i]);
  const beyond = shade.values.filter((_, i) => !outer.values[i]);
  if (!within.length || !ringOut.length) return shade;
  const darkInside = average(inverse(bright).values.filter((_, i) => sheet.values[i]));
  const step = median(ringIn) - median(ringOut);
  const contrast = beyond.length ? median(within) - median(beyond) : 0;
  const rectangle = rectangularity(sheet);
  const isSheet =
    average(sheet.values) > 0.1 &&
    average(edgesOf(sheet)) < 0.4 &&
    rectangle > 0.9 && rectangle < 1.03 &&
    convexity(sheet) > 0.95 &&
    darkInside > 0.002 && darkInside < 0.3 &&
    step > 0.5 * contrast && 0.5 * contrast > 0.1;
  if (!isSheet) return shade;
  // What is not sheet takes the brightness of the nearest point that is.
  return cutOut(fromNearest(shade, inner), ...boundsOf(inner, (value) => value));
}

/** A mask: which values lie above a threshold. */
function maskAbove(plane, threshold) {
  return planeLike(plane, Uint8Array.from(plane.values, (value) => Number(value > threshold)));
}

/** [top, bottom, left, right] of all values that count; null where none does. */
function boundsOf({ height, width, values }, counts) {
  const bounds = [height, 0, width, 0];
  values.forEach((value, i) => {
    if (!counts(value)) return;
    const y = Math.floor(i / width);
    const x = i % width;
    bounds[0] = Math.min(bounds[0], y);
    bounds[1] = Math.max(bounds[1], y + 1);
    bounds[2] = Math.min(bounds[2], x);
    bounds[3] = Math.max(bounds[3], x + 1);
  });
  return bounds[1] ? bounds : null;
}

/** [row, column] of every pixel of a mask. */
function placesIn({ width, values }) {
  const places = [];
  values.forEach((value, i) => {
    if (value) places.push([Math.floor(i / width), i % width]);
  });
  return places;
}

/**
 * How much of a rectangle a region is, whatever way it is turned: 1 for any rectangle, 1.05 for an ellipse.
 *
 * A rectangle's variances along its sides are width² / 12 and height² / 12, so that their product tells its area.
 */
function rectangularity(mask) {
  const places = placesIn(mask);
  const count = places.length;
  if (count <= 2) return 0;
  const meanY = average(places.map(([y]) => y));
  const meanX = average(places.map(([, x]) => x));
  let down = 0;
  let right = 0;
  let both = 0;
  for (const [y, x] of places) {
    down += (y - meanY) ** 2;
    right += (x - meanX) ** 2;
    both += (y - meanY) * (x - meanX);
  }
  const spread = (down * right - both * both) / (count - 1) ** 2;
  return spread > 0 ? count / (12 * Math.sqrt(spread)) : 0;
}

/** The area of a region as a share of that of its convex hull. */
function convexity(mask) {
  const inside = eroded(mask, 1);
  const edge = planeLike(mask, mask.values.map((value, i) => Number(value && !inside.values[i])));
  const places = placesIn(edge);
  return places.length > 20 ? totalOf(mask.values) / hullArea(places) : 0;
}

/** The area of the convex hull of points that are sorted by row, then by column. */
function hullArea(points) {
  const turn = ([ay, ax], [by, bx], [cy, cx]) => (by - ay) * (cx - ax) - (bx - ax) * (cy - ay);
  const chain = (places) => {
    const hull = [];
    for (const place of places) {
      while (hull.length > 1 && turn(hull.at(-2), hull.at(-1), place) <= 0) hull.pop();
      hull.push(place);
    }
    return hull.slice(0, -1);
  };
  const hull = [...chain(points), ...chain(points.toReversed())];
  let twice = 0;
  hull.forEach(([y, x], i) => {
    const [nextY, nextX] = hull[(i + 1) % hull.length];
    twice += y * nextX - nextY * x;
  });
  return Math.abs(twice) / 2;
}

/**
 * How much ink is at every point, 0 to 1: the light that is missing, as a share of the paper's.
 *
 * Paper is what most of the picture is. Its brightness is a smooth surface, so that shadows and lamps do not count.
 */
function inkOn(given) {
  const { height, width } = given;
  let shade = mapped(given, (value) => value + 0.02); // black paper reflects something, too
  let lit = litBy(shade, paperOf(shade));
  const difference = lit.values.map((value) => value - 1);
  const noise = 3 * median(difference.map(Math.abs));
  const darker = totalOf(difference.map((value) => Math.max(-value - noise, 0)));
  const lighter = totalOf(difference.map((value) => Math.max(Math.min(value, 1) - noise, 0)));
  if (lighter > darker) {
    shade = mapped(shade, (value) => 1.04 - value);
    lit = litBy(shade, paperOf(shade));
  }
  const smooth = gaussian(lit, Math.max(height, width) / 400);
  const window = Math.max(3, roundEven(0.5 * Math.min(height, width)));
  const paper = gaussian(greyClosing(smooth, window), window / 6);
  const ink = smooth.values.map((value, i) => 1 - value / Math.min(paper.values[i], 1.2));
  const bare = quantile(ink, 0.2); // of the closing, which takes noisy paper for as bright as its brightest grains
  return planeLike(given, ink.map((value) => within01((value - bare) / (1 - bare))));
}

function litBy(shade, paper) {
  return planeLike(shade, shade.values.map((value, i) => value / paper.values[i]));
}

function within01(value) {
  return Math.max(0, Math.min(1, value));
}

/**
 * The paper's brightness at every point: a smooth surface through the logarithms of most pixels.
 *
 * It is flat at first, then a slope, then curved: so it has found the paper before it could bend into the ink.
 */
function paperOf(shade) {
  const step = Math.max(1, Math.floor(Math.max(shade.height, shade.width) / 80));
  const small = mapped(everyNth(boxMean(shade, step), step), Math.log);
  const margin = marginOf(small);
  let weights = margin;
  let factors = null;
  let degree = 0;
  for (degree of [0, 1, 2, 4]) {
    const terms = surfaceTerms(small, degree);
    for (let time = 0; time < 4; time++) { // pixels far from the surface, the ink, count less each time
      factors = leastSquares(terms, weights, small.values);
      const distance = surface(terms, factors).map((value, i) => Math.abs(small.values[i] - value));
      const scale = Math.max(2 * median(distance), 0.02);
      weights = margin.map((value, i) => value / (1 + (distance[i] / scale) ** 2) ** 2);
    }
  }
  return planeLike(shade, surface(surfaceTerms(shade, degree), factors).map(Math.exp));
}

function everyNth({ height, width, values }, step) {
  const result = { height: Math.ceil(height / step), width: Math.ceil(width / step) };
  result.values = Float64Array.from({ length: result.height * result.width }, (_, i) => {
    return values[Math.floor(i / result.width) * step * width + (i % result.width) * step];
  });
  return result;
}

/** What every pixel counts: 1 at the edges of a picture, where ink rarely is, and a quarter inside. */
function marginOf({ height, width }) {
  const [atTop, atSide] = [Math.floor(height / 10), Math.floor(width / 10)];
  const bottom = height - Math.ceil(height / 10); // there it is a tenth rounded up, as Python counts from the end
  const rightEnd = width - Math.ceil(width / 10);
  return Float64Array.from({ length: height * width }, (_, i) => {
    const [y, x] = [Math.floor(i / width), i % width];
    return y >= atTop && y < bottom && x >= atSide && x < rightEnd ? 0.25 : 1;
  });
}

/** All products of powers of the two coordinates up to a degree: an array for each product, a number for each point. */
function surfaceTerms({ height, width }, degree) {
  const down = legendre(height, degree);
  const right = legendre(width, degree);
  const terms = [];
  for (let i = 0; i <= degree; i++) {
    for (let j = 0; j <= degree - i; j++) {
      const term = new Float64Array(height * width);
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) term[y * width + x] = down[i][y] * right[j][x];
      }
      terms.push(term);
    }
  }
  return terms;
}

/** Legendre's polynomials up to a degree, each at `size` points from -1 to 1. */
function legendre(size, degree) {
  const points = Float64Array.from({ length: size }, (_, i) => (size > 1 ? (2 / (size - 1)) * i - 1 : -1));
  if (size > 1) points[size - 1] = 1;
  const found = [points.map(() => 1), points];
  for (let n = 2; n <= degree; n++) {
    const [before, last] = found.slice(-2);
    found.push(points.map((x, i) => (last[i] * x * (2 * n - 1) - before[i] * (n - 1)) / n));
  }
  return found;
}

/** The factors of the terms whose sum comes nearest to the values, by weighted squares. */
function leastSquares(terms, weights, values) {
  const rows = terms.map((term) => {
    const weighted = term.map((value, i) => value * weights[i]);
    return { squares: terms.map((other) => dotProduct(weighted, other)), right: dotProduct(weighted, values) };
  });
  return solved(rows.map(({ squares }) => squares), rows.map(({ right }) => right));
}

function dotProduct(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** The sum of all terms, each by its factor. */
function surface(terms, factors) {
  const values = new Float64Array(terms[0].length);
  terms.forEach((term, k) => {
    for (let i = 0; i < values.length; i++) values[i] += term[i] * factors[k];
  });
  return values;
}

// --- from ink to a digit ---------------------------------------------------------------------------------------------

/** The ink of the digit alone, 0 to 1, without specks, ruled lines and dark edges, cut out along its box. */
function digitOf(ink) {
  const longer = Math.max(ink.height, ink.width);
  const threshold = Math.max(otsu(ink.values), FAINTEST / 2);
  const inked = ink.values.filter((value) => value > threshold);
  const strength = inked.length ? quantile(inked, 0.8) : 0;
  if (strength < FAINTEST) throw new PictureError("nothing is drawn: no ink stands out from the paper.");
  const { of, boxes } = regions(maskAbove(ink, strength / 2), true);
  const most = largestArea(boxes);
  let kept = boxes.filter((box) => box.area > 0.02 * most && !inCorner(box, ink));
  const longest = Math.max(0, ...kept.map((box) => Math.max(box.bottom - box.top, box.right - box.left)));
  if (most < 0.2 * totalOf(boxes.map((box) => box.area)) || longest < 0.04 * longer) {
    throw new PictureError("nothing is drawn: there are specks or dark corners, and no stroke.");
  }
  const inside = kept.filter((box) => !atBorder(box, ink));
  if (largestArea(inside) > 0.2 * most) kept = inside;
  several(kept);
  const isKept = boxes.map((box) => kept.includes(box));
  const strokes = planeLike(ink, Uint8Array.from(of, (region) => Number(region > 0 && isKept[region - 1])));
  const mask = dilated(strokes, Math.max(2, Math.floor(longer / 100)));
  const digit = planeLike(ink, ink.values.map((value, i) => within01((value / strength - 0.3) / 0.5) * mask.values[i]));
  const bounds = boundsOf(digit, (value) => value > 0.5);
  if (!bounds) throw new PictureError("the stroke is much fainter than what is at the picture's edge: cut that off.");
  return cutOut(digit, ...bounds);
}

function largestArea(boxes) {
  return Math.max(0, ...boxes.map((box) => box.area));
}

/** Whether a region's box touches the edge of the picture. */
function atBorder({ top, bottom, left, right }, { height, width }) {
  return top === 0 || left === 0 || bottom === height || right === width;
}

/** Whether a region's box lies in one corner of the picture: where light falls off, not where people write. */
function inCorner({ top, bottom, left, right }, { height, width }) {
  const atOneEnd = (start, stop, size) => (start === 0) !== (stop === size) && stop - start < size / 2;
  return atOneEnd(top, bottom, height) && atOneEnd(left, right, width);
}

/** Throws PictureError where two tall strokes stand beside each other. */
function several(boxes) {
  const tallest = Math.max(...boxes.map((box) => box.bottom - box.top));
  const tall = boxes.filter((box) => box.bottom - box.top > 0.6 * tallest);
  tall.sort((a, b) => a.left - b.left || a.right - b.right);
  let groups = 1;
  let end = tall[0].right;
  for (const { left, right } of tall.slice(1)) {
    if (left >= end) groups++;
    end = Math.max(end, right);
  }
  if (groups > 1) {
    throw new PictureError(`${groups} digits seem to be drawn: cut out one, a picture of a digit each.`);
  }
}

/** A cut-out digit in MNIST's frame: longer side `box`, centre of mass in the middle. */
function framed(digit, box = 20, size = 28) {
  const scale = box / Math.max(digit.height, digit.width);
  const height = Math.max(1, roundEven(digit.height * scale));
  const width = Math.max(1, roundEven(digit.width * scale));
  const resized = resizedBox(digit, height, width);
  const black = quantile(resized.values.filter((value) => value > 0.1), 0.75);
  const small = mapped(resized, (value) => Math.fround(within01(value / black))); // a thin pen is as black as a thick one
  const [down, right] = centreOfMass(small);
  const top = Math.min(Math.max(0, roundEven(size / 2 - down)), size - height);
  const left = Math.min(Math.max(0, roundEven(size / 2 - right)), size - width);
  const frame = planeLike({ height: size, width: size });
  for (let y = 0; y < height; y++) {
    frame.values.set(small.values.subarray(y * width, (y + 1) * width), (top + y) * size + left);
  }
  return toUint8(frame);
}

function centreOfMass({ width, values }) {
  let down = 0;
  let right = 0;
  values.forEach((value, i) => {
    down += value * Math.floor(i / width);
    right += value * (i % width);
  });
  const mass = totalOf(values);
  return [down / mass, right / mass];
}

/** Numbers from 0 to 1 as whole ones, 0 to 255. */
function toUint8(plane) {
  return planeLike(plane, Uint8Array.from(plane.values, (value) => roundEven(value * 255)));
}

// --- for models of other images --------------------------------------------------------------------------------------

/**
 * A picture as ``read_image`` gives it to a model of other images, uint8 (channels, height, width), 1 or 3 channels:
 * both sides are resized, white paper is where it is transparent, and in grey, dark on light is inverted. One of more than
 * LARGEST_SIDE pixels is made smaller first.
 */
export function fitted(picture, [channels, height, width]) {
  const [red, green, blue, alpha] = smaller(picture);
  const onWhite = (colour) => planeLike(colour, colour.values.map((value, i) => {
    const opacity = alpha.values[i];
    return Math.round((value * opacity + 255 * (255 - opacity)) / 255);
  }));
  const colours = [onWhite(red), onWhite(green), onWhite(blue)];
  const chosen = channels === 1 ? [greyOf(colours)] : colours;
  const resized = chosen.map((plane) => resizedLinear(plane, height, width));
  const isLight = channels === 1 && average(edgesOf(resized[0])) > 127;
  const given = Uint8Array.from(resized.flatMap(({ values }) => Array.from(values)));
  return isLight ? given.map((value) => 255 - value) : given;
}
