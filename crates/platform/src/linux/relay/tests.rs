use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::pipe::Pipe;
use super::relay;
use crate::relay::tests::{RELAYS, between, pair, pattern};
use crate::relay::{RelayOptions, RelayProgress};

#[tokio::test]
async fn pipes_are_reused_and_never_dirty() {
    // A relay that is dropped with bytes in its pipe must not put it back.
    let ((client, mut a), (mut b, server)) = (pair().await, pair().await);
    let progress = RelayProgress::default();
    {
        let mut running = Box::pin(relay(&mut a, &mut b, RelayOptions::default(), &progress));
        loop {
            tokio::select! {
                _ = &mut running => panic!("ended"),
                ready = tokio::time::timeout(Duration::from_millis(100), client.writable()) => match ready {
                    Ok(_) => drop(client.try_write(&[1; 16_384])),
                    Err(_) => break,
                }
            }
        }
    }
    drop((client, server));
    let before = Pipe::in_stock();
    let (_, ()) = between(
        RELAYS[0],
        RelayOptions::default(),
        async |mut client, mut server| {
            let sent = pattern(3_000_000);
            let mut received = Vec::new();
            tokio::join!(
                async {
                    client.write_all(&sent).await.unwrap();
                    client.shutdown().await.unwrap();
                },
                async { server.read_to_end(&mut received).await.unwrap() }
            );
            assert!(received == sent, "bytes of another connection");
        },
    )
    .await;
    assert!(Pipe::in_stock() > 0 && Pipe::in_stock() <= before.max(2));
}
