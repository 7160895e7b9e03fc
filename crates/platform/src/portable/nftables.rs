//! [`crate::nftables`] where there is no nf_tables: the rules can be computed and read, not installed.

use super::NAMESPACES;
use crate::Unsupported;
use crate::netns::NetNs;
use crate::nftables::{CaptureRules, Installed, NftablesError};

const RULES: Unsupported = Unsupported {
    what: "nf_tables rules",
};

fn refused() -> NftablesError {
    NftablesError::Refused {
        reason: RULES.to_string(),
        source: NAMESPACES.into(),
    }
}

/// Always refused, after the rules were checked.
pub fn install(rules: &CaptureRules) -> Result<Installed, NftablesError> {
    rules.ruleset()?;
    Err(refused())
}

/// [`install`] in a namespace, of which there is none.
pub const fn install_in(namespace: &NetNs, _rules: &CaptureRules) -> Result<Installed, NftablesError> {
    namespace.impossible()
}

/// There is nothing to remove.
pub const fn remove() -> Result<(), NftablesError> {
    Ok(())
}
