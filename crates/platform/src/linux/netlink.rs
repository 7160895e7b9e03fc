//! The netlink protocol: writing messages with nested attributes, sending them, reading what the kernel answers.
//! Private to the crate; [`crate::network`] (rtnetlink) and [`crate::nftables`] (nfnetlink) speak through it.
//!
//! ```text
//!  message  = header (length, type, flags, sequence, port) · fixed part · attribute*
//!  attribute = length:u16 · type:u16 · value (bytes, or attribute*) · padding to 4
//!  answer   = header · errno:i32 · the request's header · attribute* (1 = a sentence of the kernel's)
//! ```
//!
//! Invariants: what [`Messages`] writes is aligned to 4 bytes and every length is right, or
//! [`Messages::finish`] fails; [`answers`] reads any bytes without panicking and always ends. Bounds: an attribute holds
//! at most 65,535 bytes (the format's limit), a request waits 5 s for its answer. No dumps, no events.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `NETLINK_ROUTE`, whose number is 0.
pub(crate) const ROUTE: Option<Protocol> = None;
/// `NETLINK_NETFILTER`.
pub(crate) const NETFILTER: Option<Protocol> = Some(rustix::net::netlink::NETFILTER);

/// Bytes of a message header.
const HEADER: usize = 16;
/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: answer even on success.
pub(crate) const ACK: u16 = 0x4;
/// `NLM_F_REPLACE`.
pub(crate) const REPLACE: u16 = 0x100;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(crate) const APPEND: u16 = 0x800;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NLMSG_ERROR`, also the acknowledgement (with errno 0).
const ERROR: u16 = 2;
/// `NLM_F_CAPPED`: the answer repeats the request's header only.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: the answer has attributes.
const ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;

/// How long the kernel may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// One or more messages under construction, numbered from 1.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    count: u32,
    too_long: bool,
}

impl Messages {
    /// Appends a message: `fixed` is the part after the header, `attributes` writes the rest.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        attributes: impl FnOnce(&mut Self),
    ) {
        self.count += 1;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.count.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(fixed);
        self.pad();
        attributes(self);
        match u32::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
    }

    /// Appends an attribute of plain bytes.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
    }

    /// Appends a string attribute, NUL-terminated as the kernel expects names.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// Appends a number in network order, as nfnetlink wants it.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Appends a number in the machine's order, as rtnetlink wants it.
    pub(crate) fn ne32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Appends an attribute that holds attributes.
    pub(crate) fn nested(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) {
        let start = self.open(kind | NESTED);
        inner(self);
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The bytes to send, and the sequence number of the last message.
    pub(crate) fn finish(self) -> io::Result<Request> {
        if self.too_long {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a netlink attribute exceeds 65,535 bytes",
            ));
        }
        Ok(Request {
            bytes: self.bytes,
            last: self.count,
        })
    }

    /// How many messages there are, which is the sequence number of the last.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }
}

/// Finished messages.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// Sequence number of the last message.
    pub(crate) last: u32,
}

/// One answer of the kernel's, borrowed from the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// Which message it answers.
    pub(crate) sequence: u32,
    /// 0: done.
    pub(crate) errno: i32,
    /// The kernel's sentence, when it has one.
    pub(crate) text: Option<&'a [u8]>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

/// The messages in a datagram: (kind, flags, sequence, payload). Stops at the first that is malformed.
/// Allocates nothing: the probe uses it after `fork`.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, u16, u32, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((
            u16_at(message, 4)?,
            u16_at(message, 6)?,
            u32_at(message, 8)?,
            message.get(HEADER..)?,
        ))
    })
}

/// The attributes in a stretch of bytes: (kind without flags, value). Stops at the first that is malformed.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The acknowledgements and errors in a datagram.
pub(crate) fn answers(datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    messages(datagram)
        .filter(|(kind, ..)| *kind == ERROR)
        .filter_map(|(_, flags, sequence, payload)| {
            // The kernel sends the negated errno.
            let errno = u32_at(payload, 0)?.cast_signed().checked_neg()?;
            let echoed = if flags & CAPPED == 0 {
                usize::try_from(u32_at(payload, 4)?).ok()?
            } else {
                HEADER
            };
            let tail = if flags & ACK_TLVS == 0 {
                &[][..]
            } else {
                payload
                    .get(echoed.checked_add(4)?.checked_next_multiple_of(4)?..)
                    .unwrap_or_default()
            };
            let text = attributes(tail)
                .find(|(kind, _)| *kind == ERROR_TEXT)
                .map(|(_, value)| value.strip_suffix(&[0]).unwrap_or(value));
            Some(Answer {
                sequence,
                errno,
                text,
            })
        })
}

/// The kernel refused a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// The socket could not be made or used.
    #[error("netlink")]
    Socket(#[source] io::Error),
    /// A message was refused.
    #[error("the kernel refused message {sequence}{}", text.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// Which message, counted from 1.
        sequence: u32,
        /// The kernel's sentence.
        text: Option<String>,
        /// The error number.
        #[source]
        source: io::Error,
    },
}

impl NetlinkError {
    /// The operating system's error number, 0 when there is none.
    pub(crate) fn errno(&self) -> i32 {
        let (Self::Socket(source) | Self::Refused { source, .. }) = self;
        source.raw_os_error().unwrap_or(0)
    }
}

/// Opens a netlink socket in the calling thread's network namespace. Allocates nothing.
pub(crate) fn open(protocol: Option<Protocol>) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(ANSWER_TIMEOUT),
    )?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Sends the request and waits until its last message is acknowledged or any message is refused.
pub(crate) fn exchange(protocol: Option<Protocol>, request: &Request) -> Result<(), NetlinkError> {
    let socket = open(protocol).map_err(|errno| NetlinkError::Socket(errno.into()))?;
    // Better messages where the kernel has them (4.12); nothing depends on them.
    let _ = crate::linux::sys::set_int_option(socket.as_fd(), libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
    let _ = crate::linux::sys::set_int_option(socket.as_fd(), libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1);
    make_room(&socket, request.bytes.len());
    send(&socket, &request.bytes).map_err(|errno| NetlinkError::Socket(errno.into()))?;
    let mut buffer = vec![0_u8; 32 * 1024];
    loop {
        let length = match rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => length,
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(NetlinkError::Socket(errno.into())),
        };
        for answer in answers(&buffer[..length]) {
            if answer.errno != 0 {
                return Err(NetlinkError::Refused {
                    sequence: answer.sequence,
                    text: answer.text.map(|text| String::from_utf8_lossy(text).into_owned()),
                    source: io::Error::from_raw_os_error(answer.errno),
                });
            }
            if answer.sequence == request.last {
                return Ok(());
            }
        }
    }
}

/// A transaction has to fit the send buffer as a whole. Its usual size is about 200 KiB; everybody may double
/// that, and only root of the machine may go beyond. A request that still does not fit fails when it is sent.
fn make_room(socket: &OwnedFd, bytes: usize) {
    use rustix::net::sockopt;
    let wanted = bytes.saturating_add(4096);
    if sockopt::socket_send_buffer_size(socket).is_ok_and(|size| size < wanted)
        && sockopt::set_socket_send_buffer_size_force(socket, wanted).is_err()
    {
        let _ = sockopt::set_socket_send_buffer_size(socket, wanted);
    }
}

/// Sends to the kernel. Allocates nothing.
pub(crate) fn send(socket: &OwnedFd, bytes: &[u8]) -> rustix::io::Result<()> {
    let sent = rustix::net::sendto(socket, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(rustix::io::Errno::MSGSIZE)
    }
}

#[cfg(test)]
mod tests;
