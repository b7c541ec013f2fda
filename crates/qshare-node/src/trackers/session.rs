//! The session with one tracker: kept up, announced over, asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::{AnswerFilter, ContentId, NodeId, Query, TrackerAddress};
use qshare_net::framed::{self, ReadError};
use qshare_net::{DialError, DialTarget, Greeting, Session, TrustError, dial, resolve};
use qshare_storage::Asset;
use qshare_wire::hello::Role;
use qshare_wire::introduction::{Introduce, Introduction};
use qshare_wire::limits::{
    ANNOUNCE_ENTRIES_MAX, HOLDERS_MAX, HOLDERS_PER_MATCH_MAX, SMALL_BODY_MAX_BYTES,
};
use qshare_wire::tracker::{
    Announce, AnnounceAck, AnnounceStage, Entry, EntryKey, Find, Found, Holder, Holders,
    HoldersChanged, Match, NodeContact, Readiness, Watch,
};
use qshare_wire::{Address, Candidate, CandidateKind, CloseCode, Message};
use quinn::{RecvStream, SendStream, VarInt};
use rand::Rng;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::node::Inner;
use crate::peers::path_race::{be_introduced, local_candidates};
use crate::shares::catalogue::{Announced, Delta, key_of};
use crate::vocabulary::{Contact, FoundFile, NodeEvent, TrackerState};

/// Time for one attempt to reach the tracker: a lookup has 5 s in all.
const DIAL_DEADLINE: Duration = Duration::from_secs(4);
/// First and longest pause between attempts; a random half of it is left out, so that a tracker
/// that restarts does not meet everybody at once.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pause after a refusal that only a person can change.
const PAUSE_REFUSED: Duration = Duration::from_secs(30);
/// Pause before a watch that ended is asked for again.
const PAUSE_WATCH: Duration = Duration::from_secs(1);
/// Changes are collected this long before they are announced.
const DELTA_BATCH: Duration = Duration::from_millis(100);
/// Time for the answer to one request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// What a tracker may have in flight to us: some pages of matches.
const ANSWERS_WINDOW_BYTES: u32 = 4 << 20;

/// The same for an introduction, without which others ways are tried on.
const INTRODUCE_DEADLINE: Duration = Duration::from_secs(4);

/// An established session.
#[derive(Clone)]
pub(crate) struct Established {
    pub(crate) connection: quinn::Connection,
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) seen_at: Option<SocketAddr>,
}

/// How the session stands.
#[derive(Clone)]
pub(crate) enum SessionState {
    /// Not there; `tried` once an attempt has failed.
    Away {
        cause: Option<String>,
    },
    Up(Established),
    Refused {
        cause: String,
    },
}

impl SessionState {
    pub(crate) fn to_report(&self) -> TrackerState {
        match self {
            SessionState::Away { cause } => TrackerState::Away {
                cause: cause.clone(),
            },
            SessionState::Refused { cause } => TrackerState::Refused {
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

/// One tracker, as written by the user, and the session with it.
pub(crate) struct TrackerSession {
    pub(crate) tracker: TrackerAddress,
    state: watch::Sender<SessionState>,
}

/// What a watched content's holders do.
#[derive(Debug)]
pub(crate) enum HolderNews {
    /// These hold it now, or can be reached elsewhere now.
    Joined(Vec<Contact>),
    /// These no longer do.
    Left(Vec<NodeId>),
    /// Somebody else than a tracker says that these may hold it, and where they are.
    Given(Vec<Contact>),
    /// Where this one is cannot be found out.
    Unresolved { node: NodeId, cause: String },
}

enum ConnectError {
    Away(String),
    Refused(String),
}

impl TrackerSession {
    pub(crate) fn new(tracker: TrackerAddress) -> TrackerSession {
        TrackerSession {
            tracker,
            state: watch::Sender::new(SessionState::Away { cause: None }),
        }
    }

    pub(crate) fn state(&self) -> SessionState {
        self.state.borrow().clone()
    }

    /// Whether it is on this machine, as it is written.
    pub(crate) fn is_on_this_machine(&self) -> bool {
        let host = &self.tracker.host;
        let ip = host.parse::<std::net::IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// Waits until the tracker is up, or refuses us, or `until`; then says how it stands.
    pub(crate) async fn settled(&self, until: Instant) -> SessionState {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, SessionState::Away { .. }));
        let _ = tokio::time::timeout_at(until, settled).await;
        self.state()
    }

    fn set(&self, inner: &Inner, state: SessionState) {
        let report = state.to_report();
        let old = self.state.send_replace(state).to_report();
        if old != report {
            inner.port_mappings.tracker_changed();
            let _ = inner
                .events
                .send(NodeEvent::Tracker(self.tracker.clone(), report));
        }
    }

    /// Keeps the session up until the node stops.
    pub(crate) async fn run(self: Arc<Self>, inner: Arc<Inner>) {
        let mut pause = PAUSE_MIN;
        loop {
            let attempt = tokio::select! {
                () = inner.stopping.cancelled() => return,
                attempt = self.connect(&inner) => attempt,
            };
            match attempt {
                Ok(session) => {
                    pause = PAUSE_MIN;
                    let cause = self.attend(&inner, session).await;
                    if inner.stopping.is_cancelled() {
                        return;
                    }
                    info!(tracker = %self.tracker.host_port(), %cause, "lost the tracker");
                    self.set(&inner, SessionState::Away { cause: Some(cause) });
                }
                Err(ConnectError::Away(cause)) => {
                    debug!(tracker = %self.tracker.host_port(), %cause, "tracker away");
                    self.set(&inner, SessionState::Away { cause: Some(cause) });
                }
                Err(ConnectError::Refused(cause)) => {
                    warn!(tracker = %self.tracker.host_port(), %cause, "tracker refused");
                    self.set(&inner, SessionState::Refused { cause });
                    pause = PAUSE_REFUSED;
                }
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::select! {
                () = inner.stopping.cancelled() => return,
                () = sleep(jittered) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn connect(&self, inner: &Arc<Inner>) -> Result<Session, ConnectError> {
        let addresses = timeout(DIAL_DEADLINE, resolve(&self.tracker))
            .await
            .map_err(|_| ConnectError::Away("its name cannot be resolved in time".into()))?
            .map_err(|error| ConnectError::Away(error.to_string()))?;
        let mut dials = JoinSet::new();
        for address in addresses {
            let (inner, pin) = (inner.clone(), self.tracker.id);
            let greeting = Greeting {
                candidates: local_candidates(&inner.endpoint),
                ..inner.greeting.clone()
            };
            dials.spawn(async move {
                let target = DialTarget::Tracker(pin);
                dial(&inner.endpoint, &greeting, target, address, DIAL_DEADLINE).await
            });
        }
        let mut last = ConnectError::Away("it has no address".into());
        while let Some(dialled) = dials.join_next().await {
            match dialled {
                Ok(Ok(session)) => return self.check_trust(inner, session).await,
                Ok(Err(error @ (DialError::GroupRefused(_) | DialError::Version(_)))) => {
                    last = ConnectError::Refused(group_hint(&error));
                }
                Ok(Err(error @ DialError::WrongIdentity { .. })) => {
                    last = ConnectError::Refused(error.to_string());
                }
                Ok(Err(error)) if matches!(last, ConnectError::Away(_)) => {
                    last = ConnectError::Away(error.to_string());
                }
                _ => {}
            }
        }
        Err(last)
    }

    async fn check_trust(
        &self,
        inner: &Arc<Inner>,
        session: Session,
    ) -> Result<Session, ConnectError> {
        let Some(known) = inner.known_trackers.clone() else {
            return Ok(session);
        };
        let (tracker, peer) = (self.tracker.clone(), session.peer);
        let seen_at = session.connection.remote_address();
        // Reads and writes a file under a lock.
        let checked =
            tokio::task::spawn_blocking(move || known.check(&tracker, seen_at, peer)).await;
        let refused = match checked {
            Ok(Ok(())) => return Ok(session),
            Ok(Err(TrustError::Io { path, cause })) => {
                ConnectError::Away(format!("{}: {cause}", path.display()))
            }
            Ok(Err(error)) => ConnectError::Refused(error.to_string()),
            Err(error) => ConnectError::Away(error.to_string()),
        };
        let code = CloseCode::WrongIdentity;
        session
            .connection
            .close(VarInt::from_u32(code.code()), code.to_string().as_bytes());
        Err(refused)
    }

    /// Announces over a session until it is lost; says why it was.
    async fn attend(&self, inner: &Arc<Inner>, session: Session) -> String {
        let Session {
            connection,
            peer,
            hello,
            control_send,
            control_recv,
            // Kept for as long as the session: the tracker tells others of a new address of ours
            // only once a probe there was answered.
            responder: _responder,
            ..
        } = session;
        connection.set_receive_window(ANSWERS_WINDOW_BYTES.into());
        let remote = connection.remote_address();
        let address = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let up = Established {
            connection: connection.clone(),
            id: peer,
            address,
            seen_at: hello.observed,
        };
        info!(tracker = %self.tracker.host_port(), id = %peer, "connected to the tracker");
        self.set(inner, SessionState::Up(up));
        let (heard, acks) = mpsc::channel(1);
        tokio::select! {
            biased;
            cause = connection.closed() => cause.to_string(),
            () = inner.stopping.cancelled() => "stopping".into(),
            cause = announce(inner, control_send, acks) => {
                let code = CloseCode::Protocol;
                connection.close(VarInt::from_u32(code.code()), cause.as_bytes());
                cause
            }
            cause = hear(inner, address, control_recv, heard) => {
                let code = CloseCode::Protocol;
                connection.close(VarInt::from_u32(code.code()), cause.as_bytes());
                cause
            }
        }
    }
}

/// Takes what the tracker says on the control stream. Returns only with a failure.
async fn hear(
    inner: &Arc<Inner>,
    tracker: SocketAddr,
    mut recv: RecvStream,
    heard: mpsc::Sender<AnnounceAck>,
) -> String {
    loop {
        let frame = match framed::read_frame(&mut recv, SMALL_BODY_MAX_BYTES).await {
            Ok(frame) => frame,
            Err(error) => return error.to_string(),
        };
        match frame.kind {
            AnnounceAck::TYPE => match frame.decode() {
                Ok(ack) => _ = heard.send(ack).await,
                Err(error) => return error.to_string(),
            },
            Introduction::TYPE => match frame.decode() {
                Ok(introduction) => be_introduced(inner, introduction, tracker),
                Err(error) => return error.to_string(),
            },
            // Later versions may say other things here; they are passed over.
            _ => {}
        }
    }
}

fn group_hint(error: &DialError) -> String {
    match error {
        DialError::GroupRefused(cause) => {
            format!(
                "group refused: {cause}; use the --group FILE that the tracker was started with"
            )
        }
        other => other.to_string(),
    }
}

/// Announces everything, then every change. Returns only with a failure.
async fn announce(
    inner: &Inner,
    mut send: SendStream,
    mut acks: mpsc::Receiver<AnnounceAck>,
) -> String {
    let mut sequence = 0;
    loop {
        let (entries, mut deltas) = inner.catalogue.subscribe();
        // A throw-away identity has announced nothing before that would have to be taken back.
        if inner.greeting.role == Role::OneShot && entries.is_empty() {
            match deltas.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return "the node is gone".into(),
            }
        }
        let failed = async {
            announce_all(&mut send, &mut acks, &mut sequence, &entries).await?;
            drop(entries);
            announce_changes(&mut send, &mut acks, &mut sequence, &mut deltas).await
        };
        match failed.await {
            // Fell behind: everything anew.
            Ok(()) => debug!("announcing everything anew"),
            Err(cause) => return cause,
        }
    }
}

async fn announce_all(
    send: &mut SendStream,
    acks: &mut mpsc::Receiver<AnnounceAck>,
    sequence: &mut u64,
    entries: &[Announced],
) -> Result<(), String> {
    let mut stage = AnnounceStage::FullBegin;
    for batch in entries.chunks(ANNOUNCE_ENTRIES_MAX) {
        let entries = batch.iter().map(Announced::to_entry).collect();
        announce_batch(send, acks, sequence, stage, entries, Vec::new()).await?;
        stage = AnnounceStage::FullMore;
    }
    if stage == AnnounceStage::FullBegin {
        announce_batch(send, acks, sequence, stage, Vec::new(), Vec::new()).await?;
    }
    announce_batch(
        send,
        acks,
        sequence,
        AnnounceStage::FullEnd,
        Vec::new(),
        Vec::new(),
    )
    .await
}

/// Announces changes as they come; Ok once there were too many of them to follow.
async fn announce_changes(
    send: &mut SendStream,
    acks: &mut mpsc::Receiver<AnnounceAck>,
    sequence: &mut u64,
    deltas: &mut tokio::sync::broadcast::Receiver<Delta>,
) -> Result<(), String> {
    loop {
        let mut next = deltas.recv().await;
        let until = Instant::now() + DELTA_BATCH;
        let (mut entries, mut removed): (Vec<Announced>, Vec<Arc<Asset>>) = Default::default();
        loop {
            match next {
                Ok(Delta::Upsert(entry)) => {
                    removed.retain(|asset| *asset != entry.asset);
                    entries.push(entry);
                }
                Ok(Delta::Remove(asset)) => {
                    entries.retain(|entry| entry.asset != asset);
                    removed.push(asset);
                }
                Err(RecvError::Lagged(_)) => return Ok(()),
                Err(RecvError::Closed) => return Err("the node is gone".into()),
            }
            if entries.len().max(removed.len()) == ANNOUNCE_ENTRIES_MAX {
                break;
            }
            next = tokio::select! {
                () = sleep_until(until) => break,
                next = deltas.recv() => next,
            };
        }
        let stage = AnnounceStage::Delta;
        let entries = entries.iter().map(Announced::to_entry).collect();
        let removed = removed.iter().map(|asset| key_of(asset)).collect();
        announce_batch(send, acks, sequence, stage, entries, removed).await?;
    }
}

async fn announce_batch(
    send: &mut SendStream,
    acks: &mut mpsc::Receiver<AnnounceAck>,
    sequence: &mut u64,
    stage: AnnounceStage,
    entries: Vec<Entry>,
    removed: Vec<EntryKey>,
) -> Result<(), String> {
    let announce = Announce {
        sequence: *sequence,
        stage,
        entries,
        removed,
        extensions: Vec::new(),
    };
    framed::write(send, &announce)
        .await
        .map_err(|error| error.to_string())?;
    loop {
        let Some(ack) = acks.recv().await else {
            return Err("the tracker says nothing any more".into());
        };
        if ack.refused > 0 {
            warn!(
                refused = ack.refused,
                reason = %ack.reason,
                "the tracker refused entries"
            );
        }
        if ack.sequence == *sequence {
            *sequence += 1;
            return Ok(());
        }
    }
}

/// One page of what a tracker found.
pub(crate) struct Page {
    pub(crate) files: Vec<FoundFile>,
    pub(crate) near: Vec<qshare_content::AssetName>,
    pub(crate) readiness: Readiness,
    pub(crate) more: Option<Vec<u8>>,
}

impl Established {
    /// Asks for one page of matches.
    pub(crate) async fn find(
        &self,
        query: &Query,
        after: Option<Vec<u8>>,
        limit: u16,
    ) -> Result<Page, String> {
        let request = Find {
            query: query.clone(),
            after,
            limit,
            holders: HOLDERS_PER_MATCH_MAX as u8,
            extensions: Vec::new(),
        };
        let asked = framed::ask::<Find, Found>(&self.connection, &request);
        let (found, ..) = timeout(ANSWER_DEADLINE, asked)
            .await
            .map_err(|_| "no answer in time".to_string())?
            .map_err(|error| describe(&error))?;
        let contacts: Vec<Contact> = found
            .nodes
            .into_iter()
            .map(|contact| self.contact(contact, false))
            .collect();
        let matches = answers_to(query, found.matches, usize::from(limit));
        let files = matches.into_iter().map(|found| FoundFile {
            content: found.info.id(),
            name: found.name,
            info: found.info,
            complete: found.complete,
            partial: found.partial,
            holders: found
                .holders
                .iter()
                .filter_map(|&(at, complete)| {
                    let contact = contacts.get(usize::from(at))?;
                    Some(Contact {
                        complete,
                        ..contact.clone()
                    })
                })
                .collect(),
        });
        Ok(Page {
            files: files.collect(),
            near: found.near,
            readiness: found.readiness,
            more: found.more,
        })
    }

    /// Has us and another node told of each other.
    pub(crate) async fn introduce(&self, request: &Introduce) -> Result<Introduction, String> {
        let asked = framed::ask::<Introduce, Introduction>(&self.connection, request);
        let (introduction, ..) = timeout(INTRODUCE_DEADLINE, asked)
            .await
            .map_err(|_| "no answer in time".to_string())?
            .map_err(|error| describe(&error))?;
        match introduction.peer == request.node {
            true => Ok(introduction),
            false => Err("it introduced another node".into()),
        }
    }

    /// Tells who holds a content, until the session is lost or nobody listens.
    async fn watch(&self, content: ContentId, news: &mpsc::Sender<HolderNews>) {
        let request = Watch {
            content,
            limit: HOLDERS_MAX as u16,
            extensions: Vec::new(),
        };
        let asked = framed::ask::<Watch, Holders>(&self.connection, &request).await;
        // The sending half is kept open: closing it would end the watch.
        let Ok((first, _send, mut recv)) = asked else {
            return;
        };
        if news
            .send(HolderNews::Joined(self.contacts(first.holders)))
            .await
            .is_err()
        {
            return;
        }
        loop {
            let changed = tokio::select! {
                () = news.closed() => return,
                changed = framed::read::<HoldersChanged>(&mut recv) => changed,
            };
            let Ok(changed) = changed else { return };
            let joined = HolderNews::Joined(self.contacts(changed.joined));
            let left = HolderNews::Left(changed.left);
            if news.send(left).await.is_err() || news.send(joined).await.is_err() {
                return;
            }
        }
    }

    fn contacts(&self, holders: Vec<Holder>) -> Vec<Contact> {
        holders
            .into_iter()
            .map(|holder| self.contact(holder.contact, holder.complete))
            .collect()
    }

    fn contact(&self, contact: NodeContact, complete: bool) -> Contact {
        // Where the tracker sees it, or had an answer from, it may be dialled. What it claims is
        // only probed, once both sides know of each other.
        let seen = contact
            .candidates
            .iter()
            .filter(|candidate| candidate.kind != CandidateKind::Local);
        let addresses = resolve_candidates(seen, self.address);
        Contact {
            node: contact.node,
            addresses,
            complete,
        }
    }
}

/// Returns those of a stranger's matches that answer `query`, at most `limit`. Names and contents
/// that nobody asked for go no further: a match decides what is fetched, and where it is written.
pub(crate) fn answers_to(query: &Query, matches: Vec<Match>, limit: usize) -> Vec<Match> {
    let filter = AnswerFilter::new(query);
    let told = matches.len();
    let mut answers = matches;
    answers.retain(|found| filter.allows(&found.name, &found.info.id()));
    if answers.len() < told {
        let dropped = told - answers.len();
        warn!(%query, dropped, "dropped matches that do not answer the query");
    }
    answers.truncate(limit);
    answers
}

/// Where candidates are, as told by the tracker at `tracker`.
pub(crate) fn resolve_candidates<'a>(
    candidates: impl Iterator<Item = &'a Candidate>,
    tracker: SocketAddr,
) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = candidates
        .filter(|candidate| candidate.is_plausible())
        .map(|candidate| match candidate.address {
            Address::Socket(at) => SocketAddr::new(at.ip().to_canonical(), at.port()),
            Address::TrackerHost { port } => SocketAddr::new(tracker.ip(), port),
        })
        .collect();
    addresses.dedup();
    addresses
}

fn describe(error: &ReadError) -> String {
    match error {
        ReadError::Refused(refused) if !refused.reason.is_empty() => refused.reason.to_string(),
        other => other.to_string(),
    }
}

/// Watches a content at one tracker, over as many sessions as it takes, until nobody listens.
pub(crate) async fn watch(
    inner: Arc<Inner>,
    link: Arc<TrackerSession>,
    content: ContentId,
    news: mpsc::Sender<HolderNews>,
) {
    let mut state = link.state.subscribe();
    loop {
        let up = tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = news.closed() => return,
            up = state.wait_for(|state| matches!(state, SessionState::Up(_))) => match up {
                Ok(up) => up.clone(),
                Err(_) => return,
            },
        };
        let SessionState::Up(up) = up else { continue };
        up.watch(content, &news).await;
        if news.is_closed() {
            return;
        }
        // Refused (too many watches, too many requests), or the session is about to be lost.
        sleep(PAUSE_WATCH).await;
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::{AssetName, ContentInfo, Hash};
    use qshare_wire::tracker::EntryKind;

    use super::*;

    fn found(name: &str, byte: u8) -> Match {
        Match {
            name: AssetName::new(name).unwrap(),
            kind: EntryKind::File,
            info: ContentInfo {
                length: 1,
                root: Hash([byte; 32]),
            },
            complete: 1,
            partial: 0,
            holders: Vec::new(),
        }
    }

    #[test]
    fn matches_that_nobody_asked_for_are_dropped() {
        let told = || vec![found("src/Makefile", 1), found("report.pdf", 2)];
        let answers = |query: &str| {
            let answers = answers_to(&query.parse().unwrap(), told(), 10);
            answers
                .iter()
                .map(|found| found.name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(answers("report.pdf"), ["report.pdf"]);
        assert_eq!(answers(&told()[1].info.id().to_string()), ["report.pdf"]);
        assert_eq!(
            answers(&format!("id:{}", told()[0].info.id())),
            ["src/Makefile"]
        );
        assert_eq!(answers("*.txt"), [""; 0]);
        assert_eq!(
            answers(&format!("{}/report.pdf", NodeId([1; 32]))),
            ["report.pdf"]
        );
    }

    #[test]
    fn more_matches_than_were_asked_for_are_dropped() {
        let told = vec![found("x", 1), found("x", 2), found("x", 3)];
        assert_eq!(answers_to(&"x".parse().unwrap(), told, 2).len(), 2);
    }
}
