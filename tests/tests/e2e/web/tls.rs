//! The page by HTTPS, with a certificate of the user.

use std::path::Path;
use std::process::Command;

use qshare_tests::process::run;
use qshare_tests::world::World;

use super::browser::Browser;
use super::{Served, curl, has_programs};

/// Makes a certificate for localhost and its key.
fn certificate(dir: &Path) {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args([
        "req",
        "-x509",
        "-nodes",
        "-days",
        "2",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ]);
    run(command).well();
}

#[test]
fn https_is_served_with_the_given_certificate_and_nothing_else_is() {
    if !has_programs(&["curl", "openssl"]) {
        return;
    }
    let world = World::new();
    let tracker = world.tracker();
    let dir = world.dir("node");
    certificate(&dir);
    world.put("node", "secret.txt", b"a secret");
    let served = Served::start(
        &world,
        "node",
        &tracker,
        &["--http-tls", "cert.pem,key.pem"],
    );
    assert!(
        served.url.starts_with("https://127.0.0.1:"),
        "{}",
        served.url
    );
    let token = format!("Authorization: Bearer {}", served.token);
    let status = format!("{}api/1/status", served.url);
    let read = curl(&dir, &["--cacert", "cert.pem", "-f", "-H", &token, &status]).well();
    assert!(read.out.contains("\"version\""), "{read:?}");
    // The certificate is checked, by which the test is one.
    curl(&dir, &["-f", "-H", &token, &status]).with(60);
    let plain = status.replace("https:", "http:");
    let refused = curl(&dir, &["-f", "-H", &token, &plain]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    // An origin of plain HTTP at the same place is another site.
    let origin = format!("Origin: http://{}", served.place());
    let arguments = [
        "--cacert",
        "cert.pem",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    ];
    let stranger = [&arguments[..], &["-H", &token, "-H", &origin, &status]].concat();
    assert_eq!(curl(&dir, &stranger).well().out, "403");

    let Some(browser) = Browser::start() else {
        return;
    };
    browser.open(&served.url_with_token());
    browser.until("return document.querySelector('#downloads-empty')?.checkVisibility()");
    browser.click(".tabs a[data-view=shares]");
    browser
        .until("return document.querySelector('#share-rows .name')?.textContent === 'secret.txt'");
    assert_eq!(browser.js("return isSecureContext"), true);
}

#[test]
fn files_that_are_no_certificate_are_refused_at_the_start() {
    let world = World::new();
    let dir = world.dir("node");
    std::fs::write(dir.join("cert.pem"), "nothing").unwrap();
    let arguments = ["node", "--http", "127.0.0.1:0", "--http-tls"];
    let missing = [&arguments[..], &["none.pem,none.pem"]].concat();
    world.run("node", &missing).with(1).saying("none.pem");
    let alone = [&arguments[..], &["cert.pem"]].concat();
    world.run("node", &alone).with(2).saying("CERT,KEY");
}
