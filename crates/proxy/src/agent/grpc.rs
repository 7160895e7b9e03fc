//! What a proxyless gRPC process needs: a bootstrap, and its certificate in files that stay fresh.
//!
//! ```text
//!   application (gRPC's own xDS client) ══ ADS over mTLS ══► control plane
//!        │ reads GRPC_XDS_BOOTSTRAP, certificate files
//!   agent: enrols, writes them, writes them again at each renewal
//! ```
//!
//! gRPC dials the control plane itself with the workload's certificate (channel credentials `tls`, gRFC A65): over the
//! agent's Unix socket it would send the socket's path as `:authority`, which HTTP/2 servers refuse. The files belong
//! to the owner alone; a key lies on disk only for such processes, which have no other way to get one.
//!
//! gRPC asks nobody whom to believe but its files, so the agent has a discovery stream of its own for the mesh's roots
//! ([`follow_trust`]), and answers when gRPC must have read them.

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use rajut_identity::{Identity, IdentityStore, TrustBundle, context::MESH_ROOTS};
use rajut_ir::wire;
use rajut_runtime::connector::Connector;
use rajut_xds::{
    Node,
    client::{self, ClientOptions, Event, Refusal, Update},
    type_url,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::discovery::mesh_roots;

/// The certificate provider instance that the control plane's resources name (`translate::grpc::CERTIFICATE_PROVIDER`).
const PROVIDER: &str = "default";
/// Istio's, with gRPC's place for the address.
const SERVER_LISTENERS: &str = "xds.istio.io/grpc/lds/inbound/%s";
/// How often gRPC looks at the files: far below half of a certificate's life, which is left when they are renewed; and a
/// change of the mesh's roots waits for it.
const REFRESH: Duration = Duration::from_secs(10);
/// What is in the files for so long gRPC has read.
const READ_AFTER: Duration = Duration::from_secs(12);

/// How a proxyless process is served.
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    /// Where bootstrap and certificate are written; made with mode 0700.
    pub folder: PathBuf,
    /// The control plane, `host:port`: gRPC checks that its certificate has this name or address.
    pub control: String,
    /// Name of the workload instance; its deployment's is known by the labels.
    pub workload: String,
    /// The workload's labels.
    pub labels: Vec<(String, String)>,
    /// The workload's address.
    pub address: IpAddr,
}

impl GrpcOptions {
    /// The file for `GRPC_XDS_BOOTSTRAP`.
    pub fn bootstrap(&self) -> PathBuf {
        self.folder.join("grpc-bootstrap.json")
    }

    fn chain(&self) -> PathBuf {
        self.folder.join("cert-chain.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    fn roots(&self) -> PathBuf {
        self.folder.join("root-cert.pem")
    }
}

/// Writes everything once.
pub fn write(options: &GrpcOptions, identity: &Identity) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&options.folder)
        .with_context(|| options.folder.display().to_string())?;
    // The bootstrap last: who finds it finds the rest.
    write_certificate(options, identity)?;
    let text = format!("{:#}\n", bootstrap(options, identity));
    replace(&[(options.bootstrap(), text)])
}

/// Writes the certificate again whenever there is a newer one than `identity`; ends when there will be none.
pub async fn keep_fresh(options: &GrpcOptions, store: &IdentityStore, identity: &Identity) {
    let mut generation = identity.generation;
    while let Some(newer) = store.newer_than(generation).await {
        generation = newer.generation;
        match write_certificate(options, &newer) {
            Ok(()) => tracing::info!(serial = newer.serial, "certificate files renewed"),
            // The next renewal tries again; what is there lives as long as it has lived.
            Err(error) => tracing::warn!(error = format!("{error:#}"), "certificate files not renewed"),
        }
    }
}

/// Follows the roots of the mesh, as the control plane tells them; ends when there will be no identity any more.
pub async fn follow_trust(
    options: &GrpcOptions,
    connector: Connector,
    store: &IdentityStore,
    identity: &Identity,
) {
    let node = bootstrap(options, identity)["node"].take();
    let text = |member: &str| node[member].as_str().unwrap_or_default().into();
    let node = Node {
        id: text("id"),
        cluster: text("cluster"),
        metadata: node["metadata"].clone(),
        user_agent: "rajut-agent".into(),
        ..Node::default()
    };
    let (handle, mut events) = client::spawn(ClientOptions::new(node, connector));
    handle.subscribe(type_url::SECRET, vec![MESH_ROOTS.into()]).await;
    let (mut trust, mut held) = (None, None);
    // What is there before the process starts is what it reads first.
    let (mut generation, mut read_at) = (identity.generation, Instant::now());
    loop {
        let follows = trust.as_ref().is_none_or(|trust| {
            let current = store.current();
            current.is_some_and(|identity| identity.generation == generation && identity.follows(trust))
        });
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return };
                let Event::Update(update) = event else { continue };
                match told(&update) {
                    Ok(Some(bundle)) => {
                        store.set_trust(bundle.clone());
                        trust = Some(bundle);
                        held = Some(update.ticket);
                    }
                    Ok(None) => handle.answer(update.ticket, Vec::new()).await,
                    Err(refusal) => handle.answer(update.ticket, vec![refusal]).await,
                }
            }
            newer = store.newer_than(generation) => {
                let Some(newer) = newer else { return };
                generation = newer.generation;
                read_at = Instant::now() + READ_AFTER;
            }
            () = tokio::time::sleep_until(read_at), if held.is_some() && follows => {
                if let Some(ticket) = held.take() {
                    handle.answer(ticket, Vec::new()).await;
                }
            }
        }
    }
}

/// The mesh's roots in an update; `None` where they are not in it.
fn told(update: &Update) -> Result<Option<TrustBundle>, Refusal> {
    let Some(resource) = update
        .resources
        .iter()
        .find(|resource| &*resource.name == MESH_ROOTS)
    else {
        return Ok(None);
    };
    let refusal = |reason: String| Refusal {
        resource: MESH_ROOTS.into(),
        path: String::new(),
        reason,
    };
    let decoded = wire::decode_secret(&resource.body.to_bytes());
    let secret = decoded.map_err(|errors| refusal(errors.to_string()))?;
    mesh_roots(&secret.value).map(Some).map_err(refusal)
}

fn write_certificate(options: &GrpcOptions, identity: &Identity) -> anyhow::Result<()> {
    replace(&[
        (options.roots(), identity.roots.to_pem()),
        (options.chain(), identity.chain_pem()),
        (options.key(), identity.key.secret_pem()),
    ])
}

/// Writes all beside their places and then puts all there, so that chain and key change as close together as files can:
/// gRPC compares their times before and after reading and reads again.
fn replace(files: &[(PathBuf, String)]) -> anyhow::Result<()> {
    let next = |path: &Path| path.with_extension("next");
    let write = |(path, text): &(PathBuf, String)| -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(next(path))?;
        file.write_all(text.as_bytes())
    };
    for file in files {
        write(file).with_context(|| file.0.display().to_string())?;
    }
    for (path, _) in files {
        fs::rename(next(path), path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// gRPC's bootstrap (gRFC A27, A29, A65).
fn bootstrap(options: &GrpcOptions, identity: &Identity) -> Value {
    let files = json!({
        "certificate_file": options.chain(),
        "private_key_file": options.key(),
        "ca_certificate_file": options.roots(),
        "refresh_interval": format!("{}s", REFRESH.as_secs()),
    });
    let principal = &identity.principal;
    let (namespace, workload) = (principal.namespace(), &options.workload);
    let address = options.address;
    json!({
        "xds_servers": [{
            "server_uri": options.control,
            "channel_creds": [{"type": "tls", "config": files}],
            "server_features": ["xds_v3"],
        }],
        "node": {
            "id": format!("sidecar~{address}~{workload}.{namespace}~{namespace}.svc.{}", principal.trust_domain()),
            "cluster": format!("{workload}.{namespace}"),
            "metadata": {
                "GENERATOR": "grpc",
                "NAMESPACE": namespace,
                "NAME": workload,
                "SERVICE_ACCOUNT": principal.service_account(),
                "INSTANCE_IPS": address.to_string(),
                "LABELS": options.labels.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            },
        },
        "certificate_providers": {
            PROVIDER: {"plugin_name": "file_watcher", "config": files},
        },
        "server_listener_resource_name_template": SERVER_LISTENERS,
    })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

    use rajut_identity::Key;
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType};

    use super::*;

    /// An identity that is its own root.
    fn identity(generation: u64) -> Identity {
        let mut params = CertificateParams::default();
        let uri = "spiffe://cluster.local/ns/clinic/sa/signer";
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let pem = key.serialize_pem();
        let root = CertifiedIssuer::self_signed(params, key).unwrap();
        let roots = TrustBundle::new([root.der().clone()]).unwrap();
        let key = Key::from_pem(pem.as_bytes()).unwrap();
        Identity::new(vec![root.der().clone()], key, roots, generation).unwrap()
    }

    #[tokio::test]
    async fn a_renewed_certificate_replaces_the_files_which_are_the_owners_alone() {
        let options = GrpcOptions {
            folder: std::env::temp_dir().join(format!("rajut-grpc-{}", std::process::id())),
            control: "127.0.0.1:15012".into(),
            workload: "signer-0".into(),
            labels: vec![("app".into(), "signer".into())],
            address: [127, 0, 0, 1].into(),
        };
        let (first, second) = (Arc::new(identity(1)), Arc::new(identity(2)));
        write(&options, &first).unwrap();
        let bootstrap: Value = serde_json::from_slice(&fs::read(options.bootstrap()).unwrap()).unwrap();
        assert_eq!(
            bootstrap["node"]["id"],
            "sidecar~127.0.0.1~signer-0.clinic~clinic.svc.cluster.local"
        );
        assert_eq!(bootstrap["node"]["metadata"]["LABELS"]["app"], "signer");
        let files = &bootstrap["certificate_providers"][PROVIDER]["config"];
        assert_eq!(files, &bootstrap["xds_servers"][0]["channel_creds"][0]["config"]);
        assert_eq!(files["private_key_file"], options.key().display().to_string());

        let (sender, store) = IdentityStore::channel();
        sender.send_replace(Some(Arc::clone(&first)));
        let renewed = async {
            sender.send_replace(Some(Arc::clone(&second)));
            let deadline = Instant::now() + Duration::from_secs(10);
            while fs::read_to_string(options.key()).unwrap() != second.key.secret_pem() {
                assert!(Instant::now() < deadline, "the key is still the first");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            () = keep_fresh(&options, &store, &first) => panic!("it goes on as long as there may be another"),
            () = renewed => {}
        }
        assert_eq!(fs::read_to_string(options.chain()).unwrap(), second.chain_pem());
        assert_eq!(
            fs::read_to_string(options.roots()).unwrap(),
            second.roots.to_pem()
        );
        for entry in fs::read_dir(&options.folder).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", entry.path().display());
        }
        fs::remove_dir_all(&options.folder).unwrap();
    }
}
