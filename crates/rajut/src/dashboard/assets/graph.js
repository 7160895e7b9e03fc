// The service graph, live: a drawing in layers, the same as a table, and a panel for what is chosen. Everything that is
// chosen stands in the address, so that a link shows the same.

import { h, lock, replace, s, table } from "./dom.js";
import { NONE, count, duration, millis, rate, share } from "./format.js";
import { layout } from "./layout.js";
import { chosen, graphOf, isBusy, security, severity } from "./model.js";
import { t } from "./texts.js";

const SIZE = { width: 190, height: 50, gapX: 122, gapY: 36 };
/** With this many nodes or fewer, rows stand further apart. */
const FEW = 16;
/** With more edges than this, labels stand only on those of the chosen node. */
const LABELS_MAX = 60;
/** Of the region that scrolls, both sides, pixels; and the least zoom at which texts are read. */
const PADDING = 24;
const READABLE = 0.62;
const WINDOWS = [10, 60, 300, 3600, 86400];
const ZOOMS = [0.35, 0.5, 0.7, 1, 1.4];

export const graphPage = {
  sources: ({ window }) => ({
    edges: `/api/edges?window=${window ?? 60}`,
    services: ["/api/services", 5],
    coverage: ["/api/coverage", 5],
  }),
  create: (root, params, go) => new GraphPage(root, params, go),
};

class GraphPage {
  constructor(root, params, go) {
    this.params = params;
    this.go = go;
    this.drawn = "";
    this.zoom = 1;
    this.summary = h("p", { class: "summary" });
    this.stage = h("div", { class: "stage" });
    this.side = h("aside", { class: "side", "aria-label": t("graph.panel") });
    this.namespaces = h("select", { id: "namespace", onchange: (event) => this.set({ ns: event.target.value }) });
    this.tools = this.#tools();
    replace(
      root,
      h("div", { class: "title" }, h("h1", {}, t("nav.graph")), this.summary),
      this.tools,
      h("div", { class: "split" }, this.stage, this.side),
    );
  }

  /** Another address of the same page: the controls follow, but for a text that is being typed. */
  sync(params) {
    this.params = params;
    const { q = "", ns = "", window: over = "60", view = "", idle } = params;
    const field = (name) => this.tools.elements.namedItem(name);
    if (document.activeElement !== field("search")) field("search").value = q;
    field("namespace").value = ns;
    field("window").value = over;
    field("idle").checked = idle !== "no";
    for (const one of this.tools.querySelectorAll("[name=view]")) one.checked = one.value === view;
  }

  set(change) {
    this.go("graph", { ...this.params, ...change });
  }

  #tools() {
    const { window = "60", q = "", view = "", idle } = this.params;
    const option = (value, text, now) => h("option", { value, selected: String(value) === now }, text);
    const search = h("input", { id: "search", type: "search", value: q, placeholder: t("graph.search.hint"), maxlength: 100, "data-key": "search" });
    let timer;
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.set({ q: search.value.trim() }), 250);
    });
    const views = [["", t("graph.view.drawing")], ["table", t("graph.view.table")]];
    return h(
      "form",
      { class: "tools", onsubmit: (event) => event.preventDefault() },
      h("label", {}, h("span", {}, t("graph.search")), search),
      h("label", {}, h("span", {}, t("namespace")), this.namespaces),
      h(
        "label",
        {},
        h("span", {}, t("window")),
        h("select", { name: "window", onchange: (event) => this.set({ window: event.target.value }) }, WINDOWS.map((seconds) => option(seconds, duration(seconds), window))),
      ),
      h(
        "fieldset",
        { class: "choice" },
        h("legend", {}, t("graph.view")),
        views.map(([value, text]) =>
          h("label", {}, h("input", { type: "radio", name: "view", value, checked: value === view, onchange: () => this.set({ view: value }) }), h("span", {}, text)),
        ),
      ),
      h("label", { class: "check" }, h("input", { name: "idle", type: "checkbox", checked: idle !== "no", onchange: (event) => this.set({ idle: event.target.checked ? "" : "no" }) }), h("span", {}, t("graph.idle"))),
    );
  }

  update(data) {
    const began = performance.now();
    const graph = graphOf(data);
    const { ns, q, focus, select, idle, view } = this.params;
    this.#fillNamespaces(graph, ns ?? "");
    const shown = chosen(graph, { namespace: ns, text: q, focus, idle: idle !== "no" });
    this.selected = shown.nodes.find((node) => node.id === (select || focus));
    const busy = shown.edges.filter((edge) => isBusy(edge.figures));
    replace(this.summary, t("graph.summary", { nodes: count(shown.nodes.length), edges: count(shown.edges.length), busy: count(busy.length), reporters: count(data.edges.reporters) }));
    if (shown.nodes.length === 0) this.#empty(graph);
    else if (view === "table") this.#asTable(shown);
    else this.#draw(shown);
    this.#panel(shown);
    document.documentElement.dataset.drawn = String(Math.round(performance.now() - began));
  }

  #fillNamespaces(graph, now) {
    const all = [...new Set(graph.nodes.map((node) => node.namespace).filter(Boolean))].sort();
    const key = all.join(" ");
    if (this.filled === key) return;
    this.filled = key;
    replace(this.namespaces, h("option", { value: "" }, t("all")), all.map((one) => h("option", { value: one, selected: one === now }, one)));
  }

  #empty(graph) {
    this.drawn = "";
    replace(this.stage, h("p", { class: "none" }, graph.nodes.length > 0 ? t("graph.none-fits") : t("no-data")));
  }

  #asTable(shown) {
    this.drawn = "";
    const rows = [...shown.edges]
      .sort((a, b) => (b.figures.rate ?? -1) - (a.figures.rate ?? -1) || (a.id < b.id ? -1 : 1))
      .map((edge) => edgeRow(edge, [nodeLink(edge.from), nodeLink(edge.to)]));
    replace(this.stage, table(t("graph.table"), [[t("caller"), ""], [t("service"), ""], ...FIGURES()], rows, t("no-data")));
  }

  #draw(shown) {
    const shape = JSON.stringify([shown.nodes.map((node) => node.id), shown.edges.map((edge) => edge.id)]);
    if (shape !== this.drawn) this.#build(shown, shape);
    const labels = shown.edges.length <= LABELS_MAX;
    for (const edge of shown.edges) this.#paintEdge(edge, labels);
    for (const node of shown.nodes) this.#paintNode(node);
  }

  #build(shown, shape) {
    const began = performance.now();
    this.drawn = shape;
    this.placed = layout(shown.nodes, shown.edges, shown.nodes.length > FEW ? SIZE : { ...SIZE, gapY: 62 });
    this.parts = new Map();
    const { width, height } = this.placed;
    const marker = (kind) =>
      s("marker", { id: `tip-${kind}`, class: `tip ${kind}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto", markerUnits: "userSpaceOnUse" }, s("path", { d: "M0 0L8 4L0 8z" }));
    const frame = [-8, -14, width + 16, height + 28];
    this.svg = s(
      "svg",
      { class: "graph", viewBox: frame.join(" "), role: "group", "aria-label": t("graph.drawing"), onkeydown: (event) => this.#key(event) },
      s("defs", {}, ["quiet", "calm", "warn", "bad"].map(marker)),
      s("g", {}, shown.edges.map((edge) => this.#edge(edge))),
      s("g", {}, shown.nodes.map((node, at) => this.#node(node, at === 0))),
    );
    this.frame = frame;
    this.scroller = h("div", { class: "scroller", "data-scroll": "graph" }, this.svg);
    const zoom = (label, text, change) => h("button", { type: "button", "aria-label": label, title: label, "data-key": label, onclick: () => this.#scale(change) }, text);
    replace(
      this.stage,
      h("a", { class: "skip inner", href: this.#href({ view: "table" }) }, t("graph.as-table")),
      this.scroller,
      h("div", { class: "foot" }, legend(), h("div", { class: "zoom" }, zoom(t("zoom.out"), "−", -1), zoom(t("zoom.fit"), t("zoom.fit"), 0), zoom(t("zoom.in"), "+", 1))),
    );
    this.#scale(null);
    document.documentElement.dataset.built = String(Math.round(performance.now() - began));
  }

  /** `null`: fit if that stays readable; 0: fit; else a step. */
  #scale(change) {
    const fit = Math.min(1.1, ((this.scroller.clientWidth || 800) - PADDING) / this.frame[2]);
    if (change === null) this.zoom = fit < READABLE ? 0.75 : fit;
    else if (change === 0) this.zoom = fit;
    else if (change > 0) this.zoom = ZOOMS.find((one) => one > this.zoom + 0.01) ?? ZOOMS.at(-1);
    else this.zoom = ZOOMS.findLast((one) => one < this.zoom - 0.01) ?? ZOOMS[0];
    this.svg.style.width = `${Math.round(this.frame[2] * this.zoom)}px`;
    this.svg.style.height = `${Math.round(this.frame[3] * this.zoom)}px`;
  }

  #href(change) {
    return this.go.href("graph", { ...this.params, ...change });
  }

  #edge(edge) {
    const points = this.placed.ways.get(edge.id) ?? loop(this.placed.places.get(edge.from.id));
    const path = s("path", { class: "way", d: curve(points) });
    const middle = Math.floor((points.length - 1) / 2);
    const [x, y] = [(points[middle][0] + points[middle + 1][0]) / 2, (points[middle][1] + points[middle + 1][1]) / 2];
    const sign = s("g", { class: "sign" });
    const text = s("text", { class: "label", "text-anchor": "middle", y: -6 });
    const group = s("g", { class: "edge" }, path, s("g", { transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` }, text, sign));
    this.parts.set(edge.id, { group, path, sign, text });
    return group;
  }

  #paintEdge(edge, labels) {
    const { group, path, sign, text } = this.parts.get(edge.id);
    const { figures } = edge;
    const busy = isBusy(figures);
    const kind = severity(figures.errorShare) || (busy ? "calm" : "quiet");
    const safe = busy ? security(figures.mtls) : "idle";
    const near = this.selected && (edge.from === this.selected || edge.to === this.selected);
    const away = this.selected && !near;
    put(group, "class", `edge ${kind} ${safe}${near ? " near" : ""}${away ? " away" : ""}`);
    put(path, "marker-end", `url(#tip-${kind})`);
    put(path, "stroke-width", busy ? Math.min(4, 1.4 + Math.log10(1 + (figures.rate ?? 0))).toFixed(1) : "1");
    const told = (labels && !away) || near;
    const label = told ? (busy ? [flow(figures), figures.errorShare > 0 ? share(figures.errorShare) : figures.p99 === null ? "" : millis(figures.p99)].filter(Boolean).join(" · ") : edge.reporting ? "" : t("no-data")) : "";
    if (text.textContent !== label) text.textContent = label;
    const mark = told && busy ? safe : "";
    if (sign.dataset.mark !== mark) {
      sign.dataset.mark = mark;
      replace(sign, mark && signOf(mark));
    }
  }

  #node(node, first) {
    const { x, y } = this.placed.places.get(node.id);
    const name = s("text", { class: "name", x: 14, y: 22 }, cut(node.name, 22));
    const told = s("text", { class: "told", x: 14, y: 39 });
    const group = s(
      "a",
      { class: "node", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, tabindex: first ? 0 : -1, "data-node": node.id, "data-key": `node ${node.id}`, href: this.#href({ select: node.id }) },
      s("title", {}, `${node.name} ${node.namespace}`),
      s("rect", { class: "box", width: SIZE.width, height: SIZE.height, rx: 8 }),
      s("rect", { class: "bar", width: 4, height: SIZE.height - 16, x: 0, y: 8, rx: 2 }),
      name,
      told,
    );
    this.parts.set(node.id, { group, told });
    return group;
  }

  #paintNode(node) {
    const { group, told } = this.parts.get(node.id);
    const { figures } = node;
    const busy = isBusy(figures);
    const sends = node.outgoing.some((edge) => isBusy(edge.figures));
    const kind = severity(figures.errorShare) || (busy || sends ? "calm" : "quiet");
    const near = this.selected && (node === this.selected || [...node.incoming, ...node.outgoing].some((edge) => edge.from === this.selected || edge.to === this.selected));
    put(group, "class", `node ${kind} ${node.kind}${node === this.selected ? " selected" : ""}${this.selected && !near ? " away" : ""}`);
    const text = busy
      ? [flow(figures), figures.errorShare > 0 ? share(figures.errorShare) : figures.p99 === null ? "" : `p99 ${millis(figures.p99)}`].filter(Boolean).join(" · ")
      : node.incoming.length > 0 || node.outgoing.length > 0
        ? (sends ? t("graph.only-calls") : t("graph.quiet"))
        : t("no-data");
    if (told.textContent !== text) told.textContent = text;
    put(group, "aria-label", `${node.name}, ${node.namespace || t(`kind.${node.kind}`)}: ${text}`);
    put(group, "href", this.#href({ select: node.id }));
    put(group, "aria-current", node === this.selected ? "true" : "false");
  }

  /** Arrows go from node to node, Enter chooses (it is a link), Escape lets go. */
  #key(event) {
    const now = event.target.closest?.("[data-node]");
    if (!now || !event.key.startsWith("Arrow")) return;
    event.preventDefault();
    const here = this.placed.places.get(now.dataset.node);
    const sideways = event.key === "ArrowLeft" || event.key === "ArrowRight";
    const forward = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
    let best = null;
    for (const [id, place] of this.placed.places) {
      const [along, across] = sideways ? [(place.x - here.x) * forward, Math.abs(place.y - here.y)] : [(place.y - here.y) * forward, Math.abs(place.x - here.x) * 4];
      if (along <= 0 || id === now.dataset.node) continue;
      const far = along + across;
      if (!best || far < best.far) best = { id, far };
    }
    if (!best) return;
    now.setAttribute("tabindex", "-1");
    const next = this.parts.get(best.id).group;
    next.setAttribute("tabindex", "0");
    next.focus();
  }

  escape() {
    if (this.params.select) this.set({ select: "" });
    else if (this.params.focus) this.set({ focus: "" });
    else return false;
    return true;
  }

  #panel(shown) {
    const node = this.selected;
    if (!node) {
      replace(this.side, h("h2", {}, t("graph.busiest")), busiest(shown, (id) => this.#href({ select: id })), h("p", { class: "hint" }, t("graph.hint")));
      return;
    }
    const around = this.params.focus === node.id;
    const list = (title, edges, other) =>
      h("div", {}, h("h3", {}, title, " ", h("span", { class: "count" }, count(edges.length))), edges.length === 0 ? h("p", { class: "none" }, NONE) : h("ul", { class: "rows" }, edges.map((edge) => h("li", {}, h("a", { href: this.#href({ select: other(edge).id }), "data-key": `${title} ${other(edge).id}` }, other(edge).name), h("span", { class: severity(edge.figures.errorShare) }, told(edge))))));
    replace(
      this.side,
      h("div", { class: "head" }, h("h2", {}, node.name), h("a", { class: "close", href: this.#href({ select: "", focus: "" }), "aria-label": t("close"), "data-key": "close" }, "×")),
      h("p", { class: "sub" }, node.namespace || t(`kind.${node.kind}`)),
      signals(node.figures),
      h(
        "p",
        { class: "actions" },
        node.kind !== "workload" && h("a", { class: "button", href: this.go.href("service", { host: node.id }), "data-key": "open" }, t("graph.open")),
        h("a", { class: "button", href: this.#href({ select: node.id, focus: around ? "" : node.id }), "data-key": "around" }, around ? t("graph.all") : t("graph.around")),
      ),
      list(t("callers"), node.incoming, (edge) => edge.from),
      list(t("callees"), node.outgoing, (edge) => edge.to),
    );
  }
}

/** Requests, or connections where there are only those. */
export function flow(figures) {
  if (!(figures.rate > 0) && figures.connectionRate > 0) return `${rate(figures.connectionRate)} ${t("connections")}`;
  return rate(figures.rate);
}

/** Sets what has changed: most of a live graph has not. */
function put(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

function told(edge) {
  if (!isBusy(edge.figures)) return edge.reporting ? t("graph.quiet") : t("no-data");
  return [flow(edge.figures), share(edge.figures.errorShare), millis(edge.figures.p99)].join(" · ");
}

/** Heads of the columns that every table of edges has. */
export const FIGURES = () => [[t("rate"), "number"], [t("errors"), "number"], ["p50", "number"], ["p99", "number"], [t("encrypted"), ""]];

/** Figures as cells behind these. */
export function edgeRow(edge, cells) {
  const { figures } = edge;
  if (!isBusy(figures)) {
    const text = edge.reporting ? t("graph.quiet") : t("no-data");
    return [...cells, ["number dim", text], ["number", NONE], ["number", NONE], ["number", NONE], NONE];
  }
  return [...cells, flow(figures), [`number ${severity(figures.errorShare)}`, share(figures.errorShare)], millis(figures.p50), millis(figures.p99), encrypted(figures.mtls)];
}

/** A lock with its share, or that nobody tells. */
export function encrypted(mtls) {
  const kind = security(mtls);
  if (kind === "unknown") return h("span", { class: "dim" }, t("no-data"));
  return h("span", { class: `secure ${kind}` }, lock(kind === "locked"), " ", kind === "plain" ? t("plain-text") : share(mtls));
}

/** A link to a node's page, where it has one. */
export function nodeLink(node) {
  if (node.kind === "workload" || node.kind === "none") return node.name;
  return h("a", { href: `#/service?host=${encodeURIComponent(node.id)}`, "data-key": `link ${node.id}` }, node.name);
}

/** The four figures of a service. */
export function signals(figures) {
  const one = (name, value, kind) => h("div", { class: kind }, h("dt", {}, name), h("dd", {}, value));
  const busy = isBusy(figures);
  return h(
    "dl",
    { class: "signals" },
    one(t("rate"), busy ? flow(figures) : figures.rate === null ? t("no-data") : rate(0)),
    one(t("errors"), share(figures.errorShare), severity(figures.errorShare)),
    one(t("latency"), figures.p50 === null ? NONE : `${millis(figures.p50)} / ${millis(figures.p99)}`),
    one(t("encrypted"), busy ? encrypted(figures.mtls) : NONE),
  );
}

function busiest(shown, href) {
  const nodes = shown.nodes.filter((node) => isBusy(node.figures));
  nodes.sort((a, b) => (b.figures.errorShare ?? 0) - (a.figures.errorShare ?? 0) || (b.figures.rate ?? 0) - (a.figures.rate ?? 0));
  if (nodes.length === 0) return h("p", { class: "none" }, t("graph.no-traffic"));
  return h(
    "ul",
    { class: "rows" },
    nodes.slice(0, 12).map((node) =>
      h("li", {}, h("a", { href: href(node.id), "data-key": `busy ${node.id}` }, node.name), h("span", { class: severity(node.figures.errorShare) }, [flow(node.figures), share(node.figures.errorShare)].join(" · "))),
    ),
  );
}

function signOf(kind) {
  if (kind === "locked") return s("g", { transform: "translate(-6 1)" }, lock(true));
  if (kind === "partly" || kind === "plain") return [s("g", { transform: "translate(-6 1)" }, lock(false)), s("text", { class: "plain", "text-anchor": "middle", y: 25 }, t(kind === "plain" ? "plain-text" : "partly-plain"))];
  return null;
}

function legend() {
  const item = (kind, text) => h("li", { class: kind }, h("span", { class: "key", "aria-hidden": "true" }), text);
  return h(
    "ul",
    { class: "legend" },
    item("calm", t("legend.calm")),
    item("warn", t("legend.warn")),
    item("bad", t("legend.bad")),
    item("quiet", t("legend.quiet")),
    h("li", {}, lock(true), " ", t("legend.locked")),
    h("li", {}, lock(false), " ", t("legend.plain")),
  );
}

function cut(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function curve(points) {
  let path = `M${points[0][0]} ${points[0][1].toFixed(1)}`;
  for (let at = 1; at < points.length; at += 1) {
    const [[x, y], [toX, toY]] = [points[at - 1], points[at]];
    const bend = (toX - x) / 2;
    path += `C${(x + bend).toFixed(1)} ${y.toFixed(1)} ${(toX - bend).toFixed(1)} ${toY.toFixed(1)} ${toX.toFixed(1)} ${toY.toFixed(1)}`;
  }
  return path;
}

/** A service that calls itself. */
function loop({ x, y }) {
  return [[x + SIZE.width * 0.6, y], [x + SIZE.width + 30, y - 6], [x + SIZE.width, y + SIZE.height / 3]];
}
