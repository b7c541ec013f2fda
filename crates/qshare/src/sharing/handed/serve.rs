//! Serves shares that were handed over: hashes them, offers their codes, follows their changes.

use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::Duration;

use qshare_node::{
    Cancel, CodeEvent, FolderError, FolderProgress, FolderShareRequest, FolderSkip, HashError,
    HashOptions, Share, ShareRequest,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::super::cancel::CancelOnDrop;
use super::super::code::{FIRST_CODE, ShareCode, is_end, shown};
use super::Inner;
use super::file::Record;
use super::row::{HandedState, Happened, Row};

/// Interval at which receivers are counted.
const TICK: Duration = Duration::from_millis(500);
/// Pause before a path that cannot be read is tried again: its disk may be mounted later.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Least progress of hashing that listeners are told.
const TELL_HASHED_BYTES: u64 = 4 << 20;

/// Serves a share until it is stopped.
pub(super) async fn run(inner: Arc<Inner>, record: Record, stop: CancellationToken) {
    let Some(shared) = stop.run_until_cancelled(open(&inner, &record)).await else {
        return;
    };
    let version = shared.version();
    inner.edit(&record.id, |row| {
        row.shared = Some(shared.clone());
        row.version = Some(version);
        row.state = HandedState::Serving;
    });
    let mut code = record.offers_code().then(|| {
        let uses = record.uses_left.and_then(NonZeroU32::new);
        ShareCode::begin(&inner.node, &shared, uses)
    });
    let mut pending = code.is_some();
    let first_code = Instant::now() + FIRST_CODE;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            event = next(&mut code) => {
                pending &= !matches!(event, CodeEvent::Offered(_));
                take(&inner, &record, &event).await;
                if code.as_ref().is_some_and(|code| code.is_served) {
                    // It has served its purpose.
                    inner.take_out(&record.id);
                    inner.save_or_warn().await;
                    break;
                }
            }
            () = sleep_until(first_code), if pending => {
                pending = false;
                inner.edit(&record.id, |row| row.is_code_pending = false);
            }
        }
    }
    if let Some(code) = code {
        code.close().await;
    }
    shared.stop();
}

async fn next(code: &mut Option<ShareCode>) -> CodeEvent {
    match code {
        Some(code) => code.next().await,
        None => std::future::pending().await,
    }
}

async fn take(inner: &Arc<Inner>, record: &Record, event: &CodeEvent) {
    let id = &record.id;
    match event {
        CodeEvent::Offered(offered) => {
            let code = shown(offered);
            inner.edit(id, |row| {
                (row.code, row.is_code_pending) = (code, false);
            });
            inner.happened(id, Happened::Code);
        }
        CodeEvent::AttemptFailed { .. } => {
            inner.edit(id, |row| row.failed_attempts += 1);
            inner.happened(id, Happened::AttemptFailed);
        }
        CodeEvent::Redeemed { left, .. } => {
            let left = *left;
            inner.edit(id, |row| row.record.uses_left = left);
            if left.is_some() {
                inner.save_or_warn().await;
            }
            inner.happened(id, Happened::Redeemed);
        }
        CodeEvent::Completed { .. } => inner.happened(id, Happened::Completed),
        end if is_end(end) => {
            inner.edit(id, |row| row.code = None);
            inner.happened(id, Happened::CodeEnded);
        }
        _ => {}
    }
}

/// Hashes and shares a path, as soon as that is possible.
async fn open(inner: &Arc<Inner>, record: &Record) -> Share {
    loop {
        let error = match hash(inner, record).await {
            Ok(shared) => return shared,
            Err(error) => error,
        };
        debug!(id = %record.id, %error, "a share cannot be hashed");
        inner.edit(&record.id, |row| {
            row.state = HandedState::Failed(error.to_string());
        });
        sleep(TRY_AGAIN).await;
    }
}

/// Why a path is not shared.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    File(#[from] HashError),
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Hashes and shares a path. Stops hashing when it is dropped.
async fn hash(inner: &Arc<Inner>, record: &Record) -> Result<Share, OpenError> {
    // The semaphore is never closed, so this is a turn.
    let _turn = inner.hashing.acquire().await;
    let told = Arc::new(Told {
        inner: Arc::downgrade(inner),
        record: record.clone(),
    });
    let cancel = Cancel::new();
    let guard = CancelOnDrop::new(&cancel);
    let node = &inner.node;
    let (path, name, key) = (record.path.clone(), record.name.clone(), record.key.clone());
    let shared = match record.is_folder {
        true => {
            let request = FolderShareRequest {
                path,
                name,
                key,
                index: node.hash_index(),
                exclude: inner.exclude.clone(),
                cancel,
                progress: Some(Arc::new(move |now: FolderProgress| {
                    told.hashed(now.bytes, now.total_bytes);
                })),
                skipped: Arc::new(|skip: FolderSkip| {
                    debug!(path = %skip.path.display(), reason = %skip.reason, "left out");
                }),
            };
            node.share_folder(request).await?
        }
        false => {
            let hashing = HashOptions {
                cancel,
                progress: Some(Arc::new(move |done, total| told.hashed(done, total))),
                ..HashOptions::default()
            };
            let request = ShareRequest {
                path,
                name,
                key,
                hashing,
                index: None,
            };
            node.share_file(request).await?
        }
    };
    guard.disarm();
    Ok(shared)
}

/// Tells the progress of hashing.
struct Told {
    inner: Weak<Inner>,
    record: Record,
}

impl Told {
    fn hashed(&self, done: u64, total: u64) {
        let Some(inner) = self.inner.upgrade() else {
            return;
        };
        let is_news = inner.table().find(&self.record.id).is_some_and(|row| {
            let before = match row.total_bytes == total {
                true => row.hashed_bytes,
                false => 0,
            };
            done.abs_diff(before) >= TELL_HASHED_BYTES || done == total
        });
        if is_news {
            inner.edit(&self.record.id, |row| {
                (row.hashed_bytes, row.total_bytes) = (done, total);
            });
        }
    }
}

/// Follows the receivers and the versions of all shares.
pub(super) async fn watch_all(inner: Weak<Inner>) {
    let Some(mut revisions) = inner.upgrade().map(|inner| inner.revision.subscribe()) else {
        return;
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(strong) = inner.upgrade() else {
            return;
        };
        if strong.quit.is_cancelled() {
            return;
        }
        if look_at_all(&strong) {
            continue;
        }
        drop(strong);
        // Nothing is shared: an idle node does not wake up for it.
        if revisions.changed().await.is_err() {
            return;
        }
    }
}

/// Looks at every share. Returns whether there is any.
fn look_at_all(inner: &Arc<Inner>) -> bool {
    let mut happened = Vec::new();
    let mut has_changed = false;
    let any = {
        let mut table = inner.table();
        let mut revision = table.revision;
        for row in &mut table.rows {
            if let Some(what) = look_at(row) {
                revision += 1;
                row.revision = revision;
                has_changed = true;
                happened.extend(what.map(|what| (row.record.id, what)));
            }
        }
        table.revision = revision;
        !table.rows.is_empty()
    };
    if has_changed {
        inner.tell();
    }
    for (id, what) in happened {
        inner.happened(&id, what);
    }
    any
}

/// Notes the present version and receivers of a share. Returns None if nothing has changed.
fn look_at(row: &mut Row) -> Option<Option<Happened>> {
    let shared = row.shared.as_ref()?;
    let (version, audience) = (shared.version(), shared.audience());
    let is_news = row.version.as_ref() != Some(&version) || row.audience != audience;
    if !is_news {
        return None;
    }
    let before = row.version.replace(version.clone());
    row.audience = audience;
    let state = match version.is_served {
        true => HandedState::Serving,
        false => HandedState::Changed,
    };
    let was_served = before.as_ref().is_none_or(|before| before.is_served);
    let number = before.map_or(version.number, |before| before.number);
    row.state = state;
    Some(match (was_served, version.is_served) {
        (true, false) => Some(Happened::Changed),
        (_, true) if version.number != number => Some(Happened::Version),
        _ => None,
    })
}
