//! Transfers between nodes and a tracker in one process, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use qshare_node::{
    DownloadError, DownloadRequest, FoundFile, Identity, Node, NodeConfig, NodeEvent, Report,
    Shares, Stage, Target, content::Query,
};
use qshare_tracker::{Tracker, TrackerConfig};

use crate::waiting::eventually;

const PATIENCE: Duration = Duration::from_secs(20);
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) fn tracker() -> (Tracker, String) {
    let mut config = TrackerConfig::new(Identity::ephemeral().unwrap());
    config.listen = ANY_PORT;
    let tracker = Tracker::start(config).unwrap();
    let address = tracker.listen().to_string();
    (tracker, address)
}

pub(crate) async fn sharing(tracker: &str, dir: &Path) -> Node {
    let shares = Shares {
        assets: dir.join("assets"),
        downloads: dir.join("downloads"),
        exclude: Vec::new(),
        state_dir: dir.join("state"),
    };
    let mut config = NodeConfig::full(
        Identity::ephemeral().unwrap(),
        shares,
        vec![tracker.parse().unwrap()],
    );
    config.listen = ANY_PORT;
    Node::start(config).await.unwrap()
}

pub(crate) async fn one_shot(tracker: &str) -> Node {
    let mut config = NodeConfig::one_shot(
        Identity::ephemeral().unwrap(),
        vec![tracker.parse().unwrap()],
    );
    config.listen = ANY_PORT;
    Node::start(config).await.unwrap()
}

/// Returns pseudo-random bytes, so that no two chunks are equal.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .take(length)
        .collect()
}

/// Writes an asset that is an hour old, so that the node does not wait 2 s to see whether it is
/// still being written.
pub(crate) fn put(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join("assets").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    file.set_modified(old).unwrap();
}

/// Repeats a lookup until `count` nodes hold all of a file with this name.
pub(crate) async fn find(node: &Node, name: &str, count: u32) -> FoundFile {
    let query: Query = name.parse().unwrap();
    eventually(name, async || {
        let found = node.find(&query, 10, PATIENCE).await.unwrap();
        let file = found.files.into_iter().next()?;
        (file.complete >= count).then_some(file)
    })
    .await
}

pub(crate) fn request(file: FoundFile, dir: &Path) -> DownloadRequest {
    let target = Target::beneath(dir, file.name.clone());
    DownloadRequest::of_file(file, target).give_up_after(PATIENCE)
}

/// Downloads a file to its end.
async fn fetched(node: &Node, file: FoundFile, dir: &Path) -> Arc<Report> {
    let finished = node.download(request(file, dir)).finished().await;
    finished.unwrap()
}

#[tokio::test]
async fn a_file_of_many_chunks_comes_from_two_sources() {
    let (tracker, address) = tracker();
    let (a, b, to) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let bytes = noise(40 << 20, 7);
    put(a.path(), "sub/data.bin", &bytes);
    put(b.path(), "sub/data.bin", &bytes);
    let (one, two) = (
        sharing(&address, a.path()).await,
        sharing(&address, b.path()).await,
    );
    let getter = one_shot(&address).await;
    let file = find(&getter, "sub/data.bin", 2).await;
    let download = getter.download(request(file, to.path()));
    let report = download.finished().await.unwrap();
    assert_eq!(fs::read(&report.path).unwrap(), bytes);
    assert_eq!(
        report.received_bytes - report.wasted_bytes,
        bytes.len() as u64
    );
    assert_eq!(report.sources.len(), 2, "{:?}", report.sources);
    for node in [getter, one, two] {
        node.shutdown(Duration::from_secs(1)).await;
    }
    tracker.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn small_and_empty_files_arrive_and_an_identical_one_is_not_fetched_again() {
    let (_tracker, address) = tracker();
    let (a, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(a.path(), "empty", b"");
    put(a.path(), "small", b"hello");
    let sharer = sharing(&address, a.path()).await;
    let getter = one_shot(&address).await;
    for (name, bytes) in [("empty", &b""[..]), ("small", b"hello")] {
        let file = find(&getter, name, 1).await;
        let report = fetched(&getter, file.clone(), to.path()).await;
        assert_eq!(fs::read(&report.path).unwrap(), bytes);
        assert!(!report.already_there);
        let again = fetched(&getter, file, to.path()).await;
        assert!(again.already_there);
        assert_eq!(again.received_bytes, 0);
    }
    fs::write(to.path().join("small"), "mine").unwrap();
    let file = find(&getter, "small", 1).await;
    let refused = getter
        .download(request(file, to.path()))
        .finished()
        .await
        .unwrap_err();
    assert!(
        matches!(*refused, DownloadError::Different { .. }),
        "{refused}"
    );
    assert_eq!(fs::read(to.path().join("small")).unwrap(), b"mine");
    sharer.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn what_a_node_downloads_it_shares() {
    let (_tracker, address) = tracker();
    let (a, b, to) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let bytes = noise(3 << 20, 3);
    put(a.path(), "data", &bytes);
    let first = sharing(&address, a.path()).await;
    let second = sharing(&address, b.path()).await;
    let file = find(&second, "data", 1).await;
    let downloads = b.path().join("downloads");
    fetched(&second, file, &downloads).await;
    find(&second, "data", 2).await;
    first.shutdown(Duration::ZERO).await;
    let getter = one_shot(&address).await;
    let file = find(&getter, "data", 1).await;
    let report = fetched(&getter, file, to.path()).await;
    assert_eq!(fs::read(&report.path).unwrap(), bytes);
    assert_eq!(report.sources[0].node, second.id());
}

#[tokio::test]
async fn a_stopped_download_goes_on_where_it_was() {
    let (_tracker, address) = tracker();
    let (a, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = noise(64 << 20, 5);
    put(a.path(), "data", &bytes);
    let sharer = sharing(&address, a.path()).await;
    let getter = one_shot(&address).await;
    let file = find(&getter, "data", 1).await;
    let mut download = getter.download(request(file.clone(), to.path()));
    while download.progress().verified_bytes == 0 {
        download.changed().await;
    }
    download.stop();
    let stopped = download.finished().await.unwrap_err();
    assert!(matches!(*stopped, DownloadError::Stopped), "{stopped}");
    let report = fetched(&getter, file, to.path()).await;
    assert_eq!(fs::read(&report.path).unwrap(), bytes);
    assert!(report.resumed_bytes > 0);
    assert_eq!(
        report.resumed_bytes + report.received_bytes - report.wasted_bytes,
        bytes.len() as u64
    );
    sharer.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_file_that_nobody_has_any_more_is_given_up() {
    let (_tracker, address) = tracker();
    let (a, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(a.path(), "small", b"hello");
    put(a.path(), "large", &noise(1 << 20, 9));
    let sharer = sharing(&address, a.path()).await;
    let getter = one_shot(&address).await;
    let files = [
        find(&getter, "small", 1).await,
        find(&getter, "large", 1).await,
    ];
    sharer.shutdown(Duration::ZERO).await;
    for file in files {
        let mut request = request(file, to.path());
        request = request.give_up_after(Duration::from_secs(1));
        let error = getter.download(request).finished().await.unwrap_err();
        assert!(matches!(*error, DownloadError::NoSource { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_node_tells_when_it_has_found_its_tracker() {
    let (tracker, address) = tracker();
    let node = one_shot(&address).await;
    let mut events = node.events();
    let event = tokio::time::timeout(PATIENCE, events.recv()).await;
    let connected = matches!(
        event, Ok(Ok(NodeEvent::Tracker(_, qshare_node::TrackerState::Connected { id, .. }))) if id == tracker.id()
    );
    assert!(
        connected
            || matches!(
                node.status().trackers[0].state,
                qshare_node::TrackerState::Connected { .. }
            )
    );
}

#[tokio::test]
async fn what_was_downloaded_elsewhere_is_served_on_when_asked_for() {
    let (_tracker, address) = tracker();
    let (a, b, to) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let large = noise(3 << 20, 11);
    put(a.path(), "small", b"hello");
    put(a.path(), "large", &large);
    let first = sharing(&address, a.path()).await;
    // The first seeder downloads the files. The second finds them already complete.
    for _ in 0..2 {
        let seeder = one_shot(&address).await;
        for name in ["small", "large"] {
            let mut request = request(find(&seeder, name, 1).await, b.path());
            request = request.keep_serving(true);
            seeder.download(request).finished().await.unwrap();
            find(&seeder, name, 2).await;
        }
        seeder.shutdown(Duration::ZERO).await;
    }
    let seeder = one_shot(&address).await;
    for name in ["small", "large"] {
        let mut request = request(find(&seeder, name, 1).await, b.path());
        request = request.keep_serving(true);
        seeder.download(request).finished().await.unwrap();
    }
    first.shutdown(Duration::ZERO).await;
    let getter = one_shot(&address).await;
    for (name, bytes) in [("small", &b"hello"[..]), ("large", &large)] {
        let file = find(&getter, name, 1).await;
        let report = fetched(&getter, file, to.path()).await;
        assert_eq!(fs::read(&report.path).unwrap(), bytes);
        assert_eq!(report.sources[0].node, seeder.id());
    }
}

#[tokio::test]
async fn a_partial_download_without_a_source_is_withdrawn() {
    let (_tracker, address) = tracker();
    let (a, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(a.path(), "data", &noise(64 << 20, 13));
    let sharer = sharing(&address, a.path()).await;
    let mut config = NodeConfig::one_shot(
        Identity::ephemeral().unwrap(),
        vec![address.parse().unwrap()],
    );
    config.listen = ANY_PORT;
    config.limits.withdraw_partial_after = Duration::from_secs(3);
    let getter = Node::start(config).await.unwrap();
    let file = find(&getter, "data", 1).await;
    let mut download = getter.download(request(file, to.path()).give_up_after(None));
    while download.progress().verified_bytes == 0 {
        download.changed().await;
    }
    sharer.shutdown(Duration::ZERO).await;
    // The node announces the partial download while a source may return, and then withdraws it.
    let looker = one_shot(&address).await;
    let query: Query = "data".parse().unwrap();
    eventually("the file is withdrawn", async || {
        let found = looker.find(&query, 10, PATIENCE).await.unwrap();
        found.files.is_empty().then_some(())
    })
    .await;
    assert_ne!(download.progress().stage, Stage::Complete);
    assert_eq!(getter.downloads().len(), 1, "it still waits for a source");
}

#[tokio::test]
async fn a_short_lookup_ends_before_the_tracker_knows_everything() {
    let (_tracker, address) = tracker();
    let node = one_shot(&address).await;
    let query: Query = "absent".parse().unwrap();
    let found = node.find(&query, 10, Duration::from_secs(3)).await.unwrap();
    assert!(found.files.is_empty());
}
