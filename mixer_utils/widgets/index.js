// Every view by name, and anywidget's way in.

import { make } from "./kit.js";
import { mixing } from "./mixing.js";
import { influence } from "./influence.js";
import { digit } from "./digit.js";
import { embedding } from "./embedding.js";
import { training } from "./training.js";
import { learn } from "./learn.js";

const VIEWS = { mixing, influence, digit, embedding, training, learn };

export function render({ model, el }) {
  const root = make("div");
  el.append(root);
  return VIEWS[model.get("view")](model, root); // what is left to stop when the view is closed, if anything
}

export default { render };
