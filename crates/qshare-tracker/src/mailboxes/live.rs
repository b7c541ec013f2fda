//! The mailboxes whose sharers are in session with this tracker, and the runs at them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_content::fair::{Network, User};
use qshare_net::NetworkRates;
use qshare_wire::mailbox::{MailboxClaim, MailboxFault, MailboxForward, MailboxStep};
use qshare_wire::{Refusal, Refused};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::store::{Claim, ClaimError, MailboxState, MailboxStore, TokenHash};
use crate::fair_rate::FairRate;

/// Runs that are open at one mailbox. The sharer itself allows three.
const RUNS_MAX: usize = 8;
/// Runs that one network may begin at once, and in the long run: more than a class of people types,
/// and few enough that a network cannot use up the guesses of many codes.
const RUNS_BURST: f64 = 40.0;
const RUNS_PER_SECOND: f64 = 0.5;
/// Steps that wait for a sharer: two of each run, and the end of runs that have just ended.
const STEPS_MAX: usize = 4 * RUNS_MAX;
/// Time for each step of the other side. No person is involved.
pub(super) const STEP_DEADLINE: Duration = Duration::from_secs(10);
/// Claims that the tracker grants at once, and in the long run, shared fairly between networks.
const CLAIMS_BURST: u32 = 600;
const CLAIMS_PER_SECOND: f64 = 10.0;
/// Retry time where a mailbox or the store has no room.
const BUSY_RETRY: Duration = Duration::from_secs(2);
/// Retry time while a sharer is away, about as long as it pauses before it dials again.
const AWAY_RETRY: Duration = Duration::from_secs(1);

/// All mailboxes, as the handlers of streams use them.
pub(crate) struct Mailboxes {
    store: Arc<dyn MailboxStore>,
    live: Arc<Mutex<HashMap<u32, Arc<Live>>>>,
    claims: Mutex<FairRate>,
    runs: Mutex<NetworkRates>,
}

/// A mailbox whose sharer is in session.
struct Live {
    sharer: NodeId,
    /// To the sharer.
    steps: mpsc::Sender<MailboxForward>,
    /// To the receivers, by run.
    receivers: Mutex<HashMap<u64, mpsc::Sender<MailboxStep>>>,
    last_run: AtomicU64,
    /// Cancelled when a newer stream claims the mailbox, or the store evicts it.
    replaced: CancellationToken,
}

/// A claimed mailbox, for as long as its sharer's stream is open.
pub(super) struct Claimed {
    store: Arc<dyn MailboxStore>,
    all: Arc<Mutex<HashMap<u32, Arc<Live>>>>,
    live: Arc<Live>,
    number: u32,
    token: TokenHash,
    /// Time until the mailbox expires.
    pub(super) remaining: Duration,
}

/// The receiver's end of a run.
pub(super) struct Run {
    live: Arc<Live>,
    id: u64,
    from_sharer: mpsc::Receiver<MailboxStep>,
    is_over: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a refusal with a retry time.
pub(super) fn refused(refusal: impl Into<Refusal>, retry_after: Duration) -> Refused {
    let mut refused = Refused::new(refusal.into());
    refused.retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
    refused
}

impl Mailboxes {
    pub(crate) fn new(store: Arc<dyn MailboxStore>) -> Mailboxes {
        let claims = FairRate::new(Instant::now(), CLAIMS_PER_SECOND, CLAIMS_BURST);
        Mailboxes {
            store,
            live: Arc::default(),
            claims: Mutex::new(claims),
            runs: Mutex::new(NetworkRates::new(RUNS_PER_SECOND, RUNS_BURST)),
        }
    }

    /// Claims a mailbox for a node in session. The steps for the sharer come from the receiver.
    pub(super) async fn claim(
        &self,
        owner: User<NodeId>,
        request: &MailboxClaim,
    ) -> Result<(Claimed, mpsc::Receiver<MailboxForward>), Refused> {
        if !lock(&self.claims).try_take(Instant::now(), owner) {
            return Err(refused(Refusal::Busy, BUSY_RETRY));
        }
        let token = TokenHash(Sha256::digest(request.token).into());
        let number = request.number;
        let claim = Claim {
            number,
            token,
            owner,
        };
        let granted = self.store.claim(claim).await;
        let granted = granted.map_err(|error| match error {
            ClaimError::Taken => Refused::new(MailboxFault::Taken.into()),
            ClaimError::Full | ClaimError::Away => refused(Refusal::Busy, BUSY_RETRY),
        })?;
        let (steps, to_sharer) = mpsc::channel(STEPS_MAX);
        let live = Arc::new(Live {
            sharer: owner.id,
            steps,
            receivers: Mutex::default(),
            last_run: AtomicU64::new(0),
            replaced: CancellationToken::new(),
        });
        let mut all = lock(&self.live);
        for evicted in granted.evicted {
            if let Some(evicted) = all.remove(&evicted) {
                evicted.end();
            }
        }
        if let Some(older) = all.insert(number, Arc::clone(&live)) {
            older.end();
        }
        drop(all);
        let claimed = Claimed {
            store: Arc::clone(&self.store),
            all: Arc::clone(&self.live),
            live,
            number,
            token,
            remaining: granted.remaining,
        };
        Ok((claimed, to_sharer))
    }

    /// Begins a run of a receiver at a mailbox.
    pub(super) async fn begin_run(
        &self,
        number: u32,
        network: Network,
        receiver: NodeId,
        exchange: Vec<u8>,
    ) -> Result<Run, Refused> {
        let may_run = lock(&self.runs).try_take(Instant::now(), network);
        may_run.map_err(|wait| refused(Refusal::Busy, wait))?;
        let live = lock(&self.live).get(&number).map(Arc::clone);
        let Some(live) = live else {
            return Err(match self.store.state(number).await {
                Ok(MailboxState::Unknown) => Refused::new(Refusal::NotHere),
                Ok(MailboxState::Ended(why)) => Refused::new(why.into()),
                Ok(MailboxState::Claimed) => refused(MailboxFault::Away, AWAY_RETRY),
                Err(_) => refused(Refusal::Busy, BUSY_RETRY),
            });
        };
        let id = live.last_run.fetch_add(1, Ordering::Relaxed) + 1;
        let (to_receiver, from_sharer) = mpsc::channel(2);
        {
            let mut receivers = lock(&live.receivers);
            if receivers.len() >= RUNS_MAX {
                return Err(refused(Refusal::Busy, BUSY_RETRY));
            }
            receivers.insert(id, to_receiver);
        }
        let run = Run {
            live,
            id,
            from_sharer,
            is_over: false,
        };
        run.send(MailboxStep::Opened { receiver, exchange })?;
        Ok(run)
    }
}

impl Live {
    fn end(&self) {
        self.replaced.cancel();
        lock(&self.receivers).clear();
    }
}

impl Claimed {
    /// Waits until a newer stream claims the mailbox, or the store evicts it.
    pub(super) async fn replaced(&self) {
        self.live.replaced.cancelled().await;
    }

    /// Passes a step of the sharer on to the receiver of its run. Steps of runs that have ended
    /// are dropped.
    pub(super) fn deliver(&self, run: u64, step: MailboxStep) {
        let to_receiver = lock(&self.live.receivers).get(&run).cloned();
        if let Some(to_receiver) = to_receiver {
            // A sharer that sends more steps than a run has loses the excess.
            let _ = to_receiver.try_send(step);
        }
    }

    /// Ends the mailbox for good.
    pub(super) async fn end(&self, why: MailboxFault) {
        self.store.end(self.number, self.token, why).await;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut all = lock(&self.all);
        if all
            .get(&self.number)
            .is_some_and(|live| Arc::ptr_eq(live, &self.live))
        {
            all.remove(&self.number);
        }
        drop(all);
        self.live.end();
    }
}

impl Run {
    /// Returns the sharer.
    pub(super) fn sharer(&self) -> NodeId {
        self.live.sharer
    }

    /// Sends the sharer a step.
    pub(super) fn send(&self, step: MailboxStep) -> Result<(), Refused> {
        let forward = MailboxForward { run: self.id, step };
        let sent = self.live.steps.try_send(forward);
        sent.map_err(|_| refused(Refusal::Busy, BUSY_RETRY))
    }

    /// Waits for the sharer's next step.
    ///
    /// # Errors
    ///
    /// Its refusal; that it is away; that it did not answer in time.
    pub(super) async fn next(&mut self) -> Result<MailboxStep, Refused> {
        match timeout(STEP_DEADLINE, self.from_sharer.recv()).await {
            Ok(Some(MailboxStep::Refused {
                code,
                retry_after_ms,
            })) => {
                self.is_over = true;
                let mut refused = Refused::new(Refusal::from_code(code));
                refused.retry_after_ms = retry_after_ms;
                Err(refused)
            }
            Ok(Some(step)) => {
                self.is_over = matches!(step, MailboxStep::Sealed { .. });
                Ok(step)
            }
            Ok(None) => {
                self.is_over = true;
                Err(refused(MailboxFault::Away, AWAY_RETRY))
            }
            Err(_) => Err(refused(MailboxFault::Away, AWAY_RETRY)),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        lock(&self.live.receivers).remove(&self.id);
        if !self.is_over {
            let _ = self.send(MailboxStep::Gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryMailboxes;
    use super::*;

    const NUMBER: u32 = 7;

    fn mailboxes() -> Mailboxes {
        Mailboxes::new(Arc::new(MemoryMailboxes::new(100)))
    }

    fn user(byte: u8) -> User<NodeId> {
        User {
            network: Network::V4([203, 0, byte]),
            id: NodeId([byte; 32]),
        }
    }

    fn request(token: u8) -> MailboxClaim {
        MailboxClaim {
            number: NUMBER,
            token: [token; 32],
            extensions: Vec::new(),
        }
    }

    async fn begin(mailboxes: &Mailboxes, receiver: u8) -> Result<Run, Refused> {
        let User { network, id } = user(receiver);
        mailboxes.begin_run(NUMBER, network, id, vec![1]).await
    }

    async fn refusal(mailboxes: &Mailboxes, receiver: u8) -> Refused {
        begin(mailboxes, receiver).await.err().unwrap()
    }

    #[tokio::test]
    async fn steps_go_between_the_sharer_and_the_receiver_of_their_run() {
        let mailboxes = mailboxes();
        let (claimed, mut steps) = mailboxes.claim(user(1), &request(1)).await.unwrap();
        let mut first = begin(&mailboxes, 2).await.unwrap();
        let mut second = begin(&mailboxes, 3).await.unwrap();
        assert_eq!(first.sharer(), user(1).id);
        for run in [1, 2] {
            let opened = steps.recv().await.unwrap();
            assert_eq!(opened.run, run);
            assert!(matches!(opened.step, MailboxStep::Opened { .. }));
        }
        let answer = |byte| MailboxStep::Answer {
            exchange: vec![byte],
        };
        claimed.deliver(2, answer(2));
        claimed.deliver(1, answer(1));
        claimed.deliver(99, answer(9));
        assert_eq!(first.next().await, Ok(answer(1)));
        assert_eq!(second.next().await, Ok(answer(2)));
        let refused = MailboxStep::Refused {
            code: MailboxFault::WrongWords.code(),
            retry_after_ms: 0,
        };
        claimed.deliver(1, refused);
        let refused = first.next().await.unwrap_err();
        assert_eq!(MailboxFault::of(&refused), Some(MailboxFault::WrongWords));
        // The sharer hears of a receiver that left, and not of one that it refused.
        drop(first);
        drop(second);
        let gone = steps.recv().await.unwrap();
        assert_eq!((gone.run, gone.step), (2, MailboxStep::Gone));
        assert!(steps.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_receiver_learns_why_there_is_no_sharer() {
        let mailboxes = mailboxes();
        let unknown = refusal(&mailboxes, 2).await;
        assert_eq!(unknown.refusal(), Refusal::NotHere);
        let (claimed, _steps) = mailboxes.claim(user(1), &request(1)).await.unwrap();
        let mut run = begin(&mailboxes, 2).await.unwrap();
        drop(claimed);
        let away = run.next().await.unwrap_err();
        assert_eq!(MailboxFault::of(&away), Some(MailboxFault::Away));
        assert!(away.retry_after_ms > 0);
        let away = refusal(&mailboxes, 2).await;
        assert_eq!(MailboxFault::of(&away), Some(MailboxFault::Away));
        let (claimed, _steps) = mailboxes.claim(user(1), &request(1)).await.unwrap();
        claimed.end(MailboxFault::Guessed).await;
        drop(claimed);
        let ended = refusal(&mailboxes, 2).await;
        assert_eq!(MailboxFault::of(&ended), Some(MailboxFault::Guessed));
    }

    #[tokio::test]
    async fn only_the_token_takes_a_mailbox_back_and_the_newer_stream_counts() {
        let mailboxes = mailboxes();
        let (older, _steps) = mailboxes.claim(user(1), &request(1)).await.unwrap();
        let taken = mailboxes.claim(user(2), &request(2)).await.err().unwrap();
        assert_eq!(MailboxFault::of(&taken), Some(MailboxFault::Taken));
        let (_newer, mut steps) = mailboxes.claim(user(1), &request(1)).await.unwrap();
        older.replaced().await;
        drop(older);
        let _run = begin(&mailboxes, 2).await.unwrap();
        assert_eq!(steps.recv().await.unwrap().run, 1);
    }

    #[tokio::test]
    async fn open_runs_are_bounded_at_a_mailbox_and_by_network() {
        let mailboxes = mailboxes();
        let (_claimed, mut steps) = mailboxes.claim(user(1), &request(1)).await.unwrap();
        let mut runs = Vec::new();
        for _ in 0..RUNS_MAX {
            runs.push(begin(&mailboxes, 2).await.unwrap());
        }
        let busy = refusal(&mailboxes, 3).await;
        assert_eq!(busy.refusal(), Refusal::Busy);
        assert!(busy.retry_after_ms > 0);
        runs.clear();
        for _ in 0..100 {
            while steps.try_recv().is_ok() {}
            drop(begin(&mailboxes, 2).await);
        }
        assert_eq!(refusal(&mailboxes, 2).await.refusal(), Refusal::Busy);
        while steps.try_recv().is_ok() {}
        assert!(begin(&mailboxes, 3).await.is_ok());
    }
}
