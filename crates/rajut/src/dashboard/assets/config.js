// The configuration: findings with their places, what each proxy has taken, what is written (for the auditor), and the history
// of changes, which the control plane does not keep yet.

import { h, replace, table } from "./dom.js";
import { NONE, count, place } from "./format.js";
import { t } from "./texts.js";

export const configPage = {
  sources: (_, role) => ({
    findings: "/api/findings",
    proxies: ["/api/proxies", 2],
    status: ["/api/status", 5],
    ...(role === "auditor" ? { resources: ["/api/resources", 10] } : {}),
  }),
  create: (root) => {
    const body = h("div", {});
    replace(root, h("div", { class: "title" }, h("h1", {}, t("nav.config")), h("p", { class: "summary" }, t("config.about"))), body);
    return { update: (data) => update(body, data) };
  },
};

const WEIGHT = { error: 0, warning: 1, note: 2 };

function update(body, { findings, proxies, status, resources }) {
  const all = [...findings.diagnostics].sort((a, b) => WEIGHT[a.severity] - WEIGHT[b.severity]);
  replace(
    body,
    findings.failure && h("p", { class: "banner bad" }, findings.failure),
    status.reasons.length > 0 && h("section", {}, h("h2", {}, t("config.health")), h("ul", { class: "plain-list" }, status.reasons.map((one) => h("li", { class: "warn" }, one)))),
    h("section", {}, h("h2", {}, t("config.findings"), " ", h("span", { class: "count" }, count(all.length))), all.length > 0 ? h("ul", { class: "findings" }, all.map(finding)) : h("p", { class: "none good" }, t("config.clean"))),
    h("section", {}, h("h2", {}, t("config.proxies")), taken(proxies)),
    h("section", {}, h("h2", {}, t("config.history")), h("p", { class: "none" }, t("config.no-history"))),
    h("section", {}, h("h2", {}, t("config.written")), resources ? written(resources) : h("p", { class: "none" }, t("auditor-only"))),
  );
}

function finding(one) {
  const { object } = one.origin;
  return h(
    "li",
    { class: `finding ${one.severity}` },
    h("p", {}, h("b", { class: "tag" }, t(`severity.${one.severity}`)), " ", h("code", {}, one.code), " ", one.message),
    h("p", { class: "sub" }, h("code", {}, `${one.origin.source}:${one.span.line || one.origin.line}${one.span.column ? `:${one.span.column}` : ""}`), object.kind ? ` · ${object.kind} ${[object.namespace, object.name].filter(Boolean).join("/")}` : "", one.origin.fieldPath ? ` · ${one.origin.fieldPath}` : ""),
    one.excerpt && h("pre", { tabindex: 0 }, underlined(one)),
    one.hint && h("p", { class: "hint" }, one.hint),
  );
}

/** The line, with the place that is meant marked, where it is known. */
function underlined({ excerpt, span, redacted }) {
  if (!span.column || redacted) return excerpt;
  const letters = [...excerpt];
  const from = span.column - 1;
  const to = from + Math.max(1, span.length);
  return [letters.slice(0, from).join(""), h("mark", {}, letters.slice(from, to).join("") || " "), letters.slice(to).join("")];
}

function taken({ proxies, generation }) {
  const rows = proxies.map((one) => {
    const refused = one.types.filter((type) => type.nack);
    const state = refused.length > 0 ? ["bad", t("config.refused")] : one.upToDate && one.types.every((type) => type.state === "synced") ? ["good", t("config.synced")] : ["warn", t("config.pending")];
    return [`${one.workload}.${one.namespace}`, one.dataPlane, state, ["number", count(one.settledGeneration)], refused.length > 0 ? refused.map((type) => h("div", {}, `${type.type}: ${type.nack.reason}`)) : NONE];
  });
  return [
    h("p", { class: "hint" }, t("config.generation", { generation: count(generation) })),
    table(t("config.proxies"), [[t("workload"), ""], [t("config.plane"), ""], [t("state"), ""], [t("config.revision"), "number"], [t("config.reason"), ""]], rows, t("no-data")),
  ];
}

function written({ resources }) {
  const rows = resources.map((one) =>
    h(
      "li",
      {},
      one.text === null
        ? h("span", {}, h("b", {}, one.kind), ` ${one.namespace}/${one.name} `, h("code", {}, place(one)), " ", h("span", { class: "dim" }, t("config.hidden")))
        : h("details", { "data-key": `${one.kind} ${one.namespace}/${one.name}` }, h("summary", {}, h("b", {}, one.kind), ` ${one.namespace}/${one.name} `, h("code", {}, place(one))), h("pre", { tabindex: 0 }, one.text)),
    ),
  );
  return h("ul", { class: "written" }, rows);
}
