//! What `status` prints, for people and for scripts.

use qshare_node::{
    CauseShare, DownloadStatus, NodeStatus, PathKind, PeerView, PortMappingState, Progress, Stage,
    SwarmView, TrackerState,
};
use serde::Serialize;

use crate::messages;
use crate::neutral::shown;
use crate::output;
use crate::progress;

/// Returns a node's status as lines for people.
pub(super) fn describe(status: &NodeStatus) -> Vec<String> {
    let mut lines = vec![format!(
        "sharing {} ({}), {} connected, {} sent, {} received",
        output::count(status.assets as u64, "file"),
        output::bytes(status.asset_bytes),
        output::count(status.peers as u64, "peer"),
        output::bytes(status.sent_bytes),
        output::bytes(status.received_bytes),
    )];
    for path in &status.still_written {
        lines.push(format!("still being written: {}", shown(path)));
    }
    for tracker in &status.trackers {
        let state = messages::tracker_state(&tracker.state);
        let mut line = format!("tracker {}: {state}", tracker.tracker.host_port());
        if tracker.unlisted_entries > 0 {
            let files = output::count(tracker.unlisted_entries, "file");
            line += &format!("; it is full and does not list {files} of this node");
        }
        lines.push(line);
    }
    lines.push(format!("port mapping: {}", status.port_mapping));
    for download in &status.downloads {
        lines.push(progress::plain_line(&download.name, &download.progress));
        if download.swarm.chunks > 0 {
            lines.push(format!(
                "  {}",
                describe_swarm(&download.progress, &download.swarm)
            ));
        }
        lines.extend(download.swarm.peers.iter().map(describe_peer));
    }
    lines
}

/// A cause with a smaller share of the last seconds is not worth a word.
const SHOWN_PERCENT: u8 = 5;

/// Describes a download's chunks, and how much of its sources' capacity it uses.
fn describe_swarm(progress: &Progress, swarm: &SwarmView) -> String {
    let mut line = format!(
        "{} of {} chunks, {} requested",
        swarm.verified_chunks,
        swarm.chunks,
        output::bytes(swarm.in_flight_bytes),
    );
    if swarm.unheld_chunks > 0 {
        line += &format!(
            ", {} held by no connected peer",
            output::count(u64::from(swarm.unheld_chunks), "chunk")
        );
    }
    if let Some(percent) = percent_of_possible(progress, swarm) {
        line += &format!(
            ", {}/s available from its sources, {percent} % used",
            output::bytes(swarm.possible_bytes_per_second)
        );
    }
    line += &format!(", {} wasted", output::bytes(swarm.wasted_bytes));
    let causes = swarm
        .why
        .iter()
        .filter(|share| share.percent >= SHOWN_PERCENT);
    let causes: Vec<String> = causes
        .map(|share| format!("{} {} %", share.cause.phrase(), share.percent))
        .collect();
    match causes.is_empty() {
        true => line,
        false => format!("{line}; limited by {}", causes.join(", ")),
    }
}

/// Returns the download's rate in percent of what its sources can deliver (the sum of each one's
/// recent best rate); None until that is known.
fn percent_of_possible(progress: &Progress, swarm: &SwarmView) -> Option<u64> {
    let rate = progress.bytes_per_second.saturating_mul(100);
    let percent = rate.checked_div(swarm.possible_bytes_per_second)?;
    // The rate is a mean over some seconds, in which there may have been more sources than now.
    Some(percent.min(100))
}

fn describe_peer(peer: &PeerView) -> String {
    let mut line = format!(
        "  {} at {}: {} received, {}/s, has {} that are missing here",
        peer.node.short(),
        peer.address,
        output::bytes(peer.received_bytes),
        output::bytes(peer.bytes_per_second),
        output::count(u64::from(peer.wanted_chunks), "chunk"),
    );
    if peer.waiting + peer.answering > 0 {
        line += &format!(
            "; answering {} requests, {} queued behind {}",
            peer.answering,
            peer.waiting,
            output::bytes(peer.queue_bytes)
        );
    }
    if let Some(pause) = peer.asked_again_in.filter(|pause| !pause.is_zero()) {
        line += &format!("; backing off for {:.1} s", pause.as_secs_f64());
    }
    if let Some(why) = &peer.dropped {
        line += &format!("; dropped: {why}");
    }
    line
}

/// What `status` prints with --json.
#[derive(Debug, Serialize)]
pub(super) struct StatusJson {
    assets: usize,
    asset_bytes: u64,
    peers: usize,
    sent_bytes: u64,
    received_bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    still_written: Vec<String>,
    trackers: Vec<TrackerJson>,
    port_mapping: PortMappingJson,
    downloads: Vec<DownloadJson>,
}

#[derive(Debug, Serialize)]
struct TrackerJson {
    tracker: String,
    connected: bool,
    /// Shared files that the tracker is too full to list.
    #[serde(skip_serializing_if = "Option::is_none")]
    unlisted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

#[derive(Debug, Serialize)]
struct PortMappingJson {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

#[derive(Debug, Serialize)]
struct DownloadJson {
    content: String,
    name: String,
    size: u64,
    stage: &'static str,
    verified_bytes: u64,
    reused_bytes: u64,
    received_bytes: u64,
    wasted_bytes: u64,
    bytes_per_second: u64,
    possible_bytes_per_second: u64,
    chunks: u32,
    verified_chunks: u32,
    open_chunks: u32,
    unheld_chunks: u32,
    in_flight_bytes: u64,
    /// The last seconds by cause, in percent, largest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why: Vec<CauseShare>,
    sources: Vec<PeerJson>,
}

#[derive(Debug, Serialize)]
struct PeerJson {
    node: String,
    address: String,
    path: PathKind,
    chunks: u32,
    wanted_chunks: u32,
    waiting: u32,
    answering: u32,
    outstanding_bytes: u64,
    queue_bytes: u64,
    received_bytes: u64,
    bytes_per_second: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<String>,
}

impl From<&NodeStatus> for StatusJson {
    fn from(status: &NodeStatus) -> StatusJson {
        let trackers = status.trackers.iter().map(|tracker| TrackerJson {
            tracker: tracker.tracker.host_port(),
            connected: matches!(tracker.state, TrackerState::Connected { .. }),
            unlisted: Some(tracker.unlisted_entries).filter(|&unlisted| unlisted > 0),
            cause: match &tracker.state {
                TrackerState::Connected { .. } => None,
                TrackerState::Away { cause } => cause.as_ref().map(ToString::to_string),
                TrackerState::Refused { cause } => Some(cause.to_string()),
            },
        });
        StatusJson {
            assets: status.assets,
            asset_bytes: status.asset_bytes,
            peers: status.peers,
            sent_bytes: status.sent_bytes,
            received_bytes: status.received_bytes,
            still_written: (status.still_written.iter())
                .map(|path| path.display().to_string())
                .collect(),
            trackers: trackers.collect(),
            port_mapping: PortMappingJson::from(&status.port_mapping),
            downloads: status.downloads.iter().map(DownloadJson::from).collect(),
        }
    }
}

impl From<&PortMappingState> for PortMappingJson {
    fn from(state: &PortMappingState) -> PortMappingJson {
        let mapping = state.mapping();
        PortMappingJson {
            state: state.name(),
            protocol: mapping.map(|mapping| mapping.protocol.to_string()),
            gateway: mapping.map(|mapping| mapping.gateway.to_string()),
            port: mapping.map(|mapping| mapping.port),
            address: state.address().map(|address| address.to_string()),
            cause: state.cause(),
        }
    }
}

impl From<&DownloadStatus> for DownloadJson {
    fn from(download: &DownloadStatus) -> DownloadJson {
        let (progress, swarm) = (&download.progress, &download.swarm);
        let sources = swarm.peers.iter().map(|peer| PeerJson {
            node: peer.node.to_string(),
            address: peer.address.to_string(),
            path: peer.path,
            chunks: peer.chunks,
            wanted_chunks: peer.wanted_chunks,
            waiting: peer.waiting,
            answering: peer.answering,
            outstanding_bytes: peer.outstanding_bytes,
            queue_bytes: peer.queue_bytes,
            received_bytes: peer.received_bytes,
            bytes_per_second: peer.bytes_per_second,
            dropped: peer.dropped.clone(),
        });
        DownloadJson {
            content: download.content.to_string(),
            name: download.name.to_string(),
            size: progress.total_bytes,
            stage: stage(progress.stage),
            verified_bytes: progress.verified_bytes,
            reused_bytes: progress.reused_bytes,
            received_bytes: swarm.received_bytes,
            wasted_bytes: swarm.wasted_bytes,
            bytes_per_second: progress.bytes_per_second,
            possible_bytes_per_second: swarm.possible_bytes_per_second,
            chunks: swarm.chunks,
            verified_chunks: swarm.verified_chunks,
            open_chunks: swarm.open_chunks,
            unheld_chunks: swarm.unheld_chunks,
            in_flight_bytes: swarm.in_flight_bytes,
            why: swarm.why.clone(),
            sources: sources.collect(),
        }
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "queued",
        Stage::Recovering => "recovering",
        Stage::Searching => "searching",
        Stage::Fetching => "fetching",
        Stage::Finishing => "finishing",
        Stage::Complete => "complete",
        Stage::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use qshare_node::content::{AssetName, ContentId, NodeId};
    use qshare_node::{Cause, MappedPort, MappingProtocol, TrackerFault, TrackerStatus};

    use super::*;

    fn status() -> NodeStatus {
        let peer = PeerView {
            node: NodeId([2; 32]),
            address: "192.0.2.1:7".parse().unwrap(),
            path: PathKind::Direct,
            chunks: 5,
            wanted_chunks: 3,
            waiting: 2,
            answering: 1,
            queue_bytes: 9_000,
            asked_again_in: Some(Duration::from_millis(1500)),
            outstanding_bytes: 400,
            bytes_per_second: 1_000,
            received_bytes: 300,
            verified_bytes: 256,
            verified_chunks: 1,
            rtt: Duration::from_millis(20),
            dropped: None,
        };
        NodeStatus {
            assets: 1,
            asset_bytes: 2_000,
            still_written: vec!["shared/app.log".into()],
            trackers: vec![TrackerStatus {
                tracker: "t:1".parse().unwrap(),
                state: TrackerState::Away {
                    cause: Some(TrackerFault::NoAnswer(Duration::from_secs(5))),
                },
                unlisted_entries: 2,
            }],
            port_mapping: PortMappingState::Proven {
                mapping: MappedPort {
                    protocol: MappingProtocol::Pcp,
                    gateway: [10, 0, 0, 1].into(),
                    port: 64500,
                },
                address: "192.0.2.9:64500".parse().unwrap(),
            },
            peers: 2,
            sent_bytes: 0,
            received_bytes: 5,
            downloads: vec![DownloadStatus {
                name: AssetName::new("x").unwrap(),
                content: ContentId([1; 32]),
                progress: Progress {
                    stage: Stage::Fetching,
                    total_bytes: 1_000,
                    verified_bytes: 500,
                    bytes_per_second: 900,
                    ..Progress::default()
                },
                swarm: SwarmView {
                    chunks: 10,
                    verified_chunks: 5,
                    open_chunks: 2,
                    unheld_chunks: 1,
                    in_flight_bytes: 400,
                    received_bytes: 510,
                    wasted_bytes: 10,
                    possible_bytes_per_second: 1_000,
                    why: vec![
                        CauseShare {
                            cause: Cause::UploadQueues,
                            percent: 97,
                        },
                        CauseShare {
                            cause: Cause::OwnLimit,
                            percent: 3,
                        },
                    ],
                    peers: vec![peer],
                },
            }],
        }
    }

    #[test]
    fn a_status_describes_trackers_downloads_and_peers() {
        let lines = describe(&status());
        assert_eq!(
            lines[..4],
            [
                "sharing 1 file (2.0 kB), 2 peers connected, 0 B sent, 5 B received",
                "still being written: shared/app.log",
                "tracker t:1: unreachable: no answer within 5 s; it is full and does not list 2 files of this node",
                "port mapping: reachable at 192.0.2.9:64500 (10.0.0.1 by PCP)",
            ]
        );
        assert_eq!(
            lines[5],
            "  5 of 10 chunks, 400 B requested, 1 chunk held by no connected peer, 1.0 kB/s \
             available from its sources, 90 % used, 10 B wasted; limited by peers' upload queues \
             97 %"
        );
        assert!(
            lines[6].ends_with(
                "300 B received, 1.0 kB/s, has 3 chunks that are missing here; answering 1 \
                 requests, 2 queued behind 9.0 kB; backing off for 1.5 s"
            ),
            "{lines:?}"
        );
    }

    #[test]
    fn a_status_for_scripts_has_exactly_the_documented_fields() {
        let status = status();
        let printed = output::json(&StatusJson::from(&status));
        let (content, node) = (status.downloads[0].content, NodeId([2; 32]));
        let wanted = format!(
            r#"{{"assets":1,"asset_bytes":2000,"peers":2,"sent_bytes":0,"received_bytes":5,"still_written":["shared/app.log"],"trackers":[{{"tracker":"t:1","connected":false,"unlisted":2,"cause":"no answer within 5 s"}}],"port_mapping":{{"state":"proven","protocol":"PCP","gateway":"10.0.0.1","port":64500,"address":"192.0.2.9:64500"}},"downloads":[{{"content":"{content}","name":"x","size":1000,"stage":"fetching","verified_bytes":500,"reused_bytes":0,"received_bytes":510,"wasted_bytes":10,"bytes_per_second":900,"possible_bytes_per_second":1000,"chunks":10,"verified_chunks":5,"open_chunks":2,"unheld_chunks":1,"in_flight_bytes":400,"why":[{{"cause":"upload-queues","percent":97}},{{"cause":"own-limit","percent":3}}],"sources":[{{"node":"{node}","address":"192.0.2.1:7","path":"direct","chunks":5,"wanted_chunks":3,"waiting":2,"answering":1,"outstanding_bytes":400,"queue_bytes":9000,"received_bytes":300,"bytes_per_second":1000}}]}}]}}"#
        );
        assert_eq!(printed, wanted);
    }
}
