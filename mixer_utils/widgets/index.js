// Every view by name, and anywidget's way in.

import { make } from "./kit.js";
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
  VIEWS[model.get("view")](model, root);
}

export default { render };
