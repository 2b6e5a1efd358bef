// Lines over a canvas, on a canvas of their own: they follow the pointer, and nothing below is drawn anew.

import { BLACK, make, onCanvas, WHITE } from "./kit.js";

/**
 * `element` holds the canvas and the one over it; `outline(boxes)` draws lines around boxes [x, y, width, height], CSS
 * pixels from the canvas's corner, in the place of those that it drew before.
 */
export function overlay(canvas) {
  const over = make("canvas", { class: "mixer-over", "aria-hidden": "true" });
  const element = make("div", { class: "mixer-layers" }, canvas, over);
  let empty = true;

  function outline(boxes) {
    if (empty && !boxes.length) return;
    empty = !boxes.length;
    onCanvas(over, parseFloat(canvas.style.width), parseFloat(canvas.style.height), (context, ratio) => {
      context.scale(ratio, ratio);
      context.beginPath();
      for (const [x, y, width, height] of boxes) context.rect(x - 0.75, y - 0.75, width + 1.5, height + 1.5);
      for (const [colour, line] of [[WHITE, 3.5], [BLACK, 1.5]]) { // seen on every colour
        context.strokeStyle = colour;
        context.lineWidth = line;
        context.stroke();
      }
    });
  }
  return { element, outline };
}
