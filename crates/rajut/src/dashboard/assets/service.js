// One service: its figures over time, its versions side by side, who calls it and whom it calls, its endpoints, and what is written
// about it.

import { chart } from "./chart.js";
import { h, replace, table } from "./dom.js";
import { NONE, count, duration, millis, place, rate, share, shortHost } from "./format.js";
import { FIGURES, edgeRow, encrypted, nodeLink, signals } from "./graph.js";
import { graphOf, isBusy, severity, sum } from "./model.js";
import { t } from "./texts.js";

const WINDOWS = [10, 60, 300, 3600, 86400, 259200];
const KINDS = ["one", "two", "three", "four"];

export const servicePage = {
  sources: ({ host = "", window = "300" }, role) => {
    const name = encodeURIComponent(host);
    return {
      edges: `/api/edges?window=${Math.min(Number(window) || 300, 60)}`,
      history: `/api/history?window=${window}&host=${name}`,
      services: ["/api/services", 5],
      service: [`/api/service?host=${name}`, 5],
      coverage: ["/api/coverage", 5],
      endpoints: [`/api/endpoints?host=${name}`, 5],
      ...(role === "auditor" ? { resources: ["/api/resources", 10] } : {}),
    };
  },
  create: (root, params, go) => {
    const body = h("div", {});
    const host = params.host ?? "";
    replace(
      root,
      h("p", { class: "crumb" }, h("a", { href: "#/graph" }, t("nav.graph")), " / "),
      h(
        "div",
        { class: "title" },
        h("h1", {}, shortHost(host)),
        h("p", { class: "summary" }, h("code", {}, host)),
        h(
          "label",
          { class: "right" },
          h("span", {}, t("window")),
          h("select", { onchange: (event) => go("service", { ...params, window: event.target.value }) }, WINDOWS.map((one) => h("option", { value: one, selected: String(one) === (params.window ?? "300") }, duration(one)))),
        ),
      ),
      body,
    );
    return { update: (data) => update(body, host, data) };
  },
};

function update(body, host, data) {
  const graph = graphOf(data);
  const node = graph.nodes.find((one) => one.id === host);
  const parts = node ? node.incoming.flatMap((edge) => edge.parts) : [];
  const holders = (data.coverage?.workloads ?? []).filter((one) => one.services.includes(host));
  replace(
    body,
    signals(sum(parts)),
    overTime(data.history),
    h("section", {}, h("h2", {}, t("service.versions")), versions(parts, data.history, holders)),
    h("section", {}, h("h2", {}, t("callers")), edgesTable(t("callers"), node?.incoming ?? [], (edge) => edge.from)),
    h("section", {}, h("h2", {}, t("callees")), edgesTable(t("callees"), node?.outgoing ?? [], (edge) => edge.to)),
    h("section", {}, h("h2", {}, t("service.endpoints")), endpoints(data)),
    h("section", {}, h("h2", {}, t("service.written")), written(data, holders)),
  );
}

function overTime({ times, all }) {
  const of = (read) => all.map((point) => (point === null ? null : (read(point) ?? null)));
  const one = (title, name, read, show, least) => chart(title, times, [{ name, kind: "one", values: of(read) }], show, least);
  return h(
    "section",
    { class: "charts" },
    h("h2", { class: "visually-hidden" }, t("service.over-time")),
    one(t("rate"), t("requests"), (point) => point.rate, rate, 1),
    one(t("errors"), t("errors"), (point) => point.errorShare ?? (point.requests === 0 ? null : undefined), share, 0.01),
    chart(
      t("latency"),
      times,
      [
        { name: "p50", kind: "one", values: of((point) => point.latencyMs?.p50) },
        { name: "p99", kind: "two", values: of((point) => point.latencyMs?.p99) },
      ],
      millis,
      1,
    ),
  );
}

/** What was routed to each subset; a canary's shift is seen here. */
function versions(parts, history, holders) {
  const names = [...new Set([...history.subsets.map((one) => one.subset), ...parts.map((one) => one.destination.subset)])];
  names.sort((a, b) => String(a ?? "").localeCompare(String(b ?? "")));
  const all = sum(parts);
  const title = (name) => name ?? t("service.no-subset");
  const rows = names.map((name) => {
    const figures = sum(parts.filter((part) => part.destination.subset === name));
    const portion = all.requests > 0 && figures.requests !== null ? figures.requests / all.requests : null;
    const [text, dim] = isBusy(figures) ? [rate(figures.rate), ""] : [figures.rate === null ? t("no-data") : rate(0), "dim"];
    return [title(name), ["number", share(portion)], [`number ${dim}`, text], [`number ${severity(figures.errorShare)}`, share(figures.errorShare)], millis(figures.p50), millis(figures.p99), encrypted(figures.mtls)];
  });
  const lines = (read) => history.subsets.slice(0, KINDS.length).map((one, at) => ({
    name: title(one.subset),
    kind: KINDS[at],
    values: one.points.map((point) => (point === null ? null : (read(point) ?? null))),
  }));
  const side = (name, read, show, least) => chart(`${name}, ${t("service.by-version")}`, history.times, lines(read), show, least);
  return [
    table(t("service.versions"), [[t("version"), ""], [t("share"), "number"], ...FIGURES()], rows, t("no-data")),
    history.subsets.length > 1 &&
      h("div", { class: "charts" }, side(t("rate"), (point) => point.rate, rate, 1), side(t("errors"), (point) => point.errorShare, share, 0.01), side("p99", (point) => point.latencyMs?.p99, millis, 1)),
    h("p", { class: "hint" }, t("service.deployments"), " ", holders.length > 0 ? holders.map((one) => `${one.deployment}${one.version ? ` (${one.version})` : ""}: ${one.ready}/${one.instances}`).join(", ") : NONE),
  ];
}

function edgesTable(title, edges, other) {
  const rows = [...edges]
    .sort((a, b) => (b.figures.rate ?? -1) - (a.figures.rate ?? -1))
    .map((edge) => edgeRow(edge, [nodeLink(other(edge)), other(edge).namespace || NONE]));
  return table(title, [[t("name"), ""], [t("namespace"), ""], ...FIGURES()], rows, t("none-known"));
}

function endpoints({ service, endpoints: seen }) {
  const byAddress = new Map((service?.members ?? []).map((one) => [one.address, one]));
  const rows = (seen?.endpoints ?? []).map((one) => {
    const member = byAddress.get(one.address.replace(/:\d+$/, ""));
    const out = one.ejectedBy.length > 0;
    const health = out ? t("endpoint.ejected", { by: one.ejectedBy.join(", ") }) : one.health;
    return [one.address, member?.name ?? NONE, one.subset ?? NONE, [out ? "bad" : one.health === "HEALTHY" ? "good" : "warn", health], ["number", count(one.seenBy)]];
  });
  const told = seen ? t("endpoint.asked", { answered: seen.answered, asked: seen.asked }) : "";
  const members = (service?.members ?? []).map((one) => [one.name, one.address, one.version ?? NONE, [one.health === "ready" ? "good" : "warn", t(`health.${one.health}`)]]);
  return [
    table(t("service.members"), [[t("workload"), ""], [t("address"), ""], [t("version"), ""], [t("state"), ""]], members, t("service.no-members")),
    h("h3", {}, t("endpoint.seen")),
    table(t("endpoint.seen"), [[t("address"), ""], [t("workload"), ""], [t("version"), ""], [t("state"), ""], [t("endpoint.seen-by"), "number"]], rows, t("endpoint.none")),
    h("p", { class: "hint" }, told),
  ];
}

/** Routes and policies that hold, with their places; for the auditor as they are written. */
function written({ service, resources }, holders) {
  const origins = [service?.virtualService, service?.destinationRule];
  for (const holder of holders) origins.push(holder.mtls.where, ...holder.policies.map((one) => one.where));
  const byKey = new Map();
  for (const origin of origins.filter(Boolean)) byKey.set(JSON.stringify(origin.object), origin);
  const found = [...byKey.values()];
  if (found.length === 0) return h("p", { class: "none" }, t("service.nothing-written"));
  return h(
    "ul",
    { class: "written" },
    found.map((origin) => {
      const { kind, namespace, name } = origin.object;
      const text = resources?.resources.find((one) => one.kind === kind && one.namespace === namespace && one.name === name)?.text;
      const head = [h("b", {}, kind), ` ${namespace}/${name} `, h("code", {}, place(origin))];
      return h("li", {}, text ? h("details", { "data-key": `${kind} ${namespace}/${name}` }, h("summary", {}, head), h("pre", { tabindex: 0 }, text)) : head);
    }),
  );
}
