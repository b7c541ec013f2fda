//! Introductions between nodes of two trackers: what their trackers say to each other.
//!
//! The asking node's tracker sends the request to the other node's tracker, repeats it until it is
//! answered, and answers its own node. A repeated request is answered again, and not carried out
//! twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qshare_content::NodeId;
use qshare_wire::introduction::RelayTicket;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::inbox::{TrackerMessage, post};
use super::layout::Layout;
use super::link::Link;
use super::session_record::SessionDetails;

/// Attempts of a request to another tracker, and the time that each waits for the answer. Together
/// they end before a node stops waiting for its introduction.
const ATTEMPTS: u32 = 4;
const ATTEMPT_DEADLINE: Duration = Duration::from_millis(600);
/// Requests whose answers are remembered.
const ANSWERED_MAX: usize = 4_096;

/// A request to introduce a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IntroductionRequest {
    /// Names the request.
    pub(crate) request: u64,
    /// The asking node's tracker, and the port on which it listens.
    pub(crate) tracker: NodeId,
    pub(crate) tracker_port: u16,
    pub(crate) asker: NodeId,
    /// Where the asking node is. Its claimed addresses include those that it has sent just now.
    pub(crate) details: SessionDetails,
    pub(crate) asked: NodeId,
    /// Name and key of the probes.
    pub(crate) id: u64,
    pub(crate) key: [u8; 16],
    /// The asked node's ticket for the relay of the asking node's tracker.
    pub(crate) relay: Option<RelayTicket>,
}

/// The result of an introduction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum IntroductionResult {
    /// The node was told; where it is, and whether both may send many probes.
    Introduced(SessionDetails, bool),
    /// The node is introduced to too many others.
    Busy,
    /// The node has no session with the tracker.
    NotHere,
}

/// The answer to an [`IntroductionRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IntroductionAnswer {
    pub(crate) request: u64,
    pub(crate) result: IntroductionResult,
}

/// Introductions in progress.
#[derive(Default)]
pub(crate) struct Introductions {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, oneshot::Sender<IntroductionResult>>,
    answered: HashMap<(NodeId, u64), Option<IntroductionResult>>,
    order: VecDeque<(NodeId, u64)>,
}

impl Introductions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the other node's tracker. None if it does not answer.
    pub(crate) async fn ask(
        &self,
        link: &Link,
        layout: &Layout,
        to: NodeId,
        request: IntroductionRequest,
    ) -> Option<IntroductionResult> {
        let number = request.request;
        let (answered, mut answer) = oneshot::channel();
        self.lock().waiting.insert(number, answered);
        let call = post(layout, to, &[TrackerMessage::Introduce(request)]);
        let mut result = None;
        for _ in 0..ATTEMPTS {
            // While Redis is away the next attempt may succeed.
            let _ = link.run(std::slice::from_ref(&call)).await;
            if let Ok(told) = timeout(ATTEMPT_DEADLINE, &mut answer).await {
                result = told.ok();
                break;
            }
        }
        self.lock().waiting.remove(&number);
        result
    }

    /// Hands an answer to its asker.
    pub(crate) fn handle_answer(&self, answer: IntroductionAnswer) {
        if let Some(waiting) = self.lock().waiting.remove(&answer.request) {
            let _ = waiting.send(answer.result);
        }
    }

    /// Whether to carry out a request. Otherwise returns the answer that it had before, None while
    /// it is being carried out.
    pub(crate) fn begin(
        &self,
        request: &IntroductionRequest,
    ) -> Result<(), Option<IntroductionResult>> {
        let key = (request.tracker, request.request);
        let mut state = self.lock();
        if let Some(answer) = state.answered.get(&key) {
            return Err(answer.clone());
        }
        state.answered.insert(key, None);
        state.order.push_back(key);
        if state.order.len() > ANSWERED_MAX
            && let Some(oldest) = state.order.pop_front()
        {
            state.answered.remove(&oldest);
        }
        Ok(())
    }

    /// Remembers the answer to a request.
    pub(crate) fn end(&self, request: &IntroductionRequest, result: IntroductionResult) {
        let key = (request.tracker, request.request);
        if let Some(answer) = self.lock().answered.get_mut(&key) {
            *answer = Some(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::session_record::ObservingTracker;
    use super::*;

    #[test]
    fn a_repeated_request_is_carried_out_once_and_answered_again() {
        let introductions = Introductions::default();
        let request = IntroductionRequest {
            request: 7,
            tracker: NodeId([1; 32]),
            tracker_port: 65000,
            asker: NodeId([2; 32]),
            details: SessionDetails {
                observed: ([192, 0, 2, 1], 7000).into(),
                claimed: Vec::new(),
                features: 0,
                observer: ObservingTracker {
                    host: 1,
                    advertised: None,
                },
            },
            asked: NodeId([3; 32]),
            id: 1,
            key: [0; 16],
            relay: None,
        };
        assert_eq!(introductions.begin(&request), Ok(()));
        assert_eq!(introductions.begin(&request), Err(None));
        introductions.end(&request, IntroductionResult::Busy);
        assert_eq!(
            introductions.begin(&request),
            Err(Some(IntroductionResult::Busy))
        );
        let other = IntroductionRequest {
            request: 8,
            ..request
        };
        assert_eq!(introductions.begin(&other), Ok(()));
    }
}
