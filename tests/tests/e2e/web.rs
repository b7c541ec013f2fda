//! The web page in a real browser, against pages of strangers, and the gateway with real clients.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod access;
mod browser;
mod gateway;
mod page;
mod security;
mod steady;
mod tls;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use qshare_tests::process::{Ended, run};
use qshare_tests::world::{Node, Tracker, World};

use browser::Browser;

/// Finds programs that a test needs. Without one of them the test prints `SKIPPED` and passes; with
/// `CI=true` it fails.
pub(crate) fn has_programs(names: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_missing = |name: &&&str| !env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let missing: Vec<_> = names.iter().filter(is_missing).collect();
    if missing.is_empty() {
        return true;
    }
    let must_run = env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!must_run, "not installed: {missing:?}");
    eprintln!("SKIPPED: not installed: {missing:?}");
    false
}

/// A node with a web page.
struct Served {
    node: Node,
    /// URL of the page, without its token.
    url: String,
    token: String,
    token_file: PathBuf,
}

impl Served {
    /// Starts a node with a web page on a port of the system's choice.
    fn start(world: &World, place: &str, tracker: &Tracker, more: &[&str]) -> Served {
        Served::start_at(world, place, tracker, "127.0.0.1:0", more)
    }

    fn start_at(world: &World, place: &str, tracker: &Tracker, at: &str, more: &[&str]) -> Served {
        let mut command = world.node_command(place, tracker.address);
        command.args(["--http", at, "--http-token", "token"]);
        command.args(more);
        let node = Node::start(command);
        let ready = node.process.ready();
        let token_file = world.path(place).join("token");
        Served {
            url: ready["http"].as_str().unwrap().to_owned(),
            token: fs::read_to_string(&token_file).unwrap().trim().to_owned(),
            token_file,
            node,
        }
    }

    /// Returns the URL with its token, as the node prints it to a terminal.
    fn url_with_token(&self) -> String {
        format!("{}#token={}", self.url, self.token)
    }

    /// Returns `ADDRESS:PORT` of the page.
    fn place(&self) -> &str {
        let (_, rest) = self.url.split_once("://").unwrap();
        rest.trim_end_matches('/')
    }

    /// Calls the API with the token and returns the JSON of its answer.
    fn call(&self, method: &str, path: &str, body: Option<serde_json::Value>) -> serde_json::Value {
        let mut command = Command::new("curl");
        let authorization = format!("Authorization: Bearer {}", self.token);
        command.args(["-sS", "-X", method, "-H", &authorization]);
        let body = body.map(|body| body.to_string());
        if let Some(body) = &body {
            command.args(["-H", "Content-Type: application/json", "-d", body]);
        }
        command.arg(format!("{}api/1/{path}", self.url));
        let answered = run(command).well();
        serde_json::from_str(&answered.out).unwrap_or_else(|_| panic!("{answered:?}"))
    }

    /// Makes a capability for a file by its name and returns it with its URL.
    fn capability(&self, name: &str) -> (serde_json::Value, String) {
        self.capability_of(&format!("name:{name}"))
    }

    /// Makes a capability for a link or a query and returns it with its URL.
    fn capability_of(&self, what: &str) -> (serde_json::Value, String) {
        let what = serde_json::json!({"what": what, "expires_seconds": 600});
        let made = self.call("POST", "capabilities", Some(what));
        let path = made["path"].as_str().unwrap_or_else(|| panic!("{made}"));
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        (made, url)
    }

    /// Returns the payload bytes that the node has received.
    fn received_bytes(&self) -> u64 {
        let status = self.call("GET", "status", None);
        status["received_bytes"].as_u64().unwrap()
    }
}

/// A node with a web page, and nothing to share or to download.
struct Alone {
    served: Served,
    world: World,
    _tracker: Tracker,
}

impl Alone {
    fn start() -> Alone {
        let world = World::new();
        let tracker = world.tracker();
        Alone {
            served: Served::start(&world, "node", &tracker, &[]),
            world,
            _tracker: tracker,
        }
    }

    /// Starts a browser, too; None if none is installed.
    fn with_browser() -> Option<(Browser, Alone)> {
        Some((Browser::start()?, Alone::start()))
    }
}

/// Runs curl in a directory.
fn curl(dir: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new("curl");
    command.current_dir(dir).arg("-sS").args(arguments);
    run(command)
}
