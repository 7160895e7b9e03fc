//! Upgrades and tunnels.

use super::harness::{Setup, answering, run, server};

async fn echo_server() -> (std::net::SocketAddr, std::rc::Rc<super::harness::Seen>) {
    server(|mut client, seen| async move {
        let head = client.head().await;
        seen.heads.borrow_mut().push(head);
        client
            .send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nfirst")
            .await;
        let bytes = client.exactly(4).await;
        client.send(bytes).await;
        // Until the other side has finished.
        client.rest().await;
        client.send("last").await;
    })
    .await
}

#[test]
fn a_websocket_passes_and_each_direction_ends_by_itself() {
    run(async {
        let (app, seen) = echo_server().await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client
            .send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
            .await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.to_lowercase().contains("connection: upgrade"), "{head}");
        assert_eq!(client.exactly(5).await, b"first");
        client.send("ping").await;
        assert_eq!(client.exactly(4).await, b"ping");
        tokio::io::AsyncWriteExt::shutdown(&mut client.0).await.unwrap();
        assert_eq!(client.rest().await, b"last");
        let head = seen.heads.borrow()[0].to_lowercase();
        assert!(
            head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
            "{head}"
        );
    });
}

#[test]
fn upgrades_and_connect_that_are_not_allowed_are_refused() {
    run(async {
        let (app, seen) = answering(super::harness::OK).await;
        let mut setup = Setup::to(&[app]);
        setup.manager.upgrades.clear();
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        client
            .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        assert_eq!(client.reply(false).await.status, 403);
        let mut client = proxy.client().await;
        client
            .send("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
            .await;
        assert_eq!(client.reply(false).await.status, 404);
        assert_eq!(seen.heads.borrow().len(), 0);
    });
}
