//! Between our messages and the `http` crate's, which `h2` speaks. The only place that knows `http::HeaderMap`.

pub(crate) mod convert;
