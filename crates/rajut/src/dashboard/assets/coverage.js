// How much of the mesh is protected: what is asked of callers (mTLS mode, policies) and what was measured.

import { h, replace, table } from "./dom.js";
import { NONE, place, share } from "./format.js";
import { encrypted } from "./graph.js";
import { sum } from "./model.js";
import { t } from "./texts.js";

export const coveragePage = {
  sources: () => ({ coverage: ["/api/coverage", 5], edges: "/api/edges?window=300" }),
  create: (root) => {
    const body = h("div", {});
    replace(root, h("div", { class: "title" }, h("h1", {}, t("nav.coverage")), h("p", { class: "summary" }, t("coverage.about"))), body);
    return { update: (data) => update(body, data) };
  },
};

function update(body, { coverage, edges }) {
  const all = coverage.workloads;
  const part = (test) => (all.length > 0 ? all.filter(test).length / all.length : null);
  const of = (test) => t("coverage.of", { part: all.filter(test).length, all: all.length });
  const measured = sum(edges.edges);
  const tile = (name, value, more) => h("div", { class: value >= 1 ? "good" : value === null ? "" : "warn" }, h("dt", {}, name), h("dd", {}, share(value)), h("dd", { class: "more" }, more));
  replace(
    body,
    h(
      "dl",
      { class: "tiles" },
      tile(t("coverage.measured"), measured.mtls, measured.mtls === null ? t("no-data") : t("coverage.measured.more")),
      tile(t("coverage.strict"), part(isStrict), of(isStrict)),
      tile(t("coverage.guarded"), part(isGuarded), of(isGuarded)),
      tile(t("coverage.mesh"), part((one) => one.mesh), of((one) => one.mesh)),
    ),
    table(
      t("nav.coverage"),
      [[t("workload"), ""], [t("namespace"), ""], [t("coverage.mode"), ""], [t("written-at"), ""], [t("coverage.policies"), ""], [t("coverage.in"), ""]],
      all.map((one) => row(one, edges.edges)),
      t("no-data"),
    ),
  );
}

/** No port of it takes plain text. */
export function isStrict(workload) {
  return [workload.mtls, ...Object.values(workload.ports)].every((one) => one.mode === "STRICT");
}

/** Somebody wrote who may call it; all others are refused. */
export function isGuarded(workload) {
  return workload.policies.some((one) => one.action === "ALLOW" && !one.dryRun);
}

/** What was measured of calls to a workload's services. */
export function measuredOf(workload, edges) {
  return sum(edges.filter((edge) => workload.services.includes(edge.destination.host)));
}

/** A mode as a word with its colour. */
export function mode(mtls) {
  return [mtls.mode === "STRICT" ? "good" : mtls.mode === "DISABLE" ? "bad" : "warn", mtls.mode];
}

function row(one, edges) {
  const policies = one.policies.map((held) => h("div", {}, `${held.action}${held.dryRun ? ` (${t("dry-run")})` : ""} ${held.where.object.name} `, h("code", {}, place(held.where))));
  const ports = Object.entries(one.ports).map(([port, mtls]) => h("div", { class: mode(mtls)[0] }, `:${port} ${mtls.mode}`));
  return [
    one.deployment,
    one.namespace,
    [mode(one.mtls)[0], [one.mesh ? one.mtls.mode : t("coverage.no-sidecar"), ports]],
    one.mtls.where ? h("code", {}, place(one.mtls.where)) : h("span", { class: "dim" }, t("nobody-wrote")),
    policies.length > 0 ? policies : h("span", { class: "warn" }, t("coverage.no-policy")),
    one.services.length > 0 ? encrypted(measuredOf(one, edges).mtls) : NONE,
  ];
}
