//! Round trips, foreign messages, corrupted fields, the lists against the descriptors, and Envoy itself as a judge.

mod corrupt;
mod envoy;
mod foreign;
mod generate;
mod lists;

use proptest::prelude::*;

use super::*;

fn round_trip<T: fmt::Debug + PartialEq>(
    value: &T,
    encode: fn(&T) -> Encoded,
    decode: fn(&[u8]) -> DecodeResult<T>,
) -> Result<(), TestCaseError> {
    let encoded = encode(value);
    prop_assert_eq!(&encoded, &encode(value), "encoding is not deterministic");
    match decode(&encoded.value) {
        Ok(decoded) => prop_assert_eq!(&decoded.value, value),
        Err(errors) => return Err(TestCaseError::fail(format!("{errors}\nof {value:?}"))),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn listeners_survive_the_wire(value in generate::listener()) {
        round_trip(&value, encode_listener, decode_listener)?;
    }

    #[test]
    fn route_configurations_survive_the_wire(value in generate::routes()) {
        round_trip(&value, encode_route_configuration, decode_route_configuration)?;
        let in_parts = |value: &RouteConfiguration| {
            let mut whole = encode_route_head(value);
            let hosts = value.virtual_hosts.iter().map(|host| encode_virtual_host(host));
            whole.value = std::iter::once(whole.value).chain(hosts).collect::<Vec<Bytes>>().concat().into();
            whole
        };
        round_trip(&value, in_parts, decode_route_configuration)?;
    }

    #[test]
    fn clusters_survive_the_wire(value in generate::cluster()) {
        round_trip(&value, encode_cluster, decode_cluster)?;
    }

    #[test]
    fn endpoints_survive_the_wire(value in generate::assignment(true)) {
        round_trip(&value, encode_load_assignment, decode_load_assignment)?;
    }

    #[test]
    fn secrets_survive_the_wire(value in generate::secret()) {
        round_trip(&value, encode_secret, decode_secret)?;
    }

    #[test]
    fn name_tables_survive_the_wire(value in generate::names()) {
        round_trip(&value, encode_name_table, decode_name_table)?;
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for kind in ResourceKind::ALL {
            let _ = decode(kind, &bytes);
        }
    }

    #[test]
    fn damaged_messages_never_panic(
        value in generate::listener(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_listener(&value).value.to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decode_listener(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = decode_listener(&bytes);
        let _ = decode_cluster(&bytes);
    }
}
