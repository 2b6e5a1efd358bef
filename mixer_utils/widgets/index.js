// Every view by name, and anywidget's way in.

import { make, wearTheme } from "./kit.js";
import { mixing } from "./mixing.js";
import { influence } from "./influence.js";
import { digit } from "./digit.js";
import { embedding } from "./embedding.js";
import { network } from "./network.js";
import { training } from "./training.js";
import { learn } from "./learn.js";

const VIEWS = { network, learn, mixing, influence, digit, embedding, training };

export function render({ model, el }) {
  const root = make("div");
  el.append(root);
  const endTheme = wearTheme(root);
  const stop = VIEWS[model.get("view")](model, root); // of a view that works in the background
  return () => { // anywidget calls it when the view is closed
    endTheme();
    stop?.();
  };
}

export default { render };
