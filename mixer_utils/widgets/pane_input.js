// The panes of the image and of its patches: draw, erase, hide.

import { cellOf, choice, make, range, set } from "./kit.js";
import { drawingBoard, hatchSquare, imageCanvas } from "./board.js";
import { pane, roomIn, row } from "./panes.js";
import { answerInWords, photoControls } from "./photo.js";
import { squares } from "./squares.js";

export function imagePane(view) {
  const { model, data } = view;
  const [channels, H, W] = data.image_shape;
  const longest = Math.max(H, W);
  const side = Math.max(1, Math.floor(Math.min(280, roomIn(view)) / longest));
  const board = drawingBoard(model, view.drawing, { side, lines: longest < 100 });
  board.canvas.dataset.map = "board";
  const button = (name, text, onclick) => make("button", { type: "button", "data-do": name, onclick }, text);
  const photo = [1, 3].includes(channels) ? photographs() : null;
  const tools = make("div", { class: "mixer-tools" },
    ...(photo ? [make("div", { class: "mixer-row" }, ...photo.buttons)] : []),
    choice(model, "tool", "Tool", { draw: "draw", erase: "erase", "hide patches": "hide patches" }),
    button("centre", "Centre", () => view.drawing.centre()),
    button("show all", "Show all patches", () => set(model, { hidden: [] })),
    make("p", { class: "mixer-caption" },
      "Keys: arrows move the pen, Space puts it down or lifts it, x erases, h hides the patch."));
  const shown = pane(view, "image", row(board.canvas, tools), ...(photo ? [photo.panel] : []));
  shown.text.textContent = "Draw or erase: the whole network follows every stroke. Or take a picture of your own.";
  const draw = () => {
    board.draw();
    photo?.follow(view.drawing.pixels());
  };

  function photographs() {
    const onDigit = (pixels) => {
      view.drawing.commit(pixels);
      const probabilities = view.computeNow();
      return probabilities ? answerInWords(probabilities, data.class_names) : "";
    };
    return photoControls(view.root, { imageShape: data.image_shape, pictures: data.pictures, onDigit });
  }
  return { ...shown, draw };
}

export function patchesPane(view) {
  const { model, data, grid } = view;
  const [rows, columns] = grid;
  const [channels, H, W] = data.image_shape;
  const P = data.config.patch_size;
  const pieces = squares(model, {
    trait: "patch", count: rows * columns, columns, name: "pieces", under: view.under.patch,
    label: () => `The patches, ${model.get("hidden").length} hidden: click one, or arrow keys and Space, to hide it`,
    say: (s) => view.say(s === null ? null : () => `Patch ${view.named(s)}${isHidden(s) ? ", hidden" : ""}`),
    pick: (patch) => {
      set(model, { patch });
      view.drawing.toggle(patch);
    },
  });
  const isHidden = (s) => model.get("hidden").includes(s);
  pieces.canvas.addEventListener("keydown", (event) => {
    if (!["h", " ", "Enter"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    view.drawing.toggle(model.get("patch"));
  });
  const all = make("button", { type: "button", "data-do": "show all", onclick: () => set(model, { hidden: [] }) },
    "Show all patches");
  const shown = pane(view, "patches", row(pieces.canvas, make("div", { class: "mixer-tools" }, all)));
  shown.text.textContent =
    `The image is cut into ${rows} × ${columns} patches of ${P} × ${P} pixels, ` +
    `a row of ${channels * P * P} numbers each. Click one to hide it: it reaches the model black.`;
  const draw = () => {
    const room = Math.min(308, roomIn(view)) - 3 * Math.max(...grid);
    const side = Math.max(1, Math.floor(room / Math.max(H, W)));
    const given = imageCanvas(view.drawing.seen(), data.image_shape);
    const size = P * side;
    pieces.draw({ width: size, height: size, gap: 3 }, (context, corner) => {
      for (const s of range(rows * columns)) {
        const [r, c] = cellOf(s, columns);
        context.drawImage(given, c * P, r * P, P, P, ...corner(s), size, size);
      }
      for (const s of model.get("hidden")) hatchSquare(context, ...corner(s), size);
    });
  };
  return { ...shown, draw };
}
