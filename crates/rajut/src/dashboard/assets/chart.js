// Lines over time as SVG, with gaps where nothing is known. A chart says in words what it shows, for those who can't see it.

import { h, s } from "./dom.js";
import { NONE, clock } from "./format.js";
import { t } from "./texts.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [420, 150, 58, 8, 10, 22];

/** `lines`: [{name, kind, values}] of equal length; `show`: value → text; `least`: what the axis reaches at least. */
export function chart(title, times, lines, show, least) {
  const all = lines.flatMap((line) => line.values).filter((value) => value !== null);
  const last = (line) => line.values.findLast((value) => value !== null) ?? null;
  const heading = h("h3", {}, title);
  if (all.length === 0) return h("figure", { class: "chart" }, heading, h("p", { class: "none" }, t("no-data")));
  const most = nice(Math.max(least, ...all));
  const x = (at) => LEFT + (WIDTH - LEFT - RIGHT) * (times.length > 1 ? at / (times.length - 1) : 1);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / most);
  const legend = lines.map((line) =>
    h("li", { class: line.kind }, h("span", { class: "key", "aria-hidden": "true" }), line.name, " ", h("b", {}, show(last(line)))),
  );
  const words = lines.map((line) => {
    const told = line.values.filter((value) => value !== null);
    return t("chart.words", { name: line.name, last: show(last(line)), most: told.length > 0 ? show(Math.max(...told)) : NONE });
  });
  return h(
    "figure",
    { class: "chart" },
    heading,
    h("ul", { class: "legend" }, legend),
    s(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${words.join(" ")}` },
      [0, 0.5, 1].map((part) => [
        s("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(most * part), y2: y(most * part) }),
        s("text", { class: "axis", x: LEFT - 6, y: y(most * part) + 3.5, "text-anchor": "end" }, show(most * part)),
      ]),
      s("text", { class: "axis", x: LEFT, y: HEIGHT - 6 }, clock(times[0])),
      s("text", { class: "axis", x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, clock(times.at(-1))),
      lines.map((line) => runs(line.values).map((run) => path(run, line.kind, x, y))),
    ),
  );
}

/** Stretches without a gap: lists of [position, value]. */
function runs(values) {
  const found = [];
  let run = null;
  for (const [at, value] of values.entries()) {
    if (value === null) run = null;
    else {
      if (!run) found.push((run = []));
      run.push([at, value]);
    }
  }
  return found;
}

function path(run, kind, x, y) {
  if (run.length === 1) return s("circle", { class: `dot ${kind}`, cx: x(run[0][0]), cy: y(run[0][1]), r: 2 });
  const points = run.map(([at, value]) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`);
  return s("path", { class: `line ${kind}`, d: `M${points.join("L")}` });
}

/** The next round figure. */
function nice(value) {
  const scale = 10 ** Math.floor(Math.log10(value));
  return scale * [1, 2, 2.5, 5, 10].find((step) => step * scale >= value * 0.9999);
}
