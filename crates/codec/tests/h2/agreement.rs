//! Our server and h2's client, our client and h2's server, over a pipe: both see what the plan says.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use proptest::prelude::*;
use rajut_codec::h2::Config;
use tokio::io::DuplexStream;

use crate::{
    ours,
    plan::{End, Exchange, Message, Section, Seen, exchange, sorted},
};

fn map_of(section: &Section) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in section {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    map
}

fn section_of(map: &HeaderMap) -> Section {
    map.iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
        .collect()
}

/// Sends a body; errors mean that the stream was reset, which the other half tells.
fn send(stream: &mut h2::SendStream<Bytes>, message: &Message) {
    let pieces = message.pieces();
    let count = pieces.len();
    for (index, piece) in pieces.into_iter().enumerate() {
        let end = index + 1 == count && message.trailers.is_none();
        if stream.send_data(piece, end).is_err() {
            return;
        }
    }
    if let Some(trailers) = &message.trailers {
        // As above.
        let _ = stream.send_trailers(map_of(trailers));
    }
}

async fn receive(start: String, fields: Section, mut body: h2::RecvStream) -> Seen {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        match piece {
            Ok(piece) => {
                all.extend_from_slice(&piece);
                body.flow_control().release_capacity(piece.len()).unwrap();
            }
            Err(error) => return reset(&error),
        }
    }
    match body.trailers().await {
        Ok(trailers) => Seen::Whole {
            start,
            fields,
            body: all,
            trailers: trailers.as_ref().map(section_of),
        },
        Err(error) => reset(&error),
    }
}

fn reset(error: &h2::Error) -> Seen {
    Seen::Reset(error.reason().map_or(u32::MAX, u32::from))
}

async fn ask_with_h2(pipe: DuplexStream, plan: Vec<Exchange>, window: u32, table: u32) -> Vec<Seen> {
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .header_table_size(table)
        .initial_max_send_streams(4)
        .handshake::<_, Bytes>(pipe)
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let mut tasks = Vec::new();
    for (number, exchange) in plan.into_iter().enumerate() {
        let mut request = Request::builder()
            .method(exchange.method)
            .uri(format!("http://clinic:80/{number}"))
            .body(())
            .unwrap();
        *request.headers_mut() = map_of(&exchange.request.section());
        let is_end = exchange.request.is_empty();
        let mut ready = client.clone().ready().await.unwrap();
        let (response, mut stream) = ready.send_request(request, is_end).unwrap();
        tasks.push(tokio::spawn(async move {
            if !is_end {
                send(&mut stream, &exchange.request);
            }
            match response.await {
                Err(error) => reset(&error),
                Ok(_) if exchange.end == End::ClientResets => {
                    stream.send_reset(h2::Reason::CANCEL);
                    Seen::Reset(8)
                }
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    receive(parts.status.as_str().to_owned(), section_of(&parts.headers), body).await
                }
            }
        }));
    }
    drop(client);
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.unwrap());
    }
    driver.await.unwrap().unwrap();
    seen
}

async fn answer(
    exchange: &Exchange,
    mut respond: h2::server::SendResponse<Bytes>,
    start: String,
    fields: Section,
    body: h2::RecvStream,
) -> Seen {
    let mut response = Response::builder().status(exchange.status).body(()).unwrap();
    *response.headers_mut() = map_of(&exchange.response.section());
    if exchange.informational {
        let interim = Response::builder().status(103).body(()).unwrap();
        respond.send_informational(interim).unwrap();
    }
    match exchange.end {
        End::Whole => {
            let seen = receive(start, fields, body).await;
            let is_end = exchange.response.is_empty();
            if let Ok(mut stream) = respond.send_response(response, is_end)
                && !is_end
            {
                send(&mut stream, &exchange.response);
            }
            seen
        }
        End::ServerResets(code) => {
            respond
                .send_response(response, false)
                .unwrap()
                .send_reset(code.into());
            Seen::Nothing
        }
        End::ClientResets => {
            // The window of the request's body stays closed until the reset.
            let mut stream = respond.send_response(response, false).unwrap();
            let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            drop(body);
            Seen::Reset(reason.map_or(u32::MAX, u32::from))
        }
    }
}

async fn serve_with_h2(pipe: DuplexStream, plan: Vec<Exchange>, window: u32, table: u32) -> Vec<Seen> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(window)
        .header_table_size(table)
        .handshake::<_, Bytes>(pipe)
        .await
        .unwrap();
    let mut seen = vec![Seen::Nothing; plan.len()];
    let mut tasks = Vec::new();
    while let Some(accepted) = connection.accept().await {
        let Ok((request, respond)) = accepted else { break };
        let (parts, body) = request.into_parts();
        assert_eq!(parts.uri.authority().unwrap(), "clinic:80");
        let number: usize = parts.uri.path()[1..].parse().unwrap();
        let exchange = plan[number].clone();
        let (start, fields) = (parts.method.to_string(), section_of(&parts.headers));
        tasks.push(tokio::spawn(async move {
            (number, answer(&exchange, respond, start, fields, body).await)
        }));
    }
    for task in tasks {
        let (number, one) = task.await.unwrap();
        seen[number] = one;
    }
    seen
}

/// What the side that takes requests must see, and what the other one.
fn expected(plan: &[Exchange]) -> (Vec<Seen>, Vec<Seen>) {
    let whole = |start: String, message: &Message| Seen::Whole {
        start,
        fields: sorted(message.section()),
        body: message.body(),
        trailers: message.trailers.clone().map(sorted),
    };
    plan.iter()
        .map(|exchange| match exchange.end {
            End::Whole => (
                whole(exchange.method.to_owned(), &exchange.request),
                whole(exchange.status.to_string(), &exchange.response),
            ),
            End::ServerResets(code) => (Seen::Nothing, Seen::Reset(code)),
            End::ClientResets => (Seen::Reset(8), Seen::Reset(8)),
        })
        .unzip()
}

fn normal(seen: Vec<Seen>) -> Vec<Seen> {
    let one = |seen| match seen {
        Seen::Whole {
            start,
            fields,
            body,
            trailers,
        } => Seen::Whole {
            start,
            fields: sorted(fields),
            body,
            trailers: trailers.map(sorted),
        },
        other => other,
    };
    seen.into_iter().map(one).collect()
}

/// How our side is set up.
fn config() -> impl Strategy<Value = Config> {
    let window = prop_oneof![Just(1_000_u32), Just(65_535), Just(300_000)];
    let table = prop_oneof![Just(0_u16), Just(200), Just(4096), Just(60_000)];
    (
        window,
        table,
        any::<bool>(),
        prop_oneof![Just(1_usize), Just(64 * 1024)],
    )
        .prop_map(
            |(stream_window, header_table_size, use_huffman, output_high)| Config {
                stream_window,
                connection_window: 65_535,
                header_table_size,
                use_huffman,
                output_high,
                max_concurrent_streams: 4,
                // Windows of a thousand bytes make many updates.
                max_control_frames: 100_000,
                ..Config::default()
            },
        )
}

/// The other side's window and table. `h2` does not announce what was released before a window smaller than the first one
/// is acknowledged, so that such a stream can stand still for ever: no window here is smaller.
fn peer() -> impl Strategy<Value = (u32, u32)> {
    (
        prop_oneof![Just(65_535_u32), Just(100_000), Just(1_000_000)],
        prop_oneof![Just(0_u32), Just(100), Just(4096), Just(65_536)],
    )
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let bounded = async { tokio::time::timeout(Duration::from_secs(30), future).await };
    runtime
        .block_on(bounded)
        .expect("the conversation comes to an end")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_time: 15_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn our_server_and_the_crates_client_agree(
        plan in prop::collection::vec(exchange(), 1..10),
        config in config(),
        (window, table) in peer(),
        seed in any::<u64>(),
        most in prop_oneof![Just(7_usize), Just(300), Just(20_000)],
    ) {
        let (requests, responses) = expected(&plan);
        let (taken, answered) = run(async {
            let (ours, theirs) = tokio::io::duplex(50_000);
            tokio::join!(
                ours::serve(ours, config, plan.clone(), seed, most),
                ask_with_h2(theirs, plan.clone(), window, table),
            )
        });
        prop_assert_eq!(normal(taken), requests);
        prop_assert_eq!(normal(answered), responses);
    }

    #[test]
    fn our_client_and_the_crates_server_agree(
        plan in prop::collection::vec(exchange(), 1..10),
        config in config(),
        (window, table) in peer(),
        seed in any::<u64>(),
        most in prop_oneof![Just(7_usize), Just(300), Just(20_000)],
    ) {
        let (requests, responses) = expected(&plan);
        let (answered, taken) = run(async {
            let (ours, theirs) = tokio::io::duplex(50_000);
            tokio::join!(
                ours::ask(ours, config, plan.clone(), seed, most),
                serve_with_h2(theirs, plan.clone(), window, table),
            )
        });
        prop_assert_eq!(normal(taken), requests);
        prop_assert_eq!(normal(answered), responses);
    }

    #[test]
    fn our_two_sides_agree(
        plan in prop::collection::vec(exchange(), 1..10),
        config in config(),
        other in config(),
        seed in any::<u64>(),
        most in prop_oneof![Just(1_usize), Just(300), Just(20_000)],
    ) {
        let (requests, responses) = expected(&plan);
        let (taken, answered) = run(async {
            let (one, two) = tokio::io::duplex(50_000);
            // Nothing is refused before the settings have arrived.
            let config = Config { max_concurrent_streams: 100, ..config };
            tokio::join!(
                ours::serve(one, config, plan.clone(), seed, most),
                ours::ask(two, other, plan.clone(), seed ^ 1, most),
            )
        });
        prop_assert_eq!(normal(taken), requests);
        prop_assert_eq!(normal(answered), responses);
    }
}
