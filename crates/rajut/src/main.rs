//! The `rajut` command.
fn main() {}
