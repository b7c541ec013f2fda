//! What the operator of a tracker has: status over HTTP, lists of nodes, logs for machines.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use qshare_tests::process::eventually;
use qshare_tests::world::{Tracker, World};

/// Returns the address of `--http` from what the tracker prints.
pub(crate) fn http_address(tracker: &Tracker) -> SocketAddr {
    let after = |line: &str| {
        line.split_once("status and metrics:")
            .map(|(_, url)| url.to_owned())
    };
    let url = tracker.process.err_line(after);
    let address = url.trim().trim_start_matches("http://");
    address.trim_end_matches('/').parse().unwrap()
}

/// Returns the head and the body of the answer to a GET.
pub(crate) fn ask(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn report(address: SocketAddr) -> serde_json::Value {
    serde_json::from_str(&ask(address, "/status.json").1).unwrap()
}

#[test]
fn the_operator_sees_metrics_health_and_a_status_page() {
    let world = World::new();
    let tracker = world.tracker_with("tracker", "127.0.0.1:0", &["--http", "127.0.0.1:0"]);
    let http = http_address(&tracker);
    world.put("node", "<b>bold</b>.txt", b"1");
    let _node = world.node("node", tracker.address);
    tracker.client().until_complete("<b>bold</b>.txt", 1);
    world
        .get("to", tracker.address, &["<b>bold</b>.txt"])
        .well();

    let (head, body) = ask(http, "/healthz");
    assert!(
        head.starts_with("HTTP/1.1 200") && body == "ok\n",
        "{head}\n{body}"
    );
    let (head, page) = ask(http, "/");
    assert!(head.contains("default-src 'none'"), "{head}");
    assert!(
        page.contains("app.js") && !page.contains("<script>"),
        "{page}"
    );

    let seen = report(http);
    assert_eq!(seen["id"], tracker.id.as_str());
    assert_eq!(seen["is_private"], false);
    assert_eq!(seen["files"][0]["name"], "<b>bold</b>.txt");
    assert_eq!(seen["files"][0]["complete"], 1);
    let (head, metrics) = ask(http, "/metrics");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value("qshare_tracker_entries "), 1.0);
    assert!(value("qshare_tracker_requests_total{type=\"Find\"}") >= 1.0);
    assert!(value("qshare_tracker_request_seconds_count{type=\"Find\"}") >= 1.0);
    assert!(value("qshare_tracker_sessions_opened_total ") >= 2.0);
    // A tracker that has just started does not know all nodes yet.
    eventually("readiness", || {
        let (head, _) = ask(http, "/readyz");
        head.starts_with("HTTP/1.1 200").then_some(())
    });
}

#[test]
fn the_status_of_a_private_group_names_no_file() {
    let world = World::new();
    world.run("tracker", &["group", "new", "team.group"]).well();
    let more = ["--http", "127.0.0.1:0", "--group", "team.group"];
    let tracker = world.tracker_with("tracker", "127.0.0.1:0", &more);
    let http = http_address(&tracker);
    let group = world.path("tracker/team.group");
    world.put("node", "plan.txt", b"1");
    let node = ["--group", group.to_str().unwrap()];
    let _node = world.node_with("node", tracker.address, &node);
    eventually("the entry", || (report(http)["entries"] == 1).then_some(()));
    let seen = report(http);
    assert_eq!(seen["is_private"], true);
    assert_eq!(seen["files"].as_array().unwrap().len(), 0);
    let all = [ask(http, "/status.json").1, ask(http, "/metrics").1].concat();
    assert!(!all.contains("plan"), "{all}");
}

#[test]
fn only_allowed_nodes_announce_and_denied_ones_have_no_session() {
    let world = World::new();
    fs::write(world.dir("tracker").join("allow"), "# nobody yet\n").unwrap();
    fs::write(world.dir("tracker").join("deny"), "").unwrap();
    let lists = ["--allow", "allow", "--deny", "deny"];
    let tracker = world.tracker_with("tracker", "127.0.0.1:0", &lists);
    world.put("node", "x", b"1");
    let node = world.node("node", tracker.address);
    node.process.says("only listed nodes may announce");
    world.get("to", tracker.address, &["x"]).with(3);

    // The file is read again, and the node announces or does not.
    let id = world.run("node", &["id", "--json", "--certs", "certs"]);
    let id: serde_json::Value = id.well().json().remove(0);
    let id = id["node"].as_str().unwrap().to_owned();
    let until_get_ends = |code: i32, what: &str| {
        eventually(what, || {
            let found = world.get("to", tracker.address, &["--force", "x"]);
            (found.code == Some(code)).then_some(())
        });
    };
    fs::write(world.path("tracker/allow"), format!("{id}  # mine\n")).unwrap();
    until_get_ends(0, "the node is on the list");
    fs::write(world.path("tracker/allow"), "# nobody\n").unwrap();
    until_get_ends(3, "the node is on the list no more");
    fs::write(world.path("tracker/allow"), format!("{id}\n")).unwrap();
    until_get_ends(0, "the node is on the list again");

    fs::write(world.path("tracker/deny"), format!("{id}\n")).unwrap();
    node.process.says("not allowed here");
    world.get("to", tracker.address, &["--force", "x"]).with(3);
}

#[test]
fn logs_can_be_read_by_machines() {
    let world = World::new();
    let more = ["-v", "-v", "--log-format", "json"];
    let tracker = world.tracker_with("tracker", "127.0.0.1:0", &more);
    let started = |line: &str| line.contains("tracker started").then(|| line.to_owned());
    let line = tracker.process.err_line(started);
    let event: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(event["level"], "INFO");
    assert_eq!(event["message"], "tracker started");
}
