//! Installing and removing the rules of [`crate::nftables`] over nfnetlink.

mod encode;

use std::io;

use crate::linux::netlink::{self, NETFILTER, NetlinkError};
use crate::linux::netns::{NetNs, in_namespace};
use crate::nftables::{CaptureRules, Installed, NftablesError, rules};

pub(crate) use encode::probe_request;

/// Installs the rules in the network namespace of the calling thread, replacing those of an earlier call. Needs
/// `CAP_NET_ADMIN` in the user namespace that owns it.
///
/// Takes some 30 ms, nearly all of it waiting inside the kernel for other processors to let go of the old rules: set
/// several namespaces up in parallel.
pub fn install(rules: &CaptureRules) -> Result<Installed, NftablesError> {
    let ruleset = rules.ruleset()?;
    let mut installed = Installed { ipv6: None };
    for table in &ruleset.tables {
        let request = encode::replace_table(table).map_err(NetlinkError::Socket);
        let outcome = request
            .and_then(|request| netlink::exchange(NETFILTER, &request))
            .map_err(refused);
        match table.family {
            rules::Family::Ip => outcome?,
            rules::Family::Ip6 => installed.ipv6 = Some(outcome),
        }
    }
    if ruleset
        .tables
        .iter()
        .all(|table| table.family != rules::Family::Ip6)
    {
        // An earlier call may have asked for IPv6.
        remove_family(rules::Family::Ip6).or_else(ignore_missing_family)?;
    }
    Ok(installed)
}

/// [`install`] in another namespace.
pub fn install_in(namespace: &NetNs, rules: &CaptureRules) -> Result<Installed, NftablesError> {
    in_namespace(namespace, || install(rules)).map_err(NftablesError::Enter)?
}

/// Removes our tables from the network namespace of the calling thread, if they are there.
pub fn remove() -> Result<(), NftablesError> {
    remove_family(rules::Family::Ip)?;
    remove_family(rules::Family::Ip6).or_else(ignore_missing_family)
}

fn remove_family(family: rules::Family) -> Result<(), NftablesError> {
    encode::remove_table(family)
        .map_err(NetlinkError::Socket)
        .and_then(|request| netlink::exchange(NETFILTER, &request))
        .map_err(refused)
}

fn ignore_missing_family(error: NftablesError) -> Result<(), NftablesError> {
    match &error {
        NftablesError::Refused { source, .. }
            if matches!(
                source.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT)
            ) =>
        {
            Ok(())
        }
        _ => Err(error),
    }
}

fn refused(error: NetlinkError) -> NftablesError {
    let kernel = match &error {
        NetlinkError::Socket(source)
        | NetlinkError::Refused {
            source, text: None, ..
        } => source.to_string(),
        NetlinkError::Refused {
            source,
            text: Some(text),
            ..
        } => format!("{source}: {text}"),
    };
    let reason = refusal(error.errno(), &kernel);
    let (NetlinkError::Socket(source) | NetlinkError::Refused { source, .. }) = error;
    NftablesError::Refused { reason, source }
}

/// One sentence for people.
fn refusal(errno: i32, kernel: &str) -> String {
    match errno {
        libc::EPROTONOSUPPORT => "this kernel has no netfilter (module nfnetlink)".into(),
        libc::EPERM | libc::EACCES => "nf_tables rules are refused: CAP_NET_ADMIN is missing".into(),
        // An unknown chain type, expression or family is reported as missing.
        libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EINVAL => format!(
            "this kernel lacks a part of nf_tables ({kernel}); the modules are nf_tables, nft_chain_nat, nft_redir \
             and nft_reject_inet"
        ),
        _ => format!("nf_tables rules are refused ({kernel})"),
    }
}

/// The sentence for an error number from the probe.
pub(crate) fn refusal_of(errno: i32) -> String {
    refusal(errno, &io::Error::from_raw_os_error(errno).to_string())
}

#[cfg(test)]
mod tests;
