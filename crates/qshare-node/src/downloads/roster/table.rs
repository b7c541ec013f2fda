//! The rows of the roster, in the order of their addition, and in the order of their last change.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use qshare_content::AssetName;
use qshare_net::RateLimit;
use qshare_storage::Target;

use super::super::download::Download;
use super::super::rates::Priority;
use super::super::request::DownloadRequest;
use super::row::{DownloadId, RosterChanges, RosterCounts, RosterPage, RosterRow, RosterState};
use crate::error::DownloadError;
use crate::vocabulary::{FileCounts, Progress, Stage};

/// Complete downloads that stay in the roster.
const COMPLETE_MAX: usize = 1000;
/// Removals that are remembered for those who ask for changes.
const REMOVED_MAX: usize = 4096;
/// Rows that one page looks at.
const SCAN_MAX: usize = 4096;

/// One download.
pub(super) struct Row {
    pub(super) request: DownloadRequest,
    pub(super) state: RosterState,
    /// The running download, or the one that is about to end.
    pub(super) download: Option<Download>,
    /// It is to run again as soon as it has ended.
    pub(super) restart: bool,
    pub(super) added_at: SystemTime,
    pub(super) ended_at: Option<SystemTime>,
    pub(super) error: Option<Arc<DownloadError>>,
    pub(super) priority: Priority,
    pub(super) limit: RateLimit,
    /// The progress of the last run, if it does not run.
    pub(super) last: Progress,
    order: u64,
    revision: u64,
    seen: Seen,
}

/// What a person sees of the progress. A change of anything else is no news.
#[derive(PartialEq, Eq, Clone, Copy, Default)]
struct Seen {
    state: Option<RosterState>,
    stage: Stage,
    total_bytes: u64,
    verified_bytes: u64,
    files: Option<FileCounts>,
    bytes_per_second: u64,
    seconds_left: Option<u64>,
    sources: u32,
    priority: Priority,
    limit: RateLimit,
    /// The number of failed sources, if there is trouble.
    failures: Option<usize>,
}

/// All rows.
#[derive(Default)]
pub(super) struct Table {
    rows: HashMap<DownloadId, Row>,
    by_order: BTreeMap<u64, DownloadId>,
    by_revision: BTreeMap<u64, DownloadId>,
    /// The downloads to one name beneath a directory, of whatever content.
    by_name: BTreeMap<AssetName, Vec<DownloadId>>,
    complete: BTreeSet<u64>,
    removed: VecDeque<(u64, DownloadId)>,
    /// Removals up to this revision are not remembered.
    forgotten: u64,
    revision: u64,
    next_order: u64,
    counts: RosterCounts,
}

impl Row {
    pub(super) fn new(request: DownloadRequest, state: RosterState, added_at: SystemTime) -> Row {
        Row {
            last: request.first_progress(),
            request,
            state,
            download: None,
            restart: false,
            added_at,
            ended_at: None,
            error: None,
            priority: Priority::default(),
            limit: RateLimit::NONE,
            order: 0,
            revision: 0,
            seen: Seen::default(),
        }
    }

    /// Applies priority and limit to the running download.
    pub(super) fn apply_rates(&self) {
        if let Some(download) = &self.download {
            download.set_priority(self.priority);
            download.set_limit(self.limit);
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.running()
            .map_or_else(|| self.last.clone(), Download::progress)
    }

    fn seen(&self) -> Seen {
        let progress = self.progress();
        Seen {
            state: Some(self.state),
            stage: progress.stage,
            total_bytes: progress.total_bytes,
            verified_bytes: progress.verified_bytes,
            files: progress.files,
            bytes_per_second: progress.bytes_per_second,
            seconds_left: progress.time_left.map(|left| left.as_secs()),
            sources: progress.sources,
            priority: self.priority,
            limit: self.limit,
            failures: progress.trouble.map(|trouble| trouble.failures.len()),
        }
    }

    fn view(&self, id: DownloadId) -> RosterRow {
        RosterRow {
            id,
            name: self.request.name.clone(),
            info: self.request.info,
            is_folder: self.request.folder.is_some(),
            path: self.request.target.path(),
            state: self.state,
            progress: self.progress(),
            added_at: self.added_at,
            ended_at: self.ended_at,
            error: self.error.clone(),
            why: self.running().map_or_else(Vec::new, Download::why),
            priority: self.priority,
            limit: self.limit,
        }
    }

    fn running(&self) -> Option<&Download> {
        let download = self.download.as_ref();
        download.filter(|_| self.state == RosterState::Running)
    }
}

impl Seen {
    fn count<'a>(&self, counts: &'a mut RosterCounts) -> Option<&'a mut usize> {
        Some(match self.state? {
            RosterState::Running if self.stage == Stage::Queued => &mut counts.queued,
            RosterState::Running => &mut counts.active,
            RosterState::Paused => &mut counts.paused,
            RosterState::Failed => &mut counts.failed,
            RosterState::Complete => &mut counts.complete,
        })
    }
}

impl Table {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn counts(&self) -> RosterCounts {
        self.counts
    }

    pub(super) fn get(&self, id: &DownloadId) -> Option<&Row> {
        self.rows.get(id)
    }

    pub(super) fn view(&self, id: &DownloadId) -> Option<RosterRow> {
        self.rows.get(id).map(|row| row.view(*id))
    }

    /// Returns all rows, oldest first.
    pub(super) fn rows(&self) -> impl Iterator<Item = (DownloadId, &Row)> {
        let rows = self.by_order.values();
        rows.filter_map(|id| Some((*id, self.rows.get(id)?)))
    }

    /// Returns the unfinished downloads that `request` goes on from: by the same name, to the same
    /// target, of other contents.
    pub(super) fn earlier_versions(&self, request: &DownloadRequest) -> Vec<DownloadId> {
        let (Some(follow), Target::Beneath { name, .. }) = (&request.follow, &request.target)
        else {
            return Vec::new();
        };
        let is_earlier = |row: &Row| {
            let same = row.request.follow.as_ref();
            row.state != RosterState::Complete
                && row.request.info != request.info
                && row.request.folder.is_some() == request.folder.is_some()
                && same.is_some_and(|same| same.name == follow.name && same.node == follow.node)
        };
        let ids = self.by_name.get(name).into_iter().flatten();
        ids.filter(|id| self.rows.get(id).is_some_and(is_earlier))
            .copied()
            .collect()
    }

    /// Changes a row; a new one is added first. Returns what `change` returns.
    pub(super) fn change<T>(
        &mut self,
        id: DownloadId,
        new: impl FnOnce() -> Row,
        change: impl FnOnce(&mut Row) -> T,
    ) -> T {
        let (order, by_order) = (&mut self.next_order, &mut self.by_order);
        let by_name = &mut self.by_name;
        let row = self.rows.entry(id).or_insert_with(|| {
            *order += 1;
            by_order.insert(*order, id);
            let new = new();
            if let Target::Beneath { name, .. } = &new.request.target {
                by_name.entry(name.clone()).or_default().push(id);
            }
            Row {
                order: *order,
                ..new
            }
        });
        let result = change(row);
        self.touch(&id);
        result
    }

    /// Changes a row if there is one.
    pub(super) fn edit<T>(
        &mut self,
        id: &DownloadId,
        change: impl FnOnce(&mut Row) -> T,
    ) -> Option<T> {
        let result = change(self.rows.get_mut(id)?);
        self.touch(id);
        Some(result)
    }

    /// Notes that a row may have changed. Returns whether a person would see the change.
    pub(super) fn touch(&mut self, id: &DownloadId) -> bool {
        let Some(row) = self.rows.get_mut(id) else {
            return false;
        };
        let seen = row.seen();
        if seen == row.seen {
            return false;
        }
        for (seen, step) in [(row.seen, -1), (seen, 1)] {
            if let Some(count) = seen.count(&mut self.counts) {
                *count = count.saturating_add_signed(step);
            }
        }
        row.seen = seen;
        self.revision += 1;
        self.by_revision.remove(&row.revision);
        row.revision = self.revision;
        self.by_revision.insert(self.revision, *id);
        let order = row.order;
        match row.state == RosterState::Complete {
            true => self.complete.insert(order),
            false => self.complete.remove(&order),
        };
        if self.complete.len() > COMPLETE_MAX
            && let Some(oldest) = self.complete.first()
            && let Some(oldest) = self.by_order.get(oldest).copied()
        {
            self.remove(&oldest);
        }
        true
    }

    pub(super) fn remove(&mut self, id: &DownloadId) -> Option<Row> {
        let row = self.rows.remove(id)?;
        if let Some(count) = row.seen.count(&mut self.counts) {
            *count = count.saturating_sub(1);
        }
        self.by_order.remove(&row.order);
        self.by_revision.remove(&row.revision);
        self.complete.remove(&row.order);
        if let Target::Beneath { name, .. } = &row.request.target
            && let Some(ids) = self.by_name.get_mut(name)
        {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.by_name.remove(name);
            }
        }
        self.revision += 1;
        self.removed.push_back((self.revision, *id));
        if self.removed.len() > REMOVED_MAX
            && let Some((revision, _)) = self.removed.pop_front()
        {
            self.forgotten = revision;
        }
        Some(row)
    }

    /// Returns up to `limit` rows that `wanted` accepts, after a cursor.
    pub(super) fn page(
        &self,
        after: u64,
        limit: usize,
        wanted: impl Fn(&RosterRow) -> bool,
    ) -> RosterPage {
        let mut page = RosterPage::default();
        let mut rest = self.by_order.range(after.saturating_add(1)..);
        let mut last = after;
        for (order, id) in rest.by_ref().take(SCAN_MAX) {
            last = *order;
            page.rows.extend(self.view(id).filter(&wanted));
            if page.rows.len() >= limit {
                break;
            }
        }
        page.next = rest.next().map(|_| last);
        page
    }

    /// Returns what changed since a revision, oldest change first, at most `max` rows.
    pub(super) fn changes(&self, since: u64, max: usize) -> RosterChanges {
        let is_new = since == 0;
        let mut changes = RosterChanges {
            revision: self.revision,
            is_outdated: !is_new && since < self.forgotten,
            ..RosterChanges::default()
        };
        let mut rest = self.by_revision.range(since.saturating_add(1)..);
        for (revision, id) in rest.by_ref().take(max) {
            changes.changed.extend(self.view(id));
            changes.revision = *revision;
        }
        changes.more = rest.next().is_some();
        if !changes.more {
            changes.revision = self.revision;
        }
        if !is_new {
            let removed = self.removed.iter().rev();
            let removed = removed.take_while(|(revision, _)| *revision > since);
            changes.removed = removed
                .filter(|(revision, _)| *revision <= changes.revision)
                // It may have been added again since.
                .filter(|(_, id)| !self.rows.contains_key(id))
                .map(|(_, id)| *id)
                .collect();
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::{ContentInfo, Hash};

    use super::*;

    fn add(table: &mut Table, number: u32, state: RosterState) -> DownloadId {
        let name = AssetName::new(format!("file-{number}")).unwrap();
        let info = ContentInfo {
            length: 5,
            root: Hash([7; 32]),
        };
        let target = Target::beneath("downloads", name.clone());
        let id = DownloadId::new(&info, &target);
        let request = DownloadRequest::new(name, info, target);
        let new = || Row::new(request, state, SystemTime::UNIX_EPOCH);
        table.change(id, new, |_| ());
        id
    }

    #[test]
    fn changes_since_a_revision_are_those_rows_only() {
        let mut table = Table::default();
        let ids: Vec<_> = (0..3)
            .map(|number| add(&mut table, number, RosterState::Running))
            .collect();
        let all = table.changes(0, 10);
        assert_eq!((all.changed.len(), all.more), (3, false));
        assert_eq!(table.changes(all.revision, 10).changed.len(), 0);
        // Nothing that a person sees.
        assert!(!table.touch(&ids[1]));
        assert_eq!(table.changes(all.revision, 10).changed.len(), 0);
        table.edit(&ids[1], |row| row.state = RosterState::Paused);
        table.remove(&ids[2]);
        let news = table.changes(all.revision, 10);
        let changed: Vec<_> = news.changed.iter().map(|row| row.id).collect();
        assert_eq!((changed, news.removed), (vec![ids[1]], vec![ids[2]]));
        let counts = RosterCounts {
            queued: 1,
            paused: 1,
            ..RosterCounts::default()
        };
        assert_eq!(table.counts(), counts);
    }

    #[test]
    fn many_changes_are_divided_and_none_is_lost() {
        let mut table = Table::default();
        for number in 0..25 {
            add(&mut table, number, RosterState::Paused);
        }
        let (mut since, mut seen) = (0, BTreeSet::new());
        loop {
            let part = table.changes(since, 10);
            seen.extend(part.changed.iter().map(|row| row.id));
            since = part.revision;
            if !part.more {
                break;
            }
        }
        assert_eq!((seen.len(), since), (25, table.revision()));
    }

    #[test]
    fn whoever_is_too_far_behind_must_ask_for_everything() {
        let mut table = Table::default();
        add(&mut table, 0, RosterState::Paused);
        let since = table.revision();
        for number in 1..(REMOVED_MAX as u32 + 3) {
            let id = add(&mut table, number, RosterState::Paused);
            table.remove(&id);
        }
        assert!(table.changes(since, 10).is_outdated);
        assert!(!table.changes(0, 10).is_outdated);
    }

    #[test]
    fn only_the_latest_complete_downloads_are_kept() {
        let mut table = Table::default();
        let first = add(&mut table, 0, RosterState::Complete);
        let paused = add(&mut table, 1, RosterState::Paused);
        for number in 2..(COMPLETE_MAX as u32 + 2) {
            add(&mut table, number, RosterState::Complete);
        }
        assert!(table.get(&first).is_none() && table.get(&paused).is_some());
        assert_eq!(table.counts().complete, COMPLETE_MAX);
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition() {
        let mut table = Table::default();
        let ids: Vec<_> = (0..25)
            .map(|number| add(&mut table, number, RosterState::Paused))
            .collect();
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let page = table.page(after, 10, |_| true);
            seen.extend(page.rows.iter().map(|row| row.id));
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(seen, ids);
    }
}
