//! Looks up the names of downloads that have lost their sources: a newer version may be there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::ContentInfo;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::collections::{FolderFound, ask_for_folder};
use crate::downloads::{DownloadId, Follow, Lost, Newer, Roster};
use crate::lookup::Lookup;
use crate::peers::Dialler;
use crate::vocabulary::Contact;

/// How often the downloads are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// First pause between two lookups for one download, which doubles up to the longest one: a file
/// may have no source for days.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(120);
/// Deadline of one lookup.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// Limit on the lookups under way: thousands of files may lose their sources at once.
const LOOKUPS_MAX: usize = 4;
/// Limit on the files of one lookup, which asks for one name.
const FOUND_MAX: usize = 64;

/// Lets the downloads of a node go on with newer versions. Never returns.
pub(crate) async fn follow(roster: Arc<Roster>, lookup: Lookup, dialler: Arc<Dialler>) {
    let mut pauses: HashMap<DownloadId, (Instant, Duration)> = HashMap::new();
    let mut lookups: JoinSet<(DownloadId, Option<Newer>)> = JoinSet::new();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let lost = roster.lost();
                pauses.retain(|id, _| lost.iter().any(|one| one.id == *id));
                let now = Instant::now();
                for one in lost {
                    let (due, pause) = pauses.entry(one.id).or_insert((now, PAUSE_FIRST));
                    if lookups.len() >= LOOKUPS_MAX || *due > now {
                        continue;
                    }
                    *due = now + *pause;
                    *pause = (*pause * 2).min(PAUSE_MAX);
                    let (lookup, dialler) = (lookup.clone(), dialler.clone());
                    lookups.spawn(async move { (one.id, look(&lookup, &dialler, one).await) });
                }
            }
            Some(looked) = lookups.join_next(), if !lookups.is_empty() => {
                if let Ok((id, Some(newer))) = looked {
                    roster.renew(&id, newer);
                }
            }
        }
    }
}

async fn look(lookup: &Lookup, dialler: &Arc<Dialler>, lost: Lost) -> Option<Newer> {
    if lost.is_folder {
        let found = newer_folder(lookup, dialler, &lost.follow, lost.info, lost.holders).await;
        return found.map(|found| Newer::Folder {
            manifest: found.manifest,
            times: found.times,
            holders: found.holders,
        });
    }
    let query = lost.follow.query();
    let found = lookup.find(&query, FOUND_MAX, LOOKUP_MAX, LOOKUP_MAX).await;
    let newer = lost.follow.newer(&lost.info.id(), found.ok()?.files)?;
    Some(Newer::File(newer))
}

/// Asks nodes that had a folder for it. Returns what they share under its name by now, if that is
/// another version.
pub(crate) async fn newer_folder(
    lookup: &Lookup,
    dialler: &Arc<Dialler>,
    follow: &Follow,
    present: ContentInfo,
    mut holders: Vec<Contact>,
) -> Option<FolderFound> {
    if holders.is_empty() {
        let query = follow.query();
        let found = lookup.find(&query, FOUND_MAX, LOOKUP_MAX, LOOKUP_MAX).await;
        let mut files = found.ok()?.files;
        files.retain(|file| file.is_collection && file.name == follow.name);
        holders.extend(files.into_iter().flat_map(|file| file.holders));
        holders.retain(|holder| follow.had.contains(&holder.node));
    }
    // Others that still receive the present version may list it.
    let versions = ask_for_folder(dialler, &follow.name, holders).await;
    versions.into_iter().find(|found| found.manifest != present)
}
