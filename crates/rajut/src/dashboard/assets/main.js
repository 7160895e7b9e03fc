// The frame: session, navigation, language, theme, and which page is shown. Pages know how to draw; what they need comes from
// live.js. The address is `#/page?what=is-chosen`; a token in it (`#token=…`) is exchanged for a session and taken out.

import { alarmsPage } from "./alarms.js";
import { auditPage } from "./audit.js";
import { configPage } from "./config.js";
import { coveragePage } from "./coverage.js";
import { h, replace } from "./dom.js";
import { clock } from "./format.js";
import { graphPage } from "./graph.js";
import { Live, Refused, ask } from "./live.js";
import { servicePage } from "./service.js";
import { choose, language, loadTexts, t } from "./texts.js";

const PAGES = { graph: graphPage, service: servicePage, coverage: coveragePage, config: configPage, alarms: alarmsPage, audit: auditPage };
const LISTED = ["graph", "coverage", "config", "alarms", "audit"];
const THEMES = ["auto", "light", "dark"];
const KEPT = "rajut.theme";

const app = document.getElementById("app");
let role = null;
let page = null;
let shown = {};
let parts = null;
const live = new Live(told);

start();

async function start() {
  setTheme(localStorage.getItem(KEPT) ?? "auto");
  await loadTexts();
  addEventListener("hashchange", arrive);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && page?.escape?.()) event.preventDefault();
  });
  await arrive();
}

async function arrive() {
  const token = location.hash.match(/^#token=([0-9a-f]+)$/)?.[1];
  if (token) {
    // Gone from the address before anything else: it is in no history and no link.
    history.replaceState(null, "", "#/graph");
    if (!(await enter(token))) return signIn(t("login.wrong"));
  }
  try {
    role ??= (await ask("/api/session")).role;
  } catch (error) {
    return signIn(error instanceof Refused ? "" : t("login.away"));
  }
  frame();
  show();
}

async function enter(token) {
  const answer = await fetch("/session", { method: "POST", credentials: "same-origin", headers: { "content-type": "application/json" }, body: JSON.stringify({ token }) });
  role = answer.ok ? (await answer.json()).role : null;
  return answer.ok;
}

async function leave() {
  await fetch("/session/end", { method: "POST", credentials: "same-origin" });
  role = null;
  parts = null;
  live.follow({});
  signIn("");
}

function signIn(why) {
  parts = null;
  live.follow({});
  document.title = `Rajut – ${t("login.title")}`;
  const field = h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, maxlength: 64, "aria-describedby": "login-hint" });
  const form = h(
    "form",
    {
      class: "login",
      onsubmit: async (event) => {
        event.preventDefault();
        if (await enter(field.value.trim())) arrive();
        else signIn(t("login.wrong"));
      },
    },
    h("h1", {}, "Rajut"),
    why && h("p", { class: "banner bad", role: "alert" }, why),
    h("label", { for: "token" }, t("login.token")),
    field,
    h("p", { id: "login-hint", class: "hint" }, t("login.hint")),
    h("button", { class: "button first" }, t("login.enter")),
  );
  replace(app, h("main", { class: "login-page" }, form));
  field.focus();
}

function frame() {
  if (parts) return;
  const link = (name) => h("a", { href: `#/${name}`, "data-page": name }, t(`nav.${name}`));
  parts = {
    nav: h("nav", { "aria-label": t("nav.label") }, LISTED.filter((name) => !PAGES[name].role || PAGES[name].role === role).map(link)),
    state: h("p", { class: "state" }),
    stale: h("div", {}),
    main: h("main", { id: "main", tabindex: -1 }),
  };
  const pick = (label, values, now, name, changed) => h("label", { class: "pick" }, h("span", { class: "visually-hidden" }, label), h("select", { "aria-label": label, onchange: (event) => changed(event.target.value) }, values.map((value) => h("option", { value, selected: value === now }, name(value)))));
  replace(
    app,
    h("a", { class: "skip", href: "#main", onclick: (event) => (event.preventDefault(), parts.main.focus()) }, t("skip")),
    h(
      "header",
      { class: "top" },
      h("p", { class: "brand" }, "Rajut"),
      parts.nav,
      h(
        "div",
        { class: "controls" },
        parts.state,
        pick(t("language"), ["en", "id"], language(), (code) => (code === "en" ? "English" : "Indonesia"), (code) => (choose(code), redraw())),
        pick(t("theme"), THEMES, localStorage.getItem(KEPT) ?? "auto", (name) => t(`theme.${name}`), setTheme),
        h("button", { type: "button", class: "button", onclick: leave, title: t(`role.${role}`) }, t("leave")),
      ),
    ),
    parts.stale,
    parts.main,
  );
}

function redraw() {
  parts = null;
  page = null;
  frame();
  show();
}

function setTheme(name) {
  localStorage.setItem(KEPT, name);
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

function read() {
  const [path, query = ""] = location.hash.replace(/^#\//, "").split("?");
  return { name: PAGES[path] ? path : "graph", params: Object.fromEntries(new URLSearchParams(query)) };
}

function href(name, params) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "" && value !== undefined));
  return `#/${name}${query.size > 0 ? `?${query}` : ""}`;
}

const go = Object.assign((name, params) => (location.hash = href(name, params)), { href });

function show() {
  const { name, params } = read();
  const kind = PAGES[name];
  for (const link of parts.nav.children) {
    if (link.dataset.page === (name === "service" ? "graph" : name)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `Rajut – ${name === "service" ? params.host ?? "" : t(`nav.${name}`)}`;
  if (kind.role && kind.role !== role) {
    page = null;
    live.follow({});
    return replace(parts.main, h("h1", {}, t(`nav.${name}`)), h("p", { class: "none" }, t("auditor-only")));
  }
  const sources = kind.sources(params, role);
  // The same page with the same figures keeps what it has drawn and where the focus is.
  if (page && shown.name === name && page.sync) {
    page.sync(params);
    if (JSON.stringify(sources) === shown.sources) return shown.data && draw(shown.data);
  } else {
    page = kind.create(parts.main, params, go);
    if (shown.name && shown.name !== name) parts.main.focus({ preventScroll: true });
  }
  shown = { name, sources: JSON.stringify(sources), wanted: Object.keys(sources), data: null };
  live.follow(sources);
}

function told({ data, error, at }) {
  if (!parts) return;
  if (error instanceof Refused && error.status === 401) {
    role = null;
    return signIn(t("login.ended"));
  }
  document.documentElement.classList.toggle("old", Boolean(error));
  const time = at ? clock(new Date(at).toISOString()) : "";
  parts.state.title = error ? "" : t("state.live", { time });
  replace(parts.state, h("span", { class: error ? "pulse bad" : "pulse good", "aria-hidden": "true" }), error ? t("state.away") : time);
  // An alert is read out when it comes: it stays the same until something else is to be said.
  const alert = error ? `${at ? t("stale", { time }) : t("stale.never")} ${error.message}` : "";
  if (parts.stale.textContent !== alert) replace(parts.stale, alert && h("p", { class: "banner bad", role: "alert" }, alert));
  if (shown.wanted?.every((name) => data[name] !== undefined)) draw((shown.data = data));
}

function draw(data) {
  // What somebody is about to copy is not pulled away.
  if (parts.main.contains(getSelection()?.anchorNode) && !getSelection().isCollapsed) return;
  page?.update(data);
}
