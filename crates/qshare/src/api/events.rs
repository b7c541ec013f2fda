//! Server-sent events: a full picture at first, then what has changed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use qshare_node::content::Bitmap;
use qshare_node::{DownloadId, RosterRow, VerifiedChunks};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use super::downloads::{detail_from, map_of, runs};
use super::error::{ApiError, Code};
use super::extract::Params;
use super::info::status_of;
use super::objects::{
    Changed, ChunkMap, Download, DownloadDetail, DownloadsChange, Notice, RatePoint, Share,
    ShareEvent, SharesChange, Status,
};
use crate::sharing::ShareId;

/// Events on their way to a client that reads slowly. Changes are collected while they wait.
const EVENTS: usize = 4;
/// Events per second.
const PER_SECOND_MAX: u64 = 10;
/// Rows in one event.
const ROWS_MAX: usize = 1000;
/// Notices in one batch; more are dropped.
const NOTICES_MAX: usize = 10;
/// Interval of a status in which only counters differ.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);
/// Interval of a download's details.
const DETAIL_EVERY: Duration = Duration::from_millis(500);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventParams {
    download: Option<String>,
    per_second: Option<u64>,
}

pub(super) async fn stream(
    State(api): State<Api>,
    Params(params): Params<EventParams>,
) -> Result<Response, ApiError> {
    let per_second = params.per_second.unwrap_or(PER_SECOND_MAX);
    if !(1..=PER_SECOND_MAX).contains(&per_second) {
        let message = format!("`per_second` must be between 1 and {PER_SECOND_MAX}");
        return Err(ApiError::new(Code::BadRequest, message));
    }
    let watched = match params.download {
        Some(text) => {
            let id = text.parse::<DownloadId>()?;
            api.roster.get(&id).ok_or(qshare_node::NoSuchDownload)?;
            Some(Watched::new(id))
        }
        None => None,
    };
    let (events, receiver) = mpsc::channel(EVENTS);
    let pause = Duration::from_millis(1000 / per_second);
    let listener = Listener {
        api,
        events,
        pause,
        watched,
        since: 0,
        is_new: true,
        status: None,
        status_sent: Instant::now(),
        had_rate: false,
        shares: HashMap::new(),
        has_shares: false,
    };
    tokio::spawn(listener.run());
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let events = Sse::new(ReceiverStream::new(receiver)).keep_alive(keep_alive);
    Ok(events.into_response())
}

/// The client has gone.
struct Gone;

/// One client, and what it knows.
struct Listener {
    api: Api,
    events: mpsc::Sender<Result<Event, Infallible>>,
    pause: Duration,
    watched: Option<Watched>,
    /// The revision of the roster that the client has; it has no list yet if `is_new`.
    since: u64,
    is_new: bool,
    status: Option<Status>,
    status_sent: Instant,
    had_rate: bool,
    /// The revisions of the handed-over shares that the client has, and whether it has any list.
    shares: HashMap<ShareId, u64>,
    has_shares: bool,
}

/// The download whose details the client wants, and what it knows of it.
struct Watched {
    id: DownloadId,
    detail: Option<DownloadDetail>,
    chunks: Option<Bitmap>,
    /// What the row was when the chunks were looked at.
    row: Option<(u64, qshare_node::RosterState, qshare_node::Stage)>,
}

impl Listener {
    async fn run(mut self) {
        let quit = self.api.quit.clone();
        let events = self.events.clone();
        tokio::select! {
            _ = self.tell() => {}
            () = events.closed() => {}
            () = quit.cancelled() => {
                if let Ok(event) = event("stopping", &Changed { changed: 1 }) {
                    let _ = events.send(Ok(event)).await;
                }
            }
        }
    }

    async fn tell(&mut self) -> Result<(), Gone> {
        let mut roster = self.api.roster.watch();
        let mut rates = self.api.rates.latest();
        let mut notices = self.api.notices.subscribe();
        let mut shares = self.api.handed.watch();
        let mut happenings = self.api.handed.happenings();
        let mut details = interval(DETAIL_EVERY);
        details.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rates.mark_unchanged();
        self.tell_status().await?;
        roster.mark_unchanged();
        self.tell_downloads().await?;
        shares.mark_unchanged();
        self.tell_shares().await?;
        self.tell_detail().await?;
        loop {
            let mut heard: Vec<Notice> = Vec::new();
            tokio::select! {
                Ok(()) = roster.changed() => {}
                Ok(()) = rates.changed() => {}
                Ok(()) = shares.changed() => {}
                notice = notices.recv() => match notice {
                    Ok(notice) => heard.push(notice),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = details.tick(), if self.watched.is_some() => self.tell_detail().await?,
                else => return Ok(()),
            }
            while let Ok(notice) = notices.try_recv() {
                heard.push(notice);
            }
            for notice in heard.iter().take(NOTICES_MAX) {
                self.send("notice", notice).await?;
            }
            self.tell_status().await?;
            roster.mark_unchanged();
            self.tell_downloads().await?;
            shares.mark_unchanged();
            self.tell_shares().await?;
            // Each of them also changes a share, so this is not late.
            for _ in 0..NOTICES_MAX {
                match happenings.try_recv() {
                    Ok(happening) => self.send("share", &ShareEvent::from(&happening)).await?,
                    Err(TryRecvError::Lagged(_)) => {}
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            let rate = *rates.borrow_and_update();
            self.tell_rate(rate).await?;
            sleep(self.pause).await;
        }
    }

    async fn tell_status(&mut self) -> Result<(), Gone> {
        let status = status_of(&self.api);
        let is_due = match &self.status {
            None => true,
            Some(known) if known.without_counters() != status.without_counters() => true,
            Some(known) => *known != status && self.status_sent.elapsed() >= COUNTERS_EVERY,
        };
        if is_due {
            self.send("status", &status).await?;
            self.status = Some(status);
            self.status_sent = Instant::now();
        }
        Ok(())
    }

    async fn tell_downloads(&mut self) -> Result<(), Gone> {
        loop {
            let changes = self.api.roster.changes(self.since, ROWS_MAX);
            if changes.is_outdated {
                (self.since, self.is_new) = (0, true);
                continue;
            }
            let is_empty = changes.changed.is_empty() && changes.removed.is_empty();
            if is_empty && !self.is_new {
                self.since = changes.revision;
                return Ok(());
            }
            let body = DownloadsChange {
                snapshot: std::mem::take(&mut self.is_new),
                changed: changes.changed.iter().map(Download::from).collect(),
                removed: changes.removed.iter().map(ToString::to_string).collect(),
            };
            self.since = changes.revision;
            self.send("downloads", &body).await?;
            if !changes.more {
                return Ok(());
            }
        }
    }

    async fn tell_shares(&mut self) -> Result<(), Gone> {
        let (changed, removed) = self.api.handed.changes(&mut self.shares);
        let mut removed: Vec<String> = removed.iter().map(ToString::to_string).collect();
        let changed: Vec<Share> = changed.iter().map(Share::from).collect();
        let mut parts = changed.chunks(ROWS_MAX);
        loop {
            let part = parts.next().unwrap_or_default();
            let snapshot = !std::mem::replace(&mut self.has_shares, true);
            if part.is_empty() && removed.is_empty() && !snapshot {
                return Ok(());
            }
            let body = SharesChange {
                snapshot,
                changed: part.to_vec(),
                removed: std::mem::take(&mut removed),
            };
            self.send("shares", &body).await?;
        }
    }

    async fn tell_rate(&mut self, rate: RatePoint) -> Result<(), Gone> {
        let has_rate = rate.up_bytes_per_second > 0 || rate.down_bytes_per_second > 0;
        if std::mem::replace(&mut self.had_rate, has_rate) || has_rate {
            self.send("rates", &rate).await?;
        }
        Ok(())
    }

    async fn tell_detail(&mut self) -> Result<(), Gone> {
        let Some(mut watched) = self.watched.take() else {
            return Ok(());
        };
        if let Some(row) = self.api.roster.get(&watched.id) {
            let status = self.api.roster.status(&watched.id);
            let detail = detail_from(&row, status.as_ref());
            if watched.detail.as_ref() != Some(&detail) {
                self.send("download", &detail).await?;
                watched.detail = Some(detail);
            }
            if watched.has_changed(&row) {
                let chunks = self.api.roster.chunks(&watched.id).await;
                if let Some(map) = watched.news(chunks) {
                    self.send("map", &map).await?;
                }
            }
        }
        self.watched = Some(watched);
        Ok(())
    }

    async fn send(&self, name: &str, body: &impl Serialize) -> Result<(), Gone> {
        let event = event(name, body)?;
        self.events.send(Ok(event)).await.map_err(|_| Gone)
    }
}

fn event(name: &str, body: &impl Serialize) -> Result<Event, Gone> {
    match serde_json::to_string(body) {
        Ok(body) => Ok(Event::default().event(name).data(body)),
        Err(error) => {
            tracing::error!(%error, name, "cannot encode an event");
            Err(Gone)
        }
    }
}

impl Watched {
    fn new(id: DownloadId) -> Watched {
        Watched {
            id,
            detail: None,
            chunks: None,
            row: None,
        }
    }

    fn has_changed(&mut self, row: &RosterRow) -> bool {
        let seen = (row.progress.verified_bytes, row.state, row.progress.stage);
        self.row.replace(seen) != Some(seen)
    }

    /// Returns the chunks that the client does not know of; None if there are none.
    fn news(&mut self, chunks: Option<VerifiedChunks>) -> Option<ChunkMap> {
        let Some(chunks) = chunks else {
            let is_first = self.chunks.is_none();
            return is_first.then(|| map_of(&self.id, None));
        };
        let known = self
            .chunks
            .take()
            .filter(|known| known.len() == chunks.verified.len());
        let all = map_of(&self.id, Some(&chunks));
        let map = match &known {
            None => all,
            Some(known) => ChunkMap {
                verified: runs(chunks.verified.difference(known)),
                ..all
            },
        };
        let is_news = known.is_none() || !map.verified.is_empty();
        self.chunks = Some(chunks.verified);
        is_news.then_some(map)
    }
}

#[cfg(test)]
mod tests {
    use qshare_node::content::ChunkIndex;

    use super::*;

    #[test]
    fn a_map_is_complete_at_first_and_then_holds_the_new_chunks_only() {
        let id = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let mut watched = Watched::new(id);
        let unknown = watched.news(None).unwrap();
        assert_eq!((unknown.chunks, unknown.verified), (0, vec![]));
        let mut verified = Bitmap::new(32);
        verified.insert(ChunkIndex(0));
        let chunks = |verified: &Bitmap| {
            Some(VerifiedChunks {
                chunk_bytes: 1 << 17,
                verified: verified.clone(),
            })
        };
        let first = watched.news(chunks(&verified)).unwrap();
        assert_eq!((first.chunks, first.chunk_bytes), (32, 1 << 17));
        assert_eq!(first.verified, [0, 1]);
        assert_eq!(watched.news(chunks(&verified)), None);
        verified.insert(ChunkIndex(5));
        verified.insert(ChunkIndex(6));
        let next = watched.news(chunks(&verified)).unwrap();
        assert_eq!(next.verified, [5, 2]);
    }
}
