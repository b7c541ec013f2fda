//! The mailboxes whose sharers are in session with this tracker.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_content::fair::{Network, User};
use qshare_net::NetworkRates;
use qshare_wire::mailbox::{
    MAILBOX_TRACKER_LOST_RETRY, MailboxClaim, MailboxFault, MailboxForward, MailboxStep,
};
use qshare_wire::{Refusal, Refused};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::memory::MemoryMailboxes;
use super::run::{LocalRun, Run};
use super::shared_store::SharedMailboxes;
use super::store::{Claim, ClaimError, MailboxState, MailboxStore, TIMES, TokenHash};
use crate::fair_rate::FairRate;
use crate::shared::SharedRegistry;

/// Runs that are open at one mailbox. The sharer itself allows three.
const RUNS_MAX: usize = 8;
/// Runs that one network may begin at once, and in the long run: more than a class of people types,
/// and few enough that a network cannot use up the guesses of many codes.
const RUNS_BURST: f64 = 40.0;
const RUNS_PER_SECOND: f64 = 0.5;
/// Steps that wait for a sharer: two of each run, and the end of runs that have just ended.
const STEPS_MAX: usize = 4 * RUNS_MAX;
/// Claims that the tracker grants at once, and in the long run, shared fairly between networks.
const CLAIMS_BURST: u32 = 600;
const CLAIMS_PER_SECOND: f64 = 10.0;
/// Retry time where a mailbox or the store has no room.
pub(super) const BUSY_RETRY: Duration = Duration::from_secs(2);
/// Retry time while a sharer is away, about as long as it pauses before it dials again.
pub(super) const AWAY_RETRY: Duration = Duration::from_secs(1);
/// Retry time while the tracker with the sharer's stream does not answer: the sharer notices that
/// it is lost, and goes to another one. Receivers are more patient when they read this time.
pub(super) const TRACKER_LOST_RETRY: Duration = MAILBOX_TRACKER_LOST_RETRY;

/// All mailboxes, as the handlers of streams use them.
pub(crate) struct Mailboxes {
    store: Arc<dyn MailboxStore>,
    live: Arc<Mutex<HashMap<u32, Arc<Live>>>>,
    claims: Mutex<FairRate>,
    runs: Mutex<NetworkRates>,
    /// Leads to mailboxes of other trackers.
    shared: Option<Arc<SharedRegistry>>,
}

/// A mailbox whose sharer is in session.
pub(super) struct Live {
    pub(super) sharer: NodeId,
    /// What was claimed, to claim it again in a store that has lost it.
    claim: Claim,
    /// To the sharer.
    pub(super) steps: mpsc::Sender<MailboxForward>,
    /// To the receivers, by run.
    pub(super) receivers: Mutex<HashMap<u64, mpsc::Sender<MailboxStep>>>,
    last_run: AtomicU64,
    /// Cancelled when a newer stream claims the mailbox, or the store evicts it.
    replaced: CancellationToken,
}

/// A claimed mailbox, for as long as its sharer's stream is open.
pub(super) struct Claimed {
    store: Arc<dyn MailboxStore>,
    all: Arc<Mutex<HashMap<u32, Arc<Live>>>>,
    live: Arc<Live>,
    /// Time until the mailbox expires.
    pub(super) remaining: Duration,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a refusal with a retry time.
pub(super) fn refused(refusal: impl Into<Refusal>, retry_after: Duration) -> Refused {
    let mut refused = Refused::new(refusal.into());
    refused.retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
    refused
}

impl Mailboxes {
    /// Keeps mailboxes in this tracker's own memory.
    pub(crate) fn in_memory(max: usize) -> Mailboxes {
        Mailboxes::new(Arc::new(MemoryMailboxes::new(TIMES, max)), None)
    }

    /// Shares mailboxes with the other trackers of a registry, `max` at most over all of them.
    pub(crate) fn shared(shared: &Arc<SharedRegistry>, max: usize) -> Mailboxes {
        let store = SharedMailboxes::new(shared, TIMES, max);
        Mailboxes::new(Arc::new(store), Some(Arc::clone(shared)))
    }

    fn new(store: Arc<dyn MailboxStore>, shared: Option<Arc<SharedRegistry>>) -> Mailboxes {
        let claims = FairRate::new(Instant::now(), CLAIMS_PER_SECOND, CLAIMS_BURST);
        Mailboxes {
            store,
            live: Arc::default(),
            claims: Mutex::new(claims),
            runs: Mutex::new(NetworkRates::new(RUNS_PER_SECOND, RUNS_BURST)),
            shared,
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
            stream: rand::random(),
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
            claim,
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
            remaining: granted.remaining,
        };
        Ok((claimed, to_sharer))
    }

    /// Begins a run of a receiver at a mailbox, wherever its sharer's stream is.
    pub(super) async fn begin_run(
        &self,
        number: u32,
        receiver: NodeId,
        receiver_ip: IpAddr,
        exchange: Vec<u8>,
    ) -> Result<Run, Refused> {
        self.count_run(receiver_ip)?;
        if let Some(live) = self.live_at(number) {
            return Ok(Run::Here(live.begin_run(receiver, exchange)?));
        }
        let tracker = match self.store.state(number).await {
            Ok(MailboxState::Unknown) => return Err(Refused::new(Refusal::NotHere)),
            Ok(MailboxState::Ended(why)) => return Err(Refused::new(why.into())),
            Ok(MailboxState::Claimed(tracker)) => tracker,
            Err(_) => return Err(refused(Refusal::Busy, BUSY_RETRY)),
        };
        let Some((tracker, shared)) = tracker.zip(self.shared.as_ref()) else {
            return Err(refused(MailboxFault::Away, AWAY_RETRY));
        };
        let opened = shared
            .pairings
            .open(tracker, number, receiver, receiver_ip, exchange);
        match opened.await {
            Some(run) => Ok(Run::Elsewhere(run)),
            None => Err(refused(MailboxFault::Away, TRACKER_LOST_RETRY)),
        }
    }

    /// Begins a run of another tracker's receiver at a mailbox whose sharer is in session here.
    pub(super) fn begin_hosted_run(
        &self,
        number: u32,
        receiver: NodeId,
        receiver_ip: IpAddr,
        exchange: Vec<u8>,
    ) -> Result<LocalRun, Refused> {
        self.count_run(receiver_ip)?;
        match self.live_at(number) {
            Some(live) => live.begin_run(receiver, exchange),
            None => Err(refused(MailboxFault::Away, AWAY_RETRY)),
        }
    }

    /// Counts a run against the receiver's network.
    fn count_run(&self, receiver_ip: IpAddr) -> Result<(), Refused> {
        let network = Network::of(receiver_ip);
        let may_run = lock(&self.runs).try_take(Instant::now(), network);
        may_run.map_err(|wait| refused(Refusal::Busy, wait))
    }

    fn live_at(&self, number: u32) -> Option<Arc<Live>> {
        lock(&self.live).get(&number).map(Arc::clone)
    }

    /// Ends a mailbox that had to yield.
    pub(crate) fn evict(&self, number: u32) {
        if let Some(evicted) = lock(&self.live).remove(&number) {
            evicted.end();
        }
    }

    /// Claims all mailboxes again after each new connection to the store, which may have lost them.
    /// Never returns.
    pub(crate) async fn restore(&self, mut connections: watch::Receiver<u64>) {
        while connections.changed().await.is_ok() {
            let all: Vec<Arc<Live>> = lock(&self.live).values().map(Arc::clone).collect();
            for live in all {
                if live.replaced.is_cancelled() {
                    continue;
                }
                match self.store.claim(live.claim).await {
                    // Somebody else has drawn the number meanwhile; its sharer draws another.
                    Err(ClaimError::Taken) => live.end(),
                    Err(ClaimError::Away) => break,
                    Ok(_) | Err(ClaimError::Full) => {}
                }
            }
        }
        std::future::pending::<()>().await;
    }
}

impl Live {
    fn begin_run(
        self: Arc<Self>,
        receiver: NodeId,
        exchange: Vec<u8>,
    ) -> Result<LocalRun, Refused> {
        let id = self.last_run.fetch_add(1, Ordering::Relaxed) + 1;
        let (to_receiver, from_sharer) = mpsc::channel(2);
        {
            let mut receivers = lock(&self.receivers);
            if receivers.len() >= RUNS_MAX {
                return Err(refused(Refusal::Busy, BUSY_RETRY));
            }
            receivers.insert(id, to_receiver);
        }
        let run = LocalRun::new(self, id, from_sharer);
        run.send(MailboxStep::Opened { receiver, exchange })?;
        Ok(run)
    }

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
        let Claim { number, token, .. } = self.live.claim;
        self.store.end(number, token, why).await;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let Claim { number, stream, .. } = self.live.claim;
        let mut all = lock(&self.all);
        if all
            .get(&number)
            .is_some_and(|live| Arc::ptr_eq(live, &self.live))
        {
            all.remove(&number);
        }
        drop(all);
        self.live.end();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let store = Arc::clone(&self.store);
            runtime.spawn(async move { store.leave(number, stream).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: u32 = 7;

    fn mailboxes() -> Mailboxes {
        Mailboxes::in_memory(100)
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

    async fn begin(mailboxes: &Mailboxes, receiver: u8) -> Result<LocalRun, Refused> {
        let ip = [203, 0, receiver, 1].into();
        let begun = mailboxes.begin_run(NUMBER, user(receiver).id, ip, vec![1]);
        match begun.await? {
            Run::Here(run) => Ok(run),
            Run::Elsewhere(_) => panic!("there is no other tracker"),
        }
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
