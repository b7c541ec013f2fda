//! A mailbox at one tracker: claims it, serves the runs there, and takes it back after a lost
//! session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_net::framed::{self, ReadError};
use qshare_wire::Refused;
use qshare_wire::mailbox::{
    MailboxClaim, MailboxClaimed, MailboxFault, MailboxForward, MailboxStep,
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::error::ClaimFault;
use super::event::CodeEvent;
use super::exchange::Exchange;
use super::places::Places;
use crate::trackers::{RegistryClaim, SessionState, TrackerSession};

/// Time for the answer to a claim.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Pause before a claim that was refused for lack of room is repeated, unless the tracker says
/// another time.
const PAUSE: Duration = Duration::from_secs(2);

/// Pause after a lost stream.
const LOST_PAUSE: Duration = Duration::from_millis(200);

/// The stream of a mailbox that is claimed.
pub(super) struct ClaimedStream {
    send: SendStream,
    recv: RecvStream,
}

/// A granted claim, with the right to claim at its registry.
pub(super) type FirstClaim = (ClaimedStream, RegistryClaim);

impl ClaimedStream {
    /// Gives the mailbox up.
    pub(super) async fn release(mut self) {
        let close = close_step(MailboxFault::Ended);
        let _ = timeout(ANSWER_DEADLINE, framed::write(&mut self.send, &close)).await;
        let _ = self.send.finish();
    }
}

/// Returns the message that ends a mailbox.
fn close_step(why: MailboxFault) -> MailboxForward {
    MailboxForward {
        run: 0,
        step: MailboxStep::Close { code: why.code() },
    }
}

/// Why a claim failed.
pub(super) enum NotClaimed {
    /// For a reason that stays.
    Fault(ClaimFault),
    /// For one that passes; with the time after which to try again.
    Later(Duration),
}

/// Claims a mailbox.
pub(super) async fn claim(
    connection: &Connection,
    number: u32,
    token: [u8; 32],
) -> Result<ClaimedStream, NotClaimed> {
    let request = MailboxClaim {
        number,
        token,
        extensions: Vec::new(),
    };
    let asked = framed::ask::<MailboxClaim, MailboxClaimed>(connection, &request);
    match timeout(ANSWER_DEADLINE, asked).await {
        Ok(Ok((_, send, recv))) => Ok(ClaimedStream { send, recv }),
        Ok(Err(ReadError::Refused(refused))) => Err(match ClaimFault::of(&refused) {
            Some(fault) => NotClaimed::Fault(fault),
            None => NotClaimed::Later(pause_of(&refused)),
        }),
        Ok(Err(error)) => {
            debug!(%error, "a claim was not answered");
            Err(NotClaimed::Later(PAUSE))
        }
        Err(_) => Err(NotClaimed::Later(PAUSE)),
    }
}

fn pause_of(refused: &Refused) -> Duration {
    match refused.retry_after_ms {
        0 => PAUSE,
        ms => Duration::from_millis(ms.into()),
    }
}

/// Keeps a mailbox claimed at one tracker until the code ends, whenever no other session has
/// claimed it at a tracker of the same registry. `first` is the first claim, if the tracker granted
/// one.
pub(super) async fn keep_claimed(
    session: Arc<TrackerSession>,
    position: usize,
    exchange: Arc<Exchange>,
    places: Arc<Places>,
    mut first: Option<FirstClaim>,
) {
    let mut was_claimed = first.is_some();
    loop {
        if let Some((claimed, turn)) = first.take() {
            if serve(claimed, &exchange).await == Served::CodeEnded {
                return;
            }
            drop(turn);
            // A full tracker may have ended the stream only.
            tokio::select! {
                () = sleep(LOST_PAUSE) => {}
                _ = exchange.ended() => return,
            }
        }
        let mut state = session.subscribe();
        let up = tokio::select! {
            up = state.wait_for(|state| matches!(state, SessionState::Up(_))) => up,
            _ = exchange.ended() => return,
        };
        let Ok(SessionState::Up(up)) = up.map(|up| up.clone()) else {
            return;
        };
        let turn = tokio::select! {
            turn = places.turn(up.registry) => turn,
            _ = up.connection.closed() => continue,
            _ = exchange.ended() => return,
        };
        let token = places.token(up.registry, position);
        let claimed = tokio::select! {
            claimed = claim(&up.connection, exchange.code().number(), token) => claimed,
            _ = exchange.ended() => return,
        };
        match claimed {
            Ok(claimed) => {
                if !was_claimed {
                    was_claimed = true;
                    let tracker = session.tracker.clone();
                    exchange.tell(CodeEvent::Claimed { tracker });
                }
                first = Some((claimed, turn));
            }
            // Receivers at this tracker would meet the other sharer, so the code is of no use.
            Err(NotClaimed::Fault(ClaimFault::Taken)) if was_claimed => {
                exchange.end(MailboxFault::Taken);
                return;
            }
            Err(NotClaimed::Fault(cause)) => {
                let tracker = session.tracker.clone();
                exchange.tell(CodeEvent::Unavailable { tracker, cause });
                // Another tracker may answer at this address after its next session.
                tokio::select! {
                    _ = up.connection.closed() => {}
                    _ = exchange.ended() => return,
                }
            }
            Err(NotClaimed::Later(pause)) => tokio::select! {
                () = sleep(pause) => {}
                _ = exchange.ended() => return,
            },
        }
    }
}

/// Why [`serve`] returned.
#[derive(Debug, PartialEq, Eq)]
enum Served {
    /// The stream was lost.
    Lost,
    /// The code has ended, and the tracker was told.
    CodeEnded,
}

/// Answers the runs of a mailbox until its stream is lost or the code ends.
async fn serve(stream: ClaimedStream, exchange: &Exchange) -> Served {
    let ClaimedStream { mut send, recv } = stream;
    let mut runs = Runs {
        exchange,
        run_by_tracker: HashMap::new(),
    };
    // A frame is read to its end before the next: a read that was dropped would lose its start.
    let mut reading = Box::pin(read(recv));
    loop {
        let (forward, recv) = tokio::select! {
            read = &mut reading => match read {
                Some(read) => read,
                None => return Served::Lost,
            },
            why = exchange.ended() => {
                let close = close_step(why);
                let _ = timeout(ANSWER_DEADLINE, framed::write(&mut send, &close)).await;
                let _ = send.finish();
                // The tracker ends its half once it has recorded the end.
                let _ = timeout(ANSWER_DEADLINE, reading).await;
                return Served::CodeEnded;
            }
        };
        reading = Box::pin(read(recv));
        if let Some(step) = runs.answer(forward.run, forward.step) {
            let answer = MailboxForward {
                run: forward.run,
                step,
            };
            if framed::write(&mut send, &answer).await.is_err() {
                return Served::Lost;
            }
        }
    }
}

/// Reads the next step, and returns the stream with it. None when the stream is lost.
async fn read(mut recv: RecvStream) -> Option<(MailboxForward, RecvStream)> {
    let forward = framed::read::<MailboxForward>(&mut recv).await;
    match forward {
        Ok(forward) => Some((forward, recv)),
        Err(error) => {
            debug!(%error, "the stream of a mailbox ended");
            None
        }
    }
}

/// The runs of one stream. Those that are open when the stream is lost end as aborted ones.
struct Runs<'a> {
    exchange: &'a Exchange,
    /// The number of a run at the exchange, by the number that the tracker gave it.
    run_by_tracker: HashMap<u64, u64>,
}

impl Runs<'_> {
    /// Returns the answer to a step, if it has one.
    fn answer(&mut self, run: u64, step: MailboxStep) -> Option<MailboxStep> {
        match step {
            MailboxStep::Opened { receiver, exchange } => {
                let opened = self.exchange.open(Instant::now(), receiver, &exchange);
                Some(match opened {
                    Ok((number, exchange)) => {
                        if let Some(older) = self.run_by_tracker.insert(run, number) {
                            self.exchange.abort(older);
                        }
                        MailboxStep::Answer { exchange }
                    }
                    Err(refused) => refusing(&refused),
                })
            }
            MailboxStep::Confirm { proof } => {
                let number = self.run_by_tracker.remove(&run)?;
                Some(match self.exchange.confirm(number, &proof) {
                    Ok(sealed) => MailboxStep::Sealed {
                        proof: sealed.proof,
                        sealed: sealed.sealed,
                    },
                    Err(refused) => refusing(&refused),
                })
            }
            MailboxStep::Gone => {
                if let Some(number) = self.run_by_tracker.remove(&run) {
                    self.exchange.abort(number);
                }
                None
            }
            // Steps of a sharer; a tracker does not send them.
            MailboxStep::Answer { .. }
            | MailboxStep::Sealed { .. }
            | MailboxStep::Refused { .. }
            | MailboxStep::Close { .. } => None,
        }
    }
}

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        for &run in self.run_by_tracker.values() {
            self.exchange.abort(run);
        }
    }
}

fn refusing(refused: &Refused) -> MailboxStep {
    MailboxStep::Refused {
        code: refused.refusal().code(),
        retry_after_ms: refused.retry_after_ms,
    }
}
