//! Trackers over one Redis, as an operator sets them up: with TLS, users and passwords, and with a
//! Redis that is full.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use qshare_tests::files::assert_same;
use qshare_tests::process::{eventually, run};
use qshare_tests::redis::Redis;
use qshare_tests::world::{Tracker, World};

use crate::operations::{ask, http_address};
use crate::web::has_programs;

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(arguments.split(' '));
    run(command).well();
}

/// Makes a private authority, `ca.pem`, and a certificate for 127.0.0.1 that it has signed.
fn certificates(dir: &Path) {
    let key = "-nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256";
    openssl(
        dir,
        &format!("req -x509 {key} -days 2 -subj /CN=registries -keyout ca.key -out ca.pem"),
    );
    openssl(
        dir,
        &format!("req {key} -subj /CN=redis -keyout redis.key -out redis.csr"),
    );
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        dir,
        "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names \
         -out redis.pem",
    );
}

/// Starts Redis with a port for TLS and a user of its own for trackers. Returns that port.
fn secured(world: &World) -> Option<(Redis, u16)> {
    if !has_programs(&["openssl", "redis-server"]) {
        return None;
    }
    let dir = world.dir("tls");
    certificates(&dir);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let redis = Redis::start_with(&[
        "--tls-port".into(),
        port.to_string(),
        "--tls-cert-file".into(),
        path("redis.pem"),
        "--tls-key-file".into(),
        path("redis.key"),
        "--tls-ca-cert-file".into(),
        path("ca.pem"),
        "--tls-auth-clients".into(),
        "no".into(),
    ])?;
    // The rights that docs/operating.md names.
    redis.command("ACL SETUSER qshare on >right-password ~q:* +@all -@dangerous -@admin +info");
    Some((redis, port))
}

#[test]
fn trackers_share_a_registry_over_tls_with_a_user_and_a_password() {
    let world = World::new();
    let Some((redis, port)) = secured(&world) else {
        return;
    };
    fs::write(world.path("tls/password"), "right-password\n").unwrap();
    let url = format!("rediss://qshare@127.0.0.1:{port}");
    let (ca, password) = (world.path("tls/ca.pem"), world.path("tls/password"));
    let (ca, password) = (ca.to_str().unwrap(), password.to_str().unwrap());
    let options = [
        "--registry",
        &url,
        "--registry-ca",
        ca,
        "--registry-password-file",
        password,
    ];
    let a = world.tracker_with("a", "127.0.0.1:0", &options);
    let b = world.tracker_with("b", "127.0.0.1:0", &options);
    world.put("node", "x", b"shared");
    let _node = world.node("node", a.address);
    b.client().until_complete("x", 1);
    world.get("to", b.address, &["x"]).well();
    assert_same(&world.path("to/x"), b"shared");
    // What the other tracker found lies in this Redis.
    let keys = redis.command("DBSIZE");
    assert!(keys != ":0", "{keys}");
    let clients = redis.command("ACL WHOAMI");
    assert!(!clients.contains("qshare"), "the test has another user");
    let shown = a.process.err_line(|line| {
        let registry = line.trim().strip_prefix("registry:")?;
        Some(registry.trim().to_owned())
    });
    assert!(shown.contains(&format!("127.0.0.1:{port}")), "{shown}");
    assert!(!shown.contains("right-password"), "{shown}");
}

#[test]
fn a_tracker_without_the_right_authority_user_or_password_does_not_start() {
    let world = World::new();
    let Some((_redis, port)) = secured(&world) else {
        return;
    };
    let dir = world.path("tls");
    fs::write(dir.join("right"), "right-password\n").unwrap();
    fs::write(dir.join("wrong"), "wrong-password\n").unwrap();
    fs::create_dir(dir.join("other")).unwrap();
    certificates(&dir.join("other"));
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let start = |user: &str, ca: Option<&str>, password: Option<&str>| {
        let mut arguments = vec![
            "tracker".to_owned(),
            "--listen".into(),
            "127.0.0.1:0".into(),
        ];
        arguments.extend(["--certs".into(), "certs".into(), "--registry".into()]);
        arguments.push(format!("rediss://{user}127.0.0.1:{port}"));
        if let Some(ca) = ca {
            arguments.extend(["--registry-ca".into(), path(ca)]);
        }
        if let Some(password) = password {
            arguments.extend(["--registry-password-file".into(), path(password)]);
        }
        run(world.command("refused", arguments))
    };
    let ca = Some("ca.pem");
    for other in [None, Some("other/ca.pem")] {
        let ended = start("qshare@", other, Some("right")).with(1);
        let ended = ended.saying("certificate is not trusted");
        ended.saying("--registry-ca FILE");
    }
    for (user, password) in [
        ("qshare@", "wrong"),
        ("stranger@", "right"),
        // Without a user the password is that of Redis' default user, which has none here.
        ("", "wrong"),
    ] {
        let ended = start(user, ca, Some(password)).with(1);
        assert!(!ended.err.contains("-password\n"), "{}", ended.err);
        let ended = ended.saying(&format!("127.0.0.1:{port}"));
        ended.saying("cannot use the registry");
    }
    start("qshare@", ca, Some("missing"))
        .with(1)
        .saying("cannot read");
    start("qshare@", Some("missing.pem"), Some("right"))
        .with(1)
        .saying("missing.pem");
}

/// Starts a tracker that advertises its address.
fn advertising(world: &World, place: &str, redis: &Redis) -> Tracker {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let (url, http) = (redis.url(), "127.0.0.1:0");
    let options = ["--registry", &url, "--advertise", &address, "--http", http];
    world.tracker_with(place, &address, &options)
}

#[test]
fn a_full_redis_makes_trackers_unready_and_files_are_found_at_siblings() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let world = World::new();
    let (a, b) = (
        advertising(&world, "a", &redis),
        advertising(&world, "b", &redis),
    );
    let https = [&a, &b].map(http_address);
    let ready = |status: &str, words: &str| {
        for http in https {
            eventually(words, || {
                let (head, body) = ask(http, "/readyz");
                (head.starts_with(&format!("HTTP/1.1 {status}")) && body.contains(words))
                    .then_some(())
            });
        }
    };
    world.put("node", "before", b"1");
    let _node = world.node("node", a.address);
    b.client().until_complete("before", 1);
    // Nodes are told of siblings only once these have proven themselves to each other.
    for http in https {
        eventually("the sibling", || {
            let status: serde_json::Value =
                serde_json::from_str(&ask(http, "/status.json").1).unwrap();
            (status["registry"]["siblings"] == 1).then_some(())
        });
    }
    ready("200", "ready");
    redis.command("CONFIG SET maxmemory 1");
    ready("503", "memory is full");
    world.put("node", "during", b"2");
    a.client().until_complete("during", 1);
    // As once the leases in Redis have ended, which are not written again.
    redis.command(
        "EVAL \"for _, key in ipairs(redis.call('KEYS', 'q:*:s:*')) do redis.call('DEL', key) end \
         return 1\" 0",
    );
    for (name, bytes) in [("before", b"1"), ("during", b"2")] {
        world.get("to", b.address, &[name]).well();
        assert_same(&world.path("to").join(name), bytes);
    }
    redis.command("CONFIG SET maxmemory 0");
    ready("200", "ready");
    b.client().until_complete("during", 1);
}
