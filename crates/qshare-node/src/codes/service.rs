//! All codes of a node: those that it offers, and where their runs arrive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use qshare_content::fair::Network;
use qshare_content::{Code, NodeId};
use qshare_net::NetworkRates;
use qshare_net::framed::{self, ReadError};
use qshare_wire::mailbox::{
    MailboxAnswer, MailboxComplete, MailboxConfirm, MailboxOpen, MailboxSealed,
};
use qshare_wire::{Refusal, Refused};
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::RedeemError;
use super::event::CodeEvent;
use super::exchange::Exchange;
use super::offer::{self, CodeOffer, CodeOfferConfig, Offered};
use super::redeem::{self, RedeemPatience, Redeemed, Redeeming};
use crate::neighbours::Neighbours;
use crate::peers::{Dialler, Peer};
use crate::runtime::Tasks;
use crate::trackers::{TrackerSession, Trackers};

/// Runs that one neighbour may begin at once, and in the long run. Each costs some 0.2 ms.
const RUNS_BURST: f64 = 20.0;
const RUNS_PER_SECOND: f64 = 0.5;
/// Time for each message of a neighbour.
const STEP_DEADLINE: Duration = Duration::from_secs(10);
/// Time for telling all trackers that codes have ended, when the node stops.
const END_DEADLINE: Duration = Duration::from_millis(300);
/// Time for a report of completion.
const REPORT_DEADLINE: Duration = Duration::from_secs(5);

/// The codes that a node offers, and those that it redeems.
pub(crate) struct Codes {
    us: NodeId,
    trackers: Arc<Trackers>,
    neighbours: Arc<Neighbours>,
    dialler: Arc<Dialler>,
    tasks: Tasks,
    /// The open mailboxes on the local network.
    mailboxes: Mutex<HashMap<u32, Arc<Exchange>>>,
    /// Runs that neighbours begin.
    runs: Mutex<NetworkRates>,
    /// Offers that have not ended, for reports of completion.
    offers: Mutex<Vec<Weak<Offered>>>,
    /// Cancelled when the node stops.
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Codes {
    pub(crate) fn new(
        us: NodeId,
        trackers: Arc<Trackers>,
        neighbours: Arc<Neighbours>,
        dialler: Arc<Dialler>,
        tasks: Tasks,
    ) -> Codes {
        Codes {
            us,
            trackers,
            neighbours,
            dialler,
            tasks,
            mailboxes: Mutex::default(),
            runs: Mutex::new(NetworkRates::new(RUNS_PER_SECOND, RUNS_BURST)),
            offers: Mutex::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Offers a code until the result is dropped.
    pub(crate) fn offer(self: &Arc<Self>, config: CodeOfferConfig) -> CodeOffer {
        offer::start(self, config)
    }

    /// Asks all trackers and the local network for the link of a code.
    pub(crate) async fn redeem(
        self: &Arc<Self>,
        code: &Code,
        patience: RedeemPatience,
    ) -> Result<Redeemed, RedeemError> {
        let redeeming = Redeeming::new(self.us, code.clone(), patience);
        redeem::redeem(
            Arc::new(redeeming),
            &self.trackers,
            &self.neighbours,
            &self.dialler,
        )
        .await
    }

    /// Tells the sharer that this receiver has everything. Returns whether the sharer knows now.
    pub(crate) async fn report_complete(&self, redeemed: &Redeemed) -> bool {
        let report = async {
            let peer = self.dialler.reach(redeemed.sharer, &[]).await.ok()?;
            let (mut send, mut recv) = peer.quic().open_bi().await.ok()?;
            let complete = MailboxComplete {
                receipt: redeemed.receipt,
                extensions: Vec::new(),
            };
            framed::write(&mut send, &complete).await.ok()?;
            let _ = send.finish();
            // The sharer ends the stream without a message, or refuses.
            let ended = framed::read::<Refused>(&mut recv).await;
            matches!(ended, Err(ReadError::Ended)).then_some(())
        };
        matches!(timeout(REPORT_DEADLINE, report).await, Ok(Some(())))
    }

    /// Ends all codes, and waits until trackers were told, for a short time at most.
    pub(crate) async fn shut_down(&self) {
        self.stop.cancel();
        let ended = async {
            while lock(&self.offers)
                .iter()
                .any(|offer| offer.strong_count() > 0)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(END_DEADLINE, ended).await;
    }

    /// Answers a run that a neighbour begins at this node.
    pub(crate) async fn answer_open(
        &self,
        peer: &Peer,
        request: MailboxOpen,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Result<(), Refused> {
        if !self.neighbours.is_on() || !self.neighbours.is_near(peer.address().ip()) {
            return Err(Refused::because(
                Refusal::NotAllowed,
                "codes are answered on the local network only",
            ));
        }
        let network = Network::of(peer.address().ip());
        if let Err(wait) = lock(&self.runs).try_take(Instant::now(), network) {
            let mut busy = Refused::new(Refusal::Busy);
            busy.retry_after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            return Err(busy);
        }
        let exchange = lock(&self.mailboxes).get(&request.number).cloned();
        let exchange = exchange.ok_or_else(|| Refused::new(Refusal::NotHere))?;
        let (run, message) = exchange.open(Instant::now(), peer.node, &request.exchange)?;
        let _run = RunGuard {
            exchange: &exchange,
            run,
        };
        let answer = MailboxAnswer {
            sharer: self.us,
            exchange: message,
            extensions: Vec::new(),
        };
        let confirmed = timeout(STEP_DEADLINE, async {
            framed::write(send, &answer).await.ok()?;
            framed::read::<MailboxConfirm>(recv).await.ok()
        });
        // A receiver that leaves before its confirmation has made no guess.
        let Ok(Some(MailboxConfirm { proof })) = confirmed.await else {
            return Ok(());
        };
        let sealed = exchange.confirm(run, &proof)?;
        let message = MailboxSealed {
            proof: sealed.proof,
            sealed: sealed.sealed,
        };
        let _ = timeout(STEP_DEADLINE, framed::write(send, &message)).await;
        Ok(())
    }

    /// Takes a receiver's report that it has everything.
    pub(crate) fn answer_complete(
        &self,
        peer: &Peer,
        report: &MailboxComplete,
    ) -> Result<(), Refused> {
        let offers: Vec<Arc<Offered>> = {
            let offers = lock(&self.offers);
            offers.iter().filter_map(Weak::upgrade).collect()
        };
        for offer in offers {
            if let Some(left) = lock(&offer.uses).complete(&report.receipt) {
                debug!(peer = %peer.node, "a receiver has everything");
                let _ = offer.events.send(CodeEvent::Completed { left });
                return Ok(());
            }
        }
        Err(Refused::new(Refusal::NotHere))
    }

    pub(super) fn us(&self) -> NodeId {
        self.us
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Arc<TrackerSession>> {
        self.trackers.sessions()
    }

    /// Returns a token that is cancelled when the node stops.
    pub(super) fn stopping_offers(&self) -> CancellationToken {
        self.stop.child_token()
    }

    pub(super) fn register_offer(&self, offer: &Arc<Offered>) {
        let mut offers = lock(&self.offers);
        offers.retain(|offer| offer.strong_count() > 0);
        offers.push(Arc::downgrade(offer));
    }

    /// Whether this node or a neighbour offers a number.
    pub(super) fn is_taken_nearby(&self, number: u32) -> bool {
        lock(&self.mailboxes).contains_key(&number) || !self.neighbours.offering(number).is_empty()
    }

    /// Answers runs on the local network from now on. Returns false if there is none.
    pub(super) fn open_mailbox(&self, number: u32, exchange: &Arc<Exchange>) -> bool {
        lock(&self.mailboxes).insert(number, exchange.clone());
        self.advertise();
        self.neighbours.is_on()
    }

    pub(super) fn close_mailbox(&self, number: u32) {
        lock(&self.mailboxes).remove(&number);
        self.advertise();
    }

    fn advertise(&self) {
        let numbers = lock(&self.mailboxes).keys().copied().collect();
        self.neighbours.advertise_mailboxes(numbers);
    }
}

/// Ends a run that did not reach its confirmation.
struct RunGuard<'a> {
    exchange: &'a Exchange,
    run: u64,
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        self.exchange.abort(self.run);
    }
}
