// Every view by name, and anywidget's way in.
const VIEWS = { mixing, influence, digit, embedding, training };

function render({ model, el }) {
  const root = make("div");
  el.append(root);
  VIEWS[model.get("view")](model, root);
}

export default { render };
