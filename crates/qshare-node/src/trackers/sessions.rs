//! All configured trackers: one session each, kept up until the node stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::TrackerAddress;
use qshare_net::{Endpoint, Greeting, KnownTrackers, Session, close_because, framed};
use qshare_wire::hello::{
    EXTENSION_REGISTRY, EXTENSION_SESSION_NUMBER, FEATURE_SIBLINGS, Role, extension,
};
use qshare_wire::introduction::Introduction;
use qshare_wire::limits::SMALL_BODY_MAX_BYTES;
use qshare_wire::private::FEATURE_PRIVATE_SHARES;
use qshare_wire::siblings::Siblings;
use qshare_wire::tracker::{AnnounceAck, EntriesEvicted};
use qshare_wire::{CloseCode, Message};
use quinn::RecvStream;
use rand::Rng;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::announce::{Announcer, Reply};
use super::ask::{Established, watch_holders};
use super::candidates::local_candidates;
use super::dial::{dial_tracker, resolve_tracker};
use super::registries::Registries;
use super::session::{Backoff, SessionState, TrackerSession};
use super::silence::until_silent;
use crate::access::Access;
use crate::error::TrackerFault;
use crate::runtime::Tasks;
use crate::shares::ShareStore;
use crate::vocabulary::{HolderNews, NodeEvent, TrackerStatus};

/// Receive window of a session in bytes: room for several pages of matches.
const ANSWERS_WINDOW_BYTES: u32 = 4 << 20;

/// How long one tracker of a registry may take to answer before the next one is dialled as well.
const DIAL_STAGGER: Duration = Duration::from_millis(500);

/// Returns what requests need of a session.
pub(super) fn established(session: &Session) -> Established {
    let remote = session.connection.remote_address();
    let registry = extension(&session.hello.extensions, EXTENSION_REGISTRY);
    Established {
        connection: session.connection.clone(),
        id: session.peer,
        address: SocketAddr::new(remote.ip().to_canonical(), remote.port()),
        seen_at: session.hello.observed,
        registry: registry.and_then(|bytes| bytes.try_into().ok()),
    }
}

/// An introduction that another node asked for, and the tracker that sent it.
pub(crate) struct IntroductionFrom {
    pub(crate) introduction: Introduction,
    pub(crate) tracker: SocketAddr,
}

/// The sessions with all configured trackers.
pub(crate) struct Trackers {
    endpoint: Endpoint,
    greeting: Greeting,
    known: Option<KnownTrackers>,
    shares: Arc<ShareStore>,
    sessions: Vec<Arc<TrackerSession>>,
    /// Counts changes of state.
    changes: watch::Sender<u64>,
    introductions: mpsc::Sender<IntroductionFrom>,
    events: broadcast::Sender<NodeEvent>,
    tasks: Tasks,
    registries: Registries,
}

/// The collaborators of a [`Trackers`].
pub(crate) struct TrackersConfig {
    pub(crate) endpoint: Endpoint,
    pub(crate) greeting: Greeting,
    pub(crate) known: Option<KnownTrackers>,
    pub(crate) shares: Arc<ShareStore>,
    pub(crate) addresses: Vec<TrackerAddress>,
    pub(crate) introductions: mpsc::Sender<IntroductionFrom>,
    pub(crate) events: broadcast::Sender<NodeEvent>,
    pub(crate) tasks: Tasks,
}

impl Trackers {
    pub(crate) fn new(config: TrackersConfig) -> Trackers {
        let sessions = config.addresses.into_iter();
        Trackers {
            endpoint: config.endpoint,
            greeting: config.greeting,
            known: config.known,
            shares: config.shares,
            sessions: sessions
                .map(|at| Arc::new(TrackerSession::new(at)))
                .collect(),
            changes: watch::Sender::new(0),
            introductions: config.introductions,
            events: config.events,
            tasks: config.tasks,
            registries: Registries::new(),
        }
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Starts to keep all sessions up.
    pub(crate) fn start(self: &Arc<Self>) {
        for session in &self.sessions {
            let (trackers, session) = (self.clone(), session.clone());
            self.tasks.supervise("tracker session", async move {
                trackers.keep_up(&session).await;
            });
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = &Arc<TrackerSession>> {
        self.sessions.iter()
    }

    /// Returns the sessions that are up.
    pub(crate) fn established(&self) -> impl Iterator<Item = Established> {
        self.sessions
            .iter()
            .filter_map(|session| session.established())
    }

    /// Returns a watch that reports when a session begins, ends or is refused.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns every tracker with its state.
    pub(crate) fn report(&self) -> Vec<TrackerStatus> {
        let sessions = self.sessions.iter();
        sessions.map(|session| session.to_status()).collect()
    }

    /// Watches the holders of a content at all trackers, until the receiver is dropped.
    pub(crate) fn watch_holders(&self, access: &Access, news: &mpsc::Sender<HolderNews>) {
        for session in &self.sessions {
            let watch = watch_holders(session.clone(), access.clone(), news.clone());
            let stopping = self.tasks.stopping().clone();
            self.tasks
                .spawn(async move { stopping.run_until_cancelled(watch).await });
        }
    }

    fn set(&self, session: &TrackerSession, state: SessionState) {
        if let Some(report) = session.set(state) {
            self.changes.send_modify(|count| *count += 1);
            let event = NodeEvent::Tracker(session.tracker.clone(), report);
            let _ = self.events.send(event);
        }
    }

    /// Establishes a session again and again, with the tracker or, when that is lost, with one of
    /// its siblings. Never returns.
    async fn keep_up(self: &Arc<Self>, session: &TrackerSession) {
        let mut backoff = Backoff::new();
        let mut targets = vec![session.tracker.clone()];
        loop {
            let (target, connected) = self.connect_first(&targets).await;
            let tracker = target.host_port();
            session.set_current(&target);
            let fault = match connected {
                Ok(established) => {
                    backoff.reset();
                    let fault = self.attend(session, established).await;
                    info!(tracker, cause = %fault, "lost the session with the tracker");
                    fault
                }
                Err(fault) if fault.is_refusal() => {
                    warn!(tracker, cause = %fault, "the tracker refused the session");
                    fault
                }
                Err(fault) => {
                    debug!(tracker, cause = %fault, "cannot reach the tracker");
                    fault
                }
            };
            let next = backoff.next_attempt(&fault, session.others(), target);
            targets = next.targets;
            self.set(session, fault.into());
            let pause = rand::rng().random_range(next.pause);
            sleep(pause).await;
        }
    }

    /// Dials trackers of one registry, one after another: the next when [`DIAL_STAGGER`] has
    /// passed, or as soon as a dial fails. Returns the session that is open first. If all dials
    /// fail, returns the earliest failure.
    async fn connect_first(
        self: &Arc<Self>,
        targets: &[TrackerAddress],
    ) -> (TrackerAddress, Result<Session, TrackerFault>) {
        let mut waiting = targets.iter();
        let mut dials = JoinSet::new();
        let mut failed: Option<(TrackerAddress, TrackerFault)> = None;
        loop {
            if let Some(target) = waiting.next() {
                let (trackers, target) = (Arc::clone(self), target.clone());
                dials.spawn(async move { (trackers.connect(&target).await, target) });
            }
            let dialled = match timeout(DIAL_STAGGER, dials.join_next()).await {
                Ok(dialled) => dialled,
                Err(_) if waiting.len() > 0 => continue,
                Err(_) => dials.join_next().await,
            };
            match dialled {
                Some(Ok((Ok(session), target))) => return (target, Ok(session)),
                Some(Ok((Err(fault), target))) => {
                    if failed.is_none() || fault.is_refusal() {
                        failed = Some((target, fault));
                    }
                }
                Some(Err(lost)) => {
                    let fault = TrackerFault::Internal(lost.to_string());
                    failed.get_or_insert((targets[0].clone(), fault));
                }
                None if waiting.len() > 0 => {}
                None => {
                    let (target, fault) = failed.unwrap_or_else(|| {
                        let fault = TrackerFault::NoAddress("usable");
                        (targets[0].clone(), fault)
                    });
                    return (target, Err(fault));
                }
            }
        }
    }

    pub(super) async fn connect(&self, tracker: &TrackerAddress) -> Result<Session, TrackerFault> {
        let addresses = resolve_tracker(tracker).await?;
        let mut greeting = Greeting {
            candidates: local_candidates(&self.endpoint),
            ..self.greeting.clone()
        };
        greeting.features |= FEATURE_SIBLINGS;
        let number = self.registries.next_number().to_le_bytes().to_vec();
        greeting.extensions.push((EXTENSION_SESSION_NUMBER, number));
        // A sibling is pinned, and not remembered: only its tracker vouches for it.
        let is_configured = self
            .sessions
            .iter()
            .any(|session| session.tracker == *tracker);
        let known = self.known.as_ref().filter(|_| is_configured);
        dial_tracker(&self.endpoint, &greeting, tracker, addresses, known).await
    }

    /// Announces over a session, and reads the tracker's messages, until the session is lost.
    async fn attend(&self, state: &TrackerSession, session: Session) -> TrackerFault {
        let up = established(&session);
        let address = up.address;
        let registry = up.registry;
        let Session {
            connection,
            peer,
            hello,
            control_send,
            control_recv,
            // Kept as long as the session: the tracker reports a new address of this node to others
            // only after a probe there was answered.
            responder: _responder,
            ..
        } = session;
        connection.set_receive_window(ANSWERS_WINDOW_BYTES.into());
        info!(tracker = %state.tracker.host_port(), id = %peer, "connected to the tracker");
        state.end_spares();
        self.set(state, SessionState::Up(up));
        let (heard, replies) = mpsc::channel(1);
        let takes_topics = hello.features & FEATURE_PRIVATE_SHARES != 0;
        let may_stay_silent = self.greeting.role == Role::OneShot;
        let announcer = Announcer::new(state, control_send, replies, takes_topics);
        let announcing = async {
            // Until then, this session is a spare one: it only asks.
            let _claim = self.registries.claim(registry).await;
            announcer.run(&self.shares, may_stay_silent).await
        };
        let fault = tokio::select! {
            biased;
            cause = connection.closed() => return cause.into(),
            fault = announcing => fault,
            fault = self.read_control(state, address, control_recv, heard) => fault,
            time = until_silent(&connection, &state.suspicion) => {
                // It may only be paused, so this is no goodbye.
                let fault = TrackerFault::NoAnswer(time);
                close_because(&connection, CloseCode::Idle, &fault.to_string());
                return fault;
            }
        };
        close_because(&connection, CloseCode::Protocol, &fault.to_string());
        fault
    }

    /// Reads the tracker's control stream. Returns only with a fault.
    async fn read_control(
        &self,
        state: &TrackerSession,
        tracker: SocketAddr,
        mut recv: RecvStream,
        replies: mpsc::Sender<Reply>,
    ) -> TrackerFault {
        loop {
            let frame = match framed::read_frame(&mut recv, SMALL_BODY_MAX_BYTES).await {
                Ok(frame) => frame,
                Err(error) => return error.into(),
            };
            match frame.kind {
                AnnounceAck::TYPE => match frame.decode() {
                    Ok(ack) => _ = replies.send(Reply::Ack(ack)).await,
                    Err(error) => return framed::ReadError::from(error).into(),
                },
                Introduction::TYPE => match frame.decode() {
                    Ok(introduction) => {
                        let event = IntroductionFrom {
                            introduction,
                            tracker,
                        };
                        // Fails only when the node stops.
                        let _ = self.introductions.send(event).await;
                    }
                    Err(error) => return framed::ReadError::from(error).into(),
                },
                EntriesEvicted::TYPE => match frame.decode() {
                    Ok(evicted) => _ = replies.send(Reply::Evicted(evicted)).await,
                    Err(error) => return framed::ReadError::from(error).into(),
                },
                Siblings::TYPE => match frame.decode::<Siblings>() {
                    Ok(told) => {
                        let configured = self.sessions.iter();
                        let configured: Vec<TrackerAddress> =
                            configured.map(|session| session.tracker.clone()).collect();
                        state.siblings.set(&told.siblings, tracker, &configured);
                        let count = told.siblings.len();
                        info!(count, "knows siblings of its tracker");
                    }
                    Err(error) => return framed::ReadError::from(error).into(),
                },
                // Later protocol versions may send other messages here; they are ignored.
                _ => {}
            }
        }
    }
}
