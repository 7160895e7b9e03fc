//! The repository's own commands: `cargo xtask <command>`.
//!
//! `ci` runs what continuous integration runs, in the same order; the other commands are its stages, by name.
#![expect(
    clippy::disallowed_methods,
    reason = "a command-line tool: one thread, its own clock and switches"
)]

mod bench;
mod ci;
mod instructions;
mod layers;
mod portable;
mod tidy;

use std::{path::PathBuf, process::ExitCode};

/// Where the workspace is.
fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or(manifest.clone(), PathBuf::from)
}

const HELP: &str = "\
cargo xtask <command>

  ci       everything that continuous integration runs, in the same order
  fix      format, and apply what clippy can mend by itself
  layers   check the crates' edges against the table in xtask/src/layers.rs
  portable build and test the half of crate platform that is for macOS and the BSDs, and check the tool with it
  builds   the optimised builds of `ci`
  tidy     check the fences and module docs; print the largest files
  bench [SET…] [--short|--full|--smoke]
           measure our proxy against Envoy, HAProxy and nginx in one run; bench/README.md tells how
  instructions [NAME…] [--update]
           count the instructions of a request, a decision, a change (callgrind) against bench/instructions.toml
  golden   run the golden tests and accept what they print now
";

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to its terminal"
)]
fn main() -> ExitCode {
    if let Some(compiler) = portable::called_as_wrapper() {
        return portable::compile(&compiler);
    }
    let command = std::env::args().nth(1).unwrap_or_default();
    let done = match command.as_str() {
        "ci" => ci::run(&root()),
        ci::BUILDS => ci::builds(&root()),
        "fix" => ci::fix(&root()),
        "layers" => layers::check(&root()),
        "portable" => portable::check(&root()),
        "tidy" => tidy::check(&root()),
        "bench" => bench::run(&root(), &std::env::args().skip(2).collect::<Vec<_>>()),
        "instructions" => instructions::run(&root(), &std::env::args().skip(2).collect::<Vec<_>>()),
        "golden" => ci::golden(&root()),
        "" | "help" | "--help" | "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprint!("cargo xtask: there is no command `{other}`\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
