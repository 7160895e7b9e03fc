//! Walking a document's tree field by field: every field that is read, asked for, or refused reports at its own place.
//!
//! [`Object`] remembers which keys were asked for and, when it is dropped, reports the others: no field can be
//! forgotten in silence. A value that cannot be used is reported where it is read and becomes `None`; the caller goes
//! on, so that all findings of an object come out at once, and drops the object if [`Scope::errors`] is not zero.

mod object;
mod scalar;
mod scope;

pub use object::nearest;
pub(crate) use object::{Object, listed};
pub(crate) use scope::{Field, Scope};

pub(crate) use crate::parse::shown;
