//! Runs of receivers at mailboxes whose sharers have their streams at another tracker: what the two
//! trackers say to each other.
//!
//! The receiver's tracker sends the opening until the sharer's tracker accepts it. From then on
//! each step is one message. Neither tracker learns more than one that has both streams, and the
//! sharer counts guesses over all trackers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qshare_content::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::inbox::{TrackerMessage, post};
use super::layout::Layout;
use super::link::Link;

/// An opening is sent this many times at most, until it is accepted.
const ATTEMPTS: u32 = 4;
/// Wait for the acceptance of an opening before it is sent again.
const ATTEMPT_DEADLINE: Duration = Duration::from_millis(600);
/// Runs of other trackers' receivers that are open here.
const HOSTED_MAX: usize = 1_024;
/// Openings that are remembered, so that a repeated one is not carried out twice.
const REMEMBERED_MAX: usize = 4_096;
/// Steps that wait for their reader: more than a run has.
const STEPS_MAX: usize = 4;

/// A request for a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenRun {
    /// Names the run, with the tracker.
    pub(crate) run: u64,
    /// The receiver's tracker.
    pub(crate) tracker: NodeId,
    pub(crate) number: u32,
    pub(crate) receiver: NodeId,
    /// Where the receiver is, which counts against its network.
    pub(crate) receiver_ip: IpAddr,
    /// The receiver's message of the key exchange.
    pub(crate) exchange: Vec<u8>,
}

/// A step of the receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReceiverStep {
    Confirm { proof: [u8; 32] },
    Gone,
}

/// A step of the sharer, or of its tracker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SharerStep {
    /// The tracker has the sharer's stream and begins the run.
    Accepted,
    Answer {
        sharer: NodeId,
        exchange: Vec<u8>,
    },
    Sealed {
        proof: [u8; 32],
        sealed: Vec<u8>,
    },
    Refused {
        code: u16,
        retry_after_ms: u32,
    },
}

/// A message about runs and mailboxes of another tracker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PairingMessage {
    Open(OpenRun),
    ToSharer {
        tracker: NodeId,
        run: u64,
        step: ReceiverStep,
    },
    ToReceiver {
        run: u64,
        step: SharerStep,
    },
    /// A full registry has removed a mailbox whose stream the addressee has.
    Evicted {
        number: u32,
    },
}

/// The runs that lead to other trackers, and theirs that lead here.
pub(crate) struct Pairings {
    link: Arc<Link>,
    layout: Layout,
    us: NodeId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Runs of receivers here.
    waiting: HashMap<u64, mpsc::Sender<SharerStep>>,
    /// Runs of receivers elsewhere.
    hosted: HashMap<(NodeId, u64), mpsc::Sender<ReceiverStep>>,
    known: HashSet<(NodeId, u64)>,
    order: VecDeque<(NodeId, u64)>,
}

/// A run of a receiver here at a mailbox elsewhere.
pub(crate) struct RemoteRun {
    pairings: Arc<Pairings>,
    to: NodeId,
    run: u64,
    steps: mpsc::Receiver<SharerStep>,
    is_over: bool,
}

/// A run of a receiver elsewhere at a mailbox here.
pub(crate) struct HostedRun {
    pairings: Arc<Pairings>,
    key: (NodeId, u64),
    steps: mpsc::Receiver<ReceiverStep>,
}

impl Pairings {
    pub(super) fn new(link: Arc<Link>, layout: Layout, us: NodeId) -> Pairings {
        Pairings {
            link,
            layout,
            us,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn post(&self, to: NodeId, message: PairingMessage) -> bool {
        let call = post(&self.layout, to, &[TrackerMessage::Pairing(message)]);
        let posted = self.link.run(&[call]).await;
        if let Err(fault) = &posted {
            debug!(cause = %fault, "a step of a run was not sent");
        }
        posted.is_ok()
    }

    /// Tells a tracker that a mailbox had to yield.
    pub(crate) async fn tell_evicted(&self, to: NodeId, number: u32) {
        self.post(to, PairingMessage::Evicted { number }).await;
    }

    /// Begins a run at a mailbox of the tracker `to`. None if that tracker does not answer.
    pub(crate) async fn open(
        self: &Arc<Self>,
        to: NodeId,
        number: u32,
        receiver: NodeId,
        receiver_ip: IpAddr,
        exchange: Vec<u8>,
    ) -> Option<RemoteRun> {
        let run = rand::random();
        let (heard, steps) = mpsc::channel(STEPS_MAX);
        self.lock().waiting.insert(run, heard);
        let mut remote = RemoteRun {
            pairings: Arc::clone(self),
            to,
            run,
            steps,
            // Until it is accepted, nobody has to hear of its end.
            is_over: true,
        };
        let open = OpenRun {
            run,
            tracker: self.us,
            number,
            receiver,
            receiver_ip,
            exchange,
        };
        for _ in 0..ATTEMPTS {
            // While Redis is away the next attempt may succeed.
            self.post(to, PairingMessage::Open(open.clone())).await;
            if let Ok(Some(SharerStep::Accepted)) =
                timeout(ATTEMPT_DEADLINE, remote.steps.recv()).await
            {
                remote.is_over = false;
                return Some(remote);
            }
        }
        None
    }

    /// Hands a step to the receiver's handler.
    pub(super) fn handle_sharer_step(&self, run: u64, step: SharerStep) {
        if let Some(waiting) = self.lock().waiting.get(&run) {
            // A tracker that sends more steps than a run has loses the excess.
            let _ = waiting.try_send(step);
        }
    }

    /// Hands a step to the run that is hosted here.
    pub(super) fn handle_receiver_step(&self, tracker: NodeId, run: u64, step: ReceiverStep) {
        if let Some(hosted) = self.lock().hosted.get(&(tracker, run)) {
            let _ = hosted.try_send(step);
        }
    }

    /// Begins to host a run. None if it is known already, or there are too many: the receiver's
    /// tracker asks again.
    pub(super) fn host(self: &Arc<Self>, open: &OpenRun) -> Option<HostedRun> {
        let key = (open.tracker, open.run);
        let mut state = self.lock();
        if state.hosted.len() >= HOSTED_MAX || !state.known.insert(key) {
            return None;
        }
        state.order.push_back(key);
        if state.order.len() > REMEMBERED_MAX
            && let Some(oldest) = state.order.pop_front()
        {
            state.known.remove(&oldest);
        }
        let (heard, steps) = mpsc::channel(STEPS_MAX);
        state.hosted.insert(key, heard);
        Some(HostedRun {
            pairings: Arc::clone(self),
            key,
            steps,
        })
    }
}

impl RemoteRun {
    /// Waits for the next step. None if the other tracker has gone.
    pub(crate) async fn next(&mut self) -> Option<SharerStep> {
        let step = self.steps.recv().await?;
        self.is_over |= matches!(step, SharerStep::Sealed { .. } | SharerStep::Refused { .. });
        Some(step)
    }

    pub(crate) async fn confirm(&self, proof: [u8; 32]) {
        self.send(ReceiverStep::Confirm { proof }).await;
    }

    async fn send(&self, step: ReceiverStep) {
        let message = PairingMessage::ToSharer {
            tracker: self.pairings.us,
            run: self.run,
            step,
        };
        self.pairings.post(self.to, message).await;
    }
}

impl Drop for RemoteRun {
    fn drop(&mut self) {
        self.pairings.lock().waiting.remove(&self.run);
        if self.is_over {
            return;
        }
        // The sharer counts open runs as guesses.
        let (pairings, to) = (Arc::clone(&self.pairings), self.to);
        let message = PairingMessage::ToSharer {
            tracker: pairings.us,
            run: self.run,
            step: ReceiverStep::Gone,
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { pairings.post(to, message).await });
        }
    }
}

impl HostedRun {
    /// Waits for the receiver's next step. Gone if nothing more can come.
    pub(crate) async fn next(&mut self) -> ReceiverStep {
        self.steps.recv().await.unwrap_or(ReceiverStep::Gone)
    }

    pub(crate) async fn send(&self, step: SharerStep) {
        let (to, run) = self.key;
        let message = PairingMessage::ToReceiver { run, step };
        self.pairings.post(to, message).await;
    }
}

impl Drop for HostedRun {
    fn drop(&mut self) {
        self.pairings.lock().hosted.remove(&self.key);
    }
}
