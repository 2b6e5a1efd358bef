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
    const wide = parseFloat(canvas.style.width);
    const high = parseFloat(canvas.style.height);
    onCanvas(over, wide, high, (context, ratio) => {
      context.scale(ratio, ratio);
      context.beginPath();
      for (const [x, y, width, height] of boxes) { // around the box, at the canvas's edge inside it
        const left = Math.max(x - 0.75, 0.75);
        const right = Math.min(x + width + 0.75, wide - 0.75);
        const top = y - 0.75 < 0 && y >= 0 ? 0.75 : y - 0.75;
        const bottom = y + height <= high ? Math.min(y + height + 0.75, high - 0.75) : y + height + 0.75;
        context.rect(left, top, right - left, bottom - top);
      }
      for (const [colour, line] of [[WHITE, 3.5], [BLACK, 1.5]]) { // seen on every colour
        context.strokeStyle = colour;
        context.lineWidth = line;
        context.stroke();
      }
    });
  }
  return { element, outline };
}
