// View 4: the stem. An image cut at any patch size and the cost, the learned filters, and the image rebuilt from some.

import {
  arrow, choice, colourTable, drawnFrom, frame, labelled, largest, legend, make, onCanvas, panel, place, pointer,
  set, signed, slider, unpack,
} from "./kit.js";
import { tileGrid } from "./tiles.js";

export function embedding(model, root) {
  const data = model.get("data"), [channels, H, W] = data.image_shape, P = data.own_patch_size;
  const columns = W / P, S = (H / P) * columns, D = channels * P * P, C = data.num_filters, costs = data.costs;
  const table = colourTable(data.colours), key = channels === 1 ? legend(table) : embeddingLegend(), bias = unpack(data.bias).values;
  const filters = unpack(data.filters).values, images = unpack(data.images).values;
  const frequencies = unpack(data.frequencies).values;
  const sorts = Object.fromEntries(Object.entries(data.sorts).map(([name, one]) =>
    [name, Object.fromEntries(Object.entries(one).map(([part, sent]) => [part, unpack(sent).values]))]));
  const orderOf = () => sorts[model.get("sort")].order;
  const filterOf = (f) => filters.subarray(f * D, f * D + D);
  const own = costs.find((cost) => cost.patch_size === P);
  const shownSide = Math.max(1, Math.floor(140 / Math.max(H, W)));

  // --- controls and panels
  const sizes = costs.map((cost) => cost.patch_size);
  const slide = (name, text, ...rest) => slider(model, name, text, 0, ...rest);
  const controls = [
    slide("image", "Image", data.num_images - 1, (n) => `${n} of 0 to ${data.num_images - 1}`),
    embeddingSizes(model, sizes),
    choice(model, "sort", "Sort filters by", { norm: "norm", frequency: "frequency", number: "number" }),
    choice(model, "scale", "Colours", { shared: "one scale", each: "each filter its own" }),
    slide("k", "Rebuild from the first", data.num_k - 1, (k) => `${k} of ${C} filters`),
  ];
  const canvas = (part, label) => make("canvas", { tabindex: 0, role: "img", "aria-label": label, "data-part": part });
  const cut = canvas("cut", "The image cut into patches: left and right arrow keys change the patch size");
  const grid = canvas("filters", "The stem's filters: arrow keys choose one");
  const curve = canvas("curve", "Error against the number of filters: left and right arrow keys change it");
  const shown = ["image", "rebuilt", "difference", "tokens"].map((part) => make("canvas", { role: "img", "data-part": part }));
  const says = shown.map(() => make("span", { class: "mixer-caption" })), facts = make("p", { "data-part": "facts" });
  const rows = costs.map((cost) => embeddingCost(cost, own, costs, () => set(model, { patch_size: cost.patch_size })));
  const head = ["P", "S", "multiply-adds", "log scale", `× of P = ${P}`, "parameters"].map((text) => make("th", {}, text));
  const dead = data.num_dead ? `${data.num_dead} of them dead (norm below 1 % of the largest)` : "none of them dead";
  const tall = make("div", { class: "mixer-scroll" }, grid);
  const panels = [
    panel("The cut, and what it costs", make("div", { class: "mixer-panels" }, make("div", { class: "mixer-scroll" }, cut),
      make("div", { class: "mixer-scroll mixer-costs" }, make("table", {}, make("tr", {}, ...head), ...rows), facts))),
    panel(`The ${C} filters of the stem, ${dead}`, key.root, make("span", { class: "mixer-caption" },
      " Underlined: used for the rebuild. Only a dot: adds nothing to the filters before it."), tall),
    panel("An image rebuilt from the first filters", make("div", { class: "mixer-panels" },
      ...shown.map((one, i) => make("div", { style: `width: ${Math.max(140, W * shownSide)}px` }, one, says[i])),
      make("div", {}, curve, make("span", { class: "mixer-caption" }, "mean squared error by number of filters")))),
  ];
  const parts = frame(root, { controls, panels });
  let hovered = null; // a sentence

  // --- the cut and its cost
  const small = embeddingPicture(W, H), side = Math.max(1, Math.floor(200 / Math.max(H, W)));
  const normal = (c, value) => (value / 255 - data.mean[c]) / data.std[c];

  function drawCut() {
    const size = model.get("patch_size"), across = W / size, down = H / size;
    const gap = Math.max(1, Math.min(8, Math.round((size * side) / 6)));
    const start = model.get("image") * channels * H * W;
    small.fill((at, c) => images[start + (channels === 1 ? 0 : c) * H * W + at]);
    Object.assign(cut.dataset, { across, down, side, gap });
    onCanvas(cut, W * side + (across - 1) * gap, H * side + (down - 1) * gap, (context, ratio) => {
      const step = (size * side + gap) * ratio, wide = size * side * ratio;
      const strips = make("canvas", { width: cut.width, height: H }), aside = strips.getContext("2d");
      for (let c = 0; c < across; c++) small.put(aside, c * size, 0, size, H, c * step, 0, wide, H); // columns apart,
      context.imageSmoothingEnabled = false; // then rows: with patches of one pixel there are too many to draw singly
      for (let r = 0; r < down; r++) context.drawImage(strips, 0, r * size, cut.width, size, 0, r * step, cut.width, wide);
    });
    costs.forEach((cost, i) => {
      if (cost.patch_size === size) rows[i].setAttribute("aria-current", "true");
      else rows[i].removeAttribute("aria-current");
    });
    const cost = costs[sizes.indexOf(size)];
    facts.textContent = `P = ${size}: S = (${H} / ${size}) × (${W} / ${size}) = ${cost.tokens} patches of ${cost.numbers} ` +
      `numbers. ${embeddingTimes(cost.multiply_adds / own.multiply_adds)} the multiply-adds and ` +
      `${embeddingTimes(cost.parameters / own.parameters)} the parameters of the model's own P = ${P}.`;
  }

  // --- the filters: drawn once at their own size, then laid out
  const zoom = Math.max(1, Math.floor(32 / P)), tile = P * zoom, gap = 6;
  const wide = Math.min(C, 32), sheet = embeddingPicture(wide * P, Math.ceil(C / wide) * P);
  const widest = largest(filters);
  const norms = Array.from({ length: C }, (_, f) => Math.hypot(...filterOf(f)));
  const perRow = () => Math.max(1, Math.min(C, Math.floor((root.clientWidth - 50 + gap) / (tile + gap))));
  const tiles = tileGrid(model, "filter", {
    canvas: grid,
    order: orderOf,
    hover: (found) => {
      hovered = found && sayFilter(found.item);
      say();
    },
  });
  let painted = null;

  function drawFilters() {
    const shared = model.get("scale") === "shared";
    key.show(shared ? widest : null);
    if (painted !== shared) {
      const tops = Array.from({ length: C }, (_, f) => (shared ? widest : largest(filterOf(f))));
      sheet.fill((at, c) => {
        const x = at % (wide * P), y = Math.floor(at / (wide * P)), f = Math.floor(y / P) * wide + Math.floor(x / P);
        if (f >= C) return 255;
        const value = filters[f * D + (channels === 1 ? 0 : c) * P * P + (y % P) * P + (x % P)];
        return embeddingLevel(place(value, tops[f]), table, channels, c);
      });
      painted = shared;
    }
    Object.assign(grid.dataset, { tile, zoom });
    const { ranks } = sorts[model.get("sort")];
    const k = model.get("k");
    const layout = { across: perRow(), width: tile, height: tile, gap, margin: 3, below: 4, line: 2, away: 2 };
    tiles.draw(layout, (context, ratio, order) => {
      order.forEach((f, at) => {
        const [x, y] = tiles.corner(at);
        sheet.put(context, (f % wide) * P, Math.floor(f / wide) * P, P, P, x * ratio, y * ratio, tile * ratio, tile * ratio);
        if (at < k) { // a long line under a filter that is used, a dot where it adds nothing to the ones before
          context.fillStyle = "#000";
          context.fillRect(x * ratio, (y + tile + 1) * ratio, (ranks[at + 1] > ranks[at] ? tile : 2) * ratio, 2 * ratio);
        }
      });
    });
    tiles.reveal(model.get("filter"));
  }

  // --- the image, its rebuild and the difference
  const patches = new Float32Array(S * D), rebuilt = new Float32Array(S * D);
  let state = { image: null, sort: null, rank: 0 };

  /**
   * Projects every patch onto the first `rank` rows of the basis; from one k to the next, only what is new is added.
   * Of B/16 this can take 0.2 s: after 25 ms it stops and returns false, to go on in the next frame.
   */
  function rebuild(image, sort, rank) {
    if (image !== state.image) {
      for (let i = 0; i < S * D; i++) {
        const [c, y, x] = pixelOf(i);
        patches[i] = normal(c, images[((image * channels + c) * H + y) * W + x]);
      }
    }
    if (image !== state.image || sort !== state.sort || rank < state.rank / 2) {
      rebuilt.fill(0);
      state = { image, sort, rank: 0 };
    }
    const { basis } = sorts[sort], sign = rank > state.rank ? 1 : -1, start = performance.now();
    for (; state.rank !== rank; state.rank += sign) {
      if (performance.now() - start > 25) return false;
      const row = sign > 0 ? state.rank : state.rank - 1;
      for (let s = 0; s < S; s++) {
        let dot = 0;
        for (let i = 0; i < D; i++) dot += basis[row * D + i] * patches[s * D + i];
        dot *= sign;
        for (let i = 0; i < D; i++) rebuilt[s * D + i] += dot * basis[row * D + i];
      }
    }
    return true;
  }

  function pixelOf(i) { // a number of a patch -> channel, row and column of the image
    const s = Math.floor(i / D), c = Math.floor((i % D) / (P * P)), inside = i % (P * P);
    return [c, Math.floor(s / columns) * P + Math.floor(inside / P), (s % columns) * P + (inside % P)];
  }
  const placeOf = (c, at) => { // and back
    const y = Math.floor(at / W), x = at % W;
    return (Math.floor(y / P) * columns + Math.floor(x / P)) * D + (c * P + (y % P)) * P + (x % P);
  };

  const part = embeddingPicture(W, H), tokens = embeddingPicture(columns, H / P);
  const put = (one, picture, width, height) => onCanvas(one, W * shownSide, H * shownSide, (context, ratio) =>
    picture.put(context, 0, 0, width, height, 0, 0, W * shownSide * ratio, H * shownSide * ratio));
  const errorAt = (k) => {
    const { ranks, errors } = sorts[model.get("sort")], each = errors.length / data.num_images;
    return errors[model.get("image") * each + ranks[k]];
  };
  const explained = (k) => (errorAt(0) ? 1 - errorAt(k) / errorAt(0) : 1);

  function drawRebuilt() {
    const k = model.get("k"), { ranks } = sorts[model.get("sort")], f = model.get("filter");
    if (!rebuild(model.get("image"), model.get("sort"), ranks[k])) requestAnimationFrame(() => goOn());
    shown[1].dataset.rank = state.rank; // of ranks[k]
    const top = largest(patches), one = (c) => (channels === 1 ? 0 : c);
    const pixel = (values) => (at, c) => Math.round((values[placeOf(one(c), at)] * data.std[one(c)] + data.mean[one(c)]) * 255);
    const off = (at, c) => rebuilt[placeOf(one(c), at)] - patches[placeOf(one(c), at)];
    part.fill(pixel(patches));
    put(shown[0], part, W, H);
    part.fill(pixel(rebuilt));
    put(shown[1], part, W, H);
    part.fill((at, c) => embeddingLevel(place(off(at, c), top), table, channels, c));
    put(shown[2], part, W, H);
    const answers = new Float32Array(S);
    for (let s = 0; s < S; s++) {
      answers[s] = bias[f];
      for (let i = 0; i < D; i++) answers[s] += filters[f * D + i] * patches[s * D + i];
    }
    const most = largest(answers);
    tokens.fill((at, c) => embeddingLevel(place(answers[at], most), table, 1, c));
    put(shown[3], tokens, columns, H / P);
    says[0].textContent = "image";
    says[1].textContent = `from the first ${k} filters`;
    says[2].textContent = `rebuilt minus image, ±${top.toPrecision(3)}`;
    says[3].textContent = `filter ${f} in each patch, ±${most.toPrecision(3)}`;
    shown.forEach((canvas, i) => canvas.setAttribute("aria-label", says[i].textContent));
    drawCurve(k);
  }

  function drawCurve(k) {
    const width = 280, height = 150, left = 44, low = height - 22, last = Math.max(1, data.num_k - 1);
    const x = (n) => left + ((width - left - 12) * n) / last, y = (n) => low - ((low - 10) * errorAt(n)) / (errorAt(0) || 1);
    Object.assign(curve.dataset, { left, last, low, right: width - 12 });
    onCanvas(curve, width, height, (context, ratio) => {
      context.scale(ratio, ratio);
      context.font = "12px system-ui, sans-serif";
      context.fillStyle = "#444";
      context.strokeStyle = "#888";
      context.strokeRect(left, low, width - left - 12, 0);
      context.textAlign = "right";
      context.fillText(errorAt(0).toPrecision(3), left - 5, 14);
      context.fillText("0", left - 5, low + 4);
      context.textAlign = "center";
      context.fillText(String(last), x(last) - 4, height - 6);
      context.fillText("0", left, height - 6);
      context.strokeStyle = "#0072b2";
      context.lineWidth = 2;
      context.beginPath();
      for (let n = 0; n <= last; n++) context.lineTo(x(n), y(n));
      context.stroke();
      context.fillStyle = "#000";
      context.beginPath();
      context.arc(x(k), y(k), 5, 0, 7);
      context.fill();
    });
  }

  // --- words
  function say() {
    const k = model.get("k"), rank = sorts[model.get("sort")].ranks[k], f = model.get("filter");
    const whole = sorts[model.get("sort")].ranks[data.num_k - 1];
    const ends = rank === D ? " They span all of it: nothing is lost."
      : whole === D ? "" : data.num_k - 1 < C ? ` Only the first ${data.num_k - 1} filters were sent for rebuilding.`
      : ` All ${C} together span ${whole}: the rest of a patch never gets into the model.`;
    parts.caption.textContent = `Each patch is projected onto the first ${k} of ${C} filters, which span ${rank} of its ` +
      `${D} numbers: ${embeddingPercent(explained(k))} of the image is kept, mean squared error ` +
      `${embeddingDigits(errorAt(k))} (${embeddingDigits(errorAt(0))} with no filter).${ends}`;
    parts.readout.textContent = hovered || sayFilter(f);
  }
  const sayFilter = (f) => `Filter ${f} (place ${orderOf().indexOf(f)} of ${C}): norm ${norms[f].toPrecision(3)}, mean ` +
    `frequency ${frequencies[f].toFixed(3)} cycles per pixel, bias ${signed(bias[f])}.`;
  const hover = (one, said) => {
    one.addEventListener("pointermove", (event) => { hovered = said(...pointer(event, one)); say(); });
    one.addEventListener("pointerleave", () => { hovered = null; say(); });
  };

  // --- pointer and keyboard
  const kAt = (x) => {
    const { left, right, last } = curve.dataset;
    return Math.max(0, Math.min(Number(last), Math.round(((x - left) / (right - left)) * last)));
  };
  hover(cut, (x, y) => {
    const size = model.get("patch_size"), step = size * side + Number(cut.dataset.gap);
    const r = Math.floor(y / step), c = Math.floor(x / step);
    return `Patch ${r * (W / size) + c}, in row ${r}, column ${c} of the ${H / size} × ${W / size} patches.`;
  });
  hover(curve, (x) => `From the first ${kAt(x)} filters: mean squared error ${embeddingDigits(errorAt(kAt(x)))}, ` +
    `${embeddingPercent(explained(kAt(x)))} of the image kept.`);
  curve.addEventListener("click", (event) => set(model, { k: kAt(pointer(event, curve)[0]) }));
  cut.addEventListener("keydown", (event) => {
    const step = arrow(event), next = step && sizes[sizes.indexOf(model.get("patch_size")) + step[0] + step[1]];
    if (next) set(model, { patch_size: next });
  });
  curve.addEventListener("keydown", (event) => {
    const step = arrow(event);
    if (!step) return;
    hovered = null;
    const k = model.get("k") + (step[1] - step[0]) * (step[2] ? 10 : 1);
    set(model, { k: Math.max(0, Math.min(data.num_k - 1, k)) });
  });
  drawnFrom(model, ["image", "patch_size"], root, drawCut);
  const again = drawnFrom(model, ["sort", "scale", "filter", "k"], root, drawFilters);
  const goOn = drawnFrom(model, ["image", "sort", "filter", "k"], root, () => { drawRebuilt(); say(); });
  new ResizeObserver(again).observe(root);
}

/** A slider that moves over the sizes that divide the image; its trait is the size itself. */
function embeddingSizes(model, sizes) {
  const input = make("input", { type: "range", min: 0, max: sizes.length - 1, step: 1, "data-trait": "patch_size" });
  const output = make("output");
  const show = () => {
    input.value = sizes.indexOf(model.get("patch_size"));
    output.textContent = `${model.get("patch_size")} × ${model.get("patch_size")}`;
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => set(model, { patch_size: sizes[input.value] }));
  model.on("change:patch_size", show);
  show();
  return labelled("Cut into patches of", input, output);
}

/** A row of the table of costs: its bar starts at the model's own cost and is as long as the logarithm of the ratio. */
function embeddingCost(cost, own, costs, choose) {
  const ratio = (one) => Math.log(one.multiply_adds / own.multiply_adds);
  const low = Math.min(...costs.map(ratio)), range = Math.max(...costs.map(ratio)) - low || 1;
  const start = (100 * (Math.min(0, ratio(cost)) - low)) / range, width = (100 * Math.abs(ratio(cost))) / range;
  const bar = make("i", { style: `left: ${start}%; width: max(2px, ${width}%)` });
  return make("tr", { onclick: choose, "data-patch-size": cost.patch_size },
    make("th", {}, String(cost.patch_size)), make("td", {}, String(cost.tokens)),
    make("td", {}, embeddingShort(cost.multiply_adds)),
    make("td", { class: "mixer-bar" }, make("span", {}, bar)),
    make("td", {}, embeddingTimes(cost.multiply_adds / own.multiply_adds)),
    make("td", {}, embeddingShort(cost.parameters)));
}

/** A picture of single pixels, to be drawn larger: fill(level of pixel `at`, channel `c`), put(context, from, to). */
function embeddingPicture(width, height) {
  const canvas = make("canvas", { width, height }), context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  return {
    fill(level) {
      for (let at = 0; at < width * height; at++) { // levels above 255 and below 0 are cut off by the array itself
        for (let c = 0; c < 3; c++) image.data[4 * at + c] = level(at, c);
        image.data[4 * at + 3] = 255;
      }
      context.putImageData(image, 0, 0);
    },
    put(target, ...places) {
      target.imageSmoothingEnabled = false;
      target.drawImage(canvas, ...places);
    },
  };
}

/** Red, green or blue (c) of a place in the colours of signed numbers; of three channels the place is the level. */
function embeddingLevel(placed, table, channels, c) {
  return channels === 1 ? (table[placed] >> (8 * c)) & 255 : placed;
}

/** In words, for filters that are drawn in red, green and blue. */
function embeddingLegend() {
  const root = make("span", { class: "mixer-caption" });
  const show = (scale) => {
    const ends = scale == null ? "its own largest" : scale.toPrecision(3);
    root.textContent = `Weights as red, green and blue: zero is mid grey, ±${ends} are full and none.`;
  };
  return { root, show };
}

function embeddingShort(count) {
  const [size, letter] = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]].find(([one]) => count >= one) || [1, ""];
  return (count / size).toPrecision(3) + letter;
}

function embeddingTimes(ratio) {
  return `${ratio >= 100 ? ratio.toFixed(0) : ratio.toPrecision(ratio < 1 ? 2 : 3)} ×`;
}

function embeddingDigits(error) {
  return error < 1e-12 ? "0" : error >= 0.001 ? error.toPrecision(3) : error.toExponential(2);
}

/** Never rounded up to all of it. */
function embeddingPercent(share) {
  return share > 1 - 1e-6 ? "100 %" : `${Math.min(99.99, 100 * share).toFixed(share > 0.99 ? 2 : 1)} %`;
}
