//! Pages of strangers in the same browser, which must neither read nor change anything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use qshare_tests::process::{Ended, eventually};
use qshare_tests::world::World;
use serde_json::json;

use super::browser::Browser;
use super::{Alone, Served, curl};

/// A web server of a stranger: every path is the same empty page. It ends with the process.
fn stranger() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let page = "<!DOCTYPE html><title>stranger</title><body></body>";
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{page}",
                page.len()
            );
        }
    });
    address
}

#[test]
fn a_page_of_another_site_can_neither_read_nor_change_anything() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "secret.txt", b"secret");
    let mut served = Served::start(&world, "node", &tracker, &[]);
    let (node, place) = (served.url.clone(), served.place().to_owned());
    let token = served.token.clone();
    let port = stranger().port();
    // Another port of the same address, and another name.
    for origin in [
        format!("http://127.0.0.1:{port}"),
        format!("http://evil.example:{port}"),
    ] {
        browser.open(&format!("{origin}/"));
        // Not even with the token, which the stranger does not have.
        for headers in [
            json!({}),
            json!({"Authorization": format!("Bearer {token}")}),
        ] {
            for path in ["", "api/1/status", "api/1/shares"] {
                let read = browser.js_async(&format!(
                    "const answer = await fetch('{node}{path}', {{headers: {headers}}});
                     return await answer.text()"
                ));
                assert_eq!(read, "threw TypeError", "{origin} {path}");
            }
        }
        for (kind, body) in [
            ("text/plain", "{}"),
            ("application/x-www-form-urlencoded", "a=1"),
        ] {
            let sent = browser.js_async(&format!(
                "const answer = await fetch('{node}api/1/stop', {{method: 'POST', mode: 'no-cors',
                     headers: {{'Content-Type': '{kind}'}}, body: '{body}'}});
                 return answer.type + await answer.text()"
            ));
            assert!(
                sent == "opaque" || sent == "threw TypeError",
                "{origin}: {sent}"
            );
        }
        // A form that is sent into a frame, then a look at what the frame shows.
        browser.js(&format!(
            "document.body.innerHTML = '<iframe name=there></iframe>' +
                 '<form method=post target=there action=\"{node}api/1/stop\"><input name=a></form>';
             document.forms[0].submit()"
        ));
        let opened = browser.js_async(&format!(
            "return await new Promise((done) => {{
                 const socket = new WebSocket('ws://{place}/api/1/events');
                 socket.onopen = () => done('open');
                 socket.onerror = () => done('failed');
             }})"
        ));
        assert_eq!(opened, "failed", "{origin}");
        let script = browser.js_async(&format!(
            "return await new Promise((done) => {{
                 const script = document.createElement('script');
                 script.type = 'module';
                 script.src = '{node}app.js';
                 script.onload = () => done('loaded');
                 script.onerror = () => done('failed');
                 document.head.append(script);
             }})"
        ));
        assert_eq!(script, "failed", "{origin}");
    }
    // Nothing of this stopped the node.
    assert!(served.node.process.has_ended().is_none());
    // The file is shared once nobody has written to it for a moment.
    eventually("the shared file", || {
        (served.call("GET", "status", None)["shared_files"] == 1).then_some(())
    });
}

#[test]
fn the_page_cannot_be_framed() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    let served = Served::start(&world, "node", &tracker, &[]);
    browser.open(&format!("http://evil.example:{}/", stranger().port()));
    browser.js_async(&format!(
        "return await new Promise((done) => {{
             const frame = document.createElement('iframe');
             frame.onload = () => done('loaded');
             frame.src = '{}';
             document.body.append(frame);
         }})",
        served.url
    ));
    browser.enter_frame();
    let shown = browser.js("return location.href + document.title");
    assert!(
        shown.as_str().unwrap().starts_with("chrome-error:"),
        "{shown}"
    );
}

#[test]
fn a_name_that_a_stranger_points_at_the_node_is_refused() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    let hosts = ["--http-host", "known.example"];
    let served = Served::start(&world, "node", &tracker, &hosts);
    let (_, port) = served.place().rsplit_once(':').unwrap();
    // To the browser this is one site with whatever the name meant before.
    browser.open(&format!("http://rebound.example:{port}/"));
    let text = browser.js("return document.body.innerText");
    assert!(text.as_str().unwrap().contains("forbidden"), "{text}");
    let read = browser.js_async(&format!(
        "const answer = await fetch('/api/1/status', {{headers: {{Authorization: 'Bearer {}'}}}});
         return answer.status",
        served.token
    ));
    // The policy of the refusal itself forbids to connect, or the server refuses.
    assert!(read == 403 || read == "threw TypeError", "{read}");

    browser.open(&format!(
        "http://known.example:{port}/#token={}",
        served.token
    ));
    browser.until("return document.querySelector('#downloads-empty')?.checkVisibility()");
}

/// curl, which asks a node for its status.
struct Asking {
    alone: Alone,
    dir: PathBuf,
    url: String,
    /// The header that admits a request.
    token: String,
}

impl Asking {
    /// Starts a node; None if curl is not installed.
    fn start() -> Option<Asking> {
        super::has_programs(&["curl"]).then(|| {
            let alone = Alone::start();
            Asking {
                dir: alone.world.dir("curl"),
                url: format!("{}api/1/status", alone.served.url),
                token: format!("Authorization: Bearer {}", alone.served.token),
                alone,
            }
        })
    }

    /// Runs curl, which prints the status code of the answer.
    fn status(&self, arguments: &[&str]) -> Ended {
        let mut all = vec!["-o", "/dev/null", "-w", "%{http_code}"];
        all.extend(arguments);
        curl(&self.dir, &all)
    }
}

#[test]
fn requests_without_the_token_or_of_another_site_are_refused_and_every_answer_is_confined() {
    let Some(asking) = Asking::start() else {
        return;
    };
    let Asking {
        dir, url, token, ..
    } = &asking;
    let served = &asking.alone.served;
    let status = |arguments: &[&str]| asking.status(arguments).well().out;
    assert_eq!(status(&["-H", token, url]), "200");
    assert_eq!(status(&[url]), "401");
    assert_eq!(status(&["-H", "Authorization: Bearer x", url]), "401");
    for header in [
        "Host: rebound.example",
        "Origin: http://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
    ] {
        assert_eq!(status(&["-H", token, "-H", header, url]), "403", "{header}");
    }
    let long = format!("{url}?{}", "x".repeat(20_000));
    assert_eq!(status(&["-H", token, &long]), "414");
    let huge = format!("X: {}", "x".repeat(60_000));
    assert_eq!(status(&["-H", token, "-H", &huge, url]), "431");
    for path in ["", "app.js", "nothing", "api/1/status"] {
        let headers = curl(dir, &["-I", &format!("{}{path}", served.url)]).well();
        for header in [
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "x-frame-options: DENY",
            "content-security-policy: default-src 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(
                headers.out.contains(header),
                "{path}: {header}\n{headers:?}"
            );
        }
        assert!(!headers.out.contains("set-cookie"), "{path}");
        assert!(!headers.out.contains("access-control"), "{path}");
    }
    // The token is in no output, which may be a journal.
    let printed = served.node.process.err.text() + &served.node.process.out.text();
    assert!(printed.contains(&served.url), "{printed}");
    assert!(!printed.contains(&served.token), "{printed}");
    assert!(served.token_file.is_file());
}

#[test]
fn other_machines_need_a_token_file() {
    let world = World::new();
    let refused = world.run("node", &["node", "--http", "0.0.0.0:0"]);
    refused.with(2).saying("--http-token FILE");
}

#[test]
fn many_idle_connections_are_bounded_and_leave_nothing_behind() {
    let Some(asking) = Asking::start() else {
        return;
    };
    let status = || asking.status(&["-H", &asking.token, &asking.url]).out;
    let idle: Vec<_> = (0..256)
        .map(|_| TcpStream::connect(asking.alone.served.place()).unwrap())
        .collect();
    eventually("all places are taken", || (status() == "429").then_some(()));
    // Commands go through the socket, which has places of its own.
    drop(idle);
    eventually("there is room again", || (status() == "200").then_some(()));
}

#[test]
fn a_form_of_another_site_and_a_script_cannot_use_the_gateway_to_read_the_page() {
    if !super::has_programs(&["curl"]) {
        return;
    }
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "page.html", b"<script>alert(1)</script>");
    let served = Served::start(&world, "node", &tracker, &[]);
    tracker.client().until_complete("page.html", 1);
    let (_, url) = served.capability("page.html");
    let dir = world.dir("curl");
    // An answer of the gateway is no part of this site: its sandbox has an origin of its own, to
    // which nothing but the gateway itself is open.
    let headers = curl(
        &dir,
        &["-D", "-", "-o", "/dev/null", "-H", "Origin: null", &url],
    )
    .well();
    for header in [
        "content-security-policy: sandbox;",
        "access-control-allow-origin: null",
        "x-content-type-options: nosniff",
        "content-disposition: attachment",
    ] {
        assert!(headers.out.contains(header), "{header}\n{headers:?}");
    }
    for (origin, path) in [
        ("null", "api/1/status"),
        ("null", ""),
        ("http://evil.example", &url[served.url.len()..]),
    ] {
        let origin = format!("Origin: {origin}");
        let token = format!("Authorization: Bearer {}", served.token);
        let target = format!("{}{path}", served.url);
        let refused = curl(
            &dir,
            &[
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-H",
                &origin,
                "-H",
                &token,
                &target,
            ],
        );
        assert_eq!(refused.well().out, "403", "{origin} {path}");
    }
}
