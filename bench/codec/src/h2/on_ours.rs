//! The hop on `rajut-codec`.

use bytes::{Bytes, BytesMut};
use rajut_codec::{
    Output, Scheme,
    forward::{self, Upgrade},
    h2::{ClientConn, Config, Event, Request, Response, ServerConn, StreamKey},
};

use super::{Hop, Wires, peers::drain};

/// Both connections and which streams belong together, by the slots of either side.
pub(crate) struct OurHop {
    server: ServerConn,
    client: ClientConn,
    from_client: BytesMut,
    from_backend: BytesMut,
    to_client: Output,
    to_backend: Output,
    upstream: Vec<Option<StreamKey>>,
    downstream: Vec<Option<StreamKey>>,
}

/// The place of a slot, made if need be.
fn place(table: &mut Vec<Option<StreamKey>>, key: StreamKey) -> &mut Option<StreamKey> {
    if table.len() <= key.slot() {
        table.resize(key.slot() + 1, None);
    }
    &mut table[key.slot()]
}

impl OurHop {
    pub(crate) fn new() -> Self {
        let config = Config {
            max_control_frames: u32::MAX,
            ..Config::default()
        };
        let (mut to_client, mut to_backend) = (Output::new(), Output::new());
        Self {
            server: ServerConn::new(config, &mut to_client),
            client: ClientConn::new(config, &mut to_backend),
            from_client: BytesMut::new(),
            from_backend: BytesMut::new(),
            to_client,
            to_backend,
            upstream: Vec::new(),
            downstream: Vec::new(),
        }
    }

    fn request(&mut self, event: Event<Request>) {
        match event {
            Event::Head { stream, mut head, .. } => {
                forward::strip_request(&mut head.head.fields, Upgrade::Drop).expect("no field is protected");
                let up = self
                    .client
                    .open(&head.head, Scheme::Http, head.body, &mut self.to_backend)
                    .expect("a stream can be opened");
                *place(&mut self.upstream, stream) = Some(up);
                *place(&mut self.downstream, up) = Some(stream);
            }
            Event::Data {
                stream,
                mut data,
                is_end,
            } => {
                let size = data.len();
                if let Some(up) = self.upstream[stream.slot()] {
                    let sent = self
                        .client
                        .encode_data(up, &mut data, is_end, &mut self.to_backend);
                    sent.expect("the stream is open");
                }
                all_sent(&data);
                self.server.release(stream, size, &mut self.to_client);
            }
            other => panic!("{other:?}"),
        }
    }

    fn response(&mut self, event: Event<Response>) {
        match event {
            Event::Head { stream, mut head, .. } => {
                forward::strip_response(&mut head.head.fields, Upgrade::Drop).expect("no field is protected");
                if let Some(down) = self.downstream[stream.slot()] {
                    self.server
                        .encode_head(down, &head.head, head.body, &mut self.to_client)
                        .expect("the stream is open");
                }
            }
            Event::Data {
                stream,
                mut data,
                is_end,
            } => {
                let size = data.len();
                if let Some(down) = self.downstream[stream.slot()] {
                    let sent = self
                        .server
                        .encode_data(down, &mut data, is_end, &mut self.to_client);
                    sent.expect("the stream is open");
                }
                all_sent(&data);
                self.client.release(stream, size, &mut self.to_backend);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The shapes stay within the windows.
fn all_sent(data: &Bytes) {
    assert!(data.is_empty(), "the window is used up");
}

impl Hop for OurHop {
    #[inline(never)]
    fn turn(&mut self, wires: &mut Wires) {
        self.from_client.extend_from_slice(&wires.from_client);
        wires.from_client.clear();
        while let Some(event) = self
            .server
            .receive(&mut self.from_client, &mut self.to_client)
            .expect("the client speaks HTTP/2")
        {
            self.request(event);
        }
        self.from_backend.extend_from_slice(&wires.from_backend);
        wires.from_backend.clear();
        while let Some(event) = self
            .client
            .receive(&mut self.from_backend, &mut self.to_backend)
            .expect("the backend speaks HTTP/2")
        {
            self.response(event);
        }
        drain(&mut self.to_client, &mut wires.to_client);
        drain(&mut self.to_backend, &mut wires.to_backend);
    }
}
