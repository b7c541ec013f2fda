//! The receiver of a code: asks every tracker and every neighbour that has its number.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use qshare_content::{Code, Link, NodeId};
use qshare_net::PakeReceiver;
use qshare_net::framed::{self, ReadError};
use qshare_wire::Refusal;
use qshare_wire::mailbox::{
    MAILBOX_TRACKER_LOST_RETRY, MailboxAnswer, MailboxConfirm, MailboxFault, MailboxOpen,
    MailboxSealed,
};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::RedeemError;
use crate::neighbours::Neighbours;
use crate::peers::Dialler;
use crate::trackers::{SessionState, TrackerSession, Trackers};

/// Confirmations per typed code, over all trackers and neighbours: each lets the other side test
/// one guess at the words.
const CONFIRMATIONS_MAX: usize = 3;
/// Time for each answer. It exceeds the 10 s that a tracker allows the sharer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(12);
/// Pause before the same tracker or neighbour is asked again, unless it says another time.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The longest pause. Pauses double: trackers limit how many runs a network begins.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(4);
/// A tracker that does not know the number is asked again for this long: it may have restarted, and
/// sharers come back to it.
const UNKNOWN_PATIENCE: Duration = Duration::from_millis(2_500);
/// Where the sharer's tracker is lost, this tracker is asked again for this long: the sharer
/// notices it within 30 s, its idle time-out, and comes to another tracker.
const MOVING_PATIENCE: Duration = Duration::from_secs(36);
/// Trackers have this long before the local network is searched.
const HEAD_START: Duration = Duration::from_millis(150);
/// Time from the start of discovery until neighbours can have answered (see `lookup/lan.rs`).
const FIRST_ANSWERS: Duration = Duration::from_millis(300);
/// Time to connect to a neighbour.
const REACH_DEADLINE: Duration = Duration::from_secs(3);

/// The link behind a code, and what is needed to tell its sharer of the completion.
#[derive(Clone)]
pub struct Redeemed {
    /// The link.
    pub link: Link,
    /// The sharer, which proved that it knows the words.
    pub sharer: NodeId,
    pub(super) receipt: [u8; 32],
}

/// How long a receiver tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedeemPatience {
    /// For this long, for a tracker and the sharer. A number that trackers do not know is given up
    /// earlier.
    Brief(Duration),
    /// For this long, also for a number that no tracker knows yet.
    Wait(Duration),
}

/// One typed code while it is being redeemed.
pub(super) struct Redeeming {
    us: NodeId,
    code: Code,
    until: Instant,
    /// How long a tracker that does not know the number is asked again.
    unknown_patience: Duration,
    /// Locked during a run: runs come one after another, over all trackers and neighbours.
    ledger: Mutex<Ledger>,
    /// Whether a tracker has answered.
    was_answered: AtomicBool,
}

#[derive(Default)]
struct Ledger {
    confirmations: usize,
    /// Nodes that called the words wrong, or did not know them.
    wrong_at: HashSet<NodeId>,
}

/// Why a run gave no link.
enum Miss {
    /// This is what the user should know. Nothing else is tried at this tracker or neighbour.
    Final(RedeemError),
    /// It may work after this time.
    Later(RedeemError, Duration),
}

impl Redeeming {
    pub(super) fn new(us: NodeId, code: Code, patience: RedeemPatience) -> Redeeming {
        let (time, unknown_patience) = match patience {
            RedeemPatience::Brief(time) => (time, UNKNOWN_PATIENCE),
            RedeemPatience::Wait(time) => (time, time),
        };
        Redeeming {
            us,
            code,
            until: Instant::now() + time,
            unknown_patience,
            ledger: Mutex::default(),
            was_answered: AtomicBool::new(false),
        }
    }

    /// Makes one run over a connection: with a tracker, or with the neighbour that is the sharer.
    async fn run(
        &self,
        connection: &quinn::Connection,
        neighbour: Option<NodeId>,
    ) -> Result<Redeemed, Miss> {
        let mut ledger = self.ledger.lock().await;
        if ledger.confirmations >= CONFIRMATIONS_MAX {
            return Err(Miss::Final(RedeemError::TooManyRuns));
        }
        let receiver = PakeReceiver::start(&self.code, self.us);
        let open = MailboxOpen {
            number: self.code.number(),
            exchange: receiver.message().to_vec(),
            extensions: Vec::new(),
        };
        let asked = framed::ask::<MailboxOpen, MailboxAnswer>(connection, &open);
        let (answer, mut send, mut recv) = answered(timeout(ANSWER_DEADLINE, asked).await)?;
        let MailboxAnswer {
            sharer, exchange, ..
        } = answer;
        if neighbour.is_some_and(|neighbour| neighbour != sharer) {
            return Err(Miss::Final(RedeemError::Tampered));
        }
        if ledger.wrong_at.contains(&sharer) {
            // Leaving now is no guess. The run with that sharer has told what there is to tell.
            return Err(Miss::Final(RedeemError::WrongWords));
        }
        let tampered = |_| Miss::Final(RedeemError::Tampered);
        let (awaiting, proof) = receiver.answer(sharer, &exchange).map_err(tampered)?;
        ledger.confirmations += 1;
        let finish = async {
            framed::write(&mut send, &MailboxConfirm { proof }).await?;
            framed::read::<MailboxSealed>(&mut recv).await
        };
        let sealed = answered(timeout(ANSWER_DEADLINE, finish).await);
        if let Err(Miss::Final(RedeemError::WrongWords)) = &sealed {
            ledger.wrong_at.insert(sharer);
        }
        let MailboxSealed { proof, sealed } = sealed?;
        let opened = awaiting.open(&proof, sealed).map_err(|error| {
            debug!(%error, peer = %sharer, "a sharer did not prove that it knows the code");
            ledger.wrong_at.insert(sharer);
            Miss::Final(RedeemError::Tampered)
        })?;
        let link = opened.link.parse();
        Ok(Redeemed {
            link: link.map_err(|error| Miss::Final(RedeemError::Link(error)))?,
            sharer,
            receipt: opened.receipt,
        })
    }

    /// Asks a tracker until it has an answer that stays.
    async fn ask_tracker(&self, session: &TrackerSession) -> Result<Redeemed, RedeemError> {
        let (mut unknown_until, mut moving_until) = (None, None);
        let mut shortest = ASK_AGAIN;
        loop {
            let up = match session.settled(self.until).await {
                SessionState::Up(up) => up,
                SessionState::Away(cause) => return Err(not_reached(cause)),
                SessionState::Refused(cause) => return Err(not_reached(Some(cause))),
            };
            let (error, told) = match self.run(&up.connection, None).await {
                Ok(redeemed) => return Ok(redeemed),
                Err(Miss::Final(error)) => (error, None),
                Err(Miss::Later(error, told)) => (error, Some(told)),
            };
            let pause = told.map(|told| told.max(shortest));
            shortest = (2 * shortest).min(ASK_AGAIN_MAX);
            let Some(pause) = pause else {
                self.was_answered.store(true, Ordering::Relaxed);
                return Err(error);
            };
            let now = Instant::now();
            let mut until = self.until;
            let is_moving = told.is_some_and(|told| told >= MAILBOX_TRACKER_LOST_RETRY);
            if matches!(error, RedeemError::SharerAway) && is_moving {
                let patience = moving_until.get_or_insert(now + MOVING_PATIENCE);
                until = until.max(*patience);
            }
            if matches!(error, RedeemError::Unknown { .. }) {
                let patience = unknown_until.get_or_insert(now + self.unknown_patience);
                until = until.min(*patience);
            }
            if now + pause >= until {
                self.was_answered.store(true, Ordering::Relaxed);
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    /// Asks the neighbours that advertise the number.
    async fn ask_neighbours(
        &self,
        neighbours: &Neighbours,
        dialler: &Arc<Dialler>,
        has_trackers: bool,
    ) -> Result<Redeemed, RedeemError> {
        if has_trackers {
            sleep(HEAD_START).await;
        }
        let nobody = RedeemError::Unknown {
            asked_tracker: false,
            unreached: None,
        };
        let Some(since) = neighbours.started(self.until).await else {
            return Err(nobody);
        };
        let everybody = (since + FIRST_ANSWERS).min(self.until);
        let mut changes = neighbours.changes();
        let mut tried = HashSet::new();
        let mut worst = nobody;
        loop {
            changes.borrow_and_update();
            for (node, addresses) in neighbours.offering(self.code.number()) {
                if !tried.insert(node) {
                    continue;
                }
                let reached = timeout(REACH_DEADLINE, dialler.reach(node, &addresses)).await;
                let peer = match reached {
                    Ok(Ok(peer)) => peer,
                    Ok(Err(error)) => {
                        debug!(peer = %node, %error, "cannot reach a neighbour that has the code");
                        tried.remove(&node);
                        continue;
                    }
                    Err(_) => {
                        debug!(peer = %node, "a neighbour that has the code does not answer");
                        tried.remove(&node);
                        continue;
                    }
                };
                let missed = match self.run(&peer.quic(), Some(node)).await {
                    Ok(redeemed) => return Ok(redeemed),
                    Err(Miss::Final(error)) => error,
                    Err(Miss::Later(error, pause)) => {
                        sleep(pause.min(ASK_AGAIN)).await;
                        tried.remove(&node);
                        error
                    }
                };
                if missed.rank() >= worst.rank() {
                    worst = missed;
                }
            }
            let now = Instant::now();
            let is_enough = !tried.is_empty() || self.was_answered.load(Ordering::Relaxed);
            if now >= self.until || (now >= everybody && is_enough) {
                return Err(worst);
            }
            let wake = match now < everybody {
                true => everybody,
                false => self.until.min(now + ASK_AGAIN),
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(wake) => {}
            }
        }
    }
}

/// Redeems a code: the first link counts. Of several failures the one that says most is returned.
pub(super) async fn redeem(
    redeeming: Arc<Redeeming>,
    trackers: &Arc<Trackers>,
    neighbours: &Arc<Neighbours>,
    dialler: &Arc<Dialler>,
) -> Result<Redeemed, RedeemError> {
    let mut asking = JoinSet::new();
    for session in trackers.sessions() {
        let (redeeming, session) = (redeeming.clone(), session.clone());
        asking.spawn(async move { redeeming.ask_tracker(&session).await });
    }
    if neighbours.is_on() {
        let has_trackers = !trackers.is_empty();
        let (neighbours, dialler) = (neighbours.clone(), dialler.clone());
        asking.spawn(async move {
            redeeming
                .ask_neighbours(&neighbours, &dialler, has_trackers)
                .await
        });
    }
    let mut worst = RedeemError::Unknown {
        asked_tracker: false,
        unreached: None,
    };
    while let Some(asked) = asking.join_next().await {
        match asked {
            Ok(Ok(redeemed)) => return Ok(redeemed),
            Ok(Err(error)) => worst = more_telling(worst, error),
            Err(lost) => debug!(%lost, "a task that redeemed a code was lost"),
        }
    }
    Err(worst)
}

/// Returns the error of the higher rank; that a tracker was not reached is kept.
fn more_telling(one: RedeemError, other: RedeemError) -> RedeemError {
    if let (
        RedeemError::Unknown {
            asked_tracker: a,
            unreached: first,
        },
        RedeemError::Unknown {
            asked_tracker: b,
            unreached: second,
        },
    ) = (&one, &other)
    {
        return RedeemError::Unknown {
            asked_tracker: *a || *b,
            unreached: first.clone().or(second.clone()),
        };
    }
    match other.rank() > one.rank() {
        true => other,
        false => one,
    }
}

fn not_reached(cause: Option<crate::error::TrackerFault>) -> RedeemError {
    let silent = crate::error::TrackerFault::NoAnswer(Duration::from_secs(4));
    RedeemError::Unknown {
        asked_tracker: false,
        unreached: Some(cause.unwrap_or(silent)),
    }
}

/// Classifies what came in place of an answer.
fn answered<T>(
    answer: Result<Result<T, ReadError>, tokio::time::error::Elapsed>,
) -> Result<T, Miss> {
    let error = match answer {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error,
        Err(_) => return Err(Miss::Later(RedeemError::SharerAway, ASK_AGAIN)),
    };
    let ReadError::Refused(refused) = error else {
        debug!(%error, "a run was interrupted");
        return Err(Miss::Later(RedeemError::SharerAway, ASK_AGAIN));
    };
    let pause = Duration::from_millis(refused.retry_after_ms.into()).max(ASK_AGAIN);
    let error = RedeemError::of(&refused);
    let passes = match MailboxFault::of(&refused) {
        Some(fault) => fault == MailboxFault::Away,
        None => matches!(refused.refusal(), Refusal::Busy | Refusal::NotHere),
    };
    Err(match passes {
        true => Miss::Later(error, pause),
        false => Miss::Final(error),
    })
}
