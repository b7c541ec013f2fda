//! A registry over TLS, with a user and a password.

use std::path::{Path, PathBuf};

use qshare_tracker::{RegistryFault, SharedRegistryConfig, Tracker};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::redis_server::{RedisServer, free_port};
use super::{config_over, eventually, registry};
use crate::common::{Joined, Node, entry, names};

/// An authority, its certificate as PEM, and the files of a server's certificate that it signed.
struct Authority {
    pem: Vec<u8>,
    certificate: PathBuf,
    key: PathBuf,
    _dir: tempfile::TempDir,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let own = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let of_server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server_key = KeyPair::generate().unwrap();
    let signed = of_server.signed_by(&server_key, &issuer).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("crt.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, signed.pem()).unwrap();
    std::fs::write(&key, server_key.serialize_pem()).unwrap();
    Authority {
        pem: own.pem().into_bytes(),
        certificate,
        key,
        _dir: dir,
    }
}

/// Starts Redis with a second port for TLS. Returns it and the URL of that port.
fn redis_with_tls(authority: &Authority) -> Option<(RedisServer, u16)> {
    let port = free_port();
    let (text, path) = (port.to_string(), |path: &Path| {
        path.to_str().unwrap().to_owned()
    });
    let (certificate, key) = (path(&authority.certificate), path(&authority.key));
    let redis = RedisServer::start_with(&[
        "--tls-port",
        &text,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
        "--tls-auth-clients",
        "no",
    ])?;
    Some((redis, port))
}

fn over(url: &str, authority: Option<&Authority>, password: Option<&str>) -> SharedRegistryConfig {
    SharedRegistryConfig {
        password: password.map(|text| text.to_owned().into()),
        certificate_authority: authority.map(|authority| authority.pem.clone()),
        ..registry(url)
    }
}

fn start(shared: SharedRegistryConfig) -> Tracker {
    Tracker::start(config_over(shared)).unwrap()
}

/// Waits until the registry answers with something else than that it is away.
async fn fault(tracker: &Tracker) -> RegistryFault {
    eventually("a fault", async || match tracker.check_registry().await {
        Err(RegistryFault::Away | RegistryFault::TimedOut(_)) => None,
        Err(fault) => Some(fault),
        Ok(()) => panic!("it answers"),
    })
    .await
}

/// Checks that a lookup at one tracker finds what a node announced at the other one. Returns the
/// sessions of the node and of the asker.
async fn must_share(a: &Tracker, b: &Tracker) -> (Joined, Joined) {
    for tracker in [a, b] {
        eventually("the registry answers", async || {
            tracker.check_registry().await.ok()
        })
        .await;
    }
    let mut joined = Node::new(None).join(a).await;
    joined.announce(vec![entry("x", 1)]).await;
    let asking = Node::new(None).join(b).await;
    assert_eq!(names(&asking.find("x").await), ["x"]);
    (joined, asking)
}

#[tokio::test]
async fn a_registry_over_tls_needs_the_right_authority() {
    let (right, wrong) = (authority(), authority());
    let Some((_redis, port)) = redis_with_tls(&right) else {
        return;
    };
    let url = format!("rediss://127.0.0.1:{port}");
    let (a, b) = (
        start(over(&url, Some(&right), None)),
        start(over(&url, Some(&right), None)),
    );
    must_share(&a, &b).await;
    for other in [Some(&wrong), None] {
        let fault = fault(&start(over(&url, other, None))).await;
        assert!(matches!(fault, RegistryFault::Untrusted(_)), "{fault:?}");
        assert!(fault.is_refusal());
        assert!(fault.to_string().contains("--registry-ca"), "{fault}");
    }
}

#[tokio::test]
async fn a_user_of_its_own_with_few_rights_is_enough() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    // The rights that docs/operating.md names.
    redis.command(&[
        "ACL",
        "SETUSER",
        "qshare",
        "on",
        ">right",
        "~q:*",
        "+@all",
        "-@dangerous",
        "-@admin",
        "+info",
    ]);
    redis.command(&[
        "ACL", "SETUSER", "stranger", "on", ">right", "~other:*", "+@all",
    ]);
    let url = |user: &str| format!("redis://{user}@127.0.0.1:{}", redis.port);
    let (a, b) = (
        start(over(&url("qshare"), None, Some("right"))),
        start(over(&url("qshare"), None, Some("right"))),
    );
    let (mut joined, asking) = must_share(&a, &b).await;
    joined.withdraw(&entry("x", 1)).await;
    eventually("it is withdrawn", async || {
        names(&asking.find("x").await).is_empty().then_some(())
    })
    .await;
    for (user, password) in [
        ("qshare", "wrong"),
        ("nobody", "right"),
        ("stranger", "right"),
    ] {
        let fault = fault(&start(over(&url(user), None, Some(password)))).await;
        assert!(fault.is_refusal(), "{user}: {fault:?}");
        assert!(!fault.to_string().contains(password), "{fault}");
    }
}
