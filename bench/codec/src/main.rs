//! What the codecs are worth. For HTTP/1.1: the same minimal hop in two forms, measured in turns in one run.
//!
//! Both forms have the same single-threaded loop, the same listener, the same pool (a stack of idle connections), no
//! routing, and take the hop-by-hop fields out. `ours` drives `rajut-codec`'s two machines as the proxy does; `hyper` joins
//! hyper's http1 server and client. The backend and the load are those of `rajut-bench`.
//!
//! ```text
//! rajut-bench-codec run RAJUT-BENCH [--rounds N] [--secs S] [--conns N]
//! rajut-bench-codec ours|hyper PORT-OF-BACKEND
//! rajut-bench-codec h2 [--rounds N]
//! ```
//!
//! For HTTP/2 see `h2`.

mod h2;
mod on_codec;
mod on_hyper;
mod run;

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use anyhow::{Context, Result, bail};
use tokio::net::{TcpListener, TcpStream};

/// Idle connections that a hop keeps.
const IDLE_MAX: usize = 1024;

/// The idle upstream connections of a hop; the last one used is the first one taken.
#[derive(Debug)]
struct Pool<T> {
    idle: RefCell<Vec<T>>,
    backend: SocketAddr,
}

impl<T> Pool<T> {
    fn new(backend: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            idle: RefCell::default(),
            backend,
        })
    }

    fn take(&self) -> Option<T> {
        self.idle.borrow_mut().pop()
    }

    fn put(&self, connection: T) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    async fn dial(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.backend).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("run") => run::run(&words[1..]),
        Some("h2") => h2::run(&words[1..]),
        Some("h2-items") => h2::items(&words[1..]),
        Some(form @ ("ours" | "hyper")) => serve(form, &words[1..]),
        _ => bail!(
            "usage: rajut-bench-codec run RAJUT-BENCH [--rounds N] [--secs S] [--conns N], or h2 [--rounds N]"
        ),
    }
}

fn serve(form: &str, words: &[String]) -> Result<()> {
    let port: u16 = words.first().context("the backend's port")?.parse()?;
    let backend = SocketAddr::from(([127, 0, 0, 1], port));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        let (ours, hyper) = (Pool::new(backend), Pool::new(backend));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            if form == "ours" {
                tokio::task::spawn_local(on_codec::connection(stream, Rc::clone(&ours)));
            } else {
                tokio::task::spawn_local(on_hyper::connection(stream, Rc::clone(&hyper)));
            }
        }
    })
}
