//! Asking the router for a port: it is used once a tracker's knock came through it, renewed, and
//! given back at the end.
//!
//! No router is asked before a tracker sees this node at an IPv4 address that is none of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qshare_net::{Endpoint, KnockTarget, PortMapping, Traversal, knock, map_port};
use qshare_wire::is_private;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::error::{PortCheckFault, UnverifiedPort};
use crate::trackers::{Established, Trackers};
use crate::vocabulary::{MappedPort, NodeEvent, PortMappingState};

/// Pause after no router granted a port, or none was verified. Routers and networks change.
const AGAIN: Duration = Duration::from_secs(600);
/// The same if a tracker's session has begun or ended since, because the network may have changed.
const AGAIN_ELSEWHERE: Duration = Duration::from_secs(10);
/// Interval at which a verified port is verified again, because a router forgets mappings at a
/// restart.
const VERIFY_AGAIN: Duration = Duration::from_secs(120);
/// Pause before the second attempt to verify: some routers take a moment.
const SECOND_ATTEMPT: Duration = Duration::from_secs(1);
/// Time for the router to take back a port when the node stops.
const GIVE_BACK: Duration = Duration::from_millis(1500);

/// Keeps a port mapped as long as that is of use.
pub(crate) struct PortMapper {
    endpoint: Endpoint,
    traversal: Traversal,
    trackers: Arc<Trackers>,
    state: Mutex<PortMappingState>,
    events: broadcast::Sender<NodeEvent>,
}

/// Waits for changes of the trackers' sessions.
struct Changes(watch::Receiver<u64>);

impl Changes {
    /// Waits until a session has begun or ended since the last call.
    async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl PortMapper {
    /// If `is_wanted` is false, no router is ever asked.
    pub(crate) fn new(
        is_wanted: bool,
        endpoint: Endpoint,
        traversal: Traversal,
        trackers: Arc<Trackers>,
        events: broadcast::Sender<NodeEvent>,
    ) -> PortMapper {
        PortMapper {
            endpoint,
            traversal,
            trackers,
            state: Mutex::new(match is_wanted {
                true => PortMappingState::NotNeeded,
                false => PortMappingState::Off,
            }),
            events,
        }
    }

    pub(crate) fn state(&self) -> PortMappingState {
        self.lock().clone()
    }

    fn set(&self, state: PortMappingState) {
        let mut known = self.lock();
        if *known == state {
            return;
        }
        match &state {
            PortMappingState::Proven { .. } => info!(%state, "port mapping"),
            _ => debug!(%state, "port mapping"),
        }
        *known = state.clone();
        drop(known);
        let _ = self.events.send(NodeEvent::PortMapping(state));
    }

    fn lock(&self) -> MutexGuard<'_, PortMappingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address to map a port for; None if there is nothing to map.
    fn listen(&self) -> Option<SocketAddr> {
        if self.state() == PortMappingState::Off {
            return None;
        }
        let listen = self.endpoint.local_addr().ok()?;
        let serves_v4 = listen.is_ipv4() || listen.ip().is_unspecified();
        (serves_v4 && !listen.ip().is_loopback()).then_some(listen)
    }

    /// Keeps a port mapped until `stopping`, then gives it back.
    pub(crate) async fn run(&self, stopping: &CancellationToken) {
        let Some(listen) = self.listen() else {
            return stopping.cancelled().await;
        };
        let mut changes = Changes(self.trackers.changes());
        loop {
            let seen = stopping.run_until_cancelled(self.until_translated(&mut changes));
            if seen.await.is_none() {
                return;
            }
            self.set(PortMappingState::Asking);
            let mut asked = std::pin::pin!(map_port(listen.port()));
            let mapping = tokio::select! {
                mapping = &mut asked => mapping,
                () = stopping.cancelled() => {
                    // A port that the router is about to grant is given back, too.
                    if let Ok(Ok(mapping)) = timeout(GIVE_BACK, asked).await {
                        let _ = timeout(GIVE_BACK, mapping.remove()).await;
                    }
                    return;
                }
            };
            match mapping {
                Ok(mut mapping) => {
                    let held = stopping.run_until_cancelled(self.hold(&mut mapping, &mut changes));
                    let is_stopping = held.await.is_none();
                    let _ = timeout(GIVE_BACK, mapping.remove()).await;
                    if is_stopping {
                        return;
                    }
                }
                Err(cause) => self.set(PortMappingState::Failed { cause }),
            }
            let pause = async {
                sleep(AGAIN_ELSEWHERE).await;
                tokio::select! {
                    () = sleep(AGAIN) => {}
                    () = changes.next() => {}
                }
            };
            if stopping.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    /// Returns the sessions with trackers that see this node at an IPv4 address that is none of its
    /// own.
    fn translated(&self) -> Vec<Established> {
        let own: Vec<IpAddr> = if_addrs::get_if_addrs()
            .unwrap_or_default()
            .iter()
            .map(|interface| interface.ip())
            .collect();
        let seen_at = |up: &Established| up.seen_at.map(|at| at.ip());
        self.trackers
            .established()
            .filter(|up| seen_at(up).is_some_and(|ip| is_translated(ip, &own)))
            .collect()
    }

    async fn until_translated(&self, changes: &mut Changes) {
        while self.translated().is_empty() {
            changes.next().await;
        }
    }

    /// Verifies and renews a mapping until it is of no use any more.
    async fn hold(&self, mapping: &mut PortMapping, changes: &mut Changes) {
        let mut renew_at = Instant::now() + mapping.renew_after();
        // The router's last answer, and whether it came after the last verification.
        let mut renewed = Ok(());
        let mut is_unverified = true;
        loop {
            let mapped = MappedPort {
                protocol: mapping.protocol(),
                gateway: mapping.gateway(),
                port: mapping.external_port(),
            };
            let mut verified = self.verify(mapped.port).await;
            if verified.is_err() {
                sleep(SECOND_ATTEMPT).await;
                verified = self.verify(mapped.port).await;
            }
            match verified {
                Ok(Some(address)) => {
                    is_unverified = false;
                    let mapping = mapped;
                    self.set(PortMappingState::Proven { mapping, address });
                }
                Ok(None) if self.trackers.established().next().is_some() => {
                    return self.set(PortMappingState::NotNeeded);
                }
                // No tracker is available; a session may be established later.
                Ok(None) => {}
                Err(check) if is_unverified => {
                    let renewal = renewed.err();
                    let cause = UnverifiedPort { check, renewal };
                    let mapping = mapped;
                    return self.set(PortMappingState::NotProven { mapping, cause });
                }
                // It worked before: the router may have restarted.
                Err(_) => {
                    renewed = mapping.renew().await;
                    renew_at = Instant::now() + mapping.renew_after();
                    is_unverified = true;
                    continue;
                }
            }
            tokio::select! {
                () = sleep_until(renew_at) => {
                    renewed = mapping.renew().await;
                    renew_at = Instant::now() + mapping.renew_after();
                }
                () = sleep(VERIFY_AGAIN) => {}
                () = changes.next() => {}
            }
        }
    }

    /// Makes every tracker that sees this node behind a NAT knock at a port, and report the port to
    /// other nodes if the knock arrived. Returns None if there is no such tracker.
    async fn verify(&self, port: u16) -> Result<Option<SocketAddr>, PortCheckFault> {
        let mut verified = None;
        let mut fault = None;
        for up in self.translated() {
            let target = KnockTarget::Port { port, offer: true };
            match knock(&self.traversal, &up.connection, target).await {
                Ok(knocked) => {
                    let address = SocketAddr::new(knocked.observed.ip(), port);
                    // Neither the router's word nor the tracker's suffices.
                    if knocked.was_heard && knocked.came_from == Some(address) {
                        verified = Some(address);
                    } else {
                        fault = Some(PortCheckFault::Silent(address));
                    }
                }
                Err(error) => fault = Some(PortCheckFault::Knock(Arc::new(error))),
            }
        }
        match (verified, fault) {
            (Some(address), _) => Ok(Some(address)),
            (None, Some(fault)) => Err(fault),
            (None, None) => Ok(None),
        }
    }
}

/// Whether a tracker that sees this node at `seen` sees the outside of a NAT that can be asked for
/// a port.
fn is_translated(seen: IpAddr, own: &[IpAddr]) -> bool {
    let ip = seen.to_canonical();
    ip.is_ipv4() && !is_private(ip) && !own.contains(&ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_public_ipv4_address_of_others_is_translated() {
        let own = [
            "192.168.0.2".parse().unwrap(),
            "198.51.100.1".parse().unwrap(),
        ];
        let seen = |text: &str| is_translated(text.parse().unwrap(), &own);
        assert!(seen("198.51.100.2") && seen("::ffff:198.51.100.2"));
        assert!(!seen("198.51.100.1"), "its own");
        assert!(!seen("10.0.0.1"), "not public");
        assert!(!seen("2001:db8::1"), "IPv6 is not translated");
    }
}
