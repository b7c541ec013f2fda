//! Announcing over one session: first everything, then every change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::Topic;

use qshare_net::framed;
use qshare_storage::Asset;
use qshare_wire::limits::ANNOUNCE_ENTRIES_MAX;
use qshare_wire::private::{AnnounceTopics, TopicEntry};
use qshare_wire::tracker::{Announce, AnnounceAck, AnnounceStage, EntriesEvicted, Entry, EntryKey};
use quinn::SendStream;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::session::TrackerSession;
use crate::error::TrackerFault;
use crate::shares::{Announced, Delta, ShareStore, TopicState, key_of};

/// Changes are collected for this long before they are announced.
const DELTA_BATCH: Duration = Duration::from_millis(100);

/// The shortest and the longest time after which a full tracker is told everything again. Each
/// attempt may cost other nodes their entries, and a tracker may name any time.
const AGAIN_MIN: Duration = Duration::from_secs(5);
const AGAIN_MAX: Duration = Duration::from_secs(600);

/// Target of the log lines about entries that a tracker does not list. Unlike the state of the
/// session, they are printed by default.
const UNLISTED: &str = "qshare_node::unlisted";

/// What a tracker says about announcements.
#[derive(Debug)]
pub(super) enum Reply {
    /// It handled one.
    Ack(AnnounceAck),
    /// It was full and removed entries.
    Evicted(EntriesEvicted),
}

/// The announcing side of a session's control stream.
pub(super) struct Announcer<'a> {
    tracker: &'a TrackerSession,
    send: SendStream,
    replies: mpsc::Receiver<Reply>,
    sequence: u64,
    /// Whether the tracker knows private shares.
    takes_topics: bool,
    /// When everything is announced again, because the tracker removed entries.
    again_at: Option<Instant>,
}

impl<'a> Announcer<'a> {
    /// `replies` yields what the tracker says. The number of entries that it does not list goes to
    /// `tracker`.
    pub(super) fn new(
        tracker: &'a TrackerSession,
        send: SendStream,
        replies: mpsc::Receiver<Reply>,
        takes_topics: bool,
    ) -> Announcer<'a> {
        Announcer {
            tracker,
            send,
            replies,
            sequence: 0,
            takes_topics,
            again_at: None,
        }
    }

    /// Announces everything, then every change. Returns only with a fault.
    ///
    /// A node that `may_stay_silent` (one with a throw-away identity) announces nothing while it
    /// offers nothing: no earlier announcement of it needs to be replaced.
    pub(super) async fn run(mut self, shares: &ShareStore, may_stay_silent: bool) -> TrackerFault {
        loop {
            let (entries, mut deltas) = shares.subscribe();
            let (topics, mut topic_deltas) = shares.subscribe_topics();
            if may_stay_silent && entries.is_empty() && topics.is_empty() {
                let is_closed = tokio::select! {
                    next = deltas.recv() => matches!(next, Err(RecvError::Closed)),
                    next = topic_deltas.recv() => matches!(next, Err(RecvError::Closed)),
                };
                match is_closed {
                    false => continue,
                    true => return TrackerFault::NoAcknowledgement,
                }
            }
            let announced = async {
                self.announce_all(&entries, &topics).await?;
                drop((entries, topics));
                self.announce_changes(&mut deltas, &mut topic_deltas).await
            };
            match announced.await {
                Ok(()) => debug!("announcing everything again"),
                Err(fault) => return fault,
            }
        }
    }

    async fn announce_all(
        &mut self,
        entries: &[Announced],
        topics: &[TopicState],
    ) -> Result<(), TrackerFault> {
        self.again_at = None;
        self.tracker.reset_unlisted();
        let mut stage = AnnounceStage::FullBegin;
        for batch in entries.chunks(ANNOUNCE_ENTRIES_MAX) {
            let entries = batch.iter().map(Announced::to_entry).collect();
            self.announce(stage, entries, Vec::new()).await?;
            stage = AnnounceStage::FullMore;
        }
        if stage == AnnounceStage::FullBegin {
            self.announce(stage, Vec::new(), Vec::new()).await?;
        }
        for batch in topics.chunks(ANNOUNCE_ENTRIES_MAX) {
            self.announce_topics(batch).await?;
        }
        self.announce(AnnounceStage::FullEnd, Vec::new(), Vec::new())
            .await
    }

    /// Announces changes as they come. Returns Ok once everything needs to be announced again:
    /// because changes were missed, or some time after the tracker removed entries.
    async fn announce_changes(
        &mut self,
        deltas: &mut broadcast::Receiver<Delta>,
        topic_deltas: &mut broadcast::Receiver<TopicState>,
    ) -> Result<(), TrackerFault> {
        loop {
            let again_at = self.again_at;
            let again = async move {
                match again_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let mut next = tokio::select! {
                next = deltas.recv() => next,
                next = topic_deltas.recv() => {
                    let mut batch = Vec::new();
                    let mut next = next.map_err(Some);
                    while let Ok(state) = next {
                        batch.push(state);
                        if batch.len() == ANNOUNCE_ENTRIES_MAX {
                            break;
                        }
                        next = topic_deltas.try_recv().map_err(|error| match error {
                            TryRecvError::Lagged(missed) => Some(RecvError::Lagged(missed)),
                            TryRecvError::Empty | TryRecvError::Closed => None,
                        });
                    }
                    match next {
                        Err(Some(RecvError::Lagged(_))) => return Ok(()),
                        Err(Some(RecvError::Closed)) => return Err(TrackerFault::NoAcknowledgement),
                        Ok(_) | Err(None) => self.announce_topics(&batch).await?,
                    }
                    continue;
                }
                reply = self.replies.recv() => {
                    let reply = reply.ok_or(TrackerFault::NoAcknowledgement)?;
                    self.handle(reply);
                    continue;
                }
                () = again => return Ok(()),
            };
            let until = Instant::now() + DELTA_BATCH;
            let mut batch = Batch::default();
            loop {
                match next {
                    Ok(delta) => batch.add(delta),
                    Err(RecvError::Lagged(_)) => return Ok(()),
                    Err(RecvError::Closed) => return Err(TrackerFault::NoAcknowledgement),
                }
                if batch.is_full() {
                    break;
                }
                next = tokio::select! {
                    () = sleep_until(until) => break,
                    next = deltas.recv() => next,
                };
            }
            let entries = batch.entries.iter().map(Announced::to_entry).collect();
            let removed = batch.removed.iter().map(|asset| key_of(asset)).collect();
            self.announce(AnnounceStage::Delta, entries, removed)
                .await?;
        }
    }

    /// Sends one announcement and waits for its acknowledgement.
    async fn announce(
        &mut self,
        stage: AnnounceStage,
        entries: Vec<Entry>,
        removed: Vec<EntryKey>,
    ) -> Result<(), TrackerFault> {
        let announce = Announce {
            sequence: self.sequence,
            stage,
            entries,
            removed,
            extensions: Vec::new(),
        };
        framed::write(&mut self.send, &announce).await?;
        self.acknowledged().await
    }

    /// Sends one batch of topics and waits for its acknowledgement. A later state of a topic in the
    /// batch replaces the earlier one.
    async fn announce_topics(&mut self, batch: &[TopicState]) -> Result<(), TrackerFault> {
        if !self.takes_topics {
            return Ok(());
        }
        let last: BTreeMap<Topic, Option<bool>> = batch
            .iter()
            .map(|state| (state.topic, state.complete))
            .collect();
        let mut announce = AnnounceTopics {
            sequence: self.sequence,
            topics: Vec::new(),
            removed: Vec::new(),
            extensions: Vec::new(),
        };
        for (topic, complete) in last {
            match complete {
                Some(complete) => announce.topics.push(TopicEntry { topic, complete }),
                None => announce.removed.push(topic),
            }
        }
        framed::write(&mut self.send, &announce).await?;
        self.acknowledged().await
    }

    /// Waits for the acknowledgement of the last batch.
    async fn acknowledged(&mut self) -> Result<(), TrackerFault> {
        loop {
            let reply = self.replies.recv().await;
            let reply = reply.ok_or(TrackerFault::NoAcknowledgement)?;
            if self.handle(reply) == Some(self.sequence) {
                self.sequence += 1;
                return Ok(());
            }
        }
    }

    /// Counts the entries that the tracker does not list. Returns the number of the announcement
    /// that it acknowledges, if it does.
    fn handle(&mut self, reply: Reply) -> Option<u64> {
        match reply {
            Reply::Ack(ack) => {
                if ack.refused > 0 {
                    self.tracker.add_unlisted(ack.refused);
                    warn!(
                        target: UNLISTED,
                        tracker = %self.tracker.tracker.host_port(),
                        files = ack.refused,
                        reason = %ack.reason,
                        "the tracker does not list files of this node"
                    );
                }
                Some(ack.sequence)
            }
            Reply::Evicted(evicted) => {
                self.tracker.add_unlisted(evicted.entries);
                warn!(
                    target: UNLISTED,
                    tracker = %self.tracker.tracker.host_port(),
                    files = evicted.entries,
                    "the tracker is full and removed files of this node from its list"
                );
                self.again_at = Some(Instant::now() + pause_before_again(&evicted));
                None
            }
        }
    }
}

/// Returns how long to wait before everything is announced again.
fn pause_before_again(evicted: &EntriesEvicted) -> Duration {
    Duration::from_millis(evicted.retry_after_ms.into()).clamp(AGAIN_MIN, AGAIN_MAX)
}

/// Changes that are announced together. A later change of an asset cancels the earlier one.
#[derive(Debug, Default)]
struct Batch {
    entries: Vec<Announced>,
    removed: Vec<Arc<Asset>>,
}

impl Batch {
    fn add(&mut self, delta: Delta) {
        match delta {
            Delta::Upsert(entry) => {
                self.removed.retain(|asset| *asset != entry.asset);
                self.entries.push(entry);
            }
            Delta::Remove(asset) => {
                self.entries.retain(|entry| entry.asset != asset);
                self.removed.push(asset);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.entries.len().max(self.removed.len()) == ANNOUNCE_ENTRIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::{AssetName, ContentInfo, Hash};

    use super::*;

    fn asset(name: &str) -> Arc<Asset> {
        let info = ContentInfo {
            length: 1,
            root: Hash([1; 32]),
        };
        Arc::new(Asset::new(AssetName::new(name).unwrap(), info))
    }

    fn upsert(name: &str) -> Delta {
        Delta::Upsert(Announced {
            asset: asset(name),
            complete: true,
            sha256: None,
        })
    }

    #[test]
    fn the_last_change_of_an_asset_is_announced() {
        let mut batch = Batch::default();
        batch.add(upsert("a"));
        batch.add(upsert("b"));
        batch.add(Delta::Remove(asset("a")));
        assert_eq!((batch.entries.len(), batch.removed.len()), (1, 1));
        batch.add(upsert("a"));
        assert_eq!((batch.entries.len(), batch.removed.len()), (2, 0));
        assert!(!batch.is_full());
    }
}
