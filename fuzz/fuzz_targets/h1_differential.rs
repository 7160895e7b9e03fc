//! Any bytes to our codec and to hyper: what both accept must mean the same.
#![no_main]

#[path = "../bodies/h1.rs"]
#[allow(dead_code, reason = "each target uses a part")]
mod h1;
#[path = "../bodies/h1_differential.rs"]
mod h1_differential;

libfuzzer_sys::fuzz_target!(|data: &[u8]| h1_differential::run(data));
