//! Reads through the gateway with real clients: curl, a player, a browser.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use qshare_tests::files::{assert_same, info, noise};
use qshare_tests::process::{Process, run};
use qshare_tests::world::{Node, Tracker, World};
use serde_json::{Value, json};

use super::browser::Browser;
use super::{Served, curl, has_programs};

const MIB: usize = 1 << 20;

/// A node that has a file, and a node with a gateway that can fetch it.
struct Fixture {
    world: World,
    _tracker: Tracker,
    _source: Node,
    served: Served,
    dir: PathBuf,
}

impl Fixture {
    fn new(name: &str, bytes: &[u8]) -> Fixture {
        let world = World::new();
        let tracker = world.tracker();
        world.put("source", name, bytes);
        let source = world.node("source", tracker.address);
        tracker.client().until_complete(name, 1);
        let served = Served::start(&world, "node", &tracker, &[]);
        let dir = world.dir("client");
        Fixture {
            world,
            _tracker: tracker,
            _source: source,
            served,
            dir,
        }
    }

    /// Makes a capability and returns it with its URL.
    fn capability(&self, name: &str) -> (Value, String) {
        let what = json!({"what": format!("name:{name}"), "expires_seconds": 600});
        let made = self.served.call("POST", "capabilities", Some(what));
        let path = made["path"].as_str().unwrap_or_else(|| panic!("{made}"));
        let url = format!("{}{path}", self.served.url.trim_end_matches('/'));
        (made, url)
    }

    /// Returns the payload bytes that the node has received.
    fn received_bytes(&self) -> u64 {
        let status = self.served.call("GET", "status", None);
        status["received_bytes"].as_u64().unwrap()
    }

    /// Returns status and headers of a request without its body.
    fn headers(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-D", "-", "-o", "/dev/null"];
        all.extend(arguments);
        curl(&self.dir, &all).well().out.to_lowercase()
    }
}

#[test]
fn curl_reads_resumes_and_asks_for_ranges() {
    if !has_programs(&["curl"]) {
        return;
    }
    let bytes = noise(5 * MIB + 7, 1);
    let fixture = Fixture::new("films/a b.webm", &bytes);
    let (made, url) = fixture.capability("films/a b.webm");
    assert_eq!(made["size_bytes"], bytes.len());
    let tag = format!("\"{}\"", info(&bytes).id());

    let head = fixture.headers(&["-I", &url]);
    for line in [
        "http/1.1 200",
        "content-length: 5242887",
        "accept-ranges: bytes",
        "content-type: video/webm",
        &format!("etag: {tag}"),
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "content-security-policy: sandbox; default-src 'none'; media-src 'self'; img-src 'self'; \
         style-src 'unsafe-inline'",
        "content-disposition: inline; filename=\"a b.webm\"; filename*=utf-8''a%20b.webm",
    ] {
        assert!(head.contains(line), "{line}\n{head}");
    }
    assert_eq!(fixture.received_bytes(), 0, "HEAD fetches nothing");

    // The first part of a transfer that broke off.
    let file = fixture.dir.join("film");
    fs::write(&file, &bytes[..3 * MIB + 1]).unwrap();
    curl(&fixture.dir, &["-C", "-", "-o", "film", &url]).well();
    assert_same(&file, &bytes);
    curl(&fixture.dir, &["-f", "-o", "whole", &url]).well();
    assert_same(&fixture.dir.join("whole"), &bytes);

    let part = fixture.headers(&["-r", "10-19", &url]);
    assert!(part.contains("http/1.1 206"), "{part}");
    assert!(
        part.contains("content-range: bytes 10-19/5242887"),
        "{part}"
    );
    curl(&fixture.dir, &["-r", "-3", "-o", "end", &url]).well();
    assert_same(&fixture.dir.join("end"), &bytes[bytes.len() - 3..]);
    let several = fixture.headers(&["-r", "0-1,5-6", &url]);
    assert!(several.contains("http/1.1 200"), "{several}");
    let beyond = fixture.headers(&["-r", "5242887-", &url]);
    assert!(beyond.contains("http/1.1 416"), "{beyond}");
    assert!(
        beyond.contains("content-range: bytes */5242887"),
        "{beyond}"
    );
    let known = fixture.headers(&["-H", &format!("If-None-Match: {tag}"), &url]);
    assert!(known.contains("http/1.1 304"), "{known}");
    let other = ["-r", "0-1", "-H", "If-Range: \"other\"", &url];
    assert!(fixture.headers(&other).contains("http/1.1 200"));
    // What is read is not stored.
    let stored = fs::read_dir(fixture.world.path("node/downloads")).unwrap();
    assert_eq!(stored.count(), 0);
}

#[test]
fn a_capability_reads_one_file_until_it_is_revoked() {
    if !has_programs(&["curl"]) {
        return;
    }
    let fixture = Fixture::new("page.html", b"<script>alert(1)</script>");
    let (made, url) = fixture.capability("page.html");
    let found = fixture.headers(&[&url]);
    assert!(found.contains("http/1.1 200"), "{found}");
    assert!(found.contains("content-disposition: attachment"), "{found}");
    // Neither the name nor a guess opens anything, and the capability is no token.
    let renamed = url.replace("page.html", "page.txt");
    assert!(fixture.headers(&[&renamed]).contains("http/1.1 404"));
    let capability = made["capability"].as_str().unwrap();
    let guessed = url.replace(capability, &"0".repeat(32));
    assert!(fixture.headers(&[&guessed]).contains("http/1.1 404"));
    let authorization = format!("Authorization: Bearer {capability}");
    let api = format!("{}api/1/status", fixture.served.url);
    assert!(
        fixture
            .headers(&["-H", &authorization, &api])
            .contains("http/1.1 401")
    );
    assert!(
        fixture
            .headers(&["-X", "POST", &url])
            .contains("http/1.1 405")
    );

    let listed = fixture.served.call("GET", "capabilities", None);
    assert_eq!(listed["capabilities"][0]["capability"], capability);
    let path = format!("capabilities/{capability}");
    let revoked = fixture.served.call("DELETE", &path, None);
    assert_eq!(revoked["changed"], 1, "{revoked}");
    assert!(fixture.headers(&[&url]).contains("http/1.1 404"));
    let listed = fixture.served.call("GET", "capabilities", None);
    assert_eq!(listed["capabilities"], json!([]));
}

#[test]
fn a_client_that_leaves_stops_the_fetch() {
    if !has_programs(&["curl"]) {
        return;
    }
    let bytes = noise(160 * MIB, 2);
    let fixture = Fixture::new("large.bin", &bytes);
    let (_, url) = fixture.capability("large.bin");
    let mut command = Command::new("curl");
    command
        .current_dir(&fixture.dir)
        .args(["-sS", "--limit-rate", "2M", "-o", "some", &url]);
    let mut client = Process::start(command);
    qshare_tests::process::eventually("the first bytes", || {
        let some = fs::metadata(fixture.dir.join("some")).ok()?;
        (some.len() > 0).then_some(())
    });
    client.kill();
    // Another read begins and ends, for which the node has to have dealt with the first.
    curl(&fixture.dir, &["-f", "-r", "0-9", "-o", "few", &url]).well();
    assert_same(&fixture.dir.join("few"), &bytes[..10]);
    let received = fixture.received_bytes();
    assert!(received < bytes.len() as u64, "{received}");
}

/// A sound of `seconds` seconds: mono, 8,000 samples a second, 16 bits each.
fn sound(seconds: u32) -> Vec<u8> {
    let samples = seconds * 8000;
    let data_bytes = samples * 2;
    let mut wav = Vec::with_capacity(data_bytes as usize + 44);
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(data_bytes + 36).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt ");
    wav.extend_from_slice(&16u32.to_le_bytes());
    for field in [1u16, 1] {
        wav.extend_from_slice(&field.to_le_bytes());
    }
    wav.extend_from_slice(&8000u32.to_le_bytes());
    wav.extend_from_slice(&16000u32.to_le_bytes());
    for field in [2u16, 16] {
        wav.extend_from_slice(&field.to_le_bytes());
    }
    wav.extend_from_slice(b"data");
    wav.extend_from_slice(&data_bytes.to_le_bytes());
    for sample in 0..samples {
        let level = if sample / 20 % 2 == 0 { 3000i16 } else { -3000 };
        wav.extend_from_slice(&level.to_le_bytes());
    }
    wav
}

#[test]
fn a_player_seeks() {
    if !has_programs(&["mpv"]) {
        return;
    }
    // 96 MB, of which the player reads the beginning and the last second.
    let fixture = Fixture::new("long.wav", &sound(6000));
    let (_, url) = fixture.capability("long.wav");
    let mut command = Command::new("mpv");
    command.env("HOME", &fixture.dir).args([
        "--no-config",
        "--vo=null",
        "--ao=null",
        "--cache=no",
        "--start=5999",
        &url,
    ]);
    let played = run(command).well();
    assert!(!played.out.contains("Failed"), "{played:?}");
    let received = fixture.received_bytes();
    assert!(received < 70_000_000, "{received}");
}

#[test]
fn a_browser_plays_and_seeks() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let fixture = Fixture::new("song.wav", &sound(600));
    let (_, url) = fixture.capability("song.wav");
    browser.open(&url);
    browser.until("return document.querySelector('video').duration === 600");
    browser.js("document.querySelector('video').currentTime = 500");
    browser.js("document.querySelector('video').play()");
    browser.until("return document.querySelector('video').currentTime > 500.2");
    // It has an origin of its own, not the page's.
    assert_eq!(browser.js("return self.origin"), "null");
}
