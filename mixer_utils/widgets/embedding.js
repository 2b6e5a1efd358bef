// View 4: the stem. An image cut at any patch size and the cost, the learned filters, the image from a few.

import {
  arrow, cellOf, choice, clamp, colourTable, drawnFrom, frame, indexSlider, labelled, largest, legend, make,
  mapCanvas, onCanvas, onTheme, panel, place, pointer, range, segment, set, signed, slider, theme, unpack,
} from "./kit.js";
import { tileGrid } from "./tiles.js";

export function embedding(model, root, data = model.get("data")) {
  const [channels, H, W] = data.image_shape;
  const P = data.own_patch_size;
  const columns = W / P;
  const rows = H / P;
  const S = rows * columns;
  const C = data.num_filters;
  const D = channels * P * P; // numbers in a patch
  const { costs } = data;
  const own = costs.find((cost) => cost.patch_size === P);
  const sizes = costs.map((cost) => cost.patch_size);
  const table = colourTable(data.colours, root);
  const key = channels === 1 ? legend(table) : embeddingLegend();
  const bias = unpack(data.bias).values;
  const filters = unpack(data.filters).values;
  const images = unpack(data.images).values;
  const frequencies = unpack(data.frequencies).values;
  const sorts = embeddingSorts(data.sorts);
  const sorted = () => sorts[model.get("sort")]; // order, ranks, errors and basis
  const filterOf = (filter) => segment(filters, filter, D);
  const channelOf = (c) => (channels === 1 ? 0 : c); // of red, green and blue
  const longer = Math.max(H, W);
  const shownSide = Math.max(1, Math.floor(140 / longer));
  let hovered = null; // a sentence

  // --- controls and panels
  const controls = [
    indexSlider(model, "image", "Image", data.num_images),
    embeddingSizes(model, sizes),
    choice(model, "sort", "Sort filters by", { norm: "norm", frequency: "frequency", number: "number" }),
    choice(model, "scale", "Colours", { shared: "one scale", each: "each filter its own" }),
    slider(model, "k", "Rebuild from the first", 0, data.num_k - 1, (k) => `${k} of ${C} filters`),
  ];
  const canvas = (part, label) => mapCanvas(label, { "data-part": part });
  const cut = canvas("cut", "The image cut into patches: left and right arrow keys change the patch size");
  const grid = canvas("filters", "The stem's filters: arrow keys choose one");
  const curve = canvas("curve", "Error against the number of filters: left and right arrow keys change it");
  const pictures = ["image", "rebuilt", "difference", "tokens"];
  const shown = pictures.map((part) => make("canvas", { role: "img", "data-part": part }));
  const captions = shown.map(() => make("span", { class: "mixer-caption" }));
  const facts = make("p", { "data-part": "facts" });
  const chooseSize = (cost) => set(model, { patch_size: cost.patch_size });
  const costRows = costs.map((cost) => embeddingCost(cost, own, costs, () => chooseSize(cost)));
  const titles = ["P", "S", "multiply-adds", "log scale", `× of P = ${P}`, "parameters"];
  const head = make("tr", {}, ...titles.map((text) => make("th", {}, text)));
  const box = (name, ...content) => make("div", { class: name }, ...content);
  const caption = (text) => make("span", { class: "mixer-caption" }, text);
  const shownWidth = Math.max(140, W * shownSide);
  const figures = shown.map((one, i) => make("div", { style: `width: ${shownWidth}px` }, one, captions[i]));
  const dead = data.num_dead;
  const sayDead = dead ? `${dead} of them dead (norm below 1 % of the largest)` : "none of them dead";
  const tiles = tileGrid(model, "filter", {
    canvas: grid,
    name: "mixer-scroll",
    order: () => sorted().order,
    hover: (found) => hover(found && sayFilter(found.item)),
  });
  const panels = [
    panel("The cut, and what it costs", box("mixer-panels",
      box("mixer-scroll", cut),
      box("mixer-scroll mixer-costs", make("table", {}, head, ...costRows), facts))),
    panel(`The ${C} filters of the stem, ${sayDead}`, key.root,
      caption(" Underlined: used for the rebuild. Only a dot: adds nothing to the filters before it."),
      tiles.element),
    panel("An image rebuilt from the first filters", box("mixer-panels",
      ...figures,
      make("div", {}, curve, caption("mean squared error by number of filters")))),
  ];
  const parts = frame(root, { controls, panels });

  // --- the cut and its cost
  const small = embeddingPicture(W, H);
  const side = Math.max(1, Math.floor(200 / longer));

  function drawCut() {
    const size = model.get("patch_size");
    const across = W / size;
    const down = H / size;
    const gap = clamp(Math.round((size * side) / 6), 1, 8);
    const first = model.get("image") * channels;
    small.fill((at, c) => images[(first + channelOf(c)) * H * W + at]);
    Object.assign(cut.dataset, { across, down, side, gap });
    onCanvas(cut, W * side + (across - 1) * gap, H * side + (down - 1) * gap, (context, ratio) => {
      const step = (size * side + gap) * ratio;
      const wide = size * side * ratio;
      // Columns apart, then rows: with patches of one pixel there are too many to draw singly.
      const strips = make("canvas", { width: cut.width, height: H });
      const aside = strips.getContext("2d");
      for (let column = 0; column < across; column++) {
        small.put(aside, column * size, 0, size, H, column * step, 0, wide, H);
      }
      context.imageSmoothingEnabled = false;
      for (let row = 0; row < down; row++) {
        context.drawImage(strips, 0, row * size, cut.width, size, 0, row * step, cut.width, wide);
      }
    });
    showCost(size);
  }

  function showCost(size) {
    costs.forEach((cost, i) => {
      if (cost.patch_size === size) costRows[i].setAttribute("aria-current", "true");
      else costRows[i].removeAttribute("aria-current");
    });
    const cost = costs[sizes.indexOf(size)];
    const multiplyAdds = embeddingTimes(cost.multiply_adds / own.multiply_adds);
    const parameters = embeddingTimes(cost.parameters / own.parameters);
    facts.textContent =
      `P = ${size}: S = (${H} / ${size}) × (${W} / ${size}) = ${cost.tokens} patches ` +
      `of ${cost.numbers} numbers. ${multiplyAdds} the multiply-adds and ${parameters} the parameters ` +
      `of the model's own P = ${P}.`;
  }

  // --- the filters: drawn once at their own size on a sheet, then laid out
  const zoom = Math.max(1, Math.floor(32 / P));
  const tile = P * zoom;
  const tileGap = 6;
  const sheetColumns = Math.min(C, 32);
  const sheet = embeddingPicture(sheetColumns * P, Math.ceil(C / sheetColumns) * P);
  const widest = largest(filters);
  const norms = range(C).map((filter) => Math.hypot(...filterOf(filter)));
  let painted = null; // whether the sheet has all filters on one scale
  onTheme(root, () => (painted = null));

  function paintSheet(shared) {
    const tops = range(C).map((filter) => (shared ? widest : largest(filterOf(filter))));
    sheet.fill((at, c) => {
      const y = Math.floor(at / (sheetColumns * P));
      const x = at % (sheetColumns * P);
      const filter = Math.floor(y / P) * sheetColumns + Math.floor(x / P);
      if (filter >= C) return 255;
      const value = filters[filter * D + channelOf(c) * P * P + (y % P) * P + (x % P)];
      return embeddingLevel(place(value, tops[filter]), table, channels, c);
    });
    painted = shared;
  }

  function drawFilters() {
    const shared = model.get("scale") === "shared";
    key.show(shared ? widest : null);
    if (painted !== shared) paintSheet(shared);
    Object.assign(grid.dataset, { tile, zoom });
    const { ranks } = sorted();
    const k = model.get("k");
    const across = clamp(Math.floor((root.clientWidth - 50 + tileGap) / (tile + tileGap)), 1, C);
    const layout = { across, width: tile, height: tile, gap: tileGap, margin: 3, below: 4, line: 2, away: 2 };
    tiles.draw(layout, (context, ratio, visible) => {
      visible.forEach(({ item: filter, at, x, y }) => {
        const [row, column] = cellOf(filter, sheetColumns);
        const where = [x, y, tile, tile].map((size) => size * ratio);
        sheet.put(context, column * P, row * P, P, P, ...where);
        if (at >= k) return;
        // A long line under a filter that is used, a dot where it adds nothing to the ones before.
        const long = ranks[at + 1] > ranks[at] ? tile : 2;
        context.fillStyle = theme().ink;
        context.fillRect(x * ratio, (y + tile + 1) * ratio, long * ratio, 2 * ratio);
      });
    });
  }

  // --- the image, its rebuild and the difference
  const patches = new Float32Array(S * D);
  const rebuilt = new Float32Array(S * D);
  let state = { image: null, sort: null, rank: 0 };

  /**
   * Projects every patch onto the first `rank` rows of the basis; from one k to the next, only what is new is
   * added. Of B/16 this can take 0.2 s: after 25 ms it stops and returns false, to go on in the next frame.
   */
  function rebuild(image, sort, rank) {
    if (image !== state.image) cutPatches(image);
    if (image !== state.image || sort !== state.sort || rank < state.rank / 2) {
      rebuilt.fill(0);
      state = { image, sort, rank: 0 };
    }
    const { basis } = sorts[sort];
    const sign = rank > state.rank ? 1 : -1;
    const start = performance.now();
    for (; state.rank !== rank; state.rank += sign) {
      if (performance.now() - start > 25) return false;
      const row = sign > 0 ? state.rank : state.rank - 1;
      for (let s = 0; s < S; s++) addRow(basis, row, s, sign);
    }
    return true;
  }

  /** What a row of the basis holds of a patch goes into its rebuild, or out of it. */
  function addRow(basis, row, s, sign) {
    let weight = 0;
    for (let i = 0; i < D; i++) weight += basis[row * D + i] * patches[s * D + i];
    weight *= sign;
    for (let i = 0; i < D; i++) rebuilt[s * D + i] += weight * basis[row * D + i];
  }

  function cutPatches(image) {
    for (let c = 0; c < channels; c++) {
      for (let at = 0; at < H * W; at++) {
        const value = images[(image * channels + c) * H * W + at];
        patches[placeOf(c, at)] = (value / 255 - data.mean[c]) / data.std[c];
      }
    }
  }

  /** Where among the patches' numbers a pixel of a channel is. */
  function placeOf(c, at) {
    const y = Math.floor(at / W);
    const x = at % W;
    const patch = Math.floor(y / P) * columns + Math.floor(x / P);
    return patch * D + (c * P + (y % P)) * P + (x % P);
  }

  const picture = embeddingPicture(W, H);
  const tokens = embeddingPicture(columns, rows);

  function errorAt(k) {
    const { ranks, errors } = sorted();
    const perImage = errors.length / data.num_images;
    return errors[model.get("image") * perImage + ranks[k]];
  }
  const explained = (k) => (errorAt(0) ? 1 - errorAt(k) / errorAt(0) : 1);

  function drawRebuilt() {
    const k = model.get("k");
    const rank = sorted().ranks[k];
    if (!rebuild(model.get("image"), model.get("sort"), rank)) requestAnimationFrame(() => goOn());
    shown[1].dataset.rank = state.rank; // below `rank` while it goes on
    const top = largest(patches);
    showPixels(0, patches, "image");
    showPixels(1, rebuilt, `from the first ${k} filters`);
    picture.fill((at, c) => {
      const i = placeOf(channelOf(c), at);
      return embeddingLevel(place(rebuilt[i] - patches[i], top), table, channels, c);
    });
    show(2, picture, W, H, `rebuilt minus image, ±${top.toPrecision(3)}`);
    drawTokens(model.get("filter"));
    drawCurve(k);
  }

  function show(i, from, width, height, text) {
    onCanvas(shown[i], W * shownSide, H * shownSide, (context, ratio) => {
      from.put(context, 0, 0, width, height, 0, 0, W * shownSide * ratio, H * shownSide * ratio);
    });
    captions[i].textContent = text;
    shown[i].setAttribute("aria-label", text);
  }

  function showPixels(i, values, text) {
    picture.fill((at, colour) => {
      const c = channelOf(colour);
      return Math.round((values[placeOf(c, at)] * data.std[c] + data.mean[c]) * 255);
    });
    show(i, picture, W, H, text);
  }

  /** The filter's answer in each patch. */
  function drawTokens(filter) {
    const weights = filterOf(filter);
    const answers = new Float32Array(S);
    for (let s = 0; s < S; s++) {
      answers[s] = bias[filter];
      for (let i = 0; i < D; i++) answers[s] += weights[i] * patches[s * D + i];
    }
    const most = largest(answers);
    tokens.fill((at, c) => embeddingLevel(place(answers[at], most), table, 1, c));
    show(3, tokens, columns, rows, `filter ${filter} in each patch, ±${most.toPrecision(3)}`);
  }

  const last = Math.max(1, data.num_k - 1);
  const axes = { left: 44, right: 268, low: 128 }; // of the curve, CSS pixels

  function drawCurve(k) {
    const { left, right, low } = axes;
    const x = (count) => left + ((right - left) * count) / last;
    const y = (count) => low - ((low - 10) * errorAt(count)) / (errorAt(0) || 1);
    Object.assign(curve.dataset, { left, last, low, right });
    onCanvas(curve, 280, 150, (context, ratio) => {
      context.scale(ratio, ratio);
      context.font = "12px system-ui, sans-serif";
      const { ink, muted, edge, accent } = theme();
      context.fillStyle = muted;
      context.strokeStyle = edge;
      context.strokeRect(left, low, right - left, 0);
      context.textAlign = "right";
      context.fillText(errorAt(0).toPrecision(3), left - 5, 14);
      context.fillText("0", left - 5, low + 4);
      context.textAlign = "center";
      context.fillText(String(last), x(last) - 4, 144);
      context.fillText("0", left, 144);
      context.strokeStyle = accent;
      context.lineWidth = 2;
      context.beginPath();
      for (let count = 0; count <= last; count++) context.lineTo(x(count), y(count));
      context.stroke();
      context.fillStyle = ink;
      context.beginPath();
      context.arc(x(k), y(k), 5, 0, 7);
      context.fill();
    });
  }

  // --- words
  function say() {
    const k = model.get("k");
    const rank = sorted().ranks[k];
    parts.caption.textContent =
      `Each patch is projected onto the first ${k} of ${C} filters, which span ${rank} of its ${D} ` +
      `numbers: ${embeddingPercent(explained(k))} of the image is kept, mean squared error ` +
      `${embeddingDigits(errorAt(k))} (${embeddingDigits(errorAt(0))} with no filter).${sayEnd(rank)}`;
    parts.readout.textContent = hovered || sayFilter(model.get("filter"));
  }

  /** How far one gets with all filters. */
  function sayEnd(rank) {
    const sent = data.num_k - 1;
    const whole = sorted().ranks[sent];
    if (rank === D) return " They span all of it: nothing is lost.";
    if (whole === D) return "";
    if (sent < C) return ` Only the first ${sent} filters were sent for rebuilding.`;
    return ` All ${C} together span ${whole}: the rest of a patch never gets into the model.`;
  }

  function sayFilter(filter) {
    const at = sorted().order.indexOf(filter);
    return `Filter ${filter} (place ${at} of ${C}): norm ${norms[filter].toPrecision(3)}, ` +
      `mean frequency ${frequencies[filter].toFixed(3)} cycles per pixel, bias ${signed(bias[filter])}.`;
  }

  function sayPatch(x, y) {
    const size = model.get("patch_size");
    const step = size * side + Number(cut.dataset.gap);
    const row = Math.floor(y / step);
    const column = Math.floor(x / step);
    const number = row * (W / size) + column;
    return `Patch ${number}, in row ${row}, column ${column} of the ${H / size} × ${W / size} patches.`;
  }

  function sayError(x) {
    const k = kAt(x);
    return `From the first ${k} filters: mean squared error ${embeddingDigits(errorAt(k))}, ` +
      `${embeddingPercent(explained(k))} of the image kept.`;
  }

  // --- pointer and keyboard
  function hover(sentence) {
    hovered = sentence;
    say();
  }

  function follow(element, sentence) {
    element.addEventListener("pointermove", (event) => hover(sentence(...pointer(event, element))));
    element.addEventListener("pointerleave", () => hover(null));
  }

  /** The number of filters at a place on the curve. */
  function kAt(x) {
    const { left, right } = axes;
    return clamp(Math.round(((x - left) / (right - left)) * last), 0, last);
  }

  follow(cut, sayPatch);
  follow(curve, sayError);
  curve.addEventListener("click", (event) => set(model, { k: kAt(pointer(event, curve)[0]) }));
  cut.addEventListener("keydown", (event) => {
    const step = arrow(event);
    if (!step) return;
    const [down, right] = step;
    const size = sizes[sizes.indexOf(model.get("patch_size")) + down + right];
    if (size) set(model, { patch_size: size });
  });
  curve.addEventListener("keydown", (event) => {
    const step = arrow(event);
    if (!step) return;
    const [down, right, shift] = step;
    hovered = null;
    const k = model.get("k") + (right - down) * (shift ? 10 : 1);
    set(model, { k: clamp(k, 0, data.num_k - 1) });
  });
  drawnFrom(model, ["image", "patch_size"], root, drawCut);
  const again = drawnFrom(model, ["sort", "scale", "filter", "k"], root, drawFilters);
  const goOn = drawnFrom(model, ["image", "sort", "filter", "k"], root, () => {
    drawRebuilt();
    say();
  });
  new ResizeObserver(again).observe(root);
}

/** {"norm": {"order": packed, ...}, ...} -> the same with the numbers themselves. */
function embeddingSorts(sorts) {
  const found = {};
  for (const [name, one] of Object.entries(sorts)) {
    found[name] = {};
    for (const [part, packed] of Object.entries(one)) found[name][part] = unpack(packed).values;
  }
  return found;
}

/** A slider that moves over the sizes that divide the image; its trait is the size itself. */
function embeddingSizes(model, sizes) {
  const last = sizes.length - 1;
  const input = make("input", { type: "range", min: 0, max: last, step: 1, "data-trait": "patch_size" });
  const output = make("output");
  const show = () => {
    const size = model.get("patch_size");
    input.value = sizes.indexOf(size);
    output.textContent = `${size} × ${size}`;
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => set(model, { patch_size: sizes[input.value] }));
  model.on("change:patch_size", show);
  show();
  return labelled("Cut into patches of", input, output);
}

/** A row of the table of costs; its bar starts at the model's own cost, as long as the log of the ratio. */
function embeddingCost(cost, own, costs, choose) {
  const ratio = (one) => Math.log(one.multiply_adds / own.multiply_adds);
  const low = Math.min(...costs.map(ratio));
  const span = Math.max(...costs.map(ratio)) - low || 1;
  const start = (100 * (Math.min(0, ratio(cost)) - low)) / span;
  const width = (100 * Math.abs(ratio(cost))) / span;
  const bar = make("i", { style: `left: ${start}%; width: max(2px, ${width}%)` });
  const cell = (text) => make("td", {}, text);
  return make("tr", { onclick: choose, "data-patch-size": cost.patch_size },
    make("th", {}, String(cost.patch_size)),
    cell(String(cost.tokens)),
    cell(embeddingShort(cost.multiply_adds)),
    make("td", { class: "mixer-bar" }, make("span", {}, bar)),
    cell(embeddingTimes(cost.multiply_adds / own.multiply_adds)),
    cell(embeddingShort(cost.parameters)));
}

/** A picture of single pixels, to be drawn larger: fill(level of pixel `at`, channel c), put(target, from, to). */
function embeddingPicture(width, height) {
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  return {
    fill(level) {
      for (let at = 0; at < width * height; at++) {
        // Levels above 255 and below 0 are cut off by the array itself.
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

/** Red, green or blue (c) of a place in the signed colours; of three channels the place is the level. */
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
  const units = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]];
  const [size, letter] = units.find(([one]) => count >= one) || [1, ""];
  return (count / size).toPrecision(3) + letter;
}

function embeddingTimes(ratio) {
  if (ratio >= 100) return `${ratio.toFixed(0)} ×`;
  return `${ratio.toPrecision(ratio < 1 ? 2 : 3)} ×`;
}

function embeddingDigits(error) {
  if (error < 1e-12) return "0";
  return error >= 0.001 ? error.toPrecision(3) : error.toExponential(2);
}

/** Never rounded up to all of it. */
function embeddingPercent(share) {
  if (share > 1 - 1e-6) return "100 %";
  const kept = Math.min(99.99, 100 * share);
  return `${kept.toFixed(share > 0.99 ? 2 : 1)} %`;
}
