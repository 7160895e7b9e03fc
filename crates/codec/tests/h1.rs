//! HTTP/1 from outside: smuggling vectors by name, properties over segmentation and edits, the fuzz targets' bodies on
//! seeded mutations, and agreement with hyper.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests and fuzz bodies fail by panicking"
)]
#![expect(clippy::large_futures, reason = "hyper's futures, on a test's stack")]
#![expect(
    clippy::unnecessary_to_owned,
    clippy::format_collect,
    reason = "as short as possible, not as fast"
)]

#[path = "../../../fuzz/bodies/h1.rs"]
#[expect(unreachable_pub, reason = "shared with the fuzz targets")]
mod h1;
#[path = "../../../fuzz/bodies/h1_differential.rs"]
#[expect(unreachable_pub, reason = "shared with the fuzz targets")]
mod h1_differential;

#[path = "h1/properties.rs"]
mod properties;
#[path = "h1/smoke.rs"]
mod smoke;
#[path = "h1/smuggling.rs"]
mod smuggling;
