//! Scenario tests: real processes, real sockets, real namespaces, driven from outside through the `rajut` command, the
//! same tests on both data planes.
//!
//! ```text
//! cargo test -p rajut --test scenario                      everything
//! cargo test -p rajut --test scenario -- canary            names that contain "canary"
//! cargo test -p rajut --test scenario -- --plane envoy     one data plane
//! cargo test -p rajut --test scenario -- --list
//! ```
//!
//! A scenario waits on conditions, with deadlines of about ten times the goal, and prints how long it took. What can't run
//! on Envoy is listed in `exceptions.rs` with its reason. Missing counterparts (Envoy, grpcio, Node, openssl, Chromium) are skips
//! that are printed, and failures where `RAJUT_TEST_REQUIRE` names them.
#![expect(
    clippy::disallowed_methods,
    reason = "tests of whole processes wait for them and measure them"
)]
#![expect(clippy::print_stdout, reason = "a test runner talks to its terminal")]
#![expect(
    clippy::format_push_string,
    clippy::large_stack_arrays,
    clippy::needless_pass_by_value,
    clippy::too_many_arguments,
    clippy::too_many_lines,
    reason = "scenarios say plainly what they do; nothing here is on a hot path"
)]
#![expect(unreachable_pub, reason = "the modules of a test program have no outside")]

mod client;
mod exceptions;
mod lab;
mod mesh;
mod runner;
mod scenarios;
mod tls;

fn main() -> std::process::ExitCode {
    runner::run(&scenarios::lanes())
}
