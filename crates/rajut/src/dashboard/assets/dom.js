// Builds elements. The only place that makes nodes: texts become text nodes and never markup, and a link leads nowhere
// but into the console itself.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "href" && !String(value).startsWith("#")) throw new Error(`a link to ${value}`);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** An HTML element. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Puts new children in place of the old ones; the focus stays where an element of the same `data-key` comes back. */
export function replace(node, ...children) {
  const key = node.contains(document.activeElement) ? document.activeElement?.dataset?.key : undefined;
  const scrolled = [...node.querySelectorAll("[data-scroll]")].map((one) => [one.dataset.scroll, one.scrollLeft, one.scrollTop]);
  const open = new Set([...node.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key));
  node.replaceChildren();
  append(node, children);
  for (const one of node.querySelectorAll("details[data-key]")) if (open.has(one.dataset.key)) one.open = true;
  for (const [name, left, top] of scrolled) {
    const again = node.querySelector(`[data-scroll="${CSS.escape(name)}"]`);
    if (again) [again.scrollLeft, again.scrollTop] = [left, top];
  }
  if (key) node.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** A table in a region that scrolls by itself. `head`: [text, class]; `rows`: lists of cells, each a node, a text or [class, node]. */
export function table(caption, head, rows, none) {
  if (rows.length === 0) return h("p", { class: "none" }, none);
  const cell = (tag, one, at) => {
    const [kind, content] = Array.isArray(one) ? one : [head[at][1], one];
    return h(tag, { class: kind, scope: at === 0 && tag === "th" ? "row" : undefined }, content);
  };
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption, "data-scroll": caption, "data-key": `table ${caption}` },
    h(
      "table",
      {},
      h("caption", { class: "visually-hidden" }, caption),
      h("thead", {}, h("tr", {}, head.map(([text, kind]) => h("th", { class: kind, scope: "col" }, text)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((one, at) => cell(at === 0 ? "th" : "td", one, at))))),
    ),
  );
}

/** A padlock, closed or open. */
export function lock(closed, size = 12) {
  return s(
    "svg",
    { class: closed ? "lock" : "lock open", viewBox: "0 0 12 12", width: size, height: size, "aria-hidden": "true" },
    s("path", { d: closed ? "M3.5 5.5V4a2.5 2.5 0 0 1 5 0v1.5" : "M3.5 5.5V3.2a2.5 2.5 0 0 1 4.6-1.3", class: "bow" }),
    s("rect", { x: 2, y: 5.5, width: 8, height: 5.5, rx: 1.2 }),
  );
}
