//! Watches of contents whose holders have sessions with other trackers: one reader for each
//! content, however many nodes watch it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qshare_content::{ContentId, NodeId};
use qshare_registry::Holder;
use rand::Rng;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::trace;

use super::layout::Layout;
use super::link::Link;
use super::lookup::SharedLookup;

/// Holders are read again after a random time in this range, in seconds, in case that a hint was
/// lost.
const REREAD_SECONDS: std::ops::Range<f64> = 10.0..20.0;
/// Several changes in this time are read at once.
const SETTLING: Duration = Duration::from_millis(50);
/// Pause after Redis did not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// Holders at other trackers that a watch knows.
const HOLDERS_MAX: usize = 128;

/// The holders of a content at other trackers.
pub(crate) type RemoteHolders = Arc<HashMap<NodeId, Holder>>;

struct Watched {
    /// None until they were read.
    holders: watch::Sender<Option<RemoteHolders>>,
    hint: Arc<Notify>,
}

/// All contents that this tracker's nodes watch.
pub(crate) struct Watches {
    link: Arc<Link>,
    layout: Layout,
    us: NodeId,
    lookup: Arc<SharedLookup>,
    by_content: Mutex<HashMap<ContentId, Watched>>,
}

impl Watches {
    pub(crate) fn new(
        link: Arc<Link>,
        layout: Layout,
        us: NodeId,
        lookup: Arc<SharedLookup>,
    ) -> Watches {
        Watches {
            link,
            layout,
            us,
            lookup,
            by_content: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContentId, Watched>> {
        self.by_content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the holders of a content at other trackers, now and as they change. Reading ends
    /// when the last receiver is dropped.
    pub(crate) fn watch(
        self: &Arc<Self>,
        content: ContentId,
    ) -> watch::Receiver<Option<RemoteHolders>> {
        let mut by_content = self.lock();
        if let Some(watched) = by_content.get(&content) {
            return watched.holders.subscribe();
        }
        let (holders, receiver) = watch::channel(None);
        let hint = Arc::new(Notify::new());
        let watched = Watched {
            holders: holders.clone(),
            hint: Arc::clone(&hint),
        };
        by_content.insert(content, watched);
        let watches = Arc::clone(self);
        tokio::spawn(async move { watches.follow(content, holders, hint).await });
        receiver
    }

    /// Another tracker says that the holders of a content have changed.
    pub(crate) fn hint(&self, content: ContentId) {
        if let Some(watched) = self.lock().get(&content) {
            watched.hint.notify_one();
        }
    }

    async fn follow(
        &self,
        content: ContentId,
        holders: watch::Sender<Option<RemoteHolders>>,
        hint: Arc<Notify>,
    ) {
        let mut known: RemoteHolders = Arc::default();
        loop {
            // Others are told to send hints before the holders are read: no change is missed.
            let begin = self.layout.begin_watch(content, self.us);
            let read = match self.link.run(&begin).await {
                Ok(_) => self.lookup.current(content, &known, HOLDERS_MAX).await,
                Err(fault) => Err(fault),
            };
            let pause = match read {
                Ok(now) => {
                    let now = Arc::new(now);
                    holders.send_if_modified(|told| {
                        let is_new = told.as_ref() != Some(&now);
                        *told = Some(Arc::clone(&now));
                        is_new
                    });
                    known = now;
                    Duration::from_secs_f64(rand::rng().random_range(REREAD_SECONDS))
                }
                Err(fault) => {
                    trace!(%content, cause = %fault, "cannot read holders at other trackers");
                    PAUSE
                }
            };
            tokio::select! {
                () = holders.closed() => {}
                _ = timeout(pause, hint.notified()) => sleep(SETTLING).await,
            }
            {
                let mut by_content = self.lock();
                if holders.receiver_count() == 0 {
                    by_content.remove(&content);
                    break;
                }
            }
        }
        let _ = self
            .link
            .run(&[self.layout.end_watch(content, self.us)])
            .await;
    }
}
