//! `rajut top`: what passes in the mesh, service by service or edge by edge, as the callers' proxies report it.
//!
//! Asks the control plane (`GET /v1/edges`) and draws; what is shown and in which order is [`table`]'s. On a terminal it
//! goes on every second until `q`; otherwise it prints one table.

mod table;

use std::{io::Read as _, process::ExitCode, time::Duration};

use rajut_local::client::ControlClient;
use rajut_platform::{
    signals::ShutdownSignals,
    terminal::{self, RawInput},
};
use serde_json::Value;
use tokio::sync::mpsc;

pub(super) use self::table::plain;
use self::table::{Shown, Sort};
use super::{OutputFormat, block_on, mesh::Place};
use crate::output::{self, Format};

/// `rajut top`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Keys: e edges or services · s next order · r turn it round · + - longer or shorter window · / filter · q end"
)]
pub(crate) struct TopArgs {
    /// A row for each caller and service instead of each service
    #[arg(long)]
    edges: bool,
    /// What the rows are ordered by
    #[arg(long, value_enum, default_value = "rate")]
    sort: Sort,
    /// Only what calls from this namespace or into it
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only names that contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// The time that the figures are of, in seconds: up to 300 by the second, up to 7200 by the minute, then by quarters
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=259_200))]
    window: u32,
    /// Print one table and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    output: OutputFormat,
}

/// Time from one picture to the next.
const EVERY: Duration = Duration::from_secs(1);
/// Windows that the keys step through, seconds.
const WINDOWS: [u32; 5] = [10, 60, 300, 3_600, 86_400];
/// Keys that wait to be obeyed.
const KEYS_MAX: usize = 64;

pub(crate) fn top(place: &Place, args: &TopArgs) -> anyhow::Result<ExitCode> {
    let control = place.control()?;
    let shown = Shown {
        edges: args.edges,
        sort: args.sort,
        is_turned: false,
        namespace: args.namespace.clone(),
        filter: args.filter.clone(),
        window: args.window,
    };
    let is_json = args.output.format == Format::Json;
    if args.once || is_json || !output::is_terminal() {
        let answer = block_on(ask(&control, args.window))?;
        if is_json {
            output::print_json(&shown.json(&answer))?;
        } else {
            output::print(&shown.text(&answer, None))?;
        }
    } else {
        block_on(watch(&control, shown))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(control: &ControlClient, window: u32) -> anyhow::Result<Value> {
    let path = format!("/v1/edges?windowSeconds={window}");
    Ok(control.json("GET", &path, None).await?)
}

/// The whole screen for as long as it lives; what stood there before comes back.
struct Screen(());

impl Screen {
    fn enter() -> anyhow::Result<Self> {
        // Another screen, no cursor.
        output::print("\x1b[?1049h\x1b[?25l")?;
        Ok(Self(()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Who has closed the terminal sees nothing more anyway.
        let _ = output::print("\x1b[?25h\x1b[?1049l");
    }
}

async fn watch(control: &ControlClient, mut shown: Shown) -> anyhow::Result<()> {
    let mut shutdown = ShutdownSignals::listen()?;
    let _raw = RawInput::enter()?;
    let _screen = Screen::enter()?;
    let mut keys = keys();
    let mut answer = ask(control, shown.window).await;
    let mut every = tokio::time::interval(EVERY);
    let (mut typing, mut has_keys) = (false, true);
    loop {
        let text = match &answer {
            Ok(answer) => shown.text(answer, terminal::size()),
            // The control plane may be on its way back.
            Err(error) => format!("{}\n", plain(&format!("no data: {error:#}"))),
        };
        draw(&text, typing.then_some(shown.filter.as_str()))?;
        tokio::select! {
            _ = every.tick() => answer = ask(control, shown.window).await,
            key = keys.recv(), if has_keys => match key {
                Some(key) if typing => typing = shown.type_key(key),
                Some(b'/') => typing = true,
                Some(b'q' | terminal::INTERRUPT) => return Ok(()),
                Some(key) => {
                    if press(&mut shown, key) {
                        answer = ask(control, shown.window).await;
                    }
                }
                // Without keys it goes on until a signal.
                None => has_keys = false,
            },
            _ = shutdown.next() => return Ok(()),
        }
    }
}

/// Whether other figures are to be asked for.
fn press(shown: &mut Shown, key: u8) -> bool {
    let place = WINDOWS.iter().position(|window| *window >= shown.window);
    let place = place.unwrap_or(WINDOWS.len() - 1);
    let other = match key {
        b'+' => WINDOWS.get(place + 1),
        b'-' => place.checked_sub(1).and_then(|place| WINDOWS.get(place)),
        _ => {
            shown.press(key);
            None
        }
    };
    shown.window = other.copied().unwrap_or(shown.window);
    other.is_some()
}

fn draw(text: &str, typed: Option<&str>) -> anyhow::Result<()> {
    // From the corner, each line to its end, then nothing below: no flicker.
    let mut picture = format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"));
    if let Some(typed) = typed {
        append!(picture, "\x1b[H\x1b[Kfilter: {}_", plain(typed));
    }
    output::print(&picture)
}

/// Bytes of standard input. The thread that reads them ends with the process.
fn keys() -> mpsc::Receiver<u8> {
    let (pressed, keys) = mpsc::channel(KEYS_MAX);
    std::thread::spawn(move || {
        for key in std::io::stdin().lock().bytes() {
            let Ok(key) = key else { return };
            if pressed.blocking_send(key).is_err() {
                return;
            }
        }
    });
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_step_through_the_windows_and_stop_at_the_ends() {
        let mut shown = Shown {
            window: 45,
            ..Shown::default()
        };
        assert!(press(&mut shown, b'+'));
        assert_eq!(shown.window, 300);
        for _ in 0..9 {
            press(&mut shown, b'-');
        }
        assert_eq!(shown.window, 10);
        assert!(!press(&mut shown, b'-'));
        assert!(!press(&mut shown, b'e') && shown.edges);
    }
}
