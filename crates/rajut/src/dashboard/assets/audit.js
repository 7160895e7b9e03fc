// The auditor's page, to be printed: who can reach what, by which rule, encrypted or not, and what is not proven yet; with date,
// revision and digests.

import { isGuarded, isStrict, measuredOf, mode } from "./coverage.js";
import { h, replace, table } from "./dom.js";
import { NONE, moment, place, share, shortHost } from "./format.js";
import { t } from "./texts.js";

export const auditPage = {
  role: "auditor",
  sources: () => ({ reach: ["/api/reach", 5], edges: ["/api/edges?window=7200", 5] }),
  create: (root) => {
    const body = h("div", {});
    replace(root, h("div", { class: "title" }, h("h1", {}, t("audit.title")), h("button", { type: "button", class: "button right no-print", onclick: () => window.print() }, t("print"))), body);
    return { update: (data) => update(body, data) };
  },
};

function update(body, { reach, edges }) {
  const term = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  replace(
    body,
    h(
      "dl",
      { class: "facts" },
      term(t("audit.date"), moment(reach.now)),
      term(t("audit.revision"), t("audit.generation", { generation: reach.generation })),
      term(t("audit.domain"), h("code", {}, reach.trustDomain)),
      term(t("audit.configuration"), h("code", { class: "digest" }, reach.configurationDigest)),
      term(t("audit.statement"), h("code", { class: "digest" }, reach.digest)),
      term(t("audit.since"), moment(edges.since)),
    ),
    h("section", {}, h("h2", {}, t("audit.unproven")), unproven(reach, edges)),
    h("section", {}, h("h2", {}, t("audit.who")), h("p", { class: "hint" }, t("audit.how")), reach.workloads.map((one) => workload(one, edges.edges))),
  );
}

/** What this page does not show to be so, with its reason. */
function unproven(reach, edges) {
  const names = (found) => found.map((one) => `${one.deployment}.${one.namespace}`).join(", ");
  const found = [];
  const add = (key, list) => list.length > 0 && found.push([t(key), names(list)]);
  add("unproven.no-sidecar", reach.workloads.filter((one) => !one.mesh));
  add("unproven.plain-taken", reach.workloads.filter((one) => one.mesh && !isStrict(one)));
  add("unproven.anybody", reach.workloads.filter((one) => one.mesh && !isGuarded(one)));
  const plain = edges.edges.filter((edge) => edge.mtlsShare !== null && edge.mtlsShare < 1);
  const blind = edges.edges.filter((edge) => edge.mtlsShare === null && edge.requests > 0);
  const pairs = (list) => list.map((edge) => `${edge.source.workload} → ${shortHost(edge.destination.host)}`).join(", ");
  if (plain.length > 0) found.push([t("unproven.plain-seen"), pairs(plain)]);
  if (blind.length > 0) found.push([t("unproven.not-told"), pairs(blind)]);
  if (reach.leftOut > 0) found.push([t("unproven.left-out"), String(reach.leftOut)]);
  for (const key of ["unproven.since", "unproven.tcp", "unproven.outside"]) found.push([t(key), NONE]);
  return h("ul", { class: "unproven" }, found.map(([text, who]) => h("li", {}, text, who !== NONE && [": ", h("b", {}, who)])));
}

const KIND = { allowed: "good", sometimes: "warn", refused: "dim" };

function workload(one, edges) {
  const rows = one.callers.map(({ callers, outcome, by, guarded }) => [
    [KIND[outcome], t(`outcome.${outcome}`)],
    callers.join(", "),
    by.length > 0 ? by.map((rule) => h("div", {}, h("code", {}, rule))) : h("span", { class: "dim" }, t(guarded ? "audit.no-rule" : "audit.no-policy")),
  ]);
  const plain = one.plaintext;
  rows.push([
    [plain.outcome === "refused" ? "good" : "bad", t(`outcome.${plain.outcome}`)],
    t("audit.plaintext"),
    isStrict(one) ? h("span", {}, "STRICT ", h("code", {}, place(one.mtls.where))) : plain.by.length > 0 ? plain.by.map((rule) => h("div", {}, h("code", {}, rule))) : h("span", { class: "dim" }, t("audit.no-policy")),
  ]);
  const measured = measuredOf(one, edges).mtls;
  const [kind, text] = one.mesh ? mode(one.mtls) : ["bad", t("coverage.no-sidecar")];
  const name = `${one.deployment}.${one.namespace}`;
  return h(
    "article",
    { class: "reached" },
    h("h3", {}, name),
    h(
      "p",
      { class: "sub" },
      h("code", {}, one.identity),
      " · mTLS ",
      h("b", { class: kind }, text),
      Object.entries(one.ports).map(([port, mtls]) => [", ", h("b", { class: mode(mtls)[0] }, `:${port} ${mtls.mode}`)]),
      one.mtls.where && [" (", h("code", {}, place(one.mtls.where)), ")"],
      " · ",
      t("audit.measured", { share: measured === null ? t("no-data") : share(measured) }),
      one.services.length > 0 && ` · ${one.services.map(shortHost).join(", ")}`,
    ),
    table(`${t("audit.who")}: ${name}`, [[t("audit.verdict"), ""], [t("callers"), ""], [t("audit.rule"), ""]], rows, NONE),
    one.policies.length > 0 && h("p", { class: "hint" }, t("coverage.policies"), ": ", one.policies.map((held, at) => [at > 0 && ", ", `${held.action} ${held.where.object.name}`, " ", h("code", {}, place(held.where))])),
  );
}
