//! From a row of a table ([`rajut_config::policy_test`]) to the workload and the call that it means.
//!
//! What a row leaves out is what a plain client of the mesh would send: `GET /` to the workload's service. Pure.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use rajut_config::{
    Snapshot,
    model::{Workload, WorkloadHealth},
    nearest,
    policy_test::{PolicyTest, TestDestination, TestIdentity, TestRequest, TestSource, TestToken},
};
use rajut_ir::jwt::Claim;
use rajut_types::{Locality, Principal, Text};

use super::{Call, Judge, Request, Token, UNKNOWN_ADDRESS, Verdict};

/// Why a row means nothing: a sentence, and what may be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unclear {
    /// What is wrong.
    pub message: String,
    /// What to write; may be empty.
    pub hint: String,
}

impl Unclear {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// Finds the workloads that rows name.
#[derive(Debug)]
pub struct Rows<'s> {
    snapshot: &'s Snapshot,
    namespace: Text,
    /// By every name that they go by.
    workloads: BTreeMap<String, Vec<Arc<Workload>>>,
}

impl<'s> Rows<'s> {
    /// `namespace`: that of names without one.
    pub fn new(snapshot: &'s Snapshot, namespace: &str) -> Self {
        let mut workloads: BTreeMap<String, Vec<Arc<Workload>>> = BTreeMap::new();
        for workload in snapshot.workloads.values() {
            let own = [&workload.name, &workload.deployment];
            let long = own.map(|name| format!("{name}.{}", workload.namespace));
            let mut names: Vec<String> = own.map(ToString::to_string).into_iter().chain(long).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                workloads.entry(name).or_default().push(Arc::clone(workload));
            }
        }
        Self {
            snapshot,
            namespace: namespace.into(),
            workloads,
        }
    }

    /// The workload of that name; that of the default namespace where several namespaces have one.
    fn workload(&self, name: &str) -> Result<&Arc<Workload>, Unclear> {
        let Some(found) = self.workloads.get(name) else {
            let near = nearest(name, self.workloads.keys().map(String::as_str));
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write NAME or NAME.NAMESPACE of a workload in the files".to_owned(),
            };
            return Err(Unclear::new(format!("there is no workload `{name}`"), hint));
        };
        let own = found.iter().find(|it| it.namespace == self.namespace);
        let alike = found.iter().all(|it| it.namespace == found[0].namespace);
        match own.or_else(|| found.first().filter(|_| alike)) {
            Some(workload) => Ok(workload),
            None => Err(Unclear::new(
                format!("several namespaces have a workload `{name}`"),
                format!("write {name}.{}", found[0].namespace),
            )),
        }
    }

    fn identity(&self, source: &TestSource) -> Result<Option<Text>, Unclear> {
        let domain = &self.snapshot.mesh.trust_domain;
        Ok(match &source.identity {
            TestIdentity::None => None,
            TestIdentity::Principal(principal) => {
                let parsed: Principal = principal
                    .parse()
                    .map_err(|_| Unclear::new(format!("`{principal}` is no identity"), ""))?;
                Some(parsed.spiffe_id().into())
            }
            TestIdentity::ServiceAccount { namespace, name } => {
                let namespace = namespace.as_ref().unwrap_or(&self.namespace);
                Some(Principal::new(domain, namespace, name).spiffe_id().into())
            }
            TestIdentity::Workload(name) => Some(self.workload(name)?.principal(domain).spiffe_id().into()),
        })
    }

    fn destination(&self, destination: &TestDestination) -> Result<Arc<Workload>, Unclear> {
        if let Some(name) = &destination.workload {
            let workload = self.workload(name)?;
            if workload.gateway.is_some() {
                return Err(Unclear::new(
                    format!("`{name}` is a gateway: what gateways let through is not judged here"),
                    "test the workloads behind it",
                ));
            }
            return Ok(Arc::clone(workload));
        }
        Ok(Arc::new(Workload {
            name: Text::default(),
            deployment: Text::default(),
            namespace: destination
                .namespace
                .clone()
                .unwrap_or_else(|| self.namespace.clone()),
            labels: destination.labels.clone(),
            service_account: "default".into(),
            address: UNKNOWN_ADDRESS,
            named_ports: BTreeMap::new(),
            reached_ports: BTreeMap::new(),
            gateway: None,
            mesh: true,
            locality: Locality::default(),
            weight: 1,
            health: WorkloadHealth::Ready,
        }))
    }

    /// The workload and the call that a row means.
    pub fn resolve(
        &self,
        judge: &mut Judge<'_>,
        test: &PolicyTest,
    ) -> Result<(Arc<Workload>, Call), Unclear> {
        let workload = self.destination(&test.destination)?;
        let port = match test.destination.port {
            Some(port) => port,
            None => only_port(judge, &workload)?,
        };
        let address = test.destination.ip.unwrap_or(UNKNOWN_ADDRESS);
        let request = (!test.request.tcp)
            .then(|| request(judge, &workload, port, &test.request))
            .transpose()?;
        let call = Call {
            identity: self.identity(&test.source)?,
            address: test.source.ip.unwrap_or(UNKNOWN_ADDRESS),
            client: test.source.remote_ip,
            destination: SocketAddr::new(address, port),
            server_name: test.request.sni.clone(),
            request,
        };
        Ok((workload, call))
    }

    /// What becomes of a row's call.
    pub fn judge(&self, judge: &mut Judge<'_>, test: &PolicyTest) -> Result<Verdict, Unclear> {
        let (workload, call) = self.resolve(judge, test)?;
        Ok(judge.judge(&workload, &call))
    }
}

fn only_port(judge: &mut Judge<'_>, workload: &Workload) -> Result<u16, Unclear> {
    let ports = judge
        .inbound(workload)
        .map(|inbound| inbound.ports())
        .unwrap_or_default();
    let mut each = ports.iter();
    match (each.next(), each.next()) {
        (Some(port), None) => Ok(*port),
        (None, _) => Err(Unclear::new(
            "no service leads to the workload, so its port is not known",
            "write `port: NUMBER`",
        )),
        (Some(_), Some(_)) => {
            let known: Vec<String> = ports.iter().map(ToString::to_string).collect();
            Err(Unclear::new(
                format!("the workload has several ports: {}", known.join(", ")),
                "write `port: NUMBER`",
            ))
        }
    }
}

fn request(
    judge: &mut Judge<'_>,
    workload: &Workload,
    port: u16,
    asked: &TestRequest,
) -> Result<Request, Unclear> {
    let authority = match &asked.host {
        Some(host) => host.clone(),
        None => judge
            .inbound(workload)
            .and_then(|inbound| {
                let (service, _) = inbound.view.services.first()?;
                Some(service.host.text().clone())
            })
            .unwrap_or_else(|| format!("{UNKNOWN_ADDRESS}:{port}").into()),
    };
    let token = match &asked.token {
        None => None,
        Some(TestToken::Invalid) => Some(Token::Invalid),
        Some(TestToken::Claims(claims)) => {
            let read = Claim::parse(claims.to_string().as_bytes());
            let claims = read.ok_or_else(|| Unclear::new("these are no claims of a token", ""))?;
            Some(Token::Good(claims))
        }
    };
    Ok(Request {
        method: asked.method.clone().unwrap_or_else(|| "GET".into()),
        authority,
        path: asked.path.clone().unwrap_or_else(|| "/".into()),
        headers: asked.headers.clone(),
        token,
    })
}
