//! The HTTP path against real sockets: scripted servers on one side, scripted clients on the other, one worker.

mod balance;
mod bodies;
mod current;
mod external;
mod faults;
mod harness;
mod health;
mod http1;
mod http2;
mod limits;
mod metrics;
mod recording;
mod resilience;
mod upgrade;
