// The panes of the image and of its patches: draw, erase, hide.

import { cellOf, choice, make, range, set } from "./kit.js";
import { drawingBoard, hatchSquare, imageCanvas } from "./board.js";
import { pane, row } from "./panes.js";
import { squares } from "./squares.js";

export function imagePane(view) {
  const { model, data } = view;
  const [, H, W] = data.image_shape;
  const longest = Math.max(H, W);
  const board = drawingBoard(model, view.drawing, { side: Math.max(1, Math.floor(280 / longest)), lines: longest < 100 });
  board.canvas.dataset.map = "board";
  const button = (name, text, onclick) => make("button", { type: "button", "data-do": name, onclick }, text);
  const tools = make("div", { class: "mixer-tools" },
    choice(model, "tool", "Tool", { draw: "draw", erase: "erase", "hide patches": "hide patches" }),
    button("centre", "Centre", () => view.drawing.centre()),
    button("show all", "Show all patches", () => set(model, { hidden: [] })),
    make("p", { class: "mixer-caption" },
      "Keys: arrows move the pen, Space puts it down or lifts it, x erases, h hides the patch."));
  const shown = pane(view, "image", row(board.canvas, tools));
  shown.text.textContent = "Draw or erase: the whole network follows every stroke.";
  return { ...shown, draw: board.draw };
}

export function patchesPane(view) {
  const { model, data, grid } = view;
  const [rows, columns] = grid;
  const [channels, H, W] = data.image_shape;
  const P = data.config.patch_size;
  const pieces = squares(model, {
    trait: "patch", count: rows * columns, columns, name: "pieces", under: view.under.patch,
    label: () => `The patches, ${model.get("hidden").length} of them hidden: click one, or arrow keys and Space, to hide it`,
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
  const side = Math.max(1, Math.floor(308 / Math.max(H, W)));
  const draw = () => {
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
