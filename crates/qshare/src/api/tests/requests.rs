//! Requests to the API of a real node.

use std::time::Duration;

use qshare_node::content::{AssetName, ContentInfo, Hash};
use qshare_node::{DownloadRequest, Identity, Node, NodeConfig, Shares, Target};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::objects::{DownloadsChange, Which};
use super::super::socket::ControlSocket;
use super::super::{Api, ApiConfig, no_route, routes};
use crate::control::Client;
use crate::sharing::{HandedConfig, HandedShares};

const DEADLINE: Duration = Duration::from_secs(60);
/// A request that answers nothing by itself.
const JSON: &str = "Content-Type: application/json\r\n";

/// A node without trackers and its API.
struct Served {
    dir: tempfile::TempDir,
    node: Node,
    quit: CancellationToken,
    _socket: ControlSocket,
}

impl Served {
    async fn start() -> Served {
        let dir = tempfile::tempdir().unwrap();
        let shares = Shares {
            assets: dir.path().join("assets"),
            downloads: dir.path().join("downloads"),
            exclude: Vec::new(),
            state_dir: dir.path().join("state"),
        };
        let mut config = NodeConfig::full(Identity::ephemeral().unwrap(), shares, Vec::new());
        config.listen = "127.0.0.1:0".parse().unwrap();
        let node = Node::start(config).await.unwrap();
        let quit = CancellationToken::new();
        let handed = HandedShares::open(HandedConfig {
            node: node.clone(),
            state_dir: dir.path().join("state"),
            exclude: Vec::new(),
            quit: quit.clone(),
        });
        let api = Api::new(ApiConfig {
            node: node.clone(),
            handed: handed.await,
            assets: dir.path().join("assets"),
            downloads: dir.path().join("downloads"),
            group_id: None,
            begun: unbounded_channel().0,
            quit: quit.clone(),
        });
        let api = api.unwrap();
        let (socket, listener) = ControlSocket::bind(&dir.path().join("node.sock")).unwrap();
        let router = routes(api).fallback(no_route);
        tokio::spawn(crate::http::serve(listener, router, quit.clone()));
        Served {
            dir,
            node,
            quit,
            _socket: socket,
        }
    }

    async fn client(&self) -> Client {
        Client::open(&self.dir.path().join("node.sock"))
            .await
            .unwrap()
    }

    /// Sends bytes, and returns the status and the body of the answer.
    async fn raw(&self, request: &str) -> (u16, String) {
        let exchange = async {
            let path = self.dir.path().join("node.sock");
            let mut stream = UnixStream::connect(path).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        };
        let answer = timeout(DEADLINE, exchange).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.raw(&request).await
    }

    /// Asks, and returns the code of the failure.
    async fn refusal(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let (status, body) = self.ask(method, path, headers, body).await;
        assert!(status >= 400, "{method} {path}: {status} {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"]["message"].is_string(), "{body}");
        body["error"]["code"].as_str().unwrap().to_owned()
    }

    fn add_paused(&self, number: usize) {
        let name = AssetName::new(format!("file-{number}")).unwrap();
        let info = ContentInfo {
            length: 5 << 20,
            root: Hash([7; 32]),
        };
        let target = Target::beneath(self.dir.path().join("downloads"), name.clone());
        let roster = self.node.roster().unwrap();
        assert!(roster.add_paused(DownloadRequest::new(name, info, target)));
    }
}

#[tokio::test]
async fn a_wrong_request_gets_a_typed_reason() {
    let served = Served::start().await;
    let unknown = format!("/api/1/downloads/{}", "0".repeat(32));
    for (method, path, headers, body, code) in [
        ("GET", "/api/1/nothing", "", "", "not_found"),
        ("GET", "/api/2/status", "", "", "not_found"),
        ("GET", "/", "", "", "not_found"),
        ("POST", "/api/1/status", "", "", "method_not_allowed"),
        ("GET", "/api/1/downloads/pause/x", "", "", "not_found"),
        ("GET", "/api/1/downloads/zz", "", "", "not_found"),
        ("GET", &unknown, "", "", "not_found"),
        ("DELETE", &unknown, "", "", "not_found"),
        ("GET", "/api/1/downloads?limit=0", "", "", "bad_request"),
        ("GET", "/api/1/downloads?after=x", "", "", "bad_request"),
        ("GET", "/api/1/downloads?stage=eaten", "", "", "bad_request"),
        ("GET", "/api/1/downloads?lmit=1", "", "", "bad_request"),
        ("GET", "/api/1/shares?after=%21", "", "", "bad_request"),
        ("GET", "/api/1/shares?match=%5B", "", "", "bad_request"),
        ("GET", "/api/1/shares/zz", "", "", "bad_request"),
        ("GET", "/api/1/rates?period=years", "", "", "bad_request"),
        ("GET", "/api/1/peers?after=x", "", "", "bad_request"),
        ("GET", "/api/1/events?per_second=11", "", "", "bad_request"),
        ("GET", "/api/1/events?download=zz", "", "", "not_found"),
        (
            "POST",
            "/api/1/downloads",
            "",
            "{}",
            "unsupported_media_type",
        ),
        ("POST", "/api/1/downloads", JSON, "{", "bad_request"),
        ("POST", "/api/1/downloads", JSON, "{}", "bad_request"),
        (
            "POST",
            "/api/1/downloads",
            JSON,
            r#"{"what":"a","forse":true}"#,
            "bad_request",
        ),
        (
            "POST",
            "/api/1/downloads",
            JSON,
            r#"{"what":"qshare:broken"}"#,
            "bad_request",
        ),
        (
            "POST",
            "/api/1/downloads",
            JSON,
            r#"{"what":"a"}"#,
            "unreachable",
        ),
        ("POST", "/api/1/downloads/pause", JSON, "{}", "bad_request"),
        (
            "POST",
            "/api/1/downloads/pause",
            JSON,
            r#"{"ids":["zz"]}"#,
            "not_found",
        ),
        (
            "POST",
            "/api/1/downloads/pause",
            JSON,
            r#"{"ids":[],"all":true}"#,
            "bad_request",
        ),
        (
            "PATCH",
            "/api/1/limits",
            JSON,
            r#"{"up_bytes_per_second":1}"#,
            "bad_request",
        ),
        (
            "PATCH",
            &unknown,
            JSON,
            r#"{"priority":"high"}"#,
            "not_found",
        ),
        ("PATCH", &unknown, JSON, r#"{"priority":7}"#, "bad_request"),
        ("PUT", "/api/1/uploads/a%2Fb", "", "x", "bad_request"),
        ("PUT", "/api/1/uploads/..", "", "x", "bad_request"),
        ("PUT", "/api/1/uploads/%FF", "", "x", "bad_request"),
    ] {
        let refusal = served.refusal(method, path, headers, body).await;
        assert_eq!(refusal, code, "{method} {path} {body}");
    }
}

#[tokio::test]
async fn a_secret_in_a_wrong_request_is_not_repeated() {
    let served = Served::start().await;
    for body in [
        r#"{"what":"qshare:s3cr3t"}"#,
        r#"{"what":["qshare:s3cr3t"]}"#,
        r#"{"what":"a","force":"qshare:s3cr3t"}"#,
        r#"{"what":"a","priority":"qshare:s3cr3t"}"#,
    ] {
        let (status, answer) = served.ask("POST", "/api/1/downloads", JSON, body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(!answer.contains("s3cr3t"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let served = Served::start().await;
    let body = format!(r#"{{"what":"{}"}}"#, "x".repeat(1 << 20));
    let code = served
        .refusal("POST", "/api/1/downloads", JSON, &body)
        .await;
    assert_eq!(code, "too_large");
}

#[tokio::test]
async fn a_thousand_downloads_cost_a_change_only_that_change() {
    const MANY: usize = 2500;
    let served = Served::start().await;
    for number in 0..MANY {
        served.add_paused(number);
    }
    let client = served.client().await;
    assert_eq!(client.downloads().await.unwrap().len(), MANY);
    let mut events = client.events().await.unwrap();
    let mut next = async || loop {
        let (name, data) = timeout(DEADLINE, events.next()).await.unwrap().unwrap();
        if name == "downloads" {
            return serde_json::from_str::<DownloadsChange>(&data).unwrap();
        }
    };
    let mut known = 0;
    while known < MANY {
        let part = next().await;
        assert_eq!(part.snapshot, known == 0);
        assert!(part.changed.len() <= 1000);
        known += part.changed.len();
    }
    let one = client.downloads().await.unwrap().remove(0);
    let id = one.id.parse().unwrap();
    served
        .node
        .roster()
        .unwrap()
        .remove(&[id], false)
        .await
        .unwrap();
    let change = next().await;
    assert_eq!((change.changed.len(), &change.removed), (0, &vec![one.id]));
}

#[tokio::test]
async fn unknown_ids_change_nothing() {
    let served = Served::start().await;
    served.add_paused(1);
    let client = served.client().await;
    let known = client.downloads().await.unwrap().remove(0).id;
    let which = Which {
        ids: Some(vec![known, "0".repeat(32)]),
        all: None,
    };
    assert!(client.resume(&which).await.is_err());
    let stages = client.downloads().await.unwrap();
    assert_eq!(stages[0].stage.name(), "paused");
}

#[tokio::test]
async fn an_uploaded_file_is_shared_with_a_link_and_a_qr_code() {
    let served = Served::start().await;
    let (status, body) = served
        .ask("PUT", "/api/1/uploads/a%20b.txt", "", "hello")
        .await;
    assert_eq!(status, 201, "{body}");
    let uploaded: Value = serde_json::from_str(&body).unwrap();
    let content = uploaded["content"].as_str().unwrap();
    let stored = served.dir.path().join("assets/a b.txt");
    assert_eq!(std::fs::read(&stored).unwrap(), b"hello");
    let again = served
        .refusal("PUT", "/api/1/uploads/a%20b.txt", "", "other")
        .await;
    assert_eq!(again, "conflict");
    assert_eq!(std::fs::read(&stored).unwrap(), b"hello");
    let listed = async {
        loop {
            let (_, body) = served.ask("GET", "/api/1/shares?match=a*", "", "").await;
            let shares: Value = serde_json::from_str(&body).unwrap();
            if let Some(share) = shares["shares"].get(0) {
                return share.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let share = timeout(DEADLINE, listed).await.unwrap();
    assert_eq!(share["content"], content);
    assert_eq!(share["name"], "a b.txt");
    let (_, body) = served
        .ask("GET", &format!("/api/1/shares/{content}/link"), "", "")
        .await;
    let link: Value = serde_json::from_str(&body).unwrap();
    let link: qshare_node::content::Link = link["link"].as_str().unwrap().parse().unwrap();
    assert_eq!(link.info.id().to_string(), content);
    assert_eq!(link.nodes[0].id, served.node.id());
    let (status, svg) = served
        .ask("GET", &format!("/api/1/shares/{content}/qr"), "", "")
        .await;
    assert_eq!(status, 200);
    assert!(svg.contains("<svg"), "{svg}");
}

#[tokio::test]
async fn limits_change_at_once_and_an_absent_field_changes_nothing() {
    let served = Served::start().await;
    let patch = async |body: &str| {
        let (status, body) = served.ask("PATCH", "/api/1/limits", JSON, body).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let up = patch(r#"{"up_bytes_per_second":50000}"#).await;
    assert_eq!(up, serde_json::json!({"up_bytes_per_second": 50000}));
    let both = patch(r#"{"down_bytes_per_second":70000}"#).await;
    assert_eq!(both["up_bytes_per_second"], 50000);
    assert_eq!(
        served.node.rate_limits().down.bytes_per_second(),
        Some(70000)
    );
    let none = patch(r#"{"up_bytes_per_second":0,"down_bytes_per_second":0}"#).await;
    assert_eq!(none, serde_json::json!({}));
}

#[tokio::test]
async fn a_node_that_stops_ends_its_events_and_its_connections() {
    let served = Served::start().await;
    let client = served.client().await;
    let mut events = client.events().await.unwrap();
    assert!(client.stop().await.unwrap());
    let mut last = String::new();
    while let Ok((name, _)) = timeout(DEADLINE, events.next()).await.unwrap() {
        last = name;
    }
    assert_eq!(last, "stopping");
    assert!(served.quit.is_cancelled());
}
