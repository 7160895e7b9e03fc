//! Pieces of pure work, done `N` times: `cargo xtask instructions` runs each twice under callgrind, the second time with
//! more of them, so that what remains of the difference is one piece of work.
//!
//! A piece is prepared first (which costs the same in both runs) and must use its result, or there is nothing to count.
//! To add one: a module with a function from the count to a checksum, and a line in [`PIECES`] and in
//! `xtask/src/instructions.rs`. Not part of the product.

mod policy;
mod route;
mod translation;

use anyhow::{Context, Result, bail};

/// Does the work so many times; returns something that depends on every result.
type Piece = fn(u64) -> Result<u64>;

/// By name.
const PIECES: &[(&str, Piece)] = &[
    ("route", route::match_routes),
    ("policies-7", policy::seven),
    ("policies-500", policy::five_hundred),
    ("endpoint-change", translation::endpoint_changes),
    ("policy-change", translation::policy_changes),
];

#[expect(clippy::print_stdout, reason = "what was computed must be seen to be used")]
fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let count: u64 = words.next().context("counted PIECE COUNT")?.parse()?;
    let Some((_, piece)) = PIECES.iter().find(|(known, _)| *known == name) else {
        bail!("there is no piece of work called {name}");
    };
    println!("{}", piece(count)?);
    Ok(())
}
