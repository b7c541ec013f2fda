//! A registry as nodes see it, through sessions and lookups.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use qshare_content::{AssetName, ContentId, ContentInfo, FileMetadata, Hash, NodeId, Query, Topic};
use qshare_registry::Announced;

/// Bound of pages in [`Registered::listing`].
const PAGES_MAX: usize = 10_000;

/// A registry under test. Nodes have numbers; each has at most one session that counts, the newest.
///
/// Calls panic where the registry refuses what a node may do.
pub(crate) trait Registered {
    /// The end of a page.
    type Cursor: Clone;

    /// Returns at how many trackers one can ask.
    fn places(&self) -> usize;

    /// Returns the identity of a node.
    fn node(&mut self, node: u8) -> NodeId;

    /// Opens a session and begins a full announcement. Where there are several trackers, it is with
    /// another one than the node's session before.
    fn begin(&mut self, node: u8, entries: &[Announced]);

    /// Ends the full announcement of a node.
    fn end(&mut self, node: u8);

    /// Adds or changes entries.
    fn announce(&mut self, node: u8, entries: &[Announced]);

    /// Removes entries.
    fn withdraw(&mut self, node: u8, entries: &[Announced]);

    /// Adds or changes topics, each with whether it is complete, and removes others.
    fn announce_topics(&mut self, node: u8, topics: &[(Topic, bool)], removed: &[Topic]);

    /// Ends the session with a goodbye.
    fn leave(&mut self, node: u8);

    /// Ends the session as a lost connection does.
    fn lose(&mut self, node: u8);

    /// Lets more than a lease pass.
    fn pass_a_lease(&mut self);

    /// Asks for a page of at most `limit` matches.
    fn page(
        &mut self,
        place: usize,
        query: &Query,
        after: Option<Self::Cursor>,
        limit: usize,
    ) -> (Answer, Option<Self::Cursor>);

    /// Returns the holders of a content or topic, each with whether it has all of it.
    fn holders(&mut self, place: usize, of: Watched) -> BTreeMap<NodeId, bool>;

    /// Begins a watch within a node's session. Returns its number and the holders at first.
    fn watch(&mut self, node: u8, watched: Watched) -> (usize, BTreeMap<NodeId, bool>);

    /// Returns the changes that have been reported and not been read.
    fn changes(&mut self, watch: usize) -> Vec<Change>;

    /// Repeats a check until it succeeds, as often as the registry may take to tell everybody of
    /// a change: once if it tells at once. Panics with the last error.
    fn eventually(&mut self, check: impl FnMut(&mut Self) -> Result<(), String>);

    /// Opens a session and announces all entries.
    fn join(&mut self, node: u8, entries: &[Announced]) {
        self.begin(node, entries);
        self.end(node);
    }

    /// Asks for the first page of what a text means.
    fn find(&mut self, place: usize, text: &str) -> Answer {
        self.page(place, &query(text), None, 100).0
    }

    /// Returns names and contents of all pages.
    fn listing(&mut self, place: usize, query: &Query, limit: usize) -> Vec<(String, ContentId)> {
        let mut listing = Vec::new();
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let (page, more) = self.page(place, query, after, limit);
            assert!(page.matches.len() <= limit);
            let matches = page.matches.into_iter();
            listing.extend(matches.map(|found| (found.name, found.info.id())));
            match more {
                Some(more) => after = Some(more),
                None => return listing,
            }
        }
        panic!("{query:?}: the pages never end");
    }

    /// Checks that what `look` sees comes to be `expected`, at every tracker.
    fn agree<T: PartialEq + Debug>(
        &mut self,
        expected: T,
        mut look: impl FnMut(&mut Self, usize) -> T,
    ) {
        self.eventually(|registered| {
            (0..registered.places()).try_for_each(|place| {
                let seen = look(registered, place);
                match seen == expected {
                    true => Ok(()),
                    false => Err(format!("at {place}: {seen:?}, expected {expected:?}")),
                }
            })
        });
    }

    /// Checks that a query comes to find exactly these names, in order, at every tracker.
    fn agree_on_names(&mut self, text: &str, names: &[&str]) {
        let expected: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        self.agree(expected, |registered, place| {
            let matches = registered.find(place, text).matches.into_iter();
            matches.map(|found| found.name).collect()
        });
    }
}

/// The first page of a lookup.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) matches: Vec<Found>,
    pub(crate) near: Vec<String>,
}

/// A match, with up to 16 of its holders.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) info: ContentInfo,
    pub(crate) complete: usize,
    pub(crate) partial: usize,
    pub(crate) holders: BTreeMap<NodeId, bool>,
    pub(crate) metadata: FileMetadata,
}

/// What one can watch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Watched {
    Content(ContentId),
    Topic(Topic),
}

/// A change of the holders of what is watched.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// It is a holder now, or holds more or less than before.
    Holds(NodeId, bool),
    Left(NodeId),
}

/// Checks that a watcher's belief comes to be `expected` by the changes that it reads.
pub(crate) fn until_believed<R: Registered>(
    registered: &mut R,
    watch: usize,
    believes: &mut BTreeMap<NodeId, bool>,
    expected: &BTreeMap<NodeId, bool>,
) {
    registered.eventually(|registered| {
        for change in registered.changes(watch) {
            match change {
                Change::Holds(node, complete) => drop(believes.insert(node, complete)),
                Change::Left(node) => drop(believes.remove(&node)),
            }
        }
        match believes == expected {
            true => Ok(()),
            false => Err(format!("believes {believes:?}, expected {expected:?}")),
        }
    });
}

pub(crate) fn query(text: &str) -> Query {
    text.parse().unwrap_or_else(|_| Query::Name(text.into()))
}

pub(crate) fn info(content: u8) -> ContentInfo {
    ContentInfo {
        length: 7,
        root: Hash([content; 32]),
    }
}

pub(crate) fn entry(name: &str, content: u8) -> Announced {
    Announced {
        is_collection: false,
        name: AssetName::new(name).unwrap(),
        info: info(content),
        complete: true,
        metadata: FileMetadata::default(),
    }
}

pub(crate) fn part(name: &str, content: u8) -> Announced {
    Announced {
        complete: false,
        ..entry(name, content)
    }
}

/// Names and contents in the order of a listing.
pub(crate) fn listed<'a>(
    entries: impl IntoIterator<Item = &'a Announced>,
) -> Vec<(String, ContentId)> {
    let all = entries.into_iter();
    let all: BTreeSet<_> = all.map(|e| (e.name.to_string(), e.info.id())).collect();
    all.into_iter().collect()
}
