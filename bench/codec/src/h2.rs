//! What the HTTP/2 codec is worth: the same minimal hop in two forms, on `rajut-codec` and on the crate `h2`, without sockets.
//!
//! A client and a backend (both ours, not counted) stand on either side in memory, so that both forms get the same bytes, and
//! what is counted is the hop alone: bytes in, decoded, taken from one connection to the other, encoded, bytes out. No task is
//! scheduled: the hop on `h2` is polled by hand, each part as often as it needs, which is the least that it can cost.
//!
//! ```text
//! rajut-bench-codec h2 [--rounds N]              time, both forms in turns, and instructions if there is a valgrind
//! rajut-bench-codec h2-items ours|h2 SHAPE N     for callgrind: N turns of a shape
//! ```

mod on_crate;
mod on_ours;
mod peers;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use peers::{Client, Served};

/// The bytes that wait on the four ways into and out of a hop.
#[derive(Debug, Default)]
pub(crate) struct Wires {
    pub(crate) from_client: Vec<u8>,
    pub(crate) to_client: Vec<u8>,
    pub(crate) from_backend: Vec<u8>,
    pub(crate) to_backend: Vec<u8>,
}

/// One form of the hop.
pub(crate) trait Hop {
    /// Takes everything that has come and passes it on.
    fn turn(&mut self, wires: &mut Wires);
}

/// What passes through the hop in one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    name: &'static str,
    what: &'static str,
    /// Messages on one open stream, or requests on streams of their own.
    is_stream: bool,
    /// Of them in one read.
    at_once: usize,
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "message",
        what: "a message of 130 bytes on an open stream, one for a read",
        is_stream: true,
        at_once: 1,
    },
    Shape {
        name: "messages",
        what: "the same, eight for a read",
        is_stream: true,
        at_once: 8,
    },
    Shape {
        name: "request",
        what: "a request with 10 fields and 100 bytes, and its answer, one for a read",
        is_stream: false,
        at_once: 1,
    },
    Shape {
        name: "requests",
        what: "the same, eight for a read",
        is_stream: false,
        at_once: 8,
    },
];

const FORMS: [&str; 2] = ["ours", "h2"];
/// Turns before anything is measured.
const WARM: usize = 500;
/// Turns of one round of a form.
const TURNS: usize = 4_000;

/// A hop between its two peers.
struct Scene {
    hop: Box<dyn Hop>,
    wires: Wires,
    client: Client,
    backend: Served,
    shape: Shape,
    /// In the hop.
    time: Duration,
}

impl Scene {
    fn new(form: &str, shape: Shape) -> Result<Self> {
        let mut scene = Self {
            hop: match form {
                "ours" => Box::new(on_ours::OurHop::new()),
                "h2" => Box::new(on_crate::CrateHop::new()?),
                _ => bail!("a form is ours or h2"),
            },
            wires: Wires::default(),
            client: Client::new(),
            backend: Served::new(),
            shape,
            time: Duration::ZERO,
        };
        // Settings and windows go to and fro.
        for _ in 0..4 {
            scene.settle()?;
        }
        if shape.is_stream {
            scene.client.open_stream()?;
            for _ in 0..4 {
                scene.settle()?;
            }
        }
        for _ in 0..WARM {
            scene.turn()?;
        }
        scene.time = Duration::ZERO;
        Ok(scene)
    }

    /// Client, hop, backend, hop, client, each once.
    fn settle(&mut self) -> Result<()> {
        self.client.turn(&mut self.wires)?;
        self.pass();
        self.backend.turn(&mut self.wires)?;
        self.pass();
        self.client.turn(&mut self.wires)
    }

    fn pass(&mut self) {
        let begin = Instant::now();
        self.hop.turn(&mut self.wires);
        self.time += begin.elapsed();
    }

    fn turn(&mut self) -> Result<()> {
        for _ in 0..self.shape.at_once {
            if self.shape.is_stream {
                self.client.send_message()?;
            } else {
                self.client.send_request()?;
            }
        }
        let wanted = (self.client.answered, self.backend.bytes);
        if self.shape.is_stream {
            // The message arrives; nothing answers it but windows.
            self.settle()?;
            let arrived = self.backend.bytes - wanted.1;
            if arrived != self.shape.at_once * peers::MESSAGE {
                bail!("{arrived} bytes have arrived");
            }
        } else {
            self.settle()?;
            let answered = self.client.answered - wanted.0;
            if answered != self.shape.at_once {
                bail!("{answered} requests are answered");
            }
        }
        Ok(())
    }
}

fn shape_of(name: &str) -> Result<Shape> {
    SHAPES
        .into_iter()
        .find(|shape| shape.name == name)
        .with_context(|| format!("no shape {name}"))
}

/// For callgrind: some turns and nothing else.
pub(crate) fn items(words: &[String]) -> Result<()> {
    let [form, shape, turns] = words else {
        bail!("usage: h2-items ours|h2 SHAPE TURNS")
    };
    let mut scene = Scene::new(form, shape_of(shape)?)?;
    for _ in 0..turns.parse::<usize>()? {
        scene.turn()?;
    }
    Ok(())
}

/// Instructions of a form for one item: the difference of two runs, so that warming up is not in it.
fn instructions(form: &str, shape: Shape) -> Result<f64> {
    let count = |turns: usize| -> Result<f64> {
        let output = Command::new("valgrind")
            .args([
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                "--collect-atstart=no",
            ])
            .arg("--toggle-collect=*Hop*turn*")
            .arg(std::env::current_exe()?)
            .args(["h2-items", form, shape.name, &turns.to_string()])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = said
            .lines()
            .find(|line| line.contains("Collected :"))
            .with_context(|| said.clone())?;
        let number = line.rsplit(' ').next().context("a number")?;
        Ok(number.parse()?)
    };
    let (few, many) = (200, 600);
    let turns = (many - few) as f64;
    Ok((count(many)? - count(few)?) / turns / shape.at_once as f64)
}

/// Measures and prints.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let rounds = crate::run::option(words, "--rounds", 7)?;
    let has_valgrind = Command::new("valgrind").arg("--version").output().is_ok();
    println!("A hop's cost for one item, medians of {rounds} rounds of {TURNS} turns, both forms in turns\n");
    println!("| | ns ours | ns h2 | ratio | instructions ours | h2 | ratio |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for shape in SHAPES {
        let mut scenes = [Scene::new(FORMS[0], shape)?, Scene::new(FORMS[1], shape)?];
        let mut costs = [Vec::new(), Vec::new()];
        for round in 0..rounds as usize {
            for turn in 0..scenes.len() {
                let at = (turn + round) % scenes.len();
                scenes[at].time = Duration::ZERO;
                for _ in 0..TURNS {
                    scenes[at].turn()?;
                }
                let items = (TURNS * shape.at_once) as f64;
                costs[at].push(scenes[at].time.as_nanos() as f64 / items);
            }
        }
        let [ours, theirs] = costs.map(|mut values| crate::run::median(&mut values));
        print!(
            "| {} | {ours:.0} | {theirs:.0} | {:.2} |",
            shape.what,
            ours / theirs
        );
        if has_valgrind {
            let [ours, theirs] = [instructions(FORMS[0], shape)?, instructions(FORMS[1], shape)?];
            println!(" {ours:.0} | {theirs:.0} | {:.2} |", ours / theirs);
        } else {
            println!(" – | – | – |");
        }
    }
    Ok(())
}
