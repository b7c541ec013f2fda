//! The state of the session with one tracker, and when a lost one is tried again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qshare_content::TrackerAddress;
use rand::seq::SliceRandom;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::ask::Established;
use super::siblings::Siblings;
use super::silence::Suspicion;
use super::spare::SpareSlot;
use crate::error::TrackerFault;
use crate::vocabulary::{TrackerState, TrackerStatus};

/// Longest pause before a node goes to a sibling. A random part of it spreads the nodes of a
/// tracker that stops. With the dial and a full announcement it is within a second.
const MOVE_PAUSE_MAX: Duration = Duration::from_millis(400);
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
    /// The tracker of the present or last session: the configured one or a sibling.
    current: Mutex<TrackerAddress>,
    /// Whether the tracker owes an answer.
    pub(super) suspicion: Suspicion,
    /// Sessions with other trackers of the registry, which only ask; one each, because a newer
    /// session of a node replaces the earlier one.
    spares: Mutex<HashMap<String, SpareSlot>>,
    /// Entries that the tracker refused or removed since everything was last announced.
    unlisted: AtomicU64,
}

impl TrackerSession {
    pub(crate) fn new(tracker: TrackerAddress) -> TrackerSession {
        TrackerSession {
            current: Mutex::new(tracker.clone()),
            suspicion: Suspicion::default(),
            spares: Mutex::default(),
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

    /// Returns the other trackers of the same registry in random order: siblings, and the
    /// configured one if the session is with a sibling.
    pub(crate) fn others(&self) -> Vec<TrackerAddress> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut others = self.siblings.all_but(&current);
        if *current != self.tracker {
            others.push(self.tracker.clone());
        }
        others.shuffle(&mut rand::rng());
        others
    }

    /// Whether another tracker of the same registry is known.
    pub(crate) fn has_others(&self) -> bool {
        !self.others().is_empty()
    }

    /// The session is, or will be, with this tracker.
    pub(super) fn set_current(&self, tracker: &TrackerAddress) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone_from(tracker);
    }

    /// The tracker has not answered a request in time. If it sends nothing at all, the session is
    /// lost before the idle time-out.
    pub(crate) fn suspect(&self) {
        self.suspicion.raise();
    }

    /// Whether the tracker owes an answer, and has sent nothing since.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspicion.is_raised()
    }

    /// Returns the place of the spare session with a tracker. Its lock is held while dialling.
    pub(super) fn spare_slot(&self, tracker: &TrackerAddress) -> SpareSlot {
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(spares.entry(tracker.to_string()).or_default())
    }

    /// Ends all spare sessions: there is a better one now.
    pub(super) fn end_spares(&self) {
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        spares.clear();
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

/// The next attempt to establish a session.
#[derive(Debug)]
pub(super) struct NextAttempt {
    /// The range of the pause before it, of which a random time is taken.
    pub(super) pause: Range<Duration>,
    /// The trackers to dial, in order.
    pub(super) targets: Vec<TrackerAddress>,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { next: PAUSE_MIN }
    }

    /// A session was established: the next pause is short again.
    pub(super) fn reset(&mut self) {
        self.next = PAUSE_MIN;
    }

    /// Returns what to do after `lost` was lost or could not be reached. A node whose tracker is
    /// lost goes to one of the `others`, which spreads nodes, and comes back only if these do not
    /// answer.
    pub(super) fn next_attempt(
        &mut self,
        fault: &TrackerFault,
        others: Vec<TrackerAddress>,
        lost: TrackerAddress,
    ) -> NextAttempt {
        // The last session worked: the tracker is lost only now.
        let is_moving = self.next == PAUSE_MIN && !others.is_empty();
        let pause = self.pause(fault);
        let mut targets = others;
        targets.push(lost);
        NextAttempt {
            pause: match is_moving {
                true => Duration::ZERO..MOVE_PAUSE_MAX,
                false => pause / 2..pause,
            },
            targets,
        }
    }

    /// Returns the longest pause before the next attempt. A random part of it is left out, so that
    /// a restarted tracker is not dialled by all nodes at once.
    fn pause(&mut self, fault: &TrackerFault) -> Duration {
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
    use qshare_net::{DialError, GroupMismatch};

    use super::*;

    fn silent() -> TrackerFault {
        TrackerFault::NoAnswer(Duration::from_secs(4))
    }

    fn refused() -> TrackerFault {
        TrackerFault::Dial(Arc::new(DialError::GroupRefused(GroupMismatch::Different)))
    }

    #[test]
    fn a_node_whose_tracker_says_goodbye_goes_to_siblings_first_and_soon() {
        let at = |address: &str| -> TrackerAddress { address.parse().unwrap() };
        let others = || vec![at("b:1"), at("c:1")];
        let mut backoff = Backoff::new();
        let goodbye = TrackerFault::Lost(quinn::ConnectionError::Reset);
        let next = backoff.next_attempt(&goodbye, others(), at("a:1"));
        // A random part of the pause spreads nodes; all of it leaves time to dial and announce.
        assert_eq!(next.pause, Duration::ZERO..Duration::from_millis(400));
        assert_eq!(next.targets, [at("b:1"), at("c:1"), at("a:1")]);
        // None of them answers: the pauses grow, and the tracker is tried, too.
        for (from_ms, to_ms) in [(200, 400), (400, 800)] {
            let next = backoff.next_attempt(&silent(), others(), at("a:1"));
            let expected = Duration::from_millis(from_ms)..Duration::from_millis(to_ms);
            assert_eq!(next.pause, expected);
            assert_eq!(next.targets.len(), 3);
        }
        backoff.reset();
        let next = backoff.next_attempt(&goodbye, Vec::new(), at("a:1"));
        assert_eq!(next.targets, [at("a:1")]);
        assert_eq!(next.pause, PAUSE_MIN / 2..PAUSE_MIN);
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

    #[test]
    fn a_session_with_a_sibling_has_the_configured_tracker_in_reserve() {
        use qshare_content::NodeId;
        use qshare_wire::{Address, siblings::Sibling};

        let session = session("192.0.2.1:65000");
        assert!(!session.has_others());
        let told = [Sibling {
            tracker: NodeId([2; 32]),
            address: Address::Socket(([192, 0, 2, 2], 65000).into()),
        }];
        session
            .siblings
            .set(&told, ([192, 0, 2, 1], 65000).into(), &[]);
        let others = session.others();
        assert_eq!(others.len(), 1);
        assert_eq!(others[0].host, "192.0.2.2");
        session.set_current(&others[0]);
        assert_eq!(session.others(), std::slice::from_ref(&session.tracker));
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
