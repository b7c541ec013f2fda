//! Reads through the gateway with real clients: curl, a player, a browser.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use qshare_tests::files::{self, assert_same, info, noise};
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::process::{Process, eventually, run};
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

    fn capability(&self, name: &str) -> (Value, String) {
        self.served.capability(name)
    }

    fn received_bytes(&self) -> u64 {
        self.served.received_bytes()
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

    // The first part of an interrupted transfer.
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

/// A peer that has a file and answers when it is allowed to, and a node with a gateway.
struct Gated {
    world: World,
    _tracker: Tracker,
    peer: TestPeer,
    served: Served,
    url: String,
    dir: PathBuf,
}

impl Gated {
    fn new(bytes: &[u8]) -> Gated {
        let world = World::new();
        let tracker = world.tracker();
        let peer = TestPeer::start(Manner::Gated, tracker.address, FILE, bytes);
        let served = Served::start(&world, "node", &tracker, &[]);
        let (_, url) = served.capability(FILE);
        let dir = world.dir("client");
        Gated {
            world,
            _tracker: tracker,
            peer,
            served,
            url,
            dir,
        }
    }

    /// Starts curl, which writes to a file of this name.
    fn read(&self, to: &str, arguments: &[&str]) -> Process {
        let mut command = Command::new("curl");
        command.current_dir(&self.dir).args(["-sS", "-f", "-o", to]);
        command.args(arguments).arg(&self.url);
        Process::start(command)
    }

    /// Waits until a reader has received something.
    fn until_received(&self, by: &str) {
        eventually("the first bytes", || {
            let some = fs::metadata(self.dir.join(by)).ok()?;
            (some.len() > 0).then_some(())
        });
    }

    /// Returns the numbers of the chunks that were requested since the last call.
    fn take_asked(&self) -> Vec<u64> {
        let asked = self.peer.take_asked();
        asked
            .iter()
            .map(|(_, range)| range.start / CHUNK as u64)
            .collect()
    }
}

const FILE: &str = "large.bin";
/// Chunk size of small files.
const CHUNK: usize = 128 << 10;

#[test]
fn a_client_that_leaves_stops_the_fetch() {
    if !has_programs(&["curl"]) {
        return;
    }
    // The memory for readers holds all chunks, so that a full one does not stop the fetch.
    let chunks = 200;
    let bytes = noise(chunks * CHUNK, 2);
    let gated = Gated::new(&bytes);
    let mut client = gated.read("some", &[]);
    gated.peer.until_asked(1);
    gated.peer.allow(1);
    gated.until_received("some");
    client.kill();
    let before: HashSet<u64> = gated.take_asked().into_iter().collect();
    assert!(before.len() < chunks / 4, "{before:?}");
    // The chunks of another reader would come in turns with those of the one that left.
    gated.peer.open();
    let half = chunks / 2;
    let range = format!("{}-", half * CHUNK);
    gated.read("rest", &["-r", &range]).end().well();
    assert_same(&gated.dir.join("rest"), &bytes[half * CHUNK..]);
    let (ours, others): (Vec<_>, Vec<_>) = gated
        .take_asked()
        .into_iter()
        .filter(|chunk| !before.contains(chunk))
        .partition(|&chunk| chunk >= half as u64);
    assert!(ours.len() >= half, "{ours:?}");
    // Requests may have been on their way while the client left.
    assert!(others.len() < 10, "{others:?}");
}

#[test]
fn readers_of_one_file_share_its_chunks() {
    if !has_programs(&["curl"]) {
        return;
    }
    let chunks = 150;
    let bytes = noise(chunks * CHUNK, 3);
    let gated = Gated::new(&bytes);
    let one = gated.read("one", &[]);
    gated.peer.until_asked(1);
    gated.peer.allow(1);
    gated.until_received("one");
    // The chunk that the first has read is there for the second.
    let two = gated.read("two", &["-r", "1-"]);
    gated.until_received("two");
    gated.peer.open();
    one.end().well();
    two.end().well();
    assert_same(&gated.dir.join("one"), &bytes);
    assert_same(&gated.dir.join("two"), &bytes[1..]);
    let mut asked = gated.take_asked();
    asked.sort_unstable();
    assert_eq!(asked, (0..chunks as u64).collect::<Vec<_>>());
    // All was read, nothing stored, and the node has received it once.
    assert_eq!(gated.served.received_bytes(), bytes.len() as u64);
    let stored = fs::read_dir(gated.world.path("node/downloads")).unwrap();
    assert_eq!(stored.count(), 0);
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

/// A place in front of a node that passes everything on, and keeps what clients send.
struct Tap {
    place: SocketAddr,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    fn new(to: &str) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (to, kept) = (to.to_owned(), sent.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let Ok(mut server) = TcpStream::connect(&to) else {
                    return;
                };
                let (mut reads, mut writes) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = io::copy(&mut reads, &mut writes);
                    let _ = writes.shutdown(Shutdown::Both);
                });
                let kept = kept.clone();
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = client.read(&mut buffer) {
                        kept.lock().unwrap().extend_from_slice(&buffer[..count]);
                        if server.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
        Tap { place, sent }
    }

    /// Returns the first byte of every range that clients asked for.
    fn ranges(&self) -> Vec<u64> {
        let sent = self.sent.lock().unwrap();
        let text = String::from_utf8_lossy(&sent).to_lowercase();
        text.lines()
            .filter_map(|line| line.strip_prefix("range: bytes="))
            .filter_map(|range| range.split_once('-')?.0.parse().ok())
            .collect()
    }
}

#[test]
fn a_browser_plays_a_video_from_its_middle() {
    if !has_programs(&["mpv"]) {
        return;
    }
    let Some(browser) = Browser::start() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let film = dir.path().join("film.webm");
    let mut encode = Command::new("mpv");
    encode.env("HOME", dir.path()).args([
        "--no-config",
        "--no-audio",
        // Noise, so that the film is larger than what a browser reads ahead.
        "av://lavfi:testsrc2=size=320x180:rate=12:duration=30,noise=alls=80:allf=t",
        "--ovc=libvpx",
        "--ovcopts=b=6M,deadline=realtime,cpu-used=8,g=12",
        &format!("--o={}", film.display()),
    ]);
    run(encode).well();
    let bytes = fs::read(&film).unwrap();
    let fixture = Fixture::new("film.webm", &bytes);
    let (made, _) = fixture.capability("film.webm");
    let tap = Tap::new(fixture.served.place());
    let path = made["path"].as_str().unwrap();
    browser.open(&format!("http://{}{path}", tap.place));
    browser.until("return document.querySelector('video').duration > 29");
    browser.js("document.querySelector('video').currentTime = 20");
    browser.js("document.querySelector('video').play()");
    browser.until("return document.querySelector('video').currentTime > 20.5");
    browser.until(
        "return document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames > 0",
    );
    let ranges = tap.ranges();
    let middle = bytes.len() as u64 / 3;
    assert!(ranges.iter().any(|&first| first > middle), "{ranges:?}");
    assert!(ranges.contains(&0), "{ranges:?}");
}

#[test]
fn a_private_link_is_read_from_its_holders_and_what_was_handed_over_from_the_disk() {
    if !has_programs(&["curl"]) {
        return;
    }
    let world = World::new();
    let tracker = world.tracker();
    let bytes = noise(2 * MIB, 12);
    files::put(&world.path("sharer/secret.bin"), &bytes);
    let address = tracker.address.to_string();
    let mut command = world.command("sharer", ["share", "--json", "secret.bin"]);
    command.args([
        "--no-code",
        "--tracker",
        &address,
        "--listen",
        "127.0.0.1:0",
    ]);
    let sharer = Process::start(command);
    let link = sharer.ready()["link"].as_str().unwrap().to_owned();
    let served = Served::start(&world, "node", &tracker, &[]);
    let read = |what: &str| {
        let (_, url) = served.capability_of(what);
        let dir = world.dir("client");
        curl(&dir, &["-f", "-o", "got", &url]).well();
        assert_same(&dir.join("got"), &bytes);
        served.received_bytes()
    };
    assert_eq!(read(&link), bytes.len() as u64);
    let listed = served.call("GET", "capabilities", None).to_string();
    let key = link.split("K=").nth(1).unwrap().split(',').next().unwrap();
    assert!(!listed.contains(key), "{listed}");

    let path = world.path("sharer/secret.bin");
    let body = json!({"path": path, "name": "other.bin", "code": false});
    let shared = served.call("POST", "shares", Some(body));
    assert_eq!(shared["state"], "serving", "{shared}");
    // Nothing more was fetched.
    let own = shared["link"].as_str().unwrap();
    assert_eq!(read(own), bytes.len() as u64);
}

#[test]
fn a_folder_of_another_node_is_a_page_and_its_files_are_fetched_as_they_are_read() {
    if !has_programs(&["curl"]) {
        return;
    }
    let world = World::new();
    let tracker = world.tracker();
    let bytes = noise(2 * MIB, 13);
    files::put(&world.path("sharer/photos/a/big file.bin"), &bytes);
    files::put(&world.path("sharer/photos/note.txt"), b"a note");
    let address = tracker.address.to_string();
    let share = |more: &[&str]| {
        let mut command = world.command("sharer", ["share", "--json", "photos"]);
        command.args(["--tracker", &address, "--listen", "127.0.0.1:0"]);
        command.args(more);
        Process::start(command)
    };
    let private = share(&["--no-code"]);
    let link = private.ready()["link"].as_str().unwrap().to_owned();
    let public = share(&["--public", "--certs", "other"]);
    public.ready();
    let served = Served::start(&world, "node", &tracker, &[]);
    let dir = world.dir("client");
    for what in [link.as_str(), "photos/"] {
        let (made, url) = served.capability_of(what);
        assert_eq!(made["size_bytes"], bytes.len() + 6);
        let page = curl(&dir, &["-f", &url]).well().out;
        assert!(
            page.contains("a/big%20file.bin") && page.contains("note.txt"),
            "{page}"
        );
        curl(
            &dir,
            &["-f", "-o", "big", &format!("{url}a/big%20file.bin")],
        )
        .well();
        assert_same(&dir.join("big"), &bytes);
        let part = curl(&dir, &["-f", "-r", "2-5", &format!("{url}note.txt")]).well();
        assert_eq!(part.out, "note");
        assert_ne!(curl(&dir, &["-f", &format!("{url}nothing")]).code, Some(0));
    }
    // Nothing was kept.
    let downloads = served.call("GET", "downloads", None);
    assert_eq!(downloads["downloads"], json!([]));
}
