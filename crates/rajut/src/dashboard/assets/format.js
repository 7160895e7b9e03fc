// Figures as texts. What is not known is a dash, never 0.

import { language, t } from "./texts.js";

/** What is not known. */
export const NONE = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

function number(value, digits) {
  return value.toLocaleString(language(), { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Requests per second. */
export function rate(value) {
  if (!known(value)) return NONE;
  if (value === 0) return `0/${t("unit.second")}`;
  if (value < 0.1) return `<${number(0.1, 1)}/${t("unit.second")}`;
  return `${number(value, value < 100 ? 1 : 0)}/${t("unit.second")}`;
}

/** A share as a percentage; what is not whole never reads as whole, what is not nothing never as nothing. */
export function share(value) {
  if (!known(value)) return NONE;
  const percent = value * 100;
  if (percent > 0 && percent < 0.1) return `<${number(0.1, 1)} %`;
  if (percent < 100 && percent > 99.9) return `>${number(99.9, 1)} %`;
  return `${number(percent, percent === 0 || percent === 100 ? 0 : 1)} %`;
}

/** Milliseconds. */
export function millis(value) {
  if (!known(value)) return NONE;
  if (value >= 10000) return `${number(value / 1000, 0)} s`;
  if (value >= 1000) return `${number(value / 1000, 1)} s`;
  return `${number(value, value < 10 ? 1 : 0)} ms`;
}

/** A count. */
export function count(value) {
  return known(value) ? number(value, 0) : NONE;
}

/** The time of day of an RFC 3339 time. */
export function clock(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? NONE : time.toLocaleTimeString(language(), { hour12: false });
}

/** Day and time of an RFC 3339 time. */
export function moment(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return NONE;
  return time.toLocaleString(language(), { dateStyle: "medium", timeStyle: "medium", hour12: false });
}

/** Seconds as a short duration. */
export function duration(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 60) return `${number(seconds, 0)} s`;
  if (seconds < 3600) return `${number(seconds / 60, 0)} min`;
  return `${number(seconds / 3600, 0)} h`;
}

/** `name` of `name.namespace.svc.cluster.local`; other hosts stay. */
export function shortHost(host) {
  const [name, namespace, kind] = host.split(".");
  return kind === "svc" && namespace ? name : host;
}

/** Where something is written: `file:line`. */
export function place(origin) {
  if (!origin?.source) return NONE;
  return origin.line ? `${origin.source}:${origin.line}` : origin.source;
}
