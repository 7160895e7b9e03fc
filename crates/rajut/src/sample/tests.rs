use super::{answer::fails, call::dial_address, *};

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_rate_is_exact_and_spread_out() {
    for permille in [0, 1, 333, 500, 1000] {
        let failed = (0..1000).filter(|count| fails(*count, permille)).count();
        assert_eq!(u64::try_from(failed).unwrap(), permille);
    }
    assert!(
        (0..1000)
            .step_by(2)
            .all(|count| fails(count, 500) != fails(count + 1, 500))
    );
}

#[test]
fn names_are_dialled_as_they_are_unless_the_environment_has_an_address() {
    let to = "encounter-service:8080";
    assert_eq!(dial_address(to, &env(&[])), to);
    let given = env(&[
        ("ENCOUNTER_SERVICE_PORT_8080_TCP_ADDR", "127.10.0.1"),
        ("ENCOUNTER_SERVICE_PORT_8080_TCP_PORT", "20003"),
    ]);
    assert_eq!(dial_address(to, &given), "127.10.0.1:20003");
    assert_eq!(
        dial_address("encounter-service:9090", &given),
        "encounter-service:9090"
    );
}

#[test]
fn ports_come_from_the_environment_and_wrong_ones_are_refused() {
    let settings = Settings::from_env(&env(&[
        ("RAJUT_APP_PORT_8080", "41000"),
        ("PORT", "41000"),
        ("RAJUT_APP_PORT_9090", "41001"),
        ("NEXT", "a:1,b:2"),
    ]))
    .unwrap();
    assert_eq!(settings.ports, [41000, 41001]);
    assert_eq!(settings.next, ["a:1", "b:2"]);
    assert!(Settings::from_env(&env(&[("PORT", "x")])).is_err());
}
