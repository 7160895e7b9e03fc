//! The files that the browser loads: all of them ours, embedded, each by its own path. Nothing here is data.

/// (path, content type, bytes).
pub(crate) type Asset = (&'static str, &'static str, &'static [u8]);

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const JSON: &str = "application/json";
const IMAGE: &str = "image/svg+xml";

macro_rules! asset {
    ($path:literal, $kind:expr, $file:literal) => {
        ($path, $kind, include_bytes!(concat!("assets/", $file)).as_slice())
    };
}

/// Everything.
pub(crate) const ASSETS: &[Asset] = &[
    asset!("/", HTML, "index.html"),
    asset!("/assets/style.css", STYLE, "style.css"),
    asset!("/assets/icon.svg", IMAGE, "icon.svg"),
    asset!("/assets/texts.json", JSON, "texts.json"),
    asset!("/assets/main.js", SCRIPT, "main.js"),
    asset!("/assets/dom.js", SCRIPT, "dom.js"),
    asset!("/assets/live.js", SCRIPT, "live.js"),
    asset!("/assets/texts.js", SCRIPT, "texts.js"),
    asset!("/assets/format.js", SCRIPT, "format.js"),
    asset!("/assets/model.js", SCRIPT, "model.js"),
    asset!("/assets/layout.js", SCRIPT, "layout.js"),
    asset!("/assets/chart.js", SCRIPT, "chart.js"),
    asset!("/assets/graph.js", SCRIPT, "graph.js"),
    asset!("/assets/service.js", SCRIPT, "service.js"),
    asset!("/assets/coverage.js", SCRIPT, "coverage.js"),
    asset!("/assets/config.js", SCRIPT, "config.js"),
    asset!("/assets/alarms.js", SCRIPT, "alarms.js"),
    asset!("/assets/audit.js", SCRIPT, "audit.js"),
];

/// The asset of a path.
pub(crate) fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|(known, ..)| *known == path)
}
