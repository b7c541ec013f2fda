//! Requests over an established session: lookups, introductions, watches of a content's holders.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::{AnswerFilter, AssetName, FileMetadata, NodeId, Query};
use qshare_net::framed;
use qshare_wire::CandidateKind;
use qshare_wire::introduction::{Introduce, Introduction};
use qshare_wire::limits::{HOLDERS_MAX, HOLDERS_PER_MATCH_MAX};
use qshare_wire::private::WatchTopic;
use qshare_wire::tracker::{
    EntryKind, Find, Found, Holder, Holders, HoldersChanged, Match, NodeContact, Readiness, Watch,
};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::candidates::resolve_candidates;
use super::session::{SessionState, TrackerSession};
use crate::access::Access;
use crate::error::AskError;
use crate::vocabulary::{Contact, FoundFile, HolderNews};

/// Time for the answer to one request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// Time for an introduction. Other paths are tried meanwhile, so waiting longer gains nothing.
const INTRODUCE_DEADLINE: Duration = Duration::from_secs(4);
/// Pause before a watch that ended is requested again.
const PAUSE_WATCH: Duration = Duration::from_secs(1);

/// An established session with a tracker. Clones use the same connection.
#[derive(Clone)]
pub(crate) struct Established {
    pub(crate) connection: quinn::Connection,
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    /// Where the tracker sees this node.
    pub(crate) seen_at: Option<SocketAddr>,
    /// The registry that the tracker shares with others.
    pub(crate) registry: Option<[u8; 16]>,
}

/// One page of a lookup's matches.
pub(crate) struct Page {
    pub(crate) files: Vec<FoundFile>,
    pub(crate) near: Vec<AssetName>,
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
    ) -> Result<Page, AskError> {
        let request = Find {
            query: query.clone(),
            after,
            limit,
            holders: HOLDERS_PER_MATCH_MAX as u8,
            extensions: Vec::new(),
        };
        let asked = framed::ask_once::<Find, Found>(&self.connection, &request);
        let found = timeout(ANSWER_DEADLINE, asked)
            .await
            .map_err(|_| AskError::TimedOut(ANSWER_DEADLINE))??;
        let contacts: Vec<Contact> = found
            .nodes
            .into_iter()
            .map(|contact| self.contact(contact, false))
            .collect();
        let matches = answers_to(query, found.matches, usize::from(limit));
        let files = matches.into_iter().map(|found| FoundFile {
            metadata: FileMetadata::decode(&found.metadata).unwrap_or_default(),
            content: found.info.id(),
            name: found.name,
            info: found.info,
            is_collection: found.kind == EntryKind::Collection,
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

    /// Asks the tracker to introduce this node and another one to each other.
    pub(crate) async fn introduce(&self, request: &Introduce) -> Result<Introduction, AskError> {
        let asked = framed::ask::<Introduce, Introduction>(&self.connection, request);
        let (introduction, ..) = timeout(INTRODUCE_DEADLINE, asked)
            .await
            .map_err(|_| AskError::TimedOut(INTRODUCE_DEADLINE))??;
        match introduction.peer == request.node {
            true => Ok(introduction),
            false => Err(AskError::OtherNode),
        }
    }

    /// Reports the holders of a content, until the session is lost or the receiver is dropped.
    async fn watch(&self, access: &Access, news: &mpsc::Sender<HolderNews>) {
        let (limit, extensions) = (HOLDERS_MAX as u16, Vec::new());
        let asked = match access {
            Access::Public(content) => {
                let request = Watch {
                    content: *content,
                    limit,
                    extensions,
                };
                framed::ask::<Watch, Holders>(&self.connection, &request).await
            }
            Access::Private { topic, .. } => {
                let request = WatchTopic {
                    topic: *topic,
                    limit,
                    extensions,
                };
                framed::ask::<WatchTopic, Holders>(&self.connection, &request).await
            }
        };
        // The sending half is kept open: closing it would end the watch.
        let Ok((first, _send, mut recv)) = asked else {
            return;
        };
        let joined = HolderNews::Joined(self.contacts(first.holders));
        if news.send(joined).await.is_err() {
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
        // An address at which the tracker sees the node, or got an answer, may be dialled. An
        // address that the node only claims is probed, after an introduction.
        let seen = contact
            .candidates
            .iter()
            .filter(|candidate| candidate.kind != CandidateKind::Local);
        Contact {
            node: contact.node,
            addresses: resolve_candidates(seen, self.address),
            complete,
        }
    }
}

/// Returns those of a tracker's or node's matches that answer `query`, at most `limit`. Other names
/// and contents are dropped, because a match decides which content is fetched and where it is
/// written.
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

/// Watches the holders of a content at one tracker, across reconnections, until the receiver is
/// dropped.
pub(crate) async fn watch_holders(
    session: Arc<TrackerSession>,
    access: Access,
    news: mpsc::Sender<HolderNews>,
) {
    let mut state = session.subscribe();
    loop {
        let up = tokio::select! {
            () = news.closed() => return,
            up = state.wait_for(|state| matches!(state, SessionState::Up(_))) => match up {
                Ok(up) => up.clone(),
                Err(_) => return,
            },
        };
        let SessionState::Up(up) = up else { continue };
        up.watch(&access, &news).await;
        if news.is_closed() {
            return;
        }
        // The watch was refused (too many watches or requests), or the session is being lost.
        sleep(PAUSE_WATCH).await;
    }
}
