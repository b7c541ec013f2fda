//! Having the router let others in: a port is asked for, believed once a tracker's knock came
//! through it, renewed, and given back.
//!
//! Nothing is asked of any router before a tracker says that it sees us at an address that is none
//! of ours.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use qshare_net::{KnockTarget, MappingProtocol, PortMapping, knock, map_port};
use qshare_wire::is_private;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info};

use crate::node::Inner;
use crate::trackers::session::{Established, SessionState};
use crate::vocabulary::NodeEvent;

/// Pause after no router agreed, or none was believed. Routers change, and so do networks.
const AGAIN: Duration = Duration::from_secs(600);
/// The same when a tracker was reached anew since: the network may have changed.
const AGAIN_ELSEWHERE: Duration = Duration::from_secs(10);
/// What is believed is proven again this often: a router that restarts forgets.
const PROVE_AGAIN: Duration = Duration::from_secs(120);
/// Pause before the second attempt to prove; some routers take a moment.
const SECOND_ATTEMPT: Duration = Duration::from_secs(1);
/// Time for the router when the node stops.
const GIVE_BACK: Duration = Duration::from_millis(1500);

/// A port that a router says it forwards to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedPort {
    /// By which protocol.
    pub protocol: MappingProtocol,
    /// Which router.
    pub gateway: IpAddr,
    /// The outside port.
    pub port: u16,
}

/// Whether the router lets others in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortMappingState {
    /// It is not asked.
    Off,
    /// No tracker sees us behind a router that translates IPv4 addresses.
    NotNeeded,
    /// It is being asked.
    Asking,
    /// There is none, or it does not agree.
    Failed {
        /// What each protocol came to.
        cause: String,
    },
    /// It says yes, but nothing comes through. Nobody is told of it.
    NotProven {
        /// What it said.
        mapping: MappedPort,
        /// For people.
        cause: String,
    },
    /// A tracker's knock came through, and others are told.
    Proven {
        /// What the router said.
        mapping: MappedPort,
        /// Where others reach us.
        address: SocketAddr,
    },
}

impl PortMappingState {
    /// In one word, for scripts.
    pub fn name(&self) -> &'static str {
        match self {
            PortMappingState::Off => "off",
            PortMappingState::NotNeeded => "not-needed",
            PortMappingState::Asking => "asking",
            PortMappingState::Failed { .. } => "failed",
            PortMappingState::NotProven { .. } => "not-proven",
            PortMappingState::Proven { .. } => "proven",
        }
    }
}

impl std::fmt::Display for PortMappingState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PortMappingState::Off => f.write_str("off"),
            PortMappingState::NotNeeded => {
                f.write_str("not asked for: no tracker sees a router in between")
            }
            PortMappingState::Asking => f.write_str("asking the router"),
            PortMappingState::Failed { cause } => write!(f, "none: {cause}"),
            PortMappingState::NotProven { mapping, cause } => write!(
                f,
                "not believed: {} says {} by {}, but {cause}",
                mapping.gateway, mapping.port, mapping.protocol
            ),
            PortMappingState::Proven { mapping, address } => write!(
                f,
                "others reach us at {address} ({} by {})",
                mapping.gateway, mapping.protocol
            ),
        }
    }
}

/// How the router stands, as all parts of a node see it.
pub(crate) struct PortMappings {
    state: Mutex<PortMappingState>,
    tracker_changed: Notify,
    /// Set with `tracker_changed`, for whoever was not waiting.
    has_changed: AtomicBool,
}

impl PortMappings {
    pub(crate) fn new(wanted: bool) -> PortMappings {
        PortMappings {
            state: Mutex::new(match wanted {
                true => PortMappingState::NotNeeded,
                false => PortMappingState::Off,
            }),
            tracker_changed: Notify::new(),
            has_changed: AtomicBool::new(false),
        }
    }

    pub(crate) fn state(&self) -> PortMappingState {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    /// A session with a tracker began or ended.
    pub(crate) fn tracker_changed(&self) {
        self.has_changed.store(true, Ordering::Relaxed);
        self.tracker_changed.notify_one();
    }

    /// Waits until a session has begun or ended since the last call.
    async fn changed(&self) {
        while !self.has_changed.swap(false, Ordering::Relaxed) {
            self.tracker_changed.notified().await;
        }
    }
}

fn set(inner: &Inner, state: PortMappingState) {
    let mut known = inner
        .port_mappings
        .state
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if *known == state {
        return;
    }
    match &state {
        PortMappingState::Proven { .. } => info!(%state, "port mapping"),
        _ => debug!(%state, "port mapping"),
    }
    *known = state.clone();
    drop(known);
    let _ = inner.events.send(NodeEvent::PortMapping(state));
}

/// Keeps a port mapped for as long as that is of use, until the node stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    if inner.port_mappings.state() == PortMappingState::Off {
        return;
    }
    let Ok(listen) = inner.endpoint.local_addr() else {
        return;
    };
    let serves_v4 = listen.is_ipv4() || listen.ip().is_unspecified();
    if !serves_v4 || listen.ip().is_loopback() {
        return;
    }
    loop {
        let seen = inner.stopping.run_until_cancelled(until_translated(&inner));
        if seen.await.is_none() {
            return;
        }
        set(&inner, PortMappingState::Asking);
        let mut asked = std::pin::pin!(map_port(listen.port()));
        let mapping = tokio::select! {
            mapping = &mut asked => mapping,
            () = inner.stopping.cancelled() => {
                // What the router has just been asked for is not left behind.
                if let Ok(Ok(mapping)) = timeout(GIVE_BACK, asked).await {
                    let _ = timeout(GIVE_BACK, mapping.remove()).await;
                }
                return;
            }
        };
        match mapping {
            Ok(mut mapping) => {
                let held = inner
                    .stopping
                    .run_until_cancelled(hold(&inner, &mut mapping));
                let stopping = held.await.is_none();
                let _ = timeout(GIVE_BACK, mapping.remove()).await;
                if stopping {
                    return;
                }
            }
            Err(error) => {
                let cause = error.to_string();
                set(&inner, PortMappingState::Failed { cause });
            }
        }
        let pause = async {
            sleep(AGAIN_ELSEWHERE).await;
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = inner.port_mappings.changed() => {}
            }
        };
        if inner.stopping.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// The sessions with trackers that see us at an IPv4 address that is none of ours.
fn translated(inner: &Inner) -> Vec<Established> {
    let ours: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .iter()
        .map(|interface| interface.ip())
        .collect();
    let is_translated = |up: &Established| {
        up.seen_at.is_some_and(|at| {
            let ip = at.ip().to_canonical();
            ip.is_ipv4() && !is_private(ip) && !ours.contains(&ip)
        })
    };
    let up = inner.trackers.iter().filter_map(|link| match link.state() {
        SessionState::Up(up) => Some(up),
        SessionState::Away { .. } | SessionState::Refused { .. } => None,
    });
    up.filter(is_translated).collect()
}

async fn until_translated(inner: &Inner) {
    while translated(inner).is_empty() {
        inner.port_mappings.changed().await;
    }
}

/// Proves and renews a mapping until it is worth nothing any more.
async fn hold(inner: &Arc<Inner>, mapping: &mut PortMapping) {
    let mut renew_at = Instant::now() + mapping.renew_after();
    // The router's last word, and whether it came after the last proof.
    let mut renewed = Ok(());
    let mut is_news = true;
    loop {
        let mapped = MappedPort {
            protocol: mapping.protocol(),
            gateway: mapping.gateway(),
            port: mapping.external_port(),
        };
        let mut proven = prove(inner, mapped.port).await;
        if proven.is_err() {
            sleep(SECOND_ATTEMPT).await;
            proven = prove(inner, mapped.port).await;
        }
        match proven {
            Ok(Some(address)) => {
                is_news = false;
                let mapping = mapped;
                set(inner, PortMappingState::Proven { mapping, address });
            }
            Ok(None) if is_connected(inner) => return set(inner, PortMappingState::NotNeeded),
            // Nobody is there to ask; the session may come back.
            Ok(None) => {}
            Err(cause) if is_news => {
                let cause = match renewed {
                    Ok(()) => cause,
                    Err(error) => format!("{cause} ({error})"),
                };
                let mapping = mapped;
                return set(inner, PortMappingState::NotProven { mapping, cause });
            }
            // It was there before: a router that restarts forgets.
            Err(_) => {
                renewed = mapping.renew().await;
                renew_at = Instant::now() + mapping.renew_after();
                is_news = true;
                continue;
            }
        }
        tokio::select! {
            () = sleep_until(renew_at) => {
                renewed = mapping.renew().await;
                renew_at = Instant::now() + mapping.renew_after();
            }
            () = sleep(PROVE_AGAIN) => {}
            () = inner.port_mappings.changed() => {}
        }
    }
}

fn is_connected(inner: &Inner) -> bool {
    let mut links = inner.trackers.iter();
    links.any(|link| matches!(link.state(), SessionState::Up(_)))
}

/// Has every tracker that sees us behind a router knock at this port, and tell others if it was
/// heard. None where there is no such tracker; the error says for people what came of it.
async fn prove(inner: &Arc<Inner>, port: u16) -> Result<Option<SocketAddr>, String> {
    let mut proven = None;
    let mut cause = None;
    for up in translated(inner) {
        let at = KnockTarget::Port { port, offer: true };
        match knock(&inner.traversal, &up.connection, at).await {
            Ok(knocked) => {
                let address = SocketAddr::new(knocked.observed.ip(), port);
                // Neither the router's word nor the tracker's alone.
                if knocked.was_heard && knocked.came_from == Some(address) {
                    proven = Some(address);
                } else {
                    cause = Some(format!("nothing comes through at {address}"));
                }
            }
            Err(error) => cause = Some(error.to_string()),
        }
    }
    match (proven, cause) {
        (Some(address), _) => Ok(Some(address)),
        (None, Some(cause)) => Err(cause),
        (None, None) => Ok(None),
    }
}
