//! What the data plane tells about itself: metric names, access-log formats, the writers of log lines.
//!
//! - [`names`]: every metric name and label, once, with its help text.
//! - [`format`]: Envoy's log format strings (`%START_TIME%` …), parsed when configured, rendered without allocation
//!   beyond the line's own buffer. The values come from a [`format::Record`] that the proxy implements.
//! - [`trace`]: trace contexts (W3C, B3); [`otlp`]: spans as bytes. Both pure; the proxy decides and sends.
//! - [`workload`]: who stands at an end of a call, and how two proxies tell each other.
//! - [`load`]: what a proxy tells the control plane of each of its edges.
//! - [`recording`]: what a proxy tells the control plane of a request, so that it can be judged again.
//! - [`log`]: one thread per sink writes what workers have buffered; a full buffer drops lines and counts them.
//!
//! ```
//! use rajut_telemetry::format::Format;
//! let format = Format::text("%PROTOCOL% %RESPONSE_CODE%\n").unwrap();
//! assert_eq!(format.operators().count(), 2);
//! ```

pub mod format;
pub mod load;
pub mod log;
pub mod names;
pub mod otlp;
pub mod recording;
pub mod trace;
pub mod workload;
