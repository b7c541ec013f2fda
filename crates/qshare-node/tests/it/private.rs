//! Private shares between nodes and a tracker in one process, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use qshare_node::content::{AssetName, ContentInfo, NodeAddress, Query, ShareKey};
use qshare_node::{
    DownloadError, DownloadRequest, HashOptions, Identity, Node, NodeConfig, Share, ShareRequest,
    Shares, Target,
};
use qshare_tracker::{Tracker, TrackerConfig};
use tokio::time::timeout;

use crate::transfers::put;
use crate::waiting::eventually;

const PATIENCE: Duration = Duration::from_secs(20);
/// Patience of a download that must fail.
const SHORT: Duration = Duration::from_millis(300);
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Lengths of a content of one chunk and of several.
const LENGTHS: [usize; 2] = [5_000, 3_000_000];

fn tracker() -> (Tracker, String) {
    let mut config = TrackerConfig::new(Identity::ephemeral().unwrap());
    config.listen = ANY_PORT;
    let tracker = Tracker::start(config).unwrap();
    let address = tracker.listen().to_string();
    (tracker, address)
}

async fn one_shot(trackers: &[&str]) -> Node {
    let trackers = trackers.iter().map(|at| at.parse().unwrap()).collect();
    let mut config = NodeConfig::one_shot(Identity::ephemeral().unwrap(), trackers);
    config.listen = ANY_PORT;
    Node::start(config).await.unwrap()
}

async fn full(tracker: &str, dir: &Path) -> Node {
    let shares = Shares {
        assets: dir.join("assets"),
        downloads: dir.join("downloads"),
        exclude: Vec::new(),
        state_dir: dir.join("state"),
    };
    let trackers = vec![tracker.parse().unwrap()];
    let mut config = NodeConfig::full(Identity::ephemeral().unwrap(), shares, trackers);
    config.listen = ANY_PORT;
    Node::start(config).await.unwrap()
}

fn key() -> ShareKey {
    ShareKey::from_bytes([0x42; 16])
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 88172645463325252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

async fn share(node: &Node, path: &Path) -> Share {
    let request = ShareRequest {
        path: path.into(),
        name: AssetName::new("secret.bin").unwrap(),
        key: Some(key()),
        hashing: HashOptions::default(),
        index: None,
    };
    node.share_file(request).await.unwrap()
}

fn request(info: ContentInfo, dir: &Path) -> DownloadRequest {
    let name = AssetName::new("secret.bin").unwrap();
    let target = Target::beneath(dir, name.clone());
    DownloadRequest::new(name, info, target)
}

fn address_of(node: &Node) -> NodeAddress {
    let at = node.listen_address();
    format!("{}@{at}", node.id()).parse().unwrap()
}

async fn lists_nothing(node: &Node, info: &ContentInfo) {
    for query in [Query::Id(info.id()), Query::Name("**".into())] {
        let found = node.find(&query, 10, PATIENCE).await.unwrap();
        assert_eq!(found.files, [], "{query}");
    }
}

#[tokio::test]
async fn those_who_hold_the_key_fetch_it_and_serve_each_other() {
    for length in LENGTHS {
        let (tracker, address) = tracker();
        let dir = tempfile::tempdir().unwrap();
        let (path, bytes) = (dir.path().join("file"), noise(length));
        fs::write(&path, &bytes).unwrap();
        let sharer = one_shot(&[&address]).await;
        let shared = share(&sharer, &path).await;
        let info = shared.version().info;
        let first = one_shot(&[&address]).await;
        lists_nothing(&first, &info).await;
        let wanted = request(info, &dir.path().join("1")).share_key(key());
        let report = first.download(wanted.keep_serving(true)).finished().await;
        assert_eq!(fs::read(&report.unwrap().path).unwrap(), bytes);
        eventually("the receiver's report", async || {
            (shared.audience().received > 0).then_some(())
        })
        .await;
        assert!(shared.audience().sent_bytes >= length as u64);
        sharer.shutdown(SHORT).await;
        let second = one_shot(&[&address]).await;
        let wanted = request(info, &dir.path().join("2")).share_key(key());
        let report = timeout(PATIENCE, second.download(wanted).finished()).await;
        assert_eq!(fs::read(&report.unwrap().unwrap().path).unwrap(), bytes);
        lists_nothing(&second, &info).await;
        first.shutdown(SHORT).await;
        second.shutdown(SHORT).await;
        tracker.shutdown(SHORT).await;
    }
}

#[tokio::test]
async fn without_the_key_the_content_id_and_the_address_of_the_holder_do_not_help() {
    for length in LENGTHS {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, noise(length)).unwrap();
        let sharer = one_shot(&[]).await;
        let info = share(&sharer, &path).await.version().info;
        let stranger = one_shot(&[]).await;
        for wrong in [None, Some(ShareKey::from_bytes([1; 16]))] {
            let wanted = request(info, &dir.path().join("x"))
                .nodes(vec![address_of(&sharer)])
                .share_key(wrong)
                .give_up_after(SHORT);
            let refused = stranger.download(wanted).finished().await.unwrap_err();
            let DownloadError::NoSource { failures, .. } = &*refused else {
                panic!("{refused}");
            };
            let fault = failures.iter().map(|(_, fault)| fault.to_string());
            let fault: Vec<String> = fault.collect();
            assert_eq!(fault, ["refused: it does not have the content"]);
        }
        let wanted = request(info, &dir.path().join("x"))
            .nodes(vec![address_of(&sharer)])
            .share_key(key());
        let fetched = timeout(PATIENCE, stranger.download(wanted).finished()).await;
        assert!(fetched.unwrap().is_ok());
        sharer.shutdown(SHORT).await;
        stranger.shutdown(SHORT).await;
    }
}

#[tokio::test]
async fn a_private_download_in_a_shared_directory_stays_private_after_a_restart() {
    let (tracker, address) = tracker();
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let path = dir.path().join("file");
    fs::write(&path, noise(LENGTHS[1])).unwrap();
    let sharer = one_shot(&[&address]).await;
    let info = share(&sharer, &path).await.version().info;
    let node = full(&address, &home).await;
    let wanted = request(info, &home.join("downloads")).share_key(key());
    let done = timeout(PATIENCE, node.download(wanted).finished()).await;
    done.unwrap().unwrap();
    sharer.shutdown(SHORT).await;
    node.shutdown(SHORT).await;
    // Closes the index.
    drop(node);
    for is_index_lost in [false, true] {
        if is_index_lost {
            fs::remove_file(home.join("state/index.redb")).unwrap();
        }
        put(&home, "public", b"public");
        let node = full(&address, &home).await;
        let stranger = one_shot(&[&address]).await;
        let found = eventually("the public file", async || {
            let all = Query::Name("**".into());
            let found = stranger.find(&all, 10, PATIENCE).await.unwrap();
            (!found.files.is_empty()).then_some(found.files)
        })
        .await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name.as_str(), "public");
        let target = dir.path().join(format!("{is_index_lost}"));
        let wanted = request(info, &target).share_key(key());
        let report = timeout(PATIENCE, stranger.download(wanted).finished()).await;
        assert_eq!(report.unwrap().unwrap().sources[0].node, node.id());
        lists_nothing_private(&stranger, &info).await;
        let wanted = request(info, &dir.path().join("x"))
            .nodes(vec![address_of(&node)])
            .give_up_after(SHORT);
        let refused = stranger.download(wanted).finished().await;
        assert!(matches!(
            &*refused.unwrap_err(),
            DownloadError::NoSource { .. }
        ));
        node.shutdown(SHORT).await;
        drop(node);
        stranger.shutdown(SHORT).await;
    }
    tracker.shutdown(SHORT).await;
}

async fn lists_nothing_private(node: &Node, info: &ContentInfo) {
    let found = node.find(&Query::Id(info.id()), 10, PATIENCE).await;
    assert_eq!(found.unwrap().files, []);
}

#[tokio::test]
async fn a_file_that_changes_gets_a_new_version_and_the_old_link_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, noise(LENGTHS[1])).unwrap();
    let sharer = one_shot(&[]).await;
    let mut shared = share(&sharer, &path).await;
    let old = shared.version();
    fs::write(&path, "short now").unwrap();
    let renewed = async {
        loop {
            let version = shared.changed().await;
            if version.is_served {
                return version;
            }
        }
    };
    let new = timeout(PATIENCE, renewed).await.unwrap();
    assert_eq!((new.number, new.info.length), (2, 9));
    let getter = one_shot(&[]).await;
    let get = |info: ContentInfo, name: &str| {
        let wanted = request(info, &dir.path().join(name)).share_key(key());
        getter.download(wanted.nodes(vec![address_of(&sharer)]))
    };
    let ended = timeout(PATIENCE, get(old.info, "old").finished()).await;
    assert!(matches!(
        &*ended.unwrap().unwrap_err(),
        DownloadError::Changed { .. }
    ));
    let ended = timeout(PATIENCE, get(new.info, "new").finished()).await;
    assert!(ended.unwrap().is_ok());
    sharer.shutdown(SHORT).await;
    getter.shutdown(SHORT).await;
}
