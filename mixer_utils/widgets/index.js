// Every view by name, and anywidget's way in.

import { make, wearTheme } from "./kit.js";
import { mixing } from "./mixing.js";
import { influence } from "./influence.js";
import { digit } from "./digit.js";
import { embedding } from "./embedding.js";
import { network } from "./network.js";
import { training } from "./training.js";

const VIEWS = { mixing, influence, digit, embedding, training, network };

export function render({ model, el }) {
  const root = make("div");
  el.append(root);
  const end = wearTheme(root);
  VIEWS[model.get("view")](model, root);
  return end; // anywidget calls it when the view is closed
}

export default { render };
