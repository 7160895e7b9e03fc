//! Any bytes as a server's side of an HTTP/1 connection.
#![no_main]

#[path = "../bodies/h1.rs"]
#[allow(dead_code, reason = "each target uses a part")]
mod h1;

libfuzzer_sys::fuzz_target!(|data: &[u8]| h1::h1_response(data));
