//! A tracker that answers every lookup with the same files.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::Mutex;

use qshare_content::{AssetName, ContentInfo, Hash, NodeId};
use qshare_net::framed;
use qshare_wire::tracker::{
    Entry, EntryKind, Find, Found, Holder, Holders, Match, NodeContact, Readiness, Watch,
};
use qshare_wire::{Frame, Message};
use quinn::{RecvStream, SendStream};

use crate::fake_tracker::{Answers, FakeTracker};

/// What a lying tracker answers to a lookup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Everything that was announced to it.
    Announced,
    /// Page after page of one invented file each, without end.
    Endless,
    /// The same page again and again, each time with the same cursor.
    Repeated,
}

/// A tracker that ignores the query. It ends when the value is dropped.
pub struct LyingTracker {
    /// Its address.
    pub address: SocketAddr,
    _tracker: FakeTracker,
}

impl LyingTracker {
    /// Starts one that answers with what was announced, on a port that the system picks.
    pub fn start() -> LyingTracker {
        LyingTracker::start_with(Lie::Announced)
    }

    /// Starts one that tells this lie, on a port that the system picks.
    pub fn start_with(lie: Lie) -> LyingTracker {
        let tracker = FakeTracker::start(Lies {
            lie,
            announced: Mutex::default(),
        });
        LyingTracker {
            address: tracker.address,
            _tracker: tracker,
        }
    }
}

/// The answers of a lying tracker.
struct Lies {
    lie: Lie,
    announced: Mutex<Announced>,
}

/// Announced entries and the node that announced the last of them.
#[derive(Default, Clone)]
struct Announced {
    entries: Vec<Entry>,
    announcer: Option<NodeContact>,
}

impl Answers for Lies {
    const FEATURES: u64 = 0;

    fn announced(&self, announcer: &NodeContact, entries: Vec<Entry>) {
        let mut announced = self.announced.lock().unwrap();
        if !entries.is_empty() {
            announced.announcer = Some(announcer.clone());
        }
        announced.entries.extend(entries);
    }

    async fn answer(&self, _: NodeId, frame: Frame, mut send: SendStream, mut recv: RecvStream) {
        let Announced { entries, announcer } = self.announced.lock().unwrap().clone();
        let nodes: Vec<NodeContact> = announcer.into_iter().collect();
        match frame.kind {
            Find::TYPE => {
                let found = match self.lie {
                    Lie::Announced => everything(entries, nodes),
                    Lie::Endless | Lie::Repeated => {
                        let Ok(find) = frame.decode::<Find>() else {
                            return;
                        };
                        self.invented_page(&find)
                    }
                };
                let _ = framed::write(&mut send, &found).await;
            }
            Watch::TYPE => {
                let holders = nodes.into_iter().map(|contact| Holder {
                    contact,
                    complete: true,
                });
                let holders = Holders {
                    readiness: Readiness::Ready,
                    holders: holders.collect(),
                };
                let _ = framed::write(&mut send, &holders).await;
                // The watch lasts until the client ends it.
                let _ = recv.read_chunk(1, true).await;
            }
            _ => {}
        }
    }
}

impl Lies {
    /// Returns a page of one invented file, and the cursor of a further page.
    fn invented_page(&self, find: &Find) -> Found {
        let after = find.after.as_deref();
        let cursor = after.and_then(|after| after.try_into().ok());
        let page = cursor.map_or(0, u64::from_be_bytes);
        let next = match self.lie {
            Lie::Endless => page + 1,
            Lie::Announced | Lie::Repeated => 1,
        };
        let info = ContentInfo {
            length: page,
            root: Hash([1; 32]),
        };
        Found {
            readiness: Readiness::Ready,
            matches: vec![Match {
                name: AssetName::new(format!("f{page}")).unwrap(),
                kind: EntryKind::File,
                info,
                complete: 1,
                partial: 0,
                holders: Vec::new(),
                metadata: Vec::new(),
            }],
            nodes: Vec::new(),
            more: Some(next.to_be_bytes().to_vec()),
            near: Vec::new(),
            extensions: Vec::new(),
        }
    }
}

/// Returns all entries, each with the first of `nodes` as its holder.
fn everything(entries: Vec<Entry>, nodes: Vec<NodeContact>) -> Found {
    let matches = entries.into_iter().map(|entry| Match {
        name: entry.name,
        kind: entry.kind,
        info: entry.info,
        complete: 1,
        partial: 0,
        holders: vec![(0, true)],
        metadata: Vec::new(),
    });
    Found {
        readiness: Readiness::Ready,
        matches: matches.collect(),
        nodes,
        more: None,
        near: Vec::new(),
        extensions: Vec::new(),
    }
}
