// From the control plane's answers to what the pages show: nodes (services, and workloads that stand behind none) and the
// edges between them. Pure.

import { shortHost } from "./format.js";

/** The upper bounds of the response times' buckets, milliseconds (Istio's). */
const BOUNDS = [0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000];

/** The response time that a share of requests stays below, by its place in its bucket. */
export function quantile(buckets, portion) {
  const all = buckets?.reduce((sum, count) => sum + count, 0) ?? 0;
  if (all === 0) return null;
  let below = 0;
  for (const [at, count] of buckets.entries()) {
    if (count > 0 && below + count >= all * portion) {
      const from = at > 0 ? BOUNDS[at - 1] : 0;
      const to = BOUNDS[at] ?? from;
      return from + (to - from) * ((all * portion - below) / count);
    }
    below += count;
  }
  return null;
}

/** Adds up figures of edges; what none of them knows is null. */
export function sum(edges) {
  const add = (name) => {
    const told = edges.map((edge) => edge[name]).filter((value) => value !== null && value !== undefined);
    return told.length > 0 ? told.reduce((a, b) => a + b, 0) : null;
  };
  const requests = add("requests");
  const failed = add("failed");
  let buckets = null;
  let [detailed, secured] = [0, 0];
  for (const edge of edges) {
    if (edge.latencyBuckets) {
      buckets ??= edge.latencyBuckets.map(() => 0);
      edge.latencyBuckets.forEach((count, at) => (buckets[at] += count));
    }
    if (edge.mtlsShare !== null && edge.mtlsShare !== undefined) {
      const weight = (edge.requests ?? 0) + (edge.connections ?? 0);
      detailed += weight;
      secured += weight * edge.mtlsShare;
    }
  }
  return {
    requests,
    failed,
    rate: add("rate"),
    connectionRate: add("connectionRate"),
    errorShare: requests > 0 ? failed / requests : null,
    p50: quantile(buckets, 0.5),
    p99: quantile(buckets, 0.99),
    mtls: detailed > 0 ? secured / detailed : null,
    inProgress: add("inProgress"),
  };
}

/** Something happened on it in the window. */
export function isBusy(figures) {
  return (figures.requests ?? 0) > 0 || (figures.connectionRate ?? 0) > 0;
}

/** How bad a share of failures is: "", "warn" or "bad". */
export function severity(errorShare) {
  if (!(errorShare > 0)) return "";
  return errorShare >= 0.05 ? "bad" : "warn";
}

/** How sure encryption is: "locked", "partly", "plain", or "unknown" where nobody tells. */
export function security(mtls) {
  if (mtls === null) return "unknown";
  if (mtls >= 1) return "locked";
  return mtls > 0 ? "partly" : "plain";
}

/** The graph: nodes by id (a service's host, or `namespace/workload`), and edges with their figures by version. */
export function graphOf({ edges, services, coverage }) {
  const hosts = new Map();
  const nodes = new Map();
  for (const workload of coverage?.workloads ?? []) {
    hosts.set(`${workload.namespace}/${workload.deployment}`, workload.services[0] ?? null);
  }
  const node = (id, name, namespace, kind) => {
    if (!nodes.has(id)) nodes.set(id, { id, name, namespace: namespace ?? "", kind, incoming: [], outgoing: [] });
    return nodes.get(id);
  };
  for (const service of services?.services ?? []) {
    node(service.host, shortHost(service.host), service.namespace, service.external ? "external" : "service");
  }
  const byPair = new Map();
  for (const edge of edges?.edges ?? []) {
    const key = `${edge.source.namespace}/${edge.source.workload}`;
    const host = hosts.get(key);
    const from = host
      ? node(host, shortHost(host), edge.source.namespace, "service")
      : node(key, edge.source.workload, edge.source.namespace, "workload");
    const told = edge.destination.host;
    const to = node(told, shortHost(told), edge.destination.namespace, edge.destination.port ? "service" : "none");
    const pair = `${from.id} ${to.id}`;
    if (!byPair.has(pair)) byPair.set(pair, { id: pair, from, to, parts: [] });
    byPair.get(pair).parts.push(edge);
  }
  const all = [...byPair.values()];
  for (const edge of all) {
    edge.figures = sum(edge.parts);
    edge.reporting = edge.parts.some((part) => part.coveredSeconds > 0);
    edge.from.outgoing.push(edge);
    edge.to.incoming.push(edge);
  }
  for (const one of nodes.values()) one.figures = sum(one.incoming.flatMap((edge) => edge.parts));
  return { nodes: [...nodes.values()].sort((a, b) => (a.id < b.id ? -1 : 1)), edges: all };
}

/** The part of a graph that the choice leaves: by namespace, by text, around one node, with or without the idle ones. */
export function chosen(graph, { namespace, text, focus, idle }) {
  let nodes = new Set(graph.nodes);
  const keep = (test) => (nodes = new Set([...nodes].filter(test)));
  if (!idle) keep((node) => node.id === focus || [...node.incoming, ...node.outgoing].length > 0);
  if (namespace) {
    const near = (node) => [...node.incoming.map((edge) => edge.from), ...node.outgoing.map((edge) => edge.to)];
    keep((node) => node.namespace === namespace || near(node).some((one) => one.namespace === namespace));
  }
  if (text) {
    const wanted = text.toLowerCase();
    const fits = (node) => `${node.name} ${node.namespace}`.toLowerCase().includes(wanted);
    keep((node) => fits(node) || node.incoming.some((edge) => fits(edge.from)) || node.outgoing.some((edge) => fits(edge.to)));
  }
  if (focus) {
    const near = new Set();
    for (const edge of graph.edges) if (edge.from.id === focus || edge.to.id === focus) near.add(edge.from).add(edge.to);
    keep((node) => node.id === focus || near.has(node));
  }
  const edges = graph.edges.filter((edge) => {
    if (!nodes.has(edge.from) || !nodes.has(edge.to)) return false;
    return !focus || edge.from.id === focus || edge.to.id === focus;
  });
  return { nodes: [...nodes], edges };
}
