//! Both relays are put through the same trials, between real sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::socket::{
    ConnectOptions, ListenOptions, TcpListener, TcpStream, connect, listen, set_reset_on_close,
};

pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = TcpListener::from_std(listen(address, &ListenOptions::default()).unwrap()).unwrap();
    let (options, address) = (ConnectOptions::default(), listener.local_addr().unwrap());
    let (client, server) = tokio::join!(connect(address, &options), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = RelayOutcome> + 'a>>;
pub(crate) type Relay =
    for<'a> fn(&'a mut TcpStream, &'a mut TcpStream, RelayOptions, &'a RelayProgress) -> Running<'a>;

pub(crate) const RELAYS: [Relay; 2] = [
    |a, b, options, progress| Box::pin(relay(a, b, options, progress)),
    |a, b, options, progress| Box::pin(relay_streams(a, b, options, progress)),
];

/// Runs `test(client, server)` with a relay between them.
pub(crate) async fn between<T, F>(
    which: Relay,
    options: RelayOptions,
    test: impl FnOnce(TcpStream, TcpStream) -> F,
) -> (RelayOutcome, T)
where
    F: Future<Output = T>,
{
    let ((client, mut a), (mut b, server)) = (pair().await, pair().await);
    let progress = RelayProgress::default();
    let (outcome, result) = tokio::join!(
        async {
            let outcome = which(&mut a, &mut b, options, &progress).await;
            if matches!(outcome.end, RelayEnd::Failed { .. }) {
                set_reset_on_close(&a).unwrap();
                set_reset_on_close(&b).unwrap();
            }
            drop((a, b));
            outcome
        },
        test(client, server)
    );
    (outcome, result)
}

/// Bytes that differ everywhere, so that a lost or doubled piece shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| u8::try_from((n * 31 + n / 251) % 256).unwrap())
        .collect()
}

#[tokio::test]
async fn large_bodies_arrive_whole_both_ways_at_once() {
    for which in RELAYS {
        let (up, down) = (pattern(9_000_001), pattern(5_000_003));
        let (outcome, ()) = between(which, RelayOptions::default(), async |client, server| {
            let (mut client_read, mut client_write) = client.into_split();
            let (mut server_read, mut server_write) = server.into_split();
            let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
            tokio::join!(
                async {
                    client_write.write_all(&up).await.unwrap();
                    client_write.shutdown().await.unwrap();
                },
                async {
                    server_write.write_all(&down).await.unwrap();
                    server_write.shutdown().await.unwrap();
                },
                async { server_read.read_to_end(&mut at_server).await.unwrap() },
                async { client_read.read_to_end(&mut at_client).await.unwrap() },
            );
            assert!(at_server == up && at_client == down);
        })
        .await;
        assert!(matches!(outcome.end, RelayEnd::Finished), "{outcome:?}");
        assert_eq!((outcome.a_to_b, outcome.b_to_a), (9_000_001, 5_000_003));
    }
}

#[tokio::test]
async fn a_half_closed_side_still_receives() {
    for which in RELAYS {
        let (outcome, ()) = between(which, RelayOptions::default(), async |mut client, mut server| {
            client.write_all(b"request").await.unwrap();
            client.shutdown().await.unwrap();
            let mut request = Vec::new();
            server.read_to_end(&mut request).await.unwrap();
            assert_eq!(request, b"request");
            for _ in 0..3 {
                server.write_all(b"answer ").await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"answer answer answer ");
        })
        .await;
        assert!(matches!(outcome.end, RelayEnd::Finished), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_reset_is_an_error_of_that_side_and_is_passed_on() {
    for which in RELAYS {
        let (outcome, ()) = between(which, RelayOptions::default(), async |mut client, mut server| {
            server.write_all(b"greeting").await.unwrap();
            client.read_exact(&mut [0; 8]).await.unwrap();
            set_reset_on_close(&server).unwrap();
            drop(server);
            let error = client.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        })
        .await;
        let RelayEnd::Failed {
            side: Side::B,
            reading: true,
            error,
        } = outcome.end
        else {
            panic!("{outcome:?}")
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!((outcome.a_to_b, outcome.b_to_a), (0, 8));
    }
}

#[tokio::test]
async fn an_idle_relay_ends_and_a_busy_one_does_not() {
    for which in RELAYS {
        let options = RelayOptions {
            idle_timeout: Some(Duration::from_secs(1)),
        };
        let (outcome, held) = between(which, options, async |mut client, mut server| {
            for _ in 0..10 {
                client.write_all(b"still here").await.unwrap();
                server.read_exact(&mut [0; 10]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            (client, server)
        })
        .await;
        assert!(matches!(outcome.end, RelayEnd::Idle), "{outcome:?}");
        assert_eq!(outcome.a_to_b, 100);
        drop(held);
    }
}

#[tokio::test]
async fn progress_can_be_watched() {
    for which in RELAYS {
        let ((mut client, mut a), (mut b, mut server)) = (pair().await, pair().await);
        let progress = RelayProgress::default();
        let mut running = which(&mut a, &mut b, RelayOptions::default(), &progress);
        client.write_all(b"12345").await.unwrap();
        let mut buffer = [0; 5];
        tokio::select! {
            _ = &mut running => panic!("ended"),
            read = server.read_exact(&mut buffer) => { read.unwrap(); }
        }
        assert_eq!((progress.a_to_b.get(), progress.b_to_a.get()), (5, 0));
    }
}

#[tokio::test]
async fn a_slow_reader_holds_the_sender_back() {
    for which in RELAYS {
        let (outcome, ()) = between(which, RelayOptions::default(), async |client, mut server| {
            let mut sent = 0_usize;
            // The sockets' and the pipe's buffers are some megabytes; then it must stop.
            while let Ok(ready) = tokio::time::timeout(Duration::from_millis(200), client.writable()).await {
                ready.unwrap();
                match client.try_write(&[7; 16_384]) {
                    Ok(bytes) => sent += bytes,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                assert!(sent < 64 << 20, "nothing holds the sender back");
                tokio::task::yield_now().await;
            }
            drop(client);
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            assert_eq!(received.len(), sent);
        })
        .await;
        assert!(matches!(outcome.end, RelayEnd::Finished), "{outcome:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Messages of any sizes change between copying and splicing at any moment.
    #[test]
    fn any_sequence_of_sizes_arrives_in_order(sizes in proptest::collection::vec(1_usize..120_000, 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for which in RELAYS {
            let total: usize = sizes.iter().sum();
            let sent = pattern(total);
            let (outcome, received) = runtime.block_on(between(which, RelayOptions::default(), async |mut client, mut server| {
                let mut received = Vec::new();
                tokio::join!(
                    async {
                        let mut at = 0;
                        for size in &sizes {
                            client.write_all(&sent[at..at + size]).await.unwrap();
                            at += size;
                            tokio::task::yield_now().await;
                        }
                        client.shutdown().await.unwrap();
                    },
                    async { server.read_to_end(&mut received).await.unwrap() }
                );
                received
            }));
            prop_assert!(received == sent);
            prop_assert_eq!(outcome.a_to_b, total as u64);
        }
    }
}
