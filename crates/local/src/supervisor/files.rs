//! The files that a workload and its sidecar read: what resolves names inside a namespace, bootstrap, token.

use std::path::{Path, PathBuf};

use rajut_platform::process::{FileMount, Mounts};
use serde_json::Value;

use crate::{
    commands::SidecarCommand,
    plan::Instance,
    state::{StateError, make_dir, write_private},
};

/// Where queries are sent inside a namespace. Any address outside it will do: port 53 is captured whatever the
/// destination, and this one is routed nowhere else.
const NAMESERVER: &str = "10.244.255.53";

/// Writes a sidecar's bootstrap.
pub(super) fn write_bootstrap(command: &SidecarCommand, bootstrap: &Value) -> Result<(), StateError> {
    make_dir(&command.folder)?;
    write_private(&command.bootstrap(), format!("{bootstrap:#}\n").as_bytes())
}

/// Writes what resolves names inside the namespace, and says what it covers.
///
/// Short names are searched as in Kubernetes; `nsswitch.conf` keeps resolvers out that would not ask over the network
/// at all (systemd's).
pub(super) fn name_resolution(
    folder: &Path,
    instance: &Instance,
    domain: &str,
) -> Result<Mounts, StateError> {
    make_dir(folder)?;
    let namespace = &instance.namespace;
    let files = [
        (
            "resolv.conf",
            format!(
                "nameserver {NAMESERVER}\nsearch {namespace}.svc.{domain} svc.{domain} {domain}\noptions ndots:5\n"
            ),
        ),
        (
            "hosts",
            format!(
                "127.0.0.1 localhost\n::1 localhost\n{} {}\n",
                instance.app_address, instance.name
            ),
        ),
        (
            "nsswitch.conf",
            name_sources(&std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default()),
        ),
    ];
    let mut mounts = Vec::new();
    for (name, contents) in files {
        let source = folder.join(name);
        write_private(&source, contents.as_bytes())?;
        open_to_all(&source)?;
        mounts.push(FileMount {
            source,
            target: PathBuf::from("/etc").join(name),
            required: name == "resolv.conf",
        });
    }
    Ok(Mounts::Private(mounts))
}

/// The machine's `nsswitch.conf` with the line for hosts replaced.
fn name_sources(machine: &str) -> String {
    let others = machine
        .lines()
        .filter(|line| !line.trim_start().starts_with("hosts:"));
    others
        .chain(["hosts: files dns"])
        .fold(String::new(), |text, line| text + line + "\n")
}

/// An application may run as another user.
fn open_to_all(path: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).map_err(|source| {
        StateError::File {
            path: path.to_owned(),
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_source_of_host_names_changes() {
        let machine = "passwd: files systemd\nhosts: files resolve [!UNAVAIL=return] dns\n";
        assert_eq!(name_sources(machine), "passwd: files systemd\nhosts: files dns\n");
        assert_eq!(name_sources(""), "hosts: files dns\n");
    }
}
