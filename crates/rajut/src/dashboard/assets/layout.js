// Places the graph's nodes in layers from left to right: callers before those they call. Pure, and the same for the same input,
// so that a live graph stands still while its figures change.
//
// Layers by the longest way from a node that nobody calls (edges that close a circle are turned for that), order within a layer
// by the middle of the neighbours (some sweeps both ways), long edges led through places of their own in the layers between.

const SWEEPS = 6;
/** With more places for long edges than this, these go straight. */
const THROUGH_MAX = 4000;

/** `{places: id → {x, y}, ways: edge id → [[x, y], …], width, height}`. `size`: {width, height, gapX, gapY} of a node. */
export function layout(nodes, edges, size) {
  const ends = new Set(edges.flatMap((edge) => [edge.from, edge.to]));
  const loners = nodes.filter((node) => !ends.has(node));
  const linked = nodes.filter((node) => ends.has(node));
  const inner = edges.filter((edge) => edge.from !== edge.to);
  const layerOf = layers(linked, inner);
  const { columns, chains } = withThrough(linked, inner, layerOf);
  order(columns);
  settle(columns, size);
  return placed(columns, chains, loners, size);
}

/** node → its layer. */
function layers(nodes, edges) {
  const out = new Map(nodes.map((node) => [node, []]));
  for (const edge of edges) out.get(edge.from).push(edge.to);
  const state = new Map();
  const turned = new Set();
  const sorted = [];
  for (const root of nodes) {
    // Depth first without recursion: a chain of services may be long.
    const stack = [[root, 0]];
    while (stack.length > 0) {
      const top = stack.at(-1);
      const [node] = top;
      if (top[1] === 0) {
        if (state.has(node)) {
          stack.pop();
          continue;
        }
        state.set(node, "open");
      }
      const next = out.get(node)[top[1]];
      top[1] += 1;
      if (next === undefined) {
        state.set(node, "done");
        sorted.push(node);
        stack.pop();
      } else if (state.get(next) === "open") turned.add(`${node.id} ${next.id}`);
      else if (!state.has(next)) stack.push([next, 0]);
    }
  }
  const layer = new Map(nodes.map((node) => [node, 0]));
  for (const node of sorted.reverse()) {
    for (const next of out.get(node)) {
      if (!turned.has(`${node.id} ${next.id}`)) layer.set(next, Math.max(layer.get(next), layer.get(node) + 1));
    }
  }
  return layer;
}

/** Columns of nodes and of places that long edges go through; and for each edge the chain from its left to its right end. */
function withThrough(nodes, edges, layerOf) {
  const columns = [];
  const put = (one, layer) => {
    one.layer = layer;
    (columns[layer] ??= []).push(one);
    return one;
  };
  const slots = new Map(nodes.map((node) => [node, put({ node, near: [[], []] }, layerOf.get(node))]));
  const long = edges.reduce((sum, edge) => sum + Math.max(0, Math.abs(layerOf.get(edge.to) - layerOf.get(edge.from)) - 1), 0);
  const chains = edges.map((edge) => {
    const back = layerOf.get(edge.from) > layerOf.get(edge.to);
    const [left, right] = back ? [edge.to, edge.from] : [edge.from, edge.to];
    const chain = [slots.get(left)];
    if (long <= THROUGH_MAX) {
      for (let at = layerOf.get(left) + 1; at < layerOf.get(right); at += 1) chain.push(put({ node: null, near: [[], []] }, at));
    }
    chain.push(slots.get(right));
    for (let at = 1; at < chain.length; at += 1) {
      chain[at].near[0].push(chain[at - 1]);
      chain[at - 1].near[1].push(chain[at]);
    }
    return { edge, back, chain };
  });
  for (let at = 0; at < columns.length; at += 1) columns[at] ??= [];
  return { columns, chains };
}

function order(columns) {
  for (const column of columns) column.forEach((slot, at) => (slot.at = at));
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const side = sweep % 2;
    const way = side === 0 ? columns : [...columns].reverse();
    for (const column of way) {
      for (const slot of column) {
        const near = slot.near[side];
        slot.wish = near.length > 0 ? near.reduce((sum, one) => sum + one.at, 0) / near.length : slot.at;
      }
      column.sort((a, b) => a.wish - b.wish || a.at - b.at);
      column.forEach((slot, at) => (slot.at = at));
    }
  }
}

/** Vertical middles: near the neighbours' middle, never too close. */
function settle(columns, size) {
  const room = (slot) => (slot.node ? size.height + size.gapY : size.gapY);
  const pack = (column) => {
    let end = 0;
    for (const slot of column) {
      slot.y = Math.max(slot.wish ?? 0, end + room(slot) / 2);
      end = slot.y + room(slot) / 2;
    }
    // Back up where the wish was higher.
    let limit = Infinity;
    for (const slot of [...column].reverse()) {
      slot.y = Math.max(Math.min(slot.y, limit - room(slot) / 2, Math.max(slot.wish ?? 0, room(slot) / 2)), 0);
      limit = slot.y - room(slot) / 2;
    }
    let floor = 0;
    for (const slot of column) {
      slot.y = Math.max(slot.y, floor + room(slot) / 2);
      floor = slot.y + room(slot) / 2;
    }
  };
  for (const column of columns) {
    for (const slot of column) slot.wish = 0;
    pack(column);
  }
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const side = 1 - (sweep % 2);
    for (const column of side === 0 ? columns : [...columns].reverse()) {
      for (const slot of column) {
        const near = slot.near[side].length > 0 ? slot.near[side] : slot.near[1 - side];
        if (near.length > 0) slot.wish = near.reduce((sum, one) => sum + one.y, 0) / near.length;
      }
      pack(column);
    }
  }
}

function placed(columns, chains, loners, size) {
  const step = size.width + size.gapX;
  const places = new Map();
  let height = 0;
  for (const [layer, column] of columns.entries()) {
    for (const slot of column) {
      slot.x = layer * step;
      height = Math.max(height, slot.y + size.height / 2);
      if (slot.node) places.set(slot.node.id, { x: slot.x, y: slot.y - size.height / 2, layer });
    }
  }
  const ways = new Map();
  for (const { edge, back, chain } of chains) {
    const points = [];
    for (const [at, slot] of chain.entries()) {
      if (at > 0) points.push([slot.x, slot.y]);
      if (at < chain.length - 1) points.push([slot.x + size.width, slot.y]);
    }
    ways.set(edge.id, back ? points.reverse() : points);
  }
  let width = Math.max(0, columns.length * step - size.gapX);
  // Below the rest, in rows.
  const columnsOfLoners = Math.max(1, Math.floor((Math.max(width, 4 * step) + size.gapX / 4) / (size.width + size.gapX / 4)));
  const top = height > 0 ? height + size.gapY * 2 : 0;
  for (const [at, node] of loners.entries()) {
    const x = (at % columnsOfLoners) * (size.width + size.gapX / 4);
    const y = top + Math.floor(at / columnsOfLoners) * (size.height + size.gapY);
    places.set(node.id, { x, y, layer: columns.length + Math.floor(at / columnsOfLoners) });
    width = Math.max(width, x + size.width);
    height = Math.max(height, y + size.height);
  }
  return { places, ways, width, height };
}
