// The pane of the stem: one patch times one filter, and all filters.

import { cellOf, indexSlider, largest, pointed, range, segment } from "./kit.js";
import { fedWith } from "./numbers.js";
import { pane, part, patchValues, roomIn, row, sumLine, total } from "./panes.js";
import { colouredPixels, paintValues, pixelCanvas, short, squares } from "./squares.js";

export function stemPane(view) {
  const { model, data, grid, numbers } = view;
  const [channels, H, W] = data.image_shape;
  const P = data.config.patch_size;
  const C = data.num_channels;
  const pixel = pointed(); // the one under the pointer, in all three
  const side = P <= 4 ? 40 : Math.max(2, Math.floor((channels === 1 ? 160 : 96) / P));
  const pixels = pixelMaps("pixels", "", "the patch's pixels, as the model is fed");
  const filter = pixelMaps("filter", "×", "the filter");
  const products = pixelMaps("products", "=", "products");
  const said = sumLine();
  const over = patchValues(view, { name: "channel", title: "this channel of every token: the same filter everywhere" });
  const filters = numbers.filters && filterTiles();
  const content = [
    row(indexSlider(model, "channel", "Channel", C)),
    row(pixels.element, filter.element, products.element),
    said,
    row(over.element, ...(filters ? [filters.element] : [])),
  ];
  const shown = pane(view, "stem", ...content);

  /** A map of P x P numbers for each channel of the image. */
  function pixelMaps(name, sign, title) {
    let values = [];
    const each = P * P;
    const maps = range(channels).map((channel) => squares(model, {
      trait: null, count: each, columns: P, name: channels === 1 ? name : `${name} ${channel}`, under: pixel,
      keys: false,
      label: () => `${title}${channels === 1 ? "" : `, channel ${channel} of the image`}, ${view.spread(values)}`,
      say: (i) => view.say(i === null ? null : () => sayPixel(channel * each + i)),
    }));
    const one = part(sign, title, ...maps.map((map) => map.canvas));
    const draw = (next) => {
      values = next;
      const scale = largest(values);
      const size = { width: side, height: side, numbers: true };
      maps.forEach((map, channel) => {
        const own = segment(values, channel, each);
        map.draw(size, paintValues(own, scale, view.table, P, size));
      });
      one.note.textContent = `colours ±${short(scale)}`;
    };
    return { element: one.element, draw, at: (i) => values[i] };
  }

  function sayPixel(i) {
    const [y, x] = cellOf(i % (P * P), P);
    return `Pixel in row ${y}, column ${x} of the patch: ` +
      `${short(pixels.at(i))} × ${short(filter.at(i))} = ${short(products.at(i))}`;
  }

  /** Every filter, a small picture each; a click chooses its channel. */
  function filterTiles() {
    const size = P * Math.max(1, Math.floor(28 / P));
    const columns = Math.max(1, Math.min(C, 16, Math.floor(roomIn(view) / (size + 3))));
    const each = channels * P * P;
    const tiles = squares(model, {
      trait: "channel", count: C, columns, name: "filters", under: view.under.channel,
      label: () => `All ${C} filters of the stem; arrow keys choose one`,
      say: (c) => view.say(c === null ? null : () => `The filter of channel ${c}`),
    });
    const shownIn = part("", `all ${C} filters, a channel each`, tiles.canvas);
    const filterOf = (c) => segment(numbers.filters, c, each);
    const pictures = () => range(C).map((c) => filterPicture(filterOf(c), channels, P, view.table));
    const draw = () => {
      const drawn = pictures();
      tiles.draw({ width: size, height: size, gap: 3 }, (context, corner) => {
        drawn.forEach((picture, c) => context.drawImage(picture, ...corner(c), size, size));
      });
      const colours = "red, green and blue: the filter's weights for each";
      shownIn.note.textContent = channels === 3 ? colours : "each on its own scale";
    };
    return { element: shownIn.element, draw };
  }

  function draw(found) {
    const patch = model.get("patch");
    const channel = model.get("channel");
    const [r, c] = cellOf(patch, grid[1]);
    const fed = fedWith(view.drawing.seen(), data);
    const own = Float32Array.from(range(channels * P * P), (i) => {
      const [y, x] = cellOf(i % (P * P), P);
      return fed[(Math.floor(i / (P * P)) * H + r * P + y) * W + c * P + x];
    });
    const multiplied = own.map((value, i) => value * found.filter[i]);
    pixels.draw(own);
    filter.draw(found.filter);
    products.draw(multiplied);
    over.draw(found.values);
    filters?.draw();
    const sum = total(multiplied);
    said.textContent =
      `All ${own.length} products together ${short(sum)}, with the bias ${short(found.bias[0])}: ` +
      `channel ${channel} of token ${patch} is ${short(sum + found.bias[0])}.`;
    Object.assign(said.dataset, { value: sum + found.bias[0] });
    shown.text.textContent =
      `The stem makes ${C} numbers, the channels of a token, out of each patch: each is the sum of the patch's ` +
      `${own.length} numbers times a filter. This is patch ${view.named(patch)}.`;
  }
  return { ...shown, draw };
}

/** A filter as a picture of P x P pixels: in the colours of signed numbers, of three channels in red, green and blue. */
function filterPicture(filter, channels, P, table) {
  const scale = largest(filter) || 1;
  if (channels !== 3) return colouredPixels(segment(filter, 0, P * P), scale, table, P);
  const level = (i, colour) => Math.round(127.5 + (127.5 * filter[colour * P * P + i]) / scale);
  const colours = Uint32Array.from(range(P * P), (i) => {
    return (255 << 24) | (level(i, 2) << 16) | (level(i, 1) << 8) | level(i, 0);
  });
  return pixelCanvas(colours, P);
}
