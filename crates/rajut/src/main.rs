//! `rajut`: the operator's one tool. It reads the command line, starts what was asked for and gives the exit status: 0
//! done, 1 the answer is no, 2 wrong usage.
//!
//! What each command does lives in [`cli`]; the daemons are the libraries `rajut-control` and `rajut-proxy`, the local
//! mesh is `rajut-local`. `dashboard` is the console, `sample` is what the built-in example runs.

#[macro_use]
mod output;
mod cli;
mod dashboard;
mod examples;
#[cfg(test)]
mod reference;
mod sample;

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run()
}
