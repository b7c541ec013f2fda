//! Lookups: what this tracker's own nodes announce, completed by what other trackers published.
//!
//! Answers from Redis are cached for a second, so that a popular content is read once per second
//! and not once per request. A miss is never answered from the cache. While Redis is away, what was
//! found is answered for one lease.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::fair::Network;
use qshare_content::{AssetName, ContentId, NamePattern, NodeId, Query, is_glob};
use qshare_registry::{
    Cursor, Find, Holder, Match, Order, Page, Readiness, is_topic, similar_names,
};
use rand::seq::SliceRandom;
use tokio::time::timeout;
use tracing::debug;

use super::link::RegistryFault;
use super::reader::{Described, Named, Reader};

/// How old an answer with matches may be.
const FRESH: Duration = Duration::from_secs(1);
/// How old it may be while Redis is away: one lease.
const FRESH_WITHOUT_REDIS: Duration = Duration::from_secs(30);
/// Time for all reads of one lookup.
const DEADLINE: Duration = Duration::from_millis(700);
/// Answers in the cache.
const ANSWERS_MAX: usize = 4_096;
/// Holders of each match that are kept for several askers.
const HOLDERS_KEPT: usize = 64;
/// Holders of a sample that share a network, as in the registry in memory.
const HOLDERS_PER_NETWORK: usize = 3;
/// Names that are compared with one that was not found, and similar names that are offered.
const SIMILAR_SCANNED: usize = 512;
const SIMILAR_MAX: usize = 5;
/// Characters that a similar name shares with the wanted one at the beginning.
const SIMILAR_PREFIX_CHARS: usize = 2;

/// What other trackers know about one lookup.
#[derive(Debug, Default)]
struct RemotePage {
    matches: Vec<Described>,
    more: Option<Cursor>,
    near: Vec<AssetName>,
}

struct Answer {
    begun: Instant,
    page: Arc<RemotePage>,
}

/// One cached lookup. Requests that come while it runs wait for it, or share the next one.
#[derive(Default)]
struct Slot {
    turn: tokio::sync::Mutex<()>,
    answer: Mutex<Option<Answer>>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Answer>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the answer if it is recent enough for a request that came at `asked`.
    fn usable(&self, asked: Instant, fresh: Duration) -> Option<Arc<RemotePage>> {
        let answer = self.lock();
        let answer = answer.as_ref()?;
        let is_positive = !answer.page.matches.is_empty();
        let is_usable = answer.begun >= asked || (is_positive && answer.begun.elapsed() < fresh);
        is_usable.then(|| Arc::clone(&answer.page))
    }
}

/// Completes answers by what other trackers know.
pub(crate) struct SharedLookup {
    reader: Arc<Reader>,
    slots: Mutex<HashMap<Vec<u8>, Arc<Slot>>>,
}

impl SharedLookup {
    pub(crate) fn new(reader: Arc<Reader>) -> SharedLookup {
        SharedLookup {
            reader,
            slots: Mutex::default(),
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

    /// Completes the page that the registry in memory answers. `held_here` tells who of this
    /// tracker's nodes holds a content, under whatever name.
    pub(crate) async fn complete(
        self: &Arc<Self>,
        find: &Find,
        local: Page,
        held_here: impl Fn(ContentId) -> Option<Match>,
    ) -> Page {
        if let (Query::OfNode(..), false) = (&find.query, local.matches.is_empty()) {
            return local;
        }
        match self.remote(find, &local).await {
            Ok(remote) => merge(local, &remote, find, held_here),
            Err(fault) => {
                debug!(cause = %fault, "answered without the shared registry");
                // What is not found now may well be there.
                let readiness = match local.matches.is_empty() {
                    true => Readiness::Warming,
                    false => local.readiness,
                };
                Page { readiness, ..local }
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
        // An id means the same everywhere: holders of this tracker are answer enough, and the next
        // request finds the others in the cache. A name may stand for another content elsewhere.
        if matches!(find.query, Query::Id(_)) && !local.matches.is_empty() {
            let slot = self.slot(find);
            if let Some(page) = slot.usable(Instant::now(), FRESH) {
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
        let slot = self.slot(find);
        if let Some(page) = slot.usable(asked, FRESH) {
            return Ok(page);
        }
        let read = async {
            let _turn = slot.turn.lock().await;
            if let Some(page) = slot.usable(asked, FRESH) {
                return Ok(page);
            }
            let begun = Instant::now();
            let page = Arc::new(self.read(find).await?);
            *slot.lock() = Some(Answer {
                begun,
                page: Arc::clone(&page),
            });
            Ok(page)
        };
        // In a box of its own, since most lookups need none of it.
        let answer = Box::pin(timeout(DEADLINE, read)).await;
        let answer = answer.unwrap_or(Err(RegistryFault::TimedOut(DEADLINE)));
        answer.or_else(|fault| slot.usable(asked, FRESH_WITHOUT_REDIS).ok_or(fault))
    }

    fn slot(&self, find: &Find) -> Arc<Slot> {
        let key = key_of(find);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= ANSWERS_MAX && !slots.contains_key(&key) {
            let old = |slot: &Arc<Slot>, age: Duration| {
                let answer = slot.lock();
                let is_fresh = |answer: &Answer| {
                    !answer.page.matches.is_empty() && answer.begun.elapsed() < age
                };
                Arc::strong_count(slot) == 1 && !answer.as_ref().is_some_and(is_fresh)
            };
            slots.retain(|_, slot| !old(slot, FRESH_WITHOUT_REDIS));
            if slots.len() >= ANSWERS_MAX {
                slots.retain(|_, slot| !old(slot, FRESH));
            }
            if slots.len() >= ANSWERS_MAX {
                // All are in use or fresh: this request is not cached.
                return Arc::default();
            }
        }
        Arc::clone(slots.entry(key).or_default())
    }

    async fn read(&self, find: &Find) -> Result<RemotePage, RegistryFault> {
        let reader = &self.reader;
        let holders = find.holders.max(HOLDERS_KEPT);
        let mut near = Vec::new();
        let (names, more) = match &find.query {
            Query::Id(content) => {
                let names = reader.names_of(&[*content]).await?;
                let mut names: Vec<Named> = names.into_iter().flatten().collect();
                names.retain(|named| !is_topic(&named.info));
                names.sort();
                (names, None)
            }
            Query::IdPrefix(prefix) => {
                let (low, high) = prefix.range();
                let after = find.after.as_ref().map(|cursor| cursor.content);
                let after = after.filter(|&content| content >= low);
                let (first, limit) = (after.unwrap_or(low), find.limit);
                let page = reader.contents_between(first, after.is_some(), high, limit);
                let page = page.await?;
                (page.names, page.more)
            }
            Query::OfNode(node, name) => {
                let mut announced = Vec::new();
                for named in reader.contents_of(name.as_str()).await? {
                    if reader.announces(*node, &named).await? {
                        announced.push(named);
                    }
                }
                (announced, None)
            }
            Query::Name(text) => {
                let named = reader.contents_of(text).await?;
                match NamePattern::new(text) {
                    Ok(pattern) if named.is_empty() && is_glob(text) => {
                        let prefix = pattern.literal_prefix().to_owned();
                        let after = find.after.as_ref();
                        let wanted = |name: &str| pattern.matches(name);
                        let page = reader.names(&prefix, after, find.limit, wanted).await?;
                        (page.names, page.more)
                    }
                    _ => {
                        if named.is_empty() {
                            near = self.similar(text).await?;
                        }
                        (named, None)
                    }
                }
            }
            Query::Sha256(digest) => (reader.names_of_digest(digest).await?, None),
        };
        let mut matches = reader.describe(names, holders).await?;
        if let Query::Sha256(digest) = &find.query {
            // Nodes that state another digest for a content do not hide it from those who ask.
            matches.retain(|described| described.digests.contains(digest));
            for described in &mut matches {
                described.found.metadata.sha256 = Some(*digest);
            }
        }
        Ok(RemotePage {
            matches,
            more,
            near,
        })
    }

    /// Returns names that resemble one that was not found.
    async fn similar(&self, text: &str) -> Result<Vec<AssetName>, RegistryFault> {
        let prefix: String = text.chars().take(SIMILAR_PREFIX_CHARS).collect();
        let names = self.reader.names(&prefix, None, SIMILAR_SCANNED, |_| true);
        let names = names.await?.names;
        let candidates: Vec<AssetName> = names.iter().map(|named| named.name.clone()).collect();
        let near = similar_names(text, &candidates, SIMILAR_MAX);
        // Only what somebody still has.
        let wanted = names.into_iter().filter(|named| near.contains(&named.name));
        let live = self.reader.describe(wanted.collect(), 1).await?;
        let is_live = |name: &AssetName| live.iter().any(|one| one.found.name == *name);
        Ok(near.into_iter().filter(is_live).collect())
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

/// Merges a page of this tracker with one of the others.
fn merge(
    local: Page,
    remote: &RemotePage,
    find: &Find,
    held_here: impl Fn(ContentId) -> Option<Match>,
) -> Page {
    // Both pages are complete up to their cursors only.
    let by_id = matches!(find.query, Query::IdPrefix(_));
    let place = |name: &str, content: ContentId| match by_id {
        true => (content, String::new()),
        false => (ContentId([0; 32]), format!("{name}\0{content}")),
    };
    let of_cursor = |cursor: &Cursor| place(&cursor.name, cursor.content);
    let of_match = |found: &Match| place(found.name.as_str(), found.info.id());
    let ends = [&local.more, &remote.more];
    let end = ends
        .into_iter()
        .flatten()
        .min_by_key(|cursor| of_cursor(cursor));
    let end = end.cloned();
    let begin = find.after.as_ref().map(of_cursor);
    let mut matches = local.matches;
    for Described {
        found, is_named, ..
    } in &remote.matches
    {
        if begin
            .as_ref()
            .is_some_and(|begin| of_match(found) <= *begin)
        {
            continue;
        }
        let same = matches.iter_mut().find(|known| match by_id {
            true => known.info == found.info,
            false => known.name == found.name && known.info == found.info,
        });
        match same {
            Some(known) => {
                known.complete += found.complete;
                known.partial += found.partial;
                known.holders.extend(found.holders.iter().cloned());
                known.metadata.merge(&found.metadata);
            }
            None if *is_named => {
                let mut found = found.clone();
                if let Some(here) = held_here(found.info.id()) {
                    found.complete += here.complete;
                    found.partial += here.partial;
                    found.holders.extend(here.holders);
                }
                matches.push(found);
            }
            // A node of this tracker has just withdrawn it.
            None => {}
        }
    }
    matches.sort_by_cached_key(of_match);
    let by_digest = matches!(find.query, Query::Sha256(_));
    if by_digest {
        // As in the registry in memory, the content with the most holders comes first.
        matches.sort_by_key(|found| std::cmp::Reverse(found.complete + found.partial));
    }
    if let Some(end) = &end {
        let end = of_cursor(end);
        matches.retain(|found| of_match(found) <= end);
    }
    let mut more = end;
    let is_paged = !by_digest && !matches!(find.query, Query::Id(_));
    if matches.len() > find.limit {
        matches.truncate(find.limit);
        more = matches.last().filter(|_| is_paged).map(|last| Cursor {
            order: Order::Forward,
            name: last.name.to_string(),
            content: last.info.id(),
        });
    }
    for found in &mut matches {
        found.holders = sample(std::mem::take(&mut found.holders), find);
    }
    let mut near = local.near;
    if matches.is_empty() {
        near.extend(remote.near.iter().cloned());
        near.dedup();
        near.truncate(SIMILAR_MAX);
    } else {
        near.clear();
    }
    Page {
        readiness: match matches.is_empty() {
            true => local.readiness,
            false => Readiness::Ready,
        },
        matches,
        more,
        near,
        steps: local.steps,
    }
}

/// Draws the holders that one asker is told, at most some of each network.
fn sample(holders: Vec<Holder>, find: &Find) -> Vec<Holder> {
    let mut by_network: HashMap<Network, usize> = HashMap::new();
    let mut order: Vec<Holder> = holders;
    if order.len() > find.holders {
        order.shuffle(&mut rand::rng());
    }
    order.retain(|holder| {
        if Some(holder.node) == find.asking {
            return false;
        }
        let network = Network::of(holder.contact.observed.ip());
        let told = by_network.entry(network).or_default();
        *told += 1;
        network.is_local() || *told <= HOLDERS_PER_NETWORK
    });
    order.truncate(find.holders);
    order
}
