//! Codes of what only translation can find: two things that are right by themselves and don't fit together on one proxy.

use rajut_types::Code;

/// Two services need the same listener.
pub const LISTENER_CLASH: Code = Code(501);
/// A local port stands for a service port that the proxy can't see.
pub const EXPLICIT_PORT_UNKNOWN: Code = Code(502);
/// A setting that this kind of proxy has no means for.
pub const NOT_ON_THIS_PROXY: Code = Code(503);

/// Every code with what it means, for `rajut explain`.
pub const TABLE: &[(Code, &str, &str)] = &[
    (
        LISTENER_CLASH,
        "two services need the same listener",
        "Connections are told apart by the address and port that was dialled. Two services that share both (or have \
         no address and share the port) can be told apart only by what their connections say: the host of HTTP \
         requests, the server name of TLS. Opaque protocols say nothing. Give one of them an address \
         (`spec.addresses`, or a Service with a cluster IP), or declare the port's protocol.",
    ),
    (
        EXPLICIT_PORT_UNKNOWN,
        "a local port stands for a service that the proxy can't see",
        "In the explicit mode each service port has a local address. The service was deleted, its port changed, or its \
         `exportTo` hides it from this workload's namespace. The local port does not listen until the service is back.",
    ),
    (
        NOT_ON_THIS_PROXY,
        "a setting has no meaning for this kind of proxy",
        "The setting was left out of this proxy's configuration; other proxies use it. Proxyless gRPC clients, for \
         instance, have no redirections, and only our own data plane and Envoy take header operations.",
    ),
];
