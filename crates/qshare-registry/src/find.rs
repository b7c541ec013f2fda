//! Lookups: what a query finds in one group, page by page.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use qshare_content::{AssetName, FileMetadata, IdPrefix, NamePattern, Query, is_glob};

use crate::catalog::{Asset, Catalog, Content, Listing, SeveralContents};
use crate::config::RegistryConfig;
use crate::group::Group;
use crate::lookup::{Cursor, Find, FindError, Match, Order, Page, Readiness};
use crate::near::near_names;
use crate::node::Node;
use crate::resources::Resources;
use crate::slab::Key;
use crate::types::Holder;
use crate::work::{DRAWN_STEPS, HOLDER_STEPS, MATCH_STEPS, NAME_STEPS, SEEK_STEPS, Work};

/// A glob's ending is used instead of its beginning if it selects fewer names by this factor:
/// pages in the order of names are worth something, too.
const BACKWARD_FACTOR: usize = 4;

/// The assets that a query selects.
#[derive(Default)]
struct Selection {
    assets: Vec<Key<Asset>>,
    more: Option<Cursor>,
    near: Vec<AssetName>,
}

impl Group {
    /// Answers a lookup; `readiness` is what to say if nothing is found.
    pub(crate) fn find(
        &mut self,
        find: &Find,
        readiness: Readiness,
        resources: &mut Resources,
    ) -> Result<Page, FindError> {
        let mut work = Work::new(resources.config.lookup_steps_max);
        let selection = self.select(find, &resources.config, &mut work)?;
        let mut samples: BTreeMap<Key<Content>, Vec<(Key<Node>, Holder)>> = BTreeMap::new();
        let owner = match &find.query {
            Query::OfNode(id, _) => self.node(*id),
            _ => None,
        };
        let mut matches = Vec::with_capacity(selection.assets.len());
        for asset in selection.assets {
            let content = self.catalog.assets[asset].content;
            let sample = samples
                .entry(content)
                .or_insert_with(|| self.sample(content, find.holders, find.asking, resources));
            let stated = match owner {
                Some(owner) => self.nodes[owner].metadata(asset),
                None => self.stated(asset, sample.iter().map(|(node, _)| *node)),
            };
            let Content { info, holders, .. } = &self.catalog.contents[content];
            matches.push(Match {
                name: self.catalog.assets[asset].name.clone(),
                info: *info,
                is_collection: self.catalog.assets[asset].announcers.is_collection(),
                complete: holders.complete(),
                partial: holders.partial(),
                holders: sample.iter().map(|(_, holder)| holder.clone()).collect(),
                metadata: FileMetadata {
                    sha256: match &find.query {
                        Query::Sha256(digest) => Some(*digest),
                        _ => stated.sha256,
                    },
                    ..stated
                },
            });
        }
        let found = !matches.is_empty() || find.after.is_some();
        Ok(Page {
            matches,
            more: selection.more,
            near: selection.near,
            readiness: if found { Readiness::Ready } else { readiness },
            steps: work.steps(),
        })
    }

    /// Merges what nodes state about one asset. Those that know its content by another name state
    /// nothing about it.
    fn stated(&self, asset: Key<Asset>, nodes: impl Iterator<Item = Key<Node>>) -> FileMetadata {
        let mut merged = FileMetadata::default();
        for node in nodes {
            merged.merge(&self.nodes[node].metadata(asset));
        }
        merged
    }

    fn select(
        &self,
        find: &Find,
        config: &RegistryConfig,
        work: &mut Work,
    ) -> Result<Selection, FindError> {
        let scan = Scan {
            catalog: &self.catalog,
            after: find.after.as_ref(),
            limit: find.limit.clamp(1, config.page_max),
            holders: find.holders.min(config.holders_max),
        };
        work.add(SEEK_STEPS);
        Ok(match &find.query {
            Query::Id(id) => scan.content(self.catalog.listed_content(*id), config, work),
            Query::IdPrefix(prefix) => scan.id_prefix(prefix, config, work),
            Query::Sha256(digest) => scan.contents(self.digests.contents(*digest), config, work),
            Query::OfNode(id, name) => match self.node(*id) {
                Some(node) => {
                    let named = self.catalog.only_named(name.as_str());
                    let announces = |asset| self.nodes[node].announces(asset);
                    scan.name(name.as_str(), named, announces, work)
                }
                None => Selection::default(),
            },
            Query::Name(text) => match self.catalog.only_named(text) {
                Ok(None) if is_glob(text) => scan.glob(&NamePattern::new(text)?, work),
                Ok(None) if !find.near => Selection::default(),
                Ok(None) => Selection {
                    near: near(&self.catalog, text, config, work),
                    ..Selection::default()
                },
                named => scan.name(text, named, |_| true, work),
            },
        })
    }
}

/// A walk through names or contents in an order, from the end of the previous page on.
struct Scan<'a> {
    catalog: &'a Catalog,
    after: Option<&'a Cursor>,
    limit: usize,
    /// Holders wanted for each content.
    holders: usize,
}

impl Scan<'_> {
    /// The cost of describing a match of this content with a sample of its holders.
    fn match_steps(&self, content: Key<Content>) -> u64 {
        let holders = &self.catalog.contents[content].holders;
        let given = self.holders.min(holders.len()) as u64;
        MATCH_STEPS + given * HOLDER_STEPS + holders.drawn_for(self.holders) as u64 * DRAWN_STEPS
    }

    /// Selects some names of one content.
    fn content(
        &self,
        content: Option<Key<Content>>,
        config: &RegistryConfig,
        work: &mut Work,
    ) -> Selection {
        let Some(content) = content else {
            return Selection::default();
        };
        let max = self.limit.min(config.names_per_content);
        let assets = self.catalog.assets_of(content, max);
        work.add(self.match_steps(content) * assets.len() as u64);
        Selection {
            assets,
            ..Selection::default()
        }
    }

    /// Selects contents, each under one of its names.
    fn contents(
        &self,
        contents: Vec<Key<Content>>,
        config: &RegistryConfig,
        work: &mut Work,
    ) -> Selection {
        let mut selection = Selection::default();
        for content in contents.into_iter().take(self.limit) {
            work.add(NAME_STEPS + self.match_steps(content));
            let assets = self.catalog.assets_of(content, config.names_per_content);
            selection.assets.extend(assets.first());
        }
        selection
    }

    /// Selects the contents of one name that are wanted, where `named` is what the catalog has of
    /// this name.
    fn name(
        &self,
        name: &str,
        named: Result<Option<Key<Asset>>, SeveralContents>,
        wanted: impl Fn(Key<Asset>) -> bool,
        work: &mut Work,
    ) -> Selection {
        match named {
            Ok(found) => {
                let passed = |asset: Key<Asset>| {
                    self.after.is_some_and(|cursor| {
                        let place = (name, self.catalog.id_of(asset));
                        place <= (cursor.name.as_str(), cursor.content)
                    })
                };
                let found = found.filter(|&asset| !passed(asset) && wanted(asset));
                if let Some(asset) = found {
                    work.add(self.match_steps(self.catalog.assets[asset].content));
                }
                Selection {
                    assets: found.into_iter().collect(),
                    ..Selection::default()
                }
            }
            Err(SeveralContents) => {
                let from = self.catalog.place(Listing::first_of(name));
                let from = self
                    .listing_after()
                    .map_or(from, |listing| from.max(self.catalog.place_behind(listing)));
                self.select(
                    Order::Forward,
                    self.catalog.after(from),
                    |listed| listed == name,
                    |asset, _| wanted(asset),
                    work,
                )
            }
        }
    }

    /// Selects the names that match a glob, by the order in which fewer must be visited.
    fn glob(&self, pattern: &NamePattern, work: &mut Work) -> Selection {
        let catalog = self.catalog;
        let (prefix, suffix) = (pattern.literal_prefix(), pattern.literal_suffix());
        let forward = catalog.place(Listing::first_of(prefix));
        let backward = catalog.place_backward(Listing::first_of(suffix));
        work.add(2 * SEEK_STEPS);
        let order = match self.after {
            Some(cursor) => cursor.order,
            None if suffix.is_empty() => Order::Forward,
            None => {
                work.add(2 * SEEK_STEPS);
                let prefix_end = catalog.place_after_prefix(prefix);
                let suffix_end = catalog.place_after_suffix(suffix);
                let by_prefix = catalog.count_between(forward, prefix_end);
                let by_suffix = catalog.count_between_backward(backward, suffix_end);
                if by_suffix * BACKWARD_FACTOR < by_prefix {
                    Order::Backward
                } else {
                    Order::Forward
                }
            }
        };
        let wanted = |asset: Key<Asset>, steps: &mut u64| {
            pattern.matches_counted(catalog.assets[asset].name.as_str(), steps)
        };
        let after = self.listing_after();
        match order {
            Order::Forward => {
                let from = after.map_or(forward, |listing| {
                    forward.max(catalog.place_behind(listing))
                });
                let within = |listed: &str| listed.starts_with(prefix);
                self.select(order, catalog.after(from), within, wanted, work)
            }
            Order::Backward => {
                let from = after.map_or(backward, |listing| {
                    backward.max(catalog.place_behind_backward(listing))
                });
                let within = |listed: &str| listed.ends_with(suffix);
                self.select(order, catalog.after_backward(from), within, wanted, work)
            }
        }
    }

    /// The last listing of the previous page.
    fn listing_after(&self) -> Option<Listing<'_>> {
        self.after.map(|cursor| Listing {
            name: &cursor.name,
            content: cursor.content,
        })
    }

    /// Selects what is `wanted` of `assets`, as long as their names are `within`.
    fn select(
        &self,
        order: Order,
        assets: impl Iterator<Item = Key<Asset>>,
        within: impl Fn(&str) -> bool,
        wanted: impl Fn(Key<Asset>, &mut u64) -> bool,
        work: &mut Work,
    ) -> Selection {
        let mut selection = Selection::default();
        let mut last = None;
        for asset in assets {
            if !within(self.catalog.assets[asset].name.as_str()) {
                break;
            }
            // One name is passed in any case, so that the cursor advances.
            if let Some(last) = last
                && (selection.assets.len() == self.limit || work.is_used_up())
            {
                selection.more = Some(self.cursor(order, last));
                break;
            }
            work.add(NAME_STEPS);
            if wanted(asset, work.counter()) {
                work.add(self.match_steps(self.catalog.assets[asset].content));
                selection.assets.push(asset);
            }
            last = Some(asset);
        }
        selection
    }

    fn cursor(&self, order: Order, last: Key<Asset>) -> Cursor {
        Cursor {
            order,
            name: self.catalog.assets[last].name.to_string(),
            content: self.catalog.id_of(last),
        }
    }

    /// Selects the contents whose ids begin with `prefix`, each under the first of its names.
    fn id_prefix(&self, prefix: &IdPrefix, config: &RegistryConfig, work: &mut Work) -> Selection {
        let (low, high) = prefix.range();
        let contents = match self.after {
            Some(cursor) if cursor.content >= low => {
                self.catalog.contents_from(&cursor.content, false)
            }
            _ => self.catalog.contents_from(&low, true),
        };
        let mut selection = Selection::default();
        for content in contents {
            if self.catalog.cmp_id(content, &high) == Ordering::Greater {
                break;
            }
            if let Some(&last) = selection.assets.last()
                && (selection.assets.len() == self.limit || work.is_used_up())
            {
                selection.more = Some(self.cursor(Order::Forward, last));
                break;
            }
            work.add(NAME_STEPS + self.match_steps(content));
            let assets = self.catalog.assets_of(content, config.names_per_content);
            selection.assets.extend(assets.first());
        }
        selection
    }
}

/// Names that resemble `text`, of its nearest neighbours in the order of names: of all names in a
/// small registry, of those that begin alike in a large one.
fn near(catalog: &Catalog, text: &str, config: &RegistryConfig, work: &mut Work) -> Vec<AssetName> {
    let place = catalog.place(Listing::first_of(text));
    let mut following = catalog.after(place);
    let mut preceding = catalog.before(place);
    // From both sides in turn, since the steps may end before the names do.
    let names = std::iter::from_fn(|| Some([following.next(), preceding.next()]))
        .take_while(|pair| pair.iter().any(Option::is_some))
        .flatten()
        .flatten()
        .take(config.near_scan_names)
        .map(|asset| &catalog.assets[asset].name);
    near_names(text, names, config.near_max, config.near_steps_max, work)
}
