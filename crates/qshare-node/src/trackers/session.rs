//! The state of the session with one tracker, and when a lost one is tried again.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use qshare_content::TrackerAddress;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::ask::Established;
use super::siblings::Siblings;
use crate::error::TrackerFault;
use crate::vocabulary::{TrackerState, TrackerStatus};

/// The first and the longest pause between attempts.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The pause after a refusal that only a person can change.
const PAUSE_REFUSED: Duration = Duration::from_secs(30);

/// Whether a session is up.
#[derive(Clone)]
pub(crate) enum SessionState {
    /// Not up; with the fault of the last attempt, if there was one.
    Away(Option<TrackerFault>),
    /// Up.
    Up(Established),
    /// Refused, until a person changes something.
    Refused(TrackerFault),
}

impl SessionState {
    pub(crate) fn to_report(&self) -> TrackerState {
        match self {
            SessionState::Away(cause) => TrackerState::Away {
                cause: cause.clone(),
            },
            SessionState::Refused(cause) => TrackerState::Refused {
                cause: cause.clone(),
            },
            SessionState::Up(up) => TrackerState::Connected {
                id: up.id,
                address: up.address,
                seen_at: up.seen_at,
            },
        }
    }
}

impl From<TrackerFault> for SessionState {
    fn from(fault: TrackerFault) -> SessionState {
        match fault.is_refusal() {
            true => SessionState::Refused(fault),
            false => SessionState::Away(Some(fault)),
        }
    }
}

/// One configured tracker, and the state of the session with it.
pub(crate) struct TrackerSession {
    pub(crate) tracker: TrackerAddress,
    state: watch::Sender<SessionState>,
    /// Where this node goes when the tracker is lost.
    pub(super) siblings: Siblings,
    /// Entries that the tracker refused or removed since everything was last announced.
    unlisted: AtomicU64,
}

impl TrackerSession {
    pub(crate) fn new(tracker: TrackerAddress) -> TrackerSession {
        TrackerSession {
            tracker,
            state: watch::Sender::new(SessionState::Away(None)),
            siblings: Siblings::default(),
            unlisted: AtomicU64::new(0),
        }
    }

    /// Returns the session for the node's status.
    pub(crate) fn to_status(&self) -> TrackerStatus {
        TrackerStatus {
            tracker: self.tracker.clone(),
            state: self.state().to_report(),
            unlisted_entries: self.unlisted.load(Ordering::Relaxed),
        }
    }

    /// Number of entries that the tracker refused or removed.
    pub(super) fn add_unlisted(&self, entries: u32) {
        self.unlisted.fetch_add(entries.into(), Ordering::Relaxed);
    }

    /// Everything is announced again.
    pub(super) fn reset_unlisted(&self) {
        self.unlisted.store(0, Ordering::Relaxed);
    }

    pub(crate) fn state(&self) -> SessionState {
        self.state.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    /// Returns the session if it is up.
    pub(crate) fn established(&self) -> Option<Established> {
        match &*self.state.borrow() {
            SessionState::Up(up) => Some(up.clone()),
            SessionState::Away(_) | SessionState::Refused(_) => None,
        }
    }

    /// Whether the tracker runs on this machine, judging by its configured address.
    pub(crate) fn is_on_this_machine(&self) -> bool {
        let host = &self.tracker.host;
        let ip = host.parse::<IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// Waits until the session is up or refused, at most until `until`, and returns its state.
    pub(crate) async fn settled(&self, until: Instant) -> SessionState {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, SessionState::Away(_)));
        let _ = timeout_at(until, settled).await;
        self.state()
    }

    /// Sets the state. Returns the state to report if it has changed.
    pub(super) fn set(&self, state: SessionState) -> Option<TrackerState> {
        let report = state.to_report();
        let old = self.state.send_replace(state).to_report();
        (old != report).then_some(report)
    }
}

/// The pauses between attempts to establish a session.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { next: PAUSE_MIN }
    }

    /// A session was established: the next pause is short again.
    pub(super) fn reset(&mut self) {
        self.next = PAUSE_MIN;
    }

    /// Whether the last session worked: the tracker is lost only now.
    pub(super) fn is_fresh(&self) -> bool {
        self.next == PAUSE_MIN
    }

    /// Returns the longest pause before the next attempt. The caller leaves out a random part of
    /// it, so that a restarted tracker is not dialled by all nodes at once.
    pub(super) fn pause(&mut self, fault: &TrackerFault) -> Duration {
        let pause = match fault.is_refusal() {
            true => PAUSE_REFUSED,
            false => self.next,
        };
        self.next = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use qshare_net::{DialError, GroupMismatch};

    use super::*;

    fn silent() -> TrackerFault {
        TrackerFault::NoAnswer(Duration::from_secs(4))
    }

    fn refused() -> TrackerFault {
        TrackerFault::Dial(Arc::new(DialError::GroupRefused(GroupMismatch::Different)))
    }

    fn session(address: &str) -> TrackerSession {
        TrackerSession::new(address.parse().unwrap())
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_short_again_after_a_session() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..7)
            .map(|_| backoff.pause(&silent()).as_millis())
            .collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.pause(&silent()), PAUSE_MIN);
    }

    #[test]
    fn a_tracker_that_refuses_is_left_alone_for_longer() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.pause(&refused()), PAUSE_REFUSED);
        assert_eq!(backoff.pause(&silent()), PAUSE_MAX);
    }

    #[test]
    fn only_a_change_of_state_is_reported() {
        let session = session("t:1");
        assert!(session.set(SessionState::Away(None)).is_none());
        assert!(session.set(silent().into()).is_some());
        assert!(session.set(silent().into()).is_none());
        let report = session.set(refused().into());
        assert!(matches!(report, Some(TrackerState::Refused { .. })));
        assert!(session.established().is_none());
    }

    #[tokio::test]
    async fn a_refusal_settles_a_session_and_silence_does_not() {
        let session = session("t:1");
        let now = Instant::now();
        assert!(matches!(session.settled(now).await, SessionState::Away(_)));
        session.set(refused().into());
        let far = now + Duration::from_secs(3600);
        assert!(matches!(
            session.settled(far).await,
            SessionState::Refused(_)
        ));
    }

    #[test]
    fn a_tracker_on_this_machine_is_known_by_its_address() {
        for (address, expected) in [
            ("localhost:1", true),
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("192.0.2.1:1", false),
            ("tracker.example:1", false),
        ] {
            assert_eq!(session(address).is_on_this_machine(), expected, "{address}");
        }
    }
}
