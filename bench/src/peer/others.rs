//! The nearest that HAProxy and nginx can say to our bootstrap files: one thread, connections kept on both sides, the
//! client's address passed on, no log. What they lack against them: routes by header, retries by reason, per-route
//! statistics.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::Places;
use crate::set::{Answers, Kind, Set, Way};

/// Most connections at a time; more where that is what is measured.
const CONNECTIONS: usize = 4096;
const CONNECTIONS_HELD: usize = 10_500;

const HAPROXY: &str = "defaults
  timeout connect 10s
  timeout client 60s
  timeout server 60s
";

/// Strict TLS 1.3 with the same suite on both sides.
const HAPROXY_TLS: &str = "verify required ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256";

/// Files for HAProxy, the last hop first.
pub(super) fn haproxy(set: &Set, places: &Places, splice: bool) -> Result<Vec<PathBuf>> {
    let http = "  mode http\n  option forwardfor\n  http-reuse always\n";
    // Without forcing it, HAProxy decides not to splice over loopback.
    let tcp = if splice {
        "  mode tcp\n  option splice-request\n  option splice-response\n"
    } else {
        "  mode tcp\n"
    };
    let hop = |name: &str, mode: &str, listen: u16, bind: &str, to: u16, server: &str| {
        format!(
            "frontend {name}\n{mode}  bind 127.0.0.1:{listen} {bind}\n  default_backend {name}-to\n\
             backend {name}-to\n{mode}  server s 127.0.0.1:{to} {server}\n"
        )
    };
    let (front, middle, to) = (places.front, places.middle, places.backend(set));
    let certificates = format!(
        "crt {0}/both.pem ca-file {0}/ca.pem {HAPROXY_TLS}",
        places.dir.display()
    );
    let tls_in = format!("ssl {certificates}");
    let tls_out = format!("ssl {certificates} sni str(bench.example) verifyhost bench.example");
    let http2 = matches!(set.answers, Answers::Http2 | Answers::Grpc);
    let texts = match (set.kind, set.way) {
        (Kind::Large, _) => bail!("its configuration has no counterpart in HAProxy's"),
        (Kind::Tcp, Way::TlsBetween { .. }) => {
            let small = places.backends.echo;
            vec![
                hop("bulk", tcp, middle, &tls_in, to, "")
                    + &hop("small", tcp, places.middle_small, &tls_in, small, ""),
                hop("bulk", tcp, front, "", middle, &tls_out)
                    + &hop("small", tcp, places.second, "", places.middle_small, &tls_out),
            ]
        }
        (Kind::Tcp, _) => vec![
            hop("bulk", tcp, front, "", to, "")
                + &hop("small", tcp, places.second, "", places.backends.echo, ""),
        ],
        (_, Way::Plain) if http2 => vec![hop("h", http, front, "proto h2", to, "proto h2")],
        (_, Way::Plain) => vec![hop("h", http, front, "", to, "")],
        (_, Way::TlsIn) => vec![hop("h", http, front, &tls_in, to, "")],
        (_, Way::TlsBetween { http2 }) => {
            let alpn = if http2 { " alpn h2" } else { "" };
            vec![
                hop("in", http, middle, &(tls_in + alpn), to, ""),
                hop("out", http, front, "", middle, &(tls_out + alpn)),
            ]
        }
    };
    write(places, "haproxy", "cfg", &texts, |text, _| {
        format!(
            "global\n  nbthread 1\n  maxconn {}\n  no strict-limits\n{HAPROXY}{text}",
            most_connections(set)
        )
    })
}

fn most_connections(set: &Set) -> usize {
    if set.kind == Kind::Held {
        CONNECTIONS_HELD
    } else {
        CONNECTIONS
    }
}

/// Files for nginx, the last hop first.
pub(super) fn nginx(set: &Set, places: &Places) -> Result<Vec<PathBuf>> {
    let dir = places.dir.display();
    let tls_in = format!(
        "ssl_certificate {dir}/leaf.pem; ssl_certificate_key {dir}/leaf.key; ssl_client_certificate {dir}/ca.pem;
      ssl_verify_client on; ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"
    );
    let tls_out = format!(
        "proxy_ssl_certificate {dir}/leaf.pem; proxy_ssl_certificate_key {dir}/leaf.key;
        proxy_ssl_trusted_certificate {dir}/ca.pem; proxy_ssl_verify on; proxy_ssl_name bench.example;
        proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3;
        proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"
    );
    let hop = |listen: u16, ssl: &str, tls_in: &str, scheme: &str, to: u16, tls_out: &str| {
        format!(
            "  upstream u {{ server 127.0.0.1:{to}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
      listen 127.0.0.1:{listen}{ssl};
      {tls_in}
      location / {{
        proxy_pass {scheme}://u; proxy_http_version 1.1; proxy_set_header Connection \"\";
        proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        {tls_out}
      }}
    }}\n"
        )
    };
    let to = places.backend(set);
    let texts = match (set.kind, set.way, set.answers) {
        (Kind::Large, ..) => bail!("its configuration has no counterpart in nginx's"),
        (Kind::Tcp, ..) => {
            bail!("nginx relays TCP only with a module that its package does not always bring")
        }
        (_, _, Answers::Http2 | Answers::Grpc) | (_, Way::TlsBetween { http2: true }, _) => {
            bail!("nginx speaks no HTTP/2 to its backends")
        }
        (_, Way::Plain, _) => vec![hop(places.front, "", "", "http", to, "")],
        (_, Way::TlsIn, _) => vec![hop(places.front, " ssl", &tls_in, "http", to, "")],
        (_, Way::TlsBetween { http2: false }, _) => vec![
            hop(places.middle, " ssl", &tls_in, "http", to, ""),
            hop(places.front, "", "", "https", places.middle, &tls_out),
        ],
    };
    let connections = if set.kind == Kind::Held {
        2 * CONNECTIONS_HELD
    } else {
        CONNECTIONS
    };
    write(places, "nginx", "conf", &texts, |text, name| {
        let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("  {kind}_temp_path {dir}/{name}-{kind};\n"))
            .collect();
        format!(
            "daemon off; master_process off; worker_processes 1; pid {dir}/{name}.pid;
error_log {dir}/{name}.err error;
events {{ worker_connections {connections}; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 60s; tcp_nodelay on;
{folders}{text}}}\n"
        )
    })
}

fn write(
    places: &Places,
    peer: &str,
    suffix: &str,
    texts: &[String],
    whole: impl Fn(&str, &str) -> String,
) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let name = format!("{peer}-{number}");
        let file = places.dir.join(format!("{name}.{suffix}"));
        fs::write(&file, whole(text, &name))?;
        files.push(file);
    }
    Ok(files)
}
