//! Offers a code: draws and claims it, and replaces it when it was guessed at too often.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qshare_content::{Code, Link, TrackerAddress};
use qshare_wire::mailbox::MailboxFault;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info};

use super::claim::{FirstClaim, NotClaimed, claim, keep_claimed};
use super::draw::Draws;
use super::error::ClaimFault;
use super::event::{CodeEnd, CodeEvent, OfferedCode};
use super::exchange::Exchange;
use super::places::Places;
use super::service::Codes;
use super::uses::Uses;
use crate::trackers::{SessionState, TrackerSession};

/// How long a code can be used: a minute less than its mailboxes last, so that it is the sharer who
/// ends it and knows why.
const CODE_LIFETIME: Duration = Duration::from_secs(24 * 3600 - 60);
/// Time for the first tracker to be reached before a code is offered without one.
const FIRST_TRACKER: Duration = Duration::from_secs(4);
/// Time for the other trackers after the first one.
const OTHER_TRACKERS: Duration = Duration::from_millis(500);
/// Time for telling trackers that a code has ended.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// Returns the newest version of the link that a code stands for. It is called once for every
/// successful exchange, and must not wait.
pub type LinkProvider = Arc<dyn Fn() -> Link + Send + Sync>;

/// What a code stands for, and how often.
#[derive(Clone)]
pub struct CodeOfferConfig {
    /// The link.
    pub link: LinkProvider,
    /// How many receivers may use the code; None for any number.
    pub uses: Option<NonZeroU32>,
}

/// An offered code. It ends when this is dropped or closed, and with the node.
pub struct CodeOffer {
    events: mpsc::UnboundedReceiver<CodeEvent>,
    stop: DropGuard,
    ended: CancellationToken,
}

impl CodeOffer {
    /// Waits for the next event. Returns None after the code has ended for good.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<CodeEvent> {
        self.events.recv().await
    }

    /// Ends the code, and waits until trackers were told, for at most a second.
    pub async fn close(self) {
        let CodeOffer { stop, ended, .. } = self;
        drop(stop);
        let _ = timeout(END_DEADLINE, ended.cancelled()).await;
    }
}

/// The successful exchanges of an offer, and where it reports.
pub(super) struct Offered {
    pub(super) uses: Arc<Mutex<Uses>>,
    pub(super) events: mpsc::UnboundedSender<CodeEvent>,
}

/// Starts to offer a code.
pub(super) fn start(codes: &Arc<Codes>, config: CodeOfferConfig) -> CodeOffer {
    let (events, heard) = mpsc::unbounded_channel();
    let uses = Uses::new(config.uses.map(NonZeroU32::get));
    let offered = Arc::new(Offered {
        uses: Arc::new(Mutex::new(uses)),
        events,
    });
    let (stop, ended) = (codes.stopping_offers(), CancellationToken::new());
    codes.register_offer(&offered);
    let task = run(codes.clone(), config.link, offered, stop.clone());
    let guard = ended.clone().drop_guard();
    codes.tasks().spawn(async move {
        task.await;
        drop(guard);
    });
    CodeOffer {
        events: heard,
        stop: stop.drop_guard(),
        ended,
    }
}

/// Offers one code after another until `stop`. Keeps `offered` until then, so that receivers can
/// report completion after the last code has ended.
async fn run(
    codes: Arc<Codes>,
    link: LinkProvider,
    offered: Arc<Offered>,
    stop: CancellationToken,
) {
    let mut replaces = None;
    loop {
        let claimed = tokio::select! {
            claimed = draw(&codes, &link, &offered) => claimed,
            () = stop.cancelled() => return,
        };
        let Claimed {
            exchange,
            places,
            sessions,
            at,
        } = claimed;
        let number = exchange.code().number();
        let lan = codes.open_mailbox(number, &exchange);
        info!(number, trackers = at.len(), lan, "offering a code");
        exchange.tell(CodeEvent::Offered(OfferedCode {
            code: exchange.code().clone(),
            trackers: at,
            lan,
            replaces,
        }));
        let mut claims = JoinSet::new();
        for (position, (session, first)) in sessions.into_iter().enumerate() {
            let (exchange, places) = (exchange.clone(), places.clone());
            claims.spawn(keep_claimed(session, position, exchange, places, first));
        }
        let why = tokio::select! {
            why = exchange.ended() => why,
            () = sleep(CODE_LIFETIME) => MailboxFault::Expired,
            () = stop.cancelled() => MailboxFault::Ended,
        };
        exchange.end(why);
        codes.close_mailbox(number);
        debug!(number, ?why, "a code ended");
        let told = async { while claims.join_next().await.is_some() {} };
        let _ = timeout(END_DEADLINE, told).await;
        let end = match why {
            MailboxFault::Guessed => CodeEnd::Guessed,
            MailboxFault::Taken => CodeEnd::Taken,
            MailboxFault::UsedUp => CodeEnd::UsedUp,
            MailboxFault::Expired => CodeEnd::Expired,
            MailboxFault::Ended | MailboxFault::Away | MailboxFault::WrongWords => return,
        };
        match end {
            CodeEnd::Guessed | CodeEnd::Taken => replaces = Some(end),
            CodeEnd::UsedUp | CodeEnd::Expired => {
                exchange.tell(CodeEvent::Ended(end));
                stop.cancelled().await;
                return;
            }
        }
    }
}

/// A code that all trackers in session have granted.
struct Claimed {
    exchange: Arc<Exchange>,
    places: Arc<Places>,
    /// Every tracker and, if it has granted the claim, its stream.
    sessions: Vec<(Arc<TrackerSession>, Option<FirstClaim>)>,
    at: Vec<TrackerAddress>,
}

/// Draws codes until no tracker in session has the number for somebody else.
async fn draw(codes: &Codes, link: &LinkProvider, offered: &Offered) -> Claimed {
    let all: Vec<Arc<TrackerSession>> = codes.sessions().cloned().collect();
    await_sessions(&all).await;
    let mut draws = Draws::new();
    loop {
        let number = draws.next(&mut rand::rng());
        if codes.is_taken_nearby(number) {
            continue;
        }
        let places = Arc::new(Places::new());
        let mut claims = JoinSet::new();
        for (at, session) in all.iter().enumerate() {
            let up = session.established();
            // Of trackers that share a registry, the first one in session is enough.
            let turn = up.as_ref().and_then(|up| places.try_turn(up.registry));
            let places = Arc::clone(&places);
            claims.spawn(async move {
                let claimed = match up.zip(turn) {
                    Some((up, turn)) => {
                        let token = places.token(up.registry, at);
                        let claimed = claim(&up.connection, number, token).await;
                        Some(claimed.map(|stream| (stream, turn)))
                    }
                    None => None,
                };
                (at, claimed)
            });
        }
        let mut is_taken = false;
        let (mut sessions, mut claimed_at) = (Vec::new(), Vec::new());
        let mut answers = claims.join_all().await;
        answers.sort_by_key(|(at, _)| *at);
        for (at, claimed) in answers {
            let Some(session) = all.get(at) else { continue };
            let first = match claimed {
                Some(Ok(first)) => {
                    claimed_at.push(session.tracker.clone());
                    Some(first)
                }
                Some(Err(NotClaimed::Fault(ClaimFault::Taken))) => {
                    is_taken = true;
                    None
                }
                // Tried again by the task that keeps the claim.
                Some(Err(_)) | None => None,
            };
            sessions.push((session.clone(), first));
        }
        if is_taken {
            for (_, first) in sessions {
                if let Some((stream, _)) = first {
                    stream.release().await;
                }
            }
            continue;
        }
        let exchange = Exchange::new(
            codes.us(),
            Code::from_random(number, rand::random()),
            link.clone(),
            offered.uses.clone(),
            offered.events.clone(),
        );
        return Claimed {
            exchange: Arc::new(exchange),
            places,
            sessions,
            at: claimed_at,
        };
    }
}

/// Waits until trackers are in session: a while for the first, and a little longer for the others.
async fn await_sessions(sessions: &[Arc<TrackerSession>]) {
    let until = Instant::now() + FIRST_TRACKER;
    let mut settling = JoinSet::new();
    for session in sessions {
        let session = session.clone();
        settling.spawn(async move { session.settled(until).await });
    }
    while let Some(settled) = settling.join_next().await {
        if matches!(settled, Ok(SessionState::Up(_))) {
            let rest = async { while settling.join_next().await.is_some() {} };
            let _ = timeout(OTHER_TRACKERS, rest).await;
            return;
        }
    }
}
