use std::{os::unix::fs::PermissionsExt as _, time::UNIX_EPOCH};

use rajut_identity::pki_types::{CertificateDer, pem::PemObject as _};

use super::{token::TokenRefused, *};

fn folder(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("rajut-ca-{name}-{}", std::process::id()));
    // What an earlier run left behind.
    let _ = std::fs::remove_dir_all(&path);
    path
}

fn authority(path: &Path) -> CertificateAuthority {
    let clock = Clock::manual(UNIX_EPOCH + Duration::from_hours(500_000));
    CertificateAuthority::open(path, TrustDomain::default(), Duration::from_hours(1), clock)
        .expect("a fresh folder can be opened")
}

fn csr(wanted: &str) -> String {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(wanted.try_into().expect("ASCII"))];
    params
        .serialize_request(&key)
        .and_then(|csr| csr.pem())
        .expect("a request")
}

#[test]
fn the_certificate_names_the_caller_and_not_what_the_request_asks_for() {
    let path = folder("names");
    let authority = authority(&path);
    let caller = Principal::new(&TrustDomain::default(), "clinic", "signer");
    let chain = authority
        .sign(
            &csr("spiffe://cluster.local/ns/clinic/sa/admin"),
            &caller,
            "signer-0",
            None,
        )
        .expect("issued");
    assert_eq!(chain.len(), 2, "leaf and root");
    let leaf = CertificateDer::from_pem_slice(chain[0].as_bytes()).expect("PEM");
    let facts = Facts::parse(&leaf).expect("a certificate");
    assert_eq!(facts.principal(), Ok(caller));
    assert_eq!((facts.dns.len(), facts.ips.len(), facts.is_ca), (0, 0, false));
    let now = 1_800_000_000;
    assert_eq!(unix_seconds(facts.not_before), now - 120);
    assert_eq!(unix_seconds(facts.not_after), now + 3_600);
    let issued = authority.issued();
    assert_eq!(issued.len(), 1);
    assert_eq!(
        (&*issued[0].serial, &*issued[0].workload),
        (&*facts.serial, "signer-0")
    );
    std::fs::remove_dir_all(path).expect("cleaned up");
}

#[test]
fn the_own_certificate_has_the_address_that_proxyless_clients_dial() {
    let path = folder("own");
    let authority = authority(&path);
    let names = |address: &str| {
        let own = authority
            .own_identity(address.parse().expect("an address"), 1)
            .expect("issued");
        Facts::parse(&own.chain[0]).expect("a certificate").ips
    };
    assert_eq!(names("127.0.0.1").len(), 2, "both loopback addresses");
    assert_eq!(names("0.0.0.0"), names("127.0.0.1"));
    assert!(names("127.10.255.1").contains(&IpAddr::from([127, 10, 255, 1])));
    std::fs::remove_dir_all(path).expect("cleaned up");
}

#[test]
fn a_wished_life_is_only_ever_shortened() {
    let path = folder("life");
    let authority = authority(&path);
    let caller = Principal::new(&TrustDomain::default(), "a", "b");
    let life = |wished| {
        let chain = authority.sign(&csr("x:y"), &caller, "", wished).expect("issued");
        let leaf = CertificateDer::from_pem_slice(chain[0].as_bytes()).expect("PEM");
        unix_seconds(Facts::parse(&leaf).expect("a certificate").not_after) - 1_800_000_000
    };
    assert_eq!(life(Some(Duration::from_mins(1))), 60);
    assert_eq!(life(Some(Duration::from_secs(999_999))), 3_600);
    assert_eq!(life(Some(Duration::ZERO)), 3_600);
    std::fs::remove_dir_all(path).expect("cleaned up");
}

#[test]
fn the_root_survives_a_restart_and_a_readable_key_is_refused() {
    let path = folder("restart");
    let first = authority(&path).roots();
    assert_eq!(authority(&path).roots(), first);
    let key = path.join("ca-key.pem");
    assert_eq!(
        std::fs::metadata(&key).expect("there").permissions().mode() & 0o777,
        0o600
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).expect("ours");
    let open = || {
        CertificateAuthority::open(
            &path,
            TrustDomain::default(),
            Duration::from_mins(1),
            Clock::system(),
        )
    };
    assert!(matches!(open(), Err(KeystoreError::Mode { mode: 0o640, .. })));
    std::fs::remove_file(&key).expect("ours");
    assert!(matches!(open(), Err(KeystoreError::Incomplete(_))));
    std::fs::remove_dir_all(path).expect("cleaned up");
}

#[test]
fn garbage_and_requests_with_a_broken_signature_are_refused() {
    let path = folder("garbage");
    let authority = authority(&path);
    let caller = Principal::new(&TrustDomain::default(), "a", "b");
    let good = csr("spiffe://a");
    // In the middle of the last full line: inside the signature.
    let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
    let line = lines.len() - 3;
    let swapped = if &lines[line][30..31] == "A" { "B" } else { "A" };
    lines[line].replace_range(30..31, swapped);
    for bad in [
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        &lines.join("\n"),
    ] {
        assert!(authority.sign(bad, &caller, "", None).is_err(), "{bad}");
    }
    assert!(matches!(
        authority.sign(&"x".repeat(CSR_BYTES_MAX + 1), &caller, "", None),
        Err(IssueError::TooLong)
    ));
    assert_eq!(authority.issued_total(), 0);
    std::fs::remove_dir_all(path).expect("cleaned up");
}

#[test]
fn tokens_are_for_this_mesh_this_audience_and_a_short_time() {
    let path = folder("tokens");
    let authority = authority(&path);
    let (mesh, now) = (TrustDomain::default(), authority.clock.wall());
    let tokens = authority.tokens();
    let token = tokens
        .issue(&mesh, "clinic", "signer", "signer-0", now)
        .expect("valid names");
    let (principal, claims) = tokens.check(&token, &mesh, now).expect("fresh");
    assert_eq!(
        principal.spiffe_id(),
        "spiffe://cluster.local/ns/clinic/sa/signer"
    );
    assert_eq!(claims.workload, "signer-0");
    assert_eq!(
        tokens.check(&token, &mesh, now + token::TOKEN_LIFE),
        Err(TokenRefused::Expired)
    );
    assert_eq!(
        tokens.check(&token, &TrustDomain::new("other"), now),
        Err(TokenRefused::Foreign)
    );
    let foreign = token::TokenKey::new([7; 32]);
    assert_eq!(foreign.check(&token, &mesh, now), Err(TokenRefused::Signature));
    let unsigned = format!(
        "{}.{}.",
        "eyJhbGciOiJub25lIn0",
        token.split('.').nth(1).expect("three parts")
    );
    assert_eq!(tokens.check(&unsigned, &mesh, now), Err(TokenRefused::Foreign));
    for bad in ["a/sa/admin", "", "A", "x y"] {
        assert!(tokens.issue(&mesh, "clinic", bad, "", now).is_err(), "{bad}");
    }
    std::fs::remove_dir_all(path).expect("cleaned up");
}

/// What a certificate that is issued now brings along: whether it is under a bundle's first root, and the bundle.
fn issued(authority: &CertificateAuthority) -> (bool, TrustBundle) {
    let caller = Principal::new(&TrustDomain::default(), "a", "b");
    let chain = authority.sign(&csr("x:y"), &caller, "", None).expect("issued");
    let (roots, chain) = chain.split_last().expect("a chain");
    let leaf = CertificateDer::from_pem_slice(chain[0].as_bytes()).expect("PEM");
    let roots = TrustBundle::from_pem(roots.as_bytes()).expect("roots");
    let first = TrustBundle::new([roots.certificates()[0].clone()]).expect("a root");
    (rajut_identity::verify::leads_to(&leaf, &[], &first), roots)
}

#[test]
fn a_change_of_roots_goes_on_where_it_was_whenever_the_process_ends() {
    let path = folder("rotation");
    let file = || {
        let pem = std::fs::read(path.join("root-cert.pem")).expect("readable");
        TrustBundle::from_pem(&pem).expect("roots")
    };
    let old = authority(&path).roots();
    authority(&path)
        .begin_rotation(None, Some(Step::Trust))
        .expect("begun");
    // Each time another process.
    let seen = |wanted: Option<Step>| {
        let authority = authority(&path);
        assert_eq!(authority.rotation().map(|rotation| rotation.step), wanted);
        let (is_under_the_first, roots) = issued(&authority);
        assert!(is_under_the_first, "{wanted:?}");
        assert_eq!((&roots, &authority.roots()), (&file(), &roots), "{wanted:?}");
        let own = authority.own_identity([127, 0, 0, 1].into(), 1).expect("issued");
        assert!(own.follows(&roots), "{wanted:?}");
        roots
    };
    let both = seen(Some(Step::Trust));
    assert_eq!(both.certificates().len(), 2);
    assert_eq!(both.certificates()[0], old.certificates()[0]);
    assert!(matches!(
        authority(&path).begin_rotation(None, None),
        Err(RotationError::UnderWay)
    ));
    assert!(matches!(
        authority(&path).advance_rotation(Step::Retire),
        Err(RotationError::UnderWay)
    ));
    authority(&path).advance_rotation(Step::Trust).expect("next");
    let reissued = seen(Some(Step::Reissue));
    assert_eq!(reissued.certificates()[0], both.certificates()[1]);
    assert_eq!(reissued.certificates()[1], both.certificates()[0]);
    authority(&path).advance_rotation(Step::Reissue).expect("next");
    let new = seen(Some(Step::Retire));
    assert_eq!(new.certificates(), &reissued.certificates()[..1]);

    // Killed in the middle of putting the new issuer into the old one's place: key and certificate are of two issuers.
    std::fs::copy(path.join("next/ca-key.pem"), path.join("ca-key.pem")).expect("copied");
    assert_eq!(seen(Some(Step::Retire)), new);
    authority(&path).advance_rotation(Step::Retire).expect("done");
    assert_eq!(seen(None), new);
    assert!(!path.join("next").exists() && !path.join("rotation.json").exists());
    assert!(matches!(
        authority(&path).steer_rotation(None, false),
        Err(RotationError::None)
    ));
    std::fs::remove_dir_all(path).expect("cleaned up");
}

#[test]
fn what_was_made_for_a_change_that_never_began_is_forgotten() {
    let path = folder("abandoned");
    let old = authority(&path).roots();
    std::fs::create_dir(path.join("next")).expect("made");
    std::fs::write(path.join("next/ca-key.pem"), "half").expect("written");
    assert_eq!(authority(&path).roots(), old);
    assert!(!path.join("next").exists());
    std::fs::remove_dir_all(path).expect("cleaned up");
}

#[test]
fn an_issuer_of_ones_own_is_followed_by_one_that_is_given() {
    let (path, given) = (folder("given"), folder("given-next"));
    let own = |folder: &Path, name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = (UNIX_EPOCH + Duration::from_hours(499_000)).into();
        let key = || KeyPair::generate().expect("a key");
        let root = rcgen::CertifiedIssuer::self_signed(params.clone(), key()).expect("a root");
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "issuing");
        let issuing_key = key();
        let issuing = params.signed_by(&issuing_key, &root).expect("an issuer");
        std::fs::create_dir_all(folder).expect("made");
        let write = |name: &str, text: &str, mode: u32| {
            std::fs::write(folder.join(name), text).expect("written");
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder.join(name), mode).expect("ours");
        };
        write("ca-key.pem", &issuing_key.serialize_pem(), 0o600);
        write("ca-cert.pem", &issuing.pem(), 0o644);
        write("root-cert.pem", &root.pem(), 0o644);
    };
    own(&path, "first");
    own(&given, "second");
    let begin = |from: Option<&Path>| authority(&path).begin_rotation(from, None);
    assert!(matches!(
        begin(None),
        Err(RotationError::Keystore(KeystoreError::Given))
    ));
    assert!(begin(Some(&path.join("nowhere"))).is_err());
    assert!(authority(&path).rotation().is_none());
    begin(Some(&given)).expect("begun");
    for step in [Step::Trust, Step::Reissue, Step::Retire] {
        authority(&path).advance_rotation(step).expect("next");
    }
    assert_eq!(authority(&path).roots(), authority(&given).roots());
    for folder in [path, given] {
        std::fs::remove_dir_all(folder).expect("cleaned up");
    }
}

#[test]
fn what_is_revoked_stays_so_and_is_told_for_every_issuer_whose_certificates_are_about() {
    let path = folder("revoked");
    let caller = Principal::new(&TrustDomain::default(), "clinic", "signer");
    let other = Principal::new(&TrustDomain::default(), "clinic", "other");
    for who in [&caller, &caller, &other] {
        authority(&path).sign(&csr("x:y"), who, "", None).expect("issued");
    }
    let known = authority(&path).issued();
    assert!(authority(&path).told().1.is_empty(), "no list without need");
    assert!(matches!(
        authority(&path).revoke(&Whom::Serial("ff".to_owned()), Reason::Unspecified),
        Err(RevocationError::Unknown(_))
    ));
    let whom = Whom::Serial(known[2].serial.clone());
    let serials = authority(&path).revoke(&whom, Reason::Superseded).expect("known");
    assert_eq!(serials, [known[2].serial.clone()]);
    let whom = Whom::Identity(caller.spiffe_id());
    assert_eq!(
        authority(&path)
            .revoke(&whom, Reason::KeyCompromise)
            .expect("known")
            .len(),
        2
    );

    // Each time another process; on the way to another root, too.
    let lists = || authority(&path).told().1.matches("BEGIN X509 CRL").count();
    assert_eq!(lists(), 1);
    authority(&path).begin_rotation(None, None).expect("begun");
    for (step, wanted) in [(Step::Trust, 2), (Step::Reissue, 2), (Step::Retire, 1)] {
        assert_eq!(lists(), wanted, "{step:?}");
        let own = authority(&path)
            .own_identity([127, 0, 0, 1].into(), 1)
            .expect("issued");
        for revoked in &known {
            assert!(own.roots.revokes(&revoked.serial), "{step:?}");
        }
        assert!(!own.roots.revokes(&own.serial));
        authority(&path).advance_rotation(step).expect("next");
    }
    let sign = |who: &Principal| authority(&path).sign(&csr("x:y"), who, "", None);
    assert!(matches!(sign(&caller), Err(IssueError::Barred(_))));
    assert!(sign(&other).is_ok(), "only a certificate of it was revoked");
    authority(&path).reinstate(&caller.spiffe_id()).expect("barred");
    assert!(matches!(
        authority(&path).reinstate(&caller.spiffe_id()),
        Err(RevocationError::NotBarred(_))
    ));
    assert!(sign(&caller).is_ok());
    assert_eq!(authority(&path).revocations().certificates.len(), 3);
    std::fs::remove_dir_all(path).expect("cleaned up");
}
