//! The node as a whole: status, rates, peers, stop.

use axum::extract::State;
use axum::http::StatusCode;
use qshare_node::{ConnectedPeer, PortMappingState, RosterCounts, TrackerState, TrackerStatus};
use serde::Deserialize;

use super::error::{ApiError, Code};
use super::extract::{Json, Paging, Params, no_cursor};
use super::objects::{
    Changed, DownloadCounts, Peer, Peers, PortMapping, Rates, Status, Tracker, millis,
};
use super::{Api, limits};

/// Files that are still written, in a status.
const STILL_WRITTEN_MAX: usize = 100;

pub(super) async fn status(State(api): State<Api>) -> Json<Status> {
    Json(status_of(&api))
}

/// Returns the status, in time that does not depend on the number of shares and downloads.
pub(super) fn status_of(api: &Api) -> Status {
    let node = &api.node;
    let traffic = node.traffic();
    let (up, down) = api.rates.current();
    let (shared_files, shared_bytes) = node.share_totals();
    let trackers = node.tracker_states();
    let port_mapping = node.port_mapping();
    let mut addresses: Vec<String> = trackers
        .iter()
        .filter_map(|tracker| match &tracker.state {
            TrackerState::Connected { seen_at, .. } => seen_at.map(|at| at.to_string()),
            _ => None,
        })
        .collect();
    if let PortMappingState::Proven { address, .. } = &port_mapping {
        addresses.push(address.to_string());
    }
    addresses.sort_unstable();
    addresses.dedup();
    let still_written = node.still_written();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: node.id().to_string(),
        pid: std::process::id(),
        started_at: api.started_at.into(),
        listen: node.listen_address().to_string(),
        addresses,
        group: api.group_id.is_some(),
        group_id: api.group_id.clone(),
        assets_dir: Some(api.assets.display().to_string()),
        downloads_dir: Some(super::absolute(api.downloads.clone()).display().to_string()),
        shared_files,
        shared_bytes,
        shares_revision: node.shares_revision() + api.handed.revision(),
        still_written: still_written
            .iter()
            .take(STILL_WRITTEN_MAX)
            .map(|path| path.display().to_string())
            .collect(),
        trackers: trackers.iter().map(Tracker::from).collect(),
        port_mapping: PortMapping::from(&port_mapping),
        peers: node.peer_count(),
        lan_nodes: node.lan_nodes().len(),
        sent_bytes: traffic.sent_bytes,
        received_bytes: traffic.received_bytes,
        up_bytes_per_second: up,
        down_bytes_per_second: down,
        limits: limits::in_force(api),
        downloads: DownloadCounts::from(api.roster.counts()),
        memory_bytes: memory_bytes(),
        http: api.http.get().cloned(),
    }
}

/// Returns the resident memory of this process, where the system tells.
fn memory_bytes() -> Option<u64> {
    // The second number is that of resident pages: see proc_pid_statm(5).
    let counts = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = counts.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

impl From<&TrackerStatus> for Tracker {
    fn from(status: &TrackerStatus) -> Tracker {
        let (state, id, address, seen_at, cause) = match &status.state {
            TrackerState::Connected {
                id,
                address,
                seen_at,
            } => ("connected", Some(id), Some(address), *seen_at, None),
            TrackerState::Away { cause } => ("away", None, None, None, cause.as_ref()),
            TrackerState::Refused { cause } => ("refused", None, None, None, Some(cause)),
        };
        Tracker {
            tracker: status.tracker.to_string(),
            state: state.to_owned(),
            id: id.map(ToString::to_string),
            address: address.map(ToString::to_string),
            seen_at: seen_at.map(|at| at.to_string()),
            cause: cause.map(ToString::to_string),
            unlisted_entries: status.unlisted_entries,
        }
    }
}

impl From<&PortMappingState> for PortMapping {
    fn from(state: &PortMappingState) -> PortMapping {
        let mapping = state.mapping();
        PortMapping {
            state: state.name().to_owned(),
            text: state.to_string(),
            protocol: mapping.map(|mapping| mapping.protocol.to_string()),
            gateway: mapping.map(|mapping| mapping.gateway.to_string()),
            port: mapping.map(|mapping| mapping.port),
            address: state.address().map(|address| address.to_string()),
            cause: state.cause(),
        }
    }
}

impl From<RosterCounts> for DownloadCounts {
    fn from(counts: RosterCounts) -> DownloadCounts {
        DownloadCounts {
            active: counts.active,
            queued: counts.queued,
            paused: counts.paused,
            failed: counts.failed,
            complete: counts.complete,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Period {
    period: Option<String>,
}

pub(super) async fn rates(
    State(api): State<Api>,
    Params(Period { period }): Params<Period>,
) -> Result<Json<Rates>, ApiError> {
    match period.as_deref() {
        None | Some("minutes") => Ok(Json(api.rates.rates(false))),
        Some("hours") => Ok(Json(api.rates.rates(true))),
        Some(_) => {
            let message = "`period` must be `minutes` or `hours`";
            Err(ApiError::new(Code::BadRequest, message))
        }
    }
}

pub(super) async fn peers(
    State(api): State<Api>,
    Params(paging): Params<Paging>,
) -> Result<Json<Peers>, ApiError> {
    let limit = paging.limit()?;
    let after = match &paging.after {
        Some(text) => Some(text.parse().map_err(|_| no_cursor())?),
        None => None,
    };
    let mut peers = api.node.connected_peers(after, limit + 1);
    let more = peers.len() > limit;
    peers.truncate(limit);
    let last = peers.last().filter(|_| more);
    Ok(Json(Peers {
        next: last.map(|peer| peer.node.to_string()),
        peers: peers.iter().map(Peer::from).collect(),
    }))
}

impl From<&ConnectedPeer> for Peer {
    fn from(peer: &ConnectedPeer) -> Peer {
        Peer {
            node: peer.node.to_string(),
            address: peer.address.to_string(),
            path: peer.path.into(),
            rtt_ms: millis(peer.rtt),
            sent_bytes: peer.sent_bytes,
            received_bytes: peer.received_bytes,
        }
    }
}

pub(super) async fn stop(State(api): State<Api>) -> (StatusCode, Json<Changed>) {
    let changed = usize::from(!api.quit.is_cancelled());
    api.quit.cancel();
    (StatusCode::ACCEPTED, Json(Changed { changed }))
}
