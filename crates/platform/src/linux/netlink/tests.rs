//! The writer and the readers against each other, the readers against any bytes, and the kernel as the judge.

use proptest::prelude::*;

use super::*;

/// A tree of attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Leaf(u16, Vec<u8>),
    Nest(u16, Vec<Node>),
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = (1_u16..0x3fff, proptest::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(kind, value)| Node::Leaf(kind, value));
    leaf.prop_recursive(3, 24, 5, |inner| {
        (1_u16..0x3fff, proptest::collection::vec(inner, 0..5))
            .prop_map(|(kind, nodes)| Node::Nest(kind, nodes))
    })
}

fn write(messages: &mut Messages, nodes: &[Node]) {
    for node in nodes {
        match node {
            Node::Leaf(kind, value) => messages.attribute(*kind, value),
            Node::Nest(kind, nodes) => messages.nested(*kind, |inner| write(inner, nodes)),
        }
    }
}

/// Reads what was written, with the original as the shape (netlink does not say what is nested).
fn matches(bytes: &[u8], nodes: &[Node]) -> bool {
    let read: Vec<_> = attributes(bytes).collect();
    read.len() == nodes.len()
        && read.iter().zip(nodes).all(|((kind, value), node)| match node {
            Node::Leaf(expected, bytes) => kind == expected && value == bytes,
            Node::Nest(expected, nodes) => kind == expected && matches(value, nodes),
        })
}

proptest! {
    #[test]
    fn what_is_written_can_be_read(trees in proptest::collection::vec(proptest::collection::vec(node(), 0..5), 1..5)) {
        let mut written = Messages::default();
        for nodes in &trees {
            written.message(77, ACK, &[9, 8, 7], |message| write(message, nodes));
        }
        let request = written.finish().unwrap();
        prop_assert_eq!(request.bytes.len() % 4, 0);
        prop_assert_eq!(request.last as usize, trees.len());
        let read: Vec<_> = messages(&request.bytes).collect();
        prop_assert_eq!(read.len(), trees.len());
        for (index, ((kind, flags, sequence, payload), nodes)) in read.iter().zip(&trees).enumerate() {
            prop_assert_eq!((*kind, *flags, *sequence as usize), (77, ACK | REQUEST, index + 1));
            // Three fixed bytes are padded to four.
            prop_assert_eq!(&payload[..4], &[9, 8, 7, 0]);
            prop_assert!(matches(&payload[4..], nodes));
        }
    }

    #[test]
    fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER);
        prop_assert!(answers(&bytes).count() <= bytes.len() / HEADER);
        prop_assert!(attributes(&bytes).count() <= bytes.len() / 4);
    }

    #[test]
    fn damaged_answers_can_be_read(at in 0_usize..60, value in any::<u8>(), cut in 0_usize..60) {
        let mut bytes = answer(-1, ACK_TLVS | CAPPED, b"no\0");
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(bytes.len() - cut % bytes.len());
        let _ = answers(&bytes).count();
    }
}

fn answer(errno: i32, flags: u16, text: &[u8]) -> Vec<u8> {
    let mut built = Messages::default();
    let mut fixed = errno.to_ne_bytes().to_vec();
    fixed.extend_from_slice(&[0; HEADER]);
    built.message(ERROR, flags, &fixed, |message| {
        message.attribute(ERROR_TEXT, text);
    });
    built.finish().unwrap().bytes
}

#[test]
fn an_error_carries_the_kernels_sentence() {
    let bytes = answer(-libc::EPERM, ACK_TLVS | CAPPED, b"not you\0");
    let read: Vec<_> = answers(&bytes).collect();
    assert_eq!(
        read,
        [Answer {
            sequence: 1,
            errno: libc::EPERM,
            text: Some(b"not you")
        }]
    );
}

#[test]
fn an_attribute_that_is_too_long_is_an_error_not_a_wrong_length() {
    let mut built = Messages::default();
    built.message(1, 0, &[], |message| message.attribute(1, &vec![0; 70_000]));
    assert_eq!(built.finish().unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn the_kernel_answers_with_a_reason() {
    // An address on a device that does not exist, in the kernel's own route family.
    let mut built = Messages::default();
    built.message(
        20,
        ACK | CREATE,
        &[2, 32, 0, 0, 0xff, 0xff, 0xff, 0x7f],
        |message| {
            message.attribute(2, &[192, 0, 2, 1]);
        },
    );
    let error = exchange(ROUTE, &built.finish().unwrap()).unwrap_err();
    assert!(matches!(error.errno(), libc::ENODEV | libc::EPERM), "{error:?}");
}
