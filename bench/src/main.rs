//! Measures what a proxy hop costs, ours and its peers', in one run.
//!
//! `run` is the orchestrator: it starts one proxy at a time, loads it, reads its CPU time and memory from `/proc`, and
//! writes the tables. The other commands are the processes that it starts beside the proxies: `backend` answers,
//! `load` and `bulk` ask, `relay` is the floor (a hop that only moves bytes). All are single-threaded, speak only on
//! 127.0.0.1 and end by themselves or with the orchestrator. `README.md` of this folder says how it measures.

mod alike;
mod args;
mod backend;
mod bootstrap;
mod bulk;
mod goals;
mod grpc;
mod http2;
mod load;
mod machine;
mod measure;
mod node;
mod origin;
mod peer;
mod poll;
mod process;
mod relay;
mod report;
mod run;
mod set;
mod shape;
mod stats;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::args::Args;

const USAGE: &str =
    "usage: rajut-bench run [SET…] [--short|--full|--smoke] [--rounds N] [--secs S] [--rate R]
                       [--held N] [--rest S] [--peers a,b] [--rt] [--root DIR] [--profile NAME]
       rajut-bench backend|origin
       rajut-bench load --proto http1|http1-16|http1-large|http2|grpc|grpc-stream|echo --port P [--conns N]
                       [--streams N] [--secs S] [--rate R] [--expect BYTES] [--fresh|--hold] [--tls DIR]
       rajut-bench bulk --port P [--conns N] [--secs S]
       rajut-bench relay --listen P --to P [--splice]
sets:  see README.md (default: all)";

fn main() -> ExitCode {
    match command() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rajut-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Result<ExitCode> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let args = Args::parse(words)?;
    match command.as_str() {
        "run" => return run::run(&args),
        "backend" => backend::serve()?,
        "origin" => origin::serve()?,
        "load" => load::load(&args)?,
        "bulk" => bulk::sink(&args)?,
        "relay" => relay::serve(&args)?,
        _ => bail!("{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}
