//! Writers of access logs: workers append lines to a buffer of their own, one thread per sink writes them out.
//!
//! A worker's buffer has a lock that only the writing thread ever contends for, once in [`GATHER`]. Nothing blocks a
//! worker: when a sink stalls its buffers fill and further lines are dropped and counted.
//!
//! Bounds: [`BUFFER_BYTES`] per worker and sink; at most [`SINKS_MAX`] sinks.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::Thread,
    time::Duration,
};

/// What a worker may have waiting for one sink.
pub const BUFFER_BYTES: usize = 1 << 20;
/// Most sinks of a process.
pub const SINKS_MAX: usize = 64;
/// How long the writing thread gathers lines before it writes.
const GATHER: Duration = Duration::from_millis(50);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// The writers of a process, by sink.
#[derive(Debug, Default)]
pub struct Writers {
    open: Mutex<HashMap<Sink, Arc<Writer>>>,
    dropped: Arc<AtomicU64>,
}

impl Writers {
    /// The writer of a sink; opens it when it is new.
    pub fn open(&self, sink: &Sink, workers: usize) -> io::Result<Arc<Writer>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = open.get(sink) {
            return Ok(writer.clone());
        }
        // Sinks that no configuration uses any more make room.
        if open.len() >= SINKS_MAX {
            open.retain(|_, writer| Arc::strong_count(writer) > 1);
        }
        if open.len() >= SINKS_MAX {
            return Err(io::Error::other(format!(
                "more than {SINKS_MAX} access-log sinks"
            )));
        }
        let writer = Writer::start(sink, workers, self.dropped.clone())?;
        open.insert(sink.clone(), writer.clone());
        Ok(writer)
    }

    /// Lines that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes out what waits, on the calling thread; for the end of the process.
    pub fn flush(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for writer in open.values() {
            writer.write_out();
        }
    }
}

#[derive(Debug)]
enum Target {
    Stdout,
    Stderr,
    File(File),
}

impl Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File(file) => file.write_all(bytes),
        }
    }
}

/// The writer of one sink.
#[derive(Debug)]
pub struct Writer {
    buffers: Box<[Mutex<Vec<u8>>]>,
    target: Mutex<Target>,
    pending: AtomicBool,
    thread: Thread,
    dropped: Arc<AtomicU64>,
}

impl Writer {
    fn start(sink: &Sink, workers: usize, dropped: Arc<AtomicU64>) -> io::Result<Arc<Self>> {
        let target = match sink {
            Sink::Stdout => Target::Stdout,
            Sink::Stderr => Target::Stderr,
            Sink::File(path) => Target::File(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (give, take) = std::sync::mpsc::sync_channel::<Weak<Self>>(1);
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .stack_size(128 * 1024)
            .spawn(move || {
                let Ok(writer) = take.recv() else { return };
                run(&writer);
            })?
            .thread()
            .clone();
        let writer = Arc::new(Self {
            buffers: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            target: Mutex::new(target),
            pending: AtomicBool::new(false),
            thread,
            dropped,
        });
        give.send(Arc::downgrade(&writer))
            .map_err(|_| io::Error::other("the thread of the access log ended"))?;
        Ok(writer)
    }

    /// Lets `render` append one line to the worker's buffer, or drops it where there is no room.
    pub fn line(&self, worker: usize, render: impl FnOnce(&mut Vec<u8>)) {
        {
            let index = worker % self.buffers.len();
            let mut buffer = self.buffers[index].lock().unwrap_or_else(PoisonError::into_inner);
            if buffer.len() >= BUFFER_BYTES {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            render(&mut buffer);
        }
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }

    fn write_out(&self) {
        self.pending.store(false, Ordering::Release);
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        for buffer in &self.buffers {
            let lines = std::mem::take(&mut *buffer.lock().unwrap_or_else(PoisonError::into_inner));
            if lines.is_empty() {
                continue;
            }
            if target.write(&lines).is_err() {
                let lost = lines.split(|byte| *byte == b'\n').count().saturating_sub(1);
                self.dropped.fetch_add(lost as u64, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.write_out();
        self.thread.unpark();
    }
}

fn run(writer: &Weak<Writer>) {
    loop {
        let Some(open) = writer.upgrade() else { return };
        let pending = open.pending.load(Ordering::Acquire);
        drop(open);
        if !pending {
            // `unpark` before `park` is remembered, so that no line waits for the next one.
            std::thread::park();
            continue;
        }
        #[expect(clippy::disallowed_methods, reason = "the thread is for this log alone")]
        std::thread::sleep(GATHER);
        match writer.upgrade() {
            Some(open) => open.write_out(),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_workers_reach_the_file_and_a_full_buffer_drops_and_counts() {
        let path = std::env::temp_dir().join(format!("rajut-log-{}", std::process::id()));
        let writers = Writers::default();
        let sink = Sink::File(path.clone());
        let writer = writers.open(&sink, 2).unwrap();
        writer.line(0, |out| out.extend_from_slice(b"one\n"));
        writer.line(1, |out| out.extend_from_slice(b"two\n"));
        writers.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let target = writer.target.lock().unwrap();
        writer.line(0, |out| out.resize(BUFFER_BYTES, b'x'));
        // The thread may have taken the buffer and wait for the sink: fill it again.
        writer.line(0, |out| out.resize(out.len() + BUFFER_BYTES, b'x'));
        writer.line(0, |out| out.resize(out.len() + BUFFER_BYTES, b'x'));
        writer.line(0, |out| out.push(b'x'));
        assert!(writers.dropped() > 0);
        drop(target);
        drop(writer);
        drop(writers);
        std::fs::remove_file(path).unwrap();
    }
}
