//! Lookups: what this tracker's own nodes announce, completed by what other trackers published.
//!
//! Answers from Redis are cached for a second, so that a popular content is read once per second
//! and not once per request. A miss is never answered from the cache. While Redis is away, what was
//! found is answered for one lease.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::{AssetName, ContentId, NamePattern, NodeId, Query, is_glob};
use qshare_registry::{Cursor, Find, Holder, Order, Page, Readiness, is_topic, similar_names};
use tokio::time::timeout;
use tracing::debug;

use super::answers::{Answers, FRESH, FRESH_WITHOUT_REDIS};
use super::link::RegistryFault;
use super::merge::{OwnNodes, RemotePage, SIMILAR_MAX, Similar, merge};
use super::reader::{Named, NodeEntry, Reader};

/// Time for all reads of one lookup.
const DEADLINE: Duration = Duration::from_millis(600);
/// Holders of each match that are kept for several askers.
const HOLDERS_KEPT: usize = 64;
/// Names that are compared with one that was not found, as in the registry in memory.
const SIMILAR_SCANNED: usize = 1_000;
/// Pages of a name's contents that are searched for those of one node.
const CONTENT_PAGES_MAX: usize = 16;
/// Contents of a similar name of which one must have a holder.
const SIMILAR_CONTENTS: usize = 3;

/// What the cache knows about one lookup.
pub(crate) struct Known(Arc<RemotePage>);

/// Completes answers by what other trackers know.
pub(crate) struct SharedLookup {
    reader: Arc<Reader>,
    answers: Answers,
}

impl SharedLookup {
    pub(crate) fn new(reader: Arc<Reader>) -> SharedLookup {
        SharedLookup {
            reader,
            answers: Answers::default(),
        }
    }

    pub(crate) fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Prepares a lookup for [`SharedLookup::complete`]: globs go through names forwards, so that
    /// pages of both registries can be merged.
    pub(crate) fn prepare(find: &mut Find) {
        if let Query::Name(text) = &find.query
            && is_glob(text)
            && find.after.is_none()
        {
            find.after = Some(Cursor {
                order: Order::Forward,
                name: String::new(),
                content: ContentId([0; 32]),
            });
        }
    }

    /// Returns what other trackers know about a lookup that came just now, if that is in the cache.
    pub(crate) fn known(&self, find: &Find, now: Instant) -> Option<Known> {
        let slot = self.answers.kept(&key_of(find))?;
        slot.usable(now, now, FRESH).map(Known)
    }

    /// Completes a page as [`SharedLookup::complete`] does, by what is known already.
    pub(crate) fn complete_with(
        find: &Find,
        local: Page,
        known: &Known,
        own: &impl OwnNodes,
    ) -> Page {
        merge(local, &known.0, find, own)
    }

    /// Completes the page that the registry in memory answers.
    pub(crate) async fn complete(
        self: &Arc<Self>,
        find: &Find,
        local: Page,
        own: &impl OwnNodes,
    ) -> Page {
        match self.remote(find, &local).await {
            Ok(remote) => merge(local, &remote, find, own),
            Err(fault) => {
                debug!(cause = %fault, "answered without the shared registry");
                match local.matches.is_empty() {
                    // What is not found now may well be there.
                    true => Page {
                        readiness: Readiness::Warming,
                        near: own.similar(),
                        ..local
                    },
                    false => local,
                }
            }
        }
    }

    /// Returns the holders of a content at other trackers: a sample, and those of `known` that
    /// still hold it.
    pub(crate) async fn current(
        &self,
        content: ContentId,
        known: &HashMap<NodeId, Holder>,
        limit: usize,
    ) -> Result<HashMap<NodeId, Holder>, RegistryFault> {
        let names = self.reader.names_of(&[content]).await?;
        let names: Vec<Named> = names.into_iter().flatten().collect();
        let described = self.reader.describe(names, limit).await?;
        let mut sampled: HashMap<NodeId, Holder> = HashMap::new();
        for holder in described.into_iter().flat_map(|one| one.found.holders) {
            sampled.insert(holder.node, holder);
        }
        let missing: Vec<NodeId> = known
            .keys()
            .filter(|node| !sampled.contains_key(node))
            .copied()
            .collect();
        let mut now: HashMap<NodeId, Holder> = HashMap::new();
        if !missing.is_empty() {
            now.extend(self.reader.still_hold(content, &missing).await?);
        }
        for (node, holder) in sampled {
            if now.len() < limit || known.contains_key(&node) {
                now.insert(node, holder);
            }
        }
        Ok(now)
    }

    async fn remote(
        self: &Arc<Self>,
        find: &Find,
        local: &Page,
    ) -> Result<Arc<RemotePage>, RegistryFault> {
        // An id means the same everywhere, and what one node calls a content: holders of this
        // tracker are answer enough, and the next request finds the others in the cache. A name may
        // stand for another content elsewhere.
        let is_same_everywhere = matches!(find.query, Query::Id(_) | Query::OfNode(..));
        if is_same_everywhere && !local.matches.is_empty() {
            let slot = self.answers.slot(key_of(find));
            let now = Instant::now();
            if let Some(page) = slot.usable(now, now, FRESH) {
                return Ok(page);
            }
            let (lookup, find) = (Arc::clone(self), find.clone());
            tokio::spawn(async move {
                let _ = lookup.cached(&find).await;
            });
            return Ok(Arc::default());
        }
        self.cached(find).await
    }

    /// Returns a cached answer that is recent enough, or reads one. Requests for the same wait for
    /// each other.
    async fn cached(&self, find: &Find) -> Result<Arc<RemotePage>, RegistryFault> {
        let asked = Instant::now();
        let slot = self.answers.slot(key_of(find));
        if let Some(page) = slot.usable(asked, asked, FRESH) {
            return Ok(page);
        }
        let read = async {
            let _turn = slot.turn.lock().await;
            let begun = Instant::now();
            if let Some(page) = slot.usable(asked, begun, FRESH) {
                return Ok(page);
            }
            let similar = slot.similar();
            let page = Arc::new(self.read(find, similar).await?);
            slot.keep(begun, &page);
            self.answers.limit_memory(page.bytes());
            Ok(page)
        };
        // In a box of its own, since most lookups need none of it.
        let answer = Box::pin(timeout(DEADLINE, read)).await;
        let answer = answer.unwrap_or(Err(RegistryFault::TimedOut(DEADLINE)));
        answer.or_else(|fault| {
            let now = Instant::now();
            let page = slot.usable(asked, now, FRESH_WITHOUT_REDIS);
            page.ok_or(fault)
        })
    }

    /// Reads what other trackers know. `similar` are similar names that were read just before.
    async fn read(
        &self,
        find: &Find,
        similar: Option<Similar>,
    ) -> Result<RemotePage, RegistryFault> {
        let reader = &self.reader;
        let holders = find.holders.max(HOLDERS_KEPT);
        let mut page = RemotePage::default();
        match &find.query {
            Query::Id(content) => {
                let names = reader.names_of(&[*content]).await?;
                let mut names: Vec<Named> = names.into_iter().flatten().collect();
                names.retain(|named| !is_topic(&named.info));
                names.sort();
                page.matches = reader.describe(names, holders).await?;
            }
            Query::IdPrefix(prefix) => {
                let (low, high) = prefix.range();
                let after = find.after.as_ref().map(|cursor| cursor.content);
                let after = after.filter(|&content| content >= low);
                let (first, limit) = (after.unwrap_or(low), find.limit);
                let names = reader.contents_between(first, after.is_some(), high, limit);
                let names = names.await?;
                page.matches = reader.describe(names.names, holders).await?;
                page.more = names.more;
            }
            Query::OfNode(node, name) => {
                let own = self.announced_by(*node, name.as_str()).await?;
                let names = own.keys().cloned().collect();
                page.matches = reader.describe(names, holders).await?;
                // Others may call the content so as well, and state something else about it.
                for described in &mut page.matches {
                    let mut own = own.iter();
                    let own = own.find(|(named, _)| named.info == described.found.info);
                    if let Some((_, own)) = own {
                        described.found.metadata = own.metadata;
                        described.is_named = own.is_elsewhere;
                    }
                }
            }
            Query::Name(text) => page = self.read_named(text, find, holders, similar).await?,
            Query::Sha256(digest) => {
                let names = reader.names_of_digest(digest).await?;
                let mut matches = reader.describe(names, holders).await?;
                // Nodes that state another digest for a content do not hide it from those who ask.
                matches.retain(|described| described.digests.contains(digest));
                for described in &mut matches {
                    described.found.metadata.sha256 = Some(*digest);
                }
                page.matches = matches;
            }
        }
        Ok(page)
    }

    /// Reads what a node announces under a name, of which others may announce many contents.
    async fn announced_by(
        &self,
        node: NodeId,
        name: &str,
    ) -> Result<BTreeMap<Named, NodeEntry>, RegistryFault> {
        let mut after = None;
        for _ in 0..CONTENT_PAGES_MAX {
            let named = self.reader.contents_of(name, after).await?;
            let own = self.reader.announced_by(node, named.names).await?;
            match named.more {
                Some(more) if own.is_empty() => after = Some(more.content),
                _ => return Ok(own),
            }
        }
        Ok(BTreeMap::new())
    }

    /// Reads the contents of a name. If nobody elsewhere announces the name, reads what the text
    /// matches as a glob, or similar names.
    async fn read_named(
        &self,
        text: &str,
        find: &Find,
        holders: usize,
        similar: Option<Similar>,
    ) -> Result<RemotePage, RegistryFault> {
        let reader = &self.reader;
        let after = find.after.as_ref().filter(|cursor| cursor.name == text);
        let after = after.map(|cursor| cursor.content);
        let named = reader.contents_of(text, after).await?;
        let mut page = RemotePage {
            matches: reader.describe(named.names, holders).await?,
            ..RemotePage::default()
        };
        page.is_exact = page.matches.iter().any(|described| described.is_named);
        match NamePattern::new(text) {
            _ if page.is_exact || after.is_some() => page.more = named.more,
            Ok(pattern) if is_glob(text) => {
                let prefix = pattern.literal_prefix().to_owned();
                // The text itself was read above.
                let wanted = |name: &str| name != text && pattern.matches(name);
                let after = find.after.as_ref();
                let names = reader.names(&prefix, after, find.limit, wanted).await?;
                page.matches
                    .extend(reader.describe(names.names, holders).await?);
                page.more = names.more;
            }
            _ if page.matches.is_empty() => {
                page.similar = Some(match similar {
                    Some(similar) => similar,
                    None => self.similar(text).await?,
                });
            }
            _ => {}
        }
        Ok(page)
    }

    /// Returns names that resemble one that was not found, and that somebody still has.
    async fn similar(&self, text: &str) -> Result<Similar, RegistryFault> {
        let read_at = Instant::now();
        let names = self.reader.neighbours(text, SIMILAR_SCANNED).await?;
        let candidates: Vec<AssetName> = names.iter().map(|named| named.name.clone()).collect();
        let mut near = similar_names(text, &candidates, SIMILAR_MAX);
        let contents = near.iter().flat_map(|name| {
            let called_so = names.iter().filter(move |named| named.name == *name);
            called_so.take(SIMILAR_CONTENTS).cloned()
        });
        let live = self.reader.describe(contents.collect(), 1).await?;
        near.retain(|name| live.iter().any(|one| one.found.name == *name));
        Ok(Similar {
            read_at,
            names: near,
        })
    }
}

/// Identifies a lookup in the cache. The asking node is no part of it.
fn key_of(find: &Find) -> Vec<u8> {
    let (content, name) = match &find.after {
        Some(cursor) => (cursor.content.0, cursor.name.as_str()),
        None => ([0; 32], ""),
    };
    let wide = find.holders > HOLDERS_KEPT;
    postcard::to_stdvec(&(&find.query, content, name, find.limit, wide)).unwrap_or_default()
}
