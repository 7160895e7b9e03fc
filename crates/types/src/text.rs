//! [`Text`]: an immutable, cheaply cloned string, since names of hosts and clusters are shared everywhere.

/// An immutable string that is cloned by counting.
pub type Text = std::sync::Arc<str>;
