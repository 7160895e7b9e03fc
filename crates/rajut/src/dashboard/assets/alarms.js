// Alarms: what the control plane noticed without a rule. The newest first.

import { h, replace, table } from "./dom.js";
import { moment, shortHost } from "./format.js";
import { language, t } from "./texts.js";

export const alarmsPage = {
  sources: () => ({ alarms: "/api/alarms" }),
  create: (root) => {
    const body = h("div", {});
    replace(root, h("div", { class: "title" }, h("h1", {}, t("nav.alarms")), h("p", { class: "summary" }, t("alarms.about"))), body);
    return { update: (data) => update(body, data.alarms) };
  },
};

function update(body, { alarms, silences, now, learningUntil, raised }) {
  const learns = now < learningUntil;
  const rows = [...alarms].reverse().map((one) => {
    const { host, port } = one.destination ?? {};
    const to = host && h("a", { href: `#/graph?select=${encodeURIComponent(host)}&focus=${encodeURIComponent(host)}`, "data-key": `alarm ${one.number}` }, `${shortHost(host)}${port ? `:${port}` : ""}`);
    const until = [one.open ? t("alarms.open") : moment(one.endedAt)];
    if (one.acknowledged) until.push(t("alarms.acknowledged", { by: one.acknowledged.by, at: moment(one.acknowledged.at) }));
    if (one.silence) until.push(t("alarms.silenced", { id: one.silence }));
    return [moment(one.at), [one.open ? "warn" : "", t(`alarm.${one.kind}`)], until.join(" · "), `${one.source.workload}.${one.source.namespace}`, h("code", {}, one.source.principal), to ?? "", evidence(one), h("code", {}, one.runbook)];
  });
  replace(
    body,
    learns && h("p", { class: "banner" }, t("alarms.learning", { until: moment(learningUntil) })),
    table(t("nav.alarms"), [[t("time"), ""], [t("alarms.kind"), ""], [t("alarms.until"), ""], [t("caller"), ""], [t("identity"), ""], [t("service"), ""], [t("alarms.evidence"), ""], [t("alarms.runbook"), ""]], rows, t("alarms.none")),
    raised > alarms.length && h("p", { class: "hint" }, t("alarms.older", { count: raised - alarms.length })),
    h("p", { class: "hint" }, t("alarms.kinds")),
    silences.length > 0 && h("h2", {}, t("alarms.silences")),
    silences.length > 0 && table(t("alarms.silences"), SILENCE.map((key) => [t(key), ""]), [...silences].reverse().map(silence), ""),
  );
}

const SILENCE = ["alarms.silence", "alarms.until", "alarms.kind", "caller", "service", "alarms.by", "alarms.why"];

function silence({ id, until, holds, kind, caller, service, by, why }) {
  return [String(id), holds ? moment(until) : t("alarms.over", { at: moment(until) }), kind ? t(`alarm.${kind}`) : "*", caller, service, by, why];
}

// What it was and what it is.
function evidence({ kind, evidence: found }) {
  if (!found) return "";
  const figures = t(`evidence.${kind}`, { before: figure(found.before), now: figure(found.now), seconds: found.windowSeconds });
  return found.hosts.length > 1 ? `${figures}: ${found.hosts.map(shortHost).join(", ")}` : figures;
}

function figure(value) {
  return new Intl.NumberFormat(language(), { maximumSignificantDigits: 3 }).format(value);
}
