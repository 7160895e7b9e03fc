//! The sidecar's DNS: answers the mesh's names from the name table, forwards every other name to the machine's own
//! resolvers.
//!
//! ```text
//!   query ─► A or AAAA of a name in the table (or below a wildcard of it) ─► its addresses, 30 s
//!        ├─► another type of such a name                                 ─► no error, no data
//!        ├─► below the mesh's own domain, unknown                        ─► NXDOMAIN, cached by the client
//!        └─► anything else                                               ─► forwarded as it came
//! ```
//!
//! It listens in the workload's network namespace, where port 53 is redirected to it, and forwards from the host's.
//! Bounds: [`FORWARDS_MAX`] queries are under way at once, each for [`FORWARD_TIMEOUT`]; [`TCP_CONNECTIONS_MAX`]
//! connections. Whoever comes beyond is answered SERVFAIL, or not accepted yet. Nothing is cached here.

use std::{io, net::IpAddr, net::SocketAddr, path::Path, rc::Rc, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, SOA},
    },
};
use rajut_ir::NameTable;
use rajut_platform::{
    netns::{NetNs, in_namespace},
    socket::{self, ListenOptions, TcpListener, TcpStream, UdpOptions, UdpSocket},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, watch},
};

/// Queries that are being forwarded at once.
pub const FORWARDS_MAX: usize = 512;

/// How long one resolver is waited for.
pub const FORWARD_TIMEOUT: Duration = Duration::from_secs(3);

/// Clients over TCP at once.
pub const TCP_CONNECTIONS_MAX: usize = 64;

/// How long an idle TCP client is kept.
const TCP_IDLE: Duration = Duration::from_secs(30);

/// Seconds for which answers of the mesh's own names may be kept: they change with the configuration.
const TTL_SECONDS: u32 = 30;

/// Seconds for which "there is no such name" may be kept.
const NEGATIVE_TTL_SECONDS: u32 = 5;

/// The largest message over UDP that is received or forwarded.
const UDP_MESSAGE_MAX: usize = 4096;

/// What the DNS is made of.
#[derive(Debug, Clone)]
pub struct DnsOptions {
    /// Where it listens, UDP and TCP.
    pub listen: SocketAddr,
    /// The network namespace in which it listens.
    pub netns: Option<String>,
    /// The mesh's own domain (`cluster.local`): names below it are never forwarded.
    pub domain: String,
    /// Resolvers for all other names, tried in order.
    pub resolvers: Vec<SocketAddr>,
}

/// The nameservers of a `resolv.conf`; the local host's where there are none (`resolv.conf(5)`).
pub fn resolvers_of(resolv_conf: &str) -> Vec<SocketAddr> {
    let named = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then_some(())?;
        let address: IpAddr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    });
    let found: Vec<_> = named.take(3).collect();
    if found.is_empty() {
        vec![SocketAddr::from(([127, 0, 0, 1], 53))]
    } else {
        found
    }
}

struct Server {
    names: watch::Receiver<Arc<NameTable>>,
    domain: String,
    resolvers: Vec<SocketAddr>,
    forwards: Semaphore,
}

/// Binds and serves until the process ends; runs on the main thread.
pub async fn serve(options: DnsOptions, names: watch::Receiver<Arc<NameTable>>) -> io::Result<()> {
    let address = options.listen;
    let bind = || -> io::Result<_> {
        Ok((
            socket::bind_udp(address, UdpOptions::default())?,
            socket::listen(address, &ListenOptions::default())?,
        ))
    };
    let (udp, tcp) = match &options.netns {
        Some(path) => in_namespace(&NetNs::open(Path::new(path))?, bind)??,
        None => bind()?,
    };
    let server = Rc::new(Server {
        names,
        domain: options.domain,
        resolvers: options.resolvers,
        forwards: Semaphore::new(FORWARDS_MAX),
    });
    let udp = serve_udp(server.clone(), Rc::new(UdpSocket::from_std(udp)?));
    let tcp = serve_tcp(server, TcpListener::from_std(tcp)?);
    tokio::join!(udp, tcp);
    Ok(())
}

async fn serve_udp(server: Rc<Server>, socket: Rc<UdpSocket>) {
    let mut buffer = vec![0_u8; UDP_MESSAGE_MAX];
    loop {
        // An error here is a port-unreachable of an earlier answer: the client is gone, the socket is not.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let query = buffer[..length].to_vec();
        let (server, socket) = (server.clone(), socket.clone());
        tokio::task::spawn_local(async move {
            if let Some(answer) = server.answer(&query, Transport::Udp).await {
                drop(socket.send_to(&answer, client).await);
            }
        });
    }
}

async fn serve_tcp(server: Rc<Server>, listener: TcpListener) {
    let connections = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let server = server.clone();
        tokio::task::spawn_local(async move {
            drop(tokio::time::timeout(TCP_IDLE, server.serve_stream(stream)).await);
            drop(permit);
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

impl Server {
    /// Messages with a two-byte length in front (RFC 7766 §8), one after the other.
    async fn serve_stream(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let length = stream.read_u16().await?;
            let mut query = vec![0_u8; usize::from(length)];
            stream.read_exact(&mut query).await?;
            let Some(answer) = self.answer(&query, Transport::Tcp).await else {
                return Ok(());
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            stream.write_u16(length).await?;
            stream.write_all(&answer).await?;
        }
    }

    /// The answer to a message; `None` for what is not a query.
    async fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Ok(message) = Message::from_vec(query) else {
            return format_error(query);
        };
        if message.metadata.message_type != MessageType::Query {
            return None;
        }
        let local = {
            let names = self.names.borrow();
            answer_locally(&message, &names, &self.domain)
        };
        if let Some(answer) = local {
            return encode(&answer, &message, transport);
        }
        match self.forward(query, transport).await {
            Some(answer) => Some(answer),
            None => encode(&reply(&message, ResponseCode::ServFail), &message, transport),
        }
    }

    /// Sends the message on as it came; the first resolver that answers in time wins.
    async fn forward(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let _permit = self.forwards.try_acquire().ok()?;
        for resolver in &self.resolvers {
            let asked = async {
                match transport {
                    Transport::Udp => forward_udp(query, *resolver).await,
                    Transport::Tcp => forward_tcp(query, *resolver).await,
                }
            };
            match tokio::time::timeout(FORWARD_TIMEOUT, asked).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "the resolver did not answer"),
                Err(_) => tracing::debug!(%resolver, "the resolver did not answer in time"),
            }
        }
        None
    }
}

async fn forward_udp(query: &[u8], resolver: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::from_std(socket::bind_udp(any, UdpOptions::default())?)?;
    // Connected: answers from anywhere else never reach the socket.
    socket.connect(resolver).await?;
    socket.send(query).await?;
    let mut answer = vec![0_u8; UDP_MESSAGE_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        // A late answer to another question of this port has another identifier.
        if answer.get(..2) == query.get(..2) && length >= 12 {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn forward_tcp(query: &[u8], resolver: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = socket::connect(resolver, &socket::ConnectOptions::default()).await?;
    stream
        .write_u16(u16::try_from(query.len()).map_err(io::Error::other)?)
        .await?;
    stream.write_all(query).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0_u8; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The answer that the name table gives; `None`: ask somebody else.
fn answer_locally(message: &Message, names: &NameTable, domain: &str) -> Option<Message> {
    if message.metadata.op_code != OpCode::Query {
        return Some(reply(message, ResponseCode::NotImp));
    }
    let [query] = &message.queries[..] else {
        return Some(reply(message, ResponseCode::FormErr));
    };
    if query.query_class() != DNSClass::IN {
        return None;
    }
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    match find(names, &name) {
        Some(addresses) => Some(found(message, query, addresses)),
        None if is_below(&name, domain) => Some(no_such_name(message, domain)),
        None => None,
    }
}

/// The addresses of a name: as it stands, else of the closest wildcard above it.
fn find<'a>(names: &'a NameTable, name: &str) -> Option<&'a [IpAddr]> {
    if let Some(addresses) = names.find(name) {
        return Some(addresses);
    }
    let mut rest = name;
    while let Some((_, parent)) = rest.split_once('.') {
        if let Some(addresses) = names.find(&format!("*.{parent}")) {
            return Some(addresses);
        }
        rest = parent;
    }
    None
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.add_queries(query.queries.iter().cloned());
    answer
}

fn found(message: &Message, query: &Query, addresses: &[IpAddr]) -> Message {
    let mut answer = reply(message, ResponseCode::NoError);
    answer.metadata.authoritative = true;
    for address in addresses {
        let data = match (query.query_type(), address) {
            (RecordType::A, IpAddr::V4(v4)) => RData::A(A(*v4)),
            (RecordType::AAAA, IpAddr::V6(v6)) => RData::AAAA(AAAA(*v6)),
            _ => continue,
        };
        answer.add_answer(Record::from_rdata(query.name().clone(), TTL_SECONDS, data));
    }
    answer
}

fn no_such_name(message: &Message, domain: &str) -> Message {
    let mut answer = reply(message, ResponseCode::NXDomain);
    answer.metadata.authoritative = true;
    if let (Ok(zone), Ok(host)) = (
        Name::from_utf8(format!("{domain}.")),
        Name::from_utf8(format!("dns.{domain}.")),
    ) {
        let soa = SOA::new(host.clone(), host, 1, 3600, 600, 86_400, NEGATIVE_TTL_SECONDS);
        answer.add_authority(Record::from_rdata(zone, NEGATIVE_TTL_SECONDS, RData::SOA(soa)));
    }
    answer
}

fn encode(answer: &Message, query: &Message, transport: Transport) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    let limit = usize::from(query.max_payload()).clamp(512, UDP_MESSAGE_MAX);
    if transport == Transport::Udp && bytes.len() > limit {
        return answer.truncate().to_vec().ok();
    }
    Some(bytes)
}

/// FORMERR for a message whose identifier at least can be read.
fn format_error(query: &[u8]) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes([*query.first()?, *query.get(1)?]);
    Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)
        .to_vec()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> NameTable {
        let entry = |name: &str, addresses: &[&str]| {
            (
                name.into(),
                addresses.iter().map(|a| a.parse().expect("an address")).collect(),
            )
        };
        NameTable::new([
            entry("auth.clinic.svc.cluster.local", &["240.240.0.1"]),
            entry("auth", &["240.240.0.1"]),
            entry("*.wild.example", &["240.240.0.9", "2001:2::9"]),
        ])
    }

    fn ask(name: &str, kind: RecordType) -> Option<Message> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_utf8(name).expect("a name"), kind));
        answer_locally(&message, &table(), "cluster.local")
    }

    #[test]
    fn names_of_the_mesh_are_answered_whatever_their_letter_case() {
        let answer = ask("AUTH.clinic.svc.cluster.local.", RecordType::A).expect("answered here");
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(answer.answers[0].data, RData::A(A([240, 240, 0, 1].into())));
    }

    #[test]
    fn a_known_name_has_no_data_of_other_types() {
        for kind in [RecordType::AAAA, RecordType::MX, RecordType::HTTPS] {
            let answer = ask("auth.", kind).expect("answered here");
            assert_eq!(
                (answer.metadata.response_code, answer.answers.len()),
                (ResponseCode::NoError, 0),
                "{kind}"
            );
        }
    }

    #[test]
    fn wildcards_cover_what_is_below_them_only() {
        assert_eq!(
            ask("a.b.wild.example.", RecordType::AAAA).map(|m| m.answers.len()),
            Some(1)
        );
        assert!(ask("wild.example.", RecordType::A).is_none());
    }

    #[test]
    fn unknown_names_of_the_own_domain_do_not_exist_and_others_are_forwarded() {
        let answer = ask("example.com.clinic.svc.cluster.local.", RecordType::A).expect("answered here");
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(answer.authorities.len(), 1, "the SOA that lets clients cache it");
        assert!(ask("example.com.", RecordType::A).is_none());
        assert!(ask("notcluster.local.", RecordType::A).is_none());
    }

    #[test]
    fn resolvers_come_from_resolv_conf() {
        assert_eq!(
            resolvers_of("# c\nnameserver 10.0.0.2\nsearch x\nnameserver fe80::1\n"),
            [
                "10.0.0.2:53".parse().expect("valid"),
                "[fe80::1]:53".parse().expect("valid")
            ]
        );
        assert_eq!(resolvers_of(""), ["127.0.0.1:53".parse().expect("valid")]);
    }

    #[test]
    fn garbage_is_answered_with_a_format_error_or_not_at_all() {
        assert_eq!(format_error(&[]), None);
        let answer = Message::from_vec(&format_error(&[1, 2, 3]).expect("has an identifier")).expect("valid");
        assert_eq!(
            (answer.metadata.id, answer.metadata.response_code),
            (0x0102, ResponseCode::FormErr)
        );
    }
}
