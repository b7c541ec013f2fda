//! Lookups: what a query finds in one group, page by page.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use qshare_content::{
    AssetName, ContentId, ContentInfo, IdPrefix, NamePattern, NodeId, Query, QueryParseError,
    is_glob,
};

use crate::catalog::{Asset, Catalog, Content, Listed};
use crate::config::RegistryConfig;
use crate::near::near_names;
use crate::registry::{GroupId, Holder, Shared};
use crate::room::Room;
use crate::slab::Key;
use crate::work::{DRAWN_STEPS, HOLDER_STEPS, MATCH_STEPS, NAME_STEPS, Work};

/// A lookup.
#[derive(Clone, Debug)]
pub struct Find {
    /// Whose assets are looked through.
    pub group: GroupId,
    /// What is wanted.
    pub query: Query,
    /// Where the last page ended ([`Page::more`]).
    pub after: Option<Cursor>,
    /// Most matches wanted, at least 1 and at most [`crate::RegistryConfig::page_max`].
    pub limit: usize,
    /// Holders wanted for each content.
    pub holders: usize,
    /// Who asks; it is not sent to itself.
    pub asking: Option<NodeId>,
}

/// Where a page ended. It may come back altered: it is a place in an order, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Name of the last listing that was passed.
    pub name: String,
    /// Its content.
    pub content: ContentId,
}

/// Whether a registry can be expected to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It has been up for long enough to have heard of everybody.
    Ready,
    /// It has just started; what was not found may still be announced.
    Warming,
}

/// A name and the content that it stands for. Counts and holders are claims of strangers, and
/// count whoever holds the content, under whatever name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The name.
    pub name: AssetName,
    /// Length and root.
    pub info: ContentInfo,
    /// Nodes that have all of it.
    pub complete: usize,
    /// Nodes that have some of it.
    pub partial: usize,
    /// A random sample of them.
    pub holders: Vec<Holder>,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of names, then of ids; of ids alone for a prefix. Two contents of one name
    /// are two matches, and so are two names of one content, except that a prefix gives each
    /// content once.
    pub matches: Vec<Match>,
    /// The next page's [`Find::after`], if there may be more. A lookup that used up
    /// [`crate::RegistryConfig::lookup_steps_max`] gives a page that may be empty and still has
    /// this; it lies further than the last.
    pub more: Option<Cursor>,
    /// Where nothing was found: names that look like the one that was asked for.
    pub near: Vec<AssetName>,
    /// Whether nothing means nothing.
    pub readiness: Readiness,
    /// What the lookup cost, in steps of some 4 ns.
    pub steps: u64,
}

impl Page {
    pub(crate) fn empty(readiness: Readiness) -> Page {
        Page {
            matches: Vec::new(),
            more: None,
            near: Vec::new(),
            readiness,
            steps: 0,
        }
    }
}

/// Why a lookup makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// A glob that cannot be compiled.
    #[error(transparent)]
    Glob(#[from] QueryParseError),
}

/// The listings that a query selects.
#[derive(Default)]
struct Selection {
    assets: Vec<Key<Asset>>,
    more: Option<Cursor>,
    near: Vec<AssetName>,
}

impl Room {
    /// Answers a lookup; `readiness` is what to say where nothing is found.
    pub(crate) fn find(
        &mut self,
        find: &Find,
        readiness: Readiness,
        shared: &mut Shared,
    ) -> Result<Page, FindError> {
        let mut work = Work::new(shared.config.lookup_steps_max);
        let selection = self.select(find, shared, &mut work)?;
        let mut samples: BTreeMap<Key<Content>, Vec<Holder>> = BTreeMap::new();
        let mut matches = Vec::with_capacity(selection.assets.len());
        for asset in selection.assets {
            let content = self.catalog.assets[asset].content;
            let sample = samples
                .entry(content)
                .or_insert_with(|| self.sample(content, find.holders, find.asking, shared));
            let Asset { name, .. } = &self.catalog.assets[asset];
            let Content { info, holders, .. } = &self.catalog.contents[content];
            matches.extend(asset_name(name).map(|name| Match {
                name,
                info: *info,
                complete: holders.complete(),
                partial: holders.partial(),
                holders: sample.clone(),
            }));
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

    fn select(
        &self,
        find: &Find,
        shared: &Shared,
        work: &mut Work,
    ) -> Result<Selection, FindError> {
        let config = &shared.config;
        let limit = find.limit.clamp(1, config.page_max);
        let after = find.after.as_ref();
        let catalog = &self.catalog;
        let scan = Scan {
            catalog,
            after,
            limit,
            holders: find.holders.min(config.holders_max),
        };
        Ok(match &find.query {
            Query::Id(id) => {
                work.add(NAME_STEPS);
                let Some(content) = catalog.content(*id) else {
                    return Ok(Selection::default());
                };
                let assets = catalog.assets_of(content, limit.min(config.names_per_content));
                work.add(scan.match_steps(content) * assets.len() as u64);
                Selection {
                    assets,
                    ..Selection::default()
                }
            }
            Query::IdPrefix(prefix) => scan.select_prefix(prefix, config.names_per_content, work),
            Query::OfNode(id, name) => match self.node(*id) {
                Some(node) => scan.select(
                    name.as_str(),
                    |listed| listed == name.as_str(),
                    |_, asset, _| self.nodes[node].announces(asset),
                    work,
                ),
                None => Selection::default(),
            },
            Query::Name(text) if catalog.has_name(text) => {
                scan.select(text, |listed| listed == text, |_, _, _| true, work)
            }
            Query::Name(glob) if is_glob(glob) => {
                let pattern = NamePattern::new(glob)?;
                let literal = pattern.literal_prefix();
                scan.select(
                    literal,
                    |listed| listed.starts_with(literal),
                    |listed, _, steps| pattern.matches_counted(listed, steps),
                    work,
                )
            }
            Query::Name(text) => Selection {
                near: near(catalog, text, config, work),
                ..Selection::default()
            },
        })
    }
}

impl Catalog {
    fn has_name(&self, name: &str) -> bool {
        let first = self.listed_from(Bound::Included(first_of(name))).next();
        first.is_some_and(|(listed, _)| &*listed.name == name)
    }
}

/// A walk through names or contents in order, from where the last page ended.
struct Scan<'a> {
    catalog: &'a Catalog,
    after: Option<&'a Cursor>,
    limit: usize,
    /// Holders wanted for each content.
    holders: usize,
}

impl Scan<'_> {
    /// What it costs to describe a match of this content with a sample of its holders.
    fn match_steps(&self, content: Key<Content>) -> u64 {
        let holders = &self.catalog.contents[content].holders;
        let given = self.holders.min(holders.len()) as u64;
        MATCH_STEPS + given * HOLDER_STEPS + holders.drawn_for(self.holders) as u64 * DRAWN_STEPS
    }

    /// Selects what is `wanted` among the names from `first` on, as long as they are `within`.
    fn select(
        &self,
        first: &str,
        within: impl Fn(&str) -> bool,
        wanted: impl Fn(&str, Key<Asset>, &mut u64) -> bool,
        work: &mut Work,
    ) -> Selection {
        let from = match self.after {
            Some(cursor) if cursor.name.as_str() >= first => Bound::Excluded(Listed {
                name: cursor.name.as_str().into(),
                content: cursor.content,
            }),
            _ => Bound::Included(first_of(first)),
        };
        let mut selection = Selection::default();
        let mut last: Option<&Listed> = None;
        for (listed, asset) in self.catalog.listed_from(from) {
            if !within(&listed.name) {
                break;
            }
            // One name is passed in any case, so that the cursor advances.
            if let Some(last) = last
                && (selection.assets.len() == self.limit || work.is_used_up())
            {
                selection.more = Some(Cursor {
                    name: last.name.to_string(),
                    content: last.content,
                });
                break;
            }
            work.add(NAME_STEPS);
            if wanted(&listed.name, asset, work.counter()) {
                work.add(self.match_steps(self.catalog.assets[asset].content));
                selection.assets.push(asset);
            }
            last = Some(listed);
        }
        selection
    }

    /// Selects the contents whose ids begin with `prefix`, each under the first of its names.
    fn select_prefix(
        &self,
        prefix: &IdPrefix,
        names_per_content: usize,
        work: &mut Work,
    ) -> Selection {
        let (low, high) = prefix.range();
        let from = match self.after {
            Some(cursor) if cursor.content >= low => Bound::Excluded(cursor.content),
            _ => Bound::Included(low),
        };
        let mut selection = Selection::default();
        for content in self.catalog.contents_between(from, high) {
            if let Some(&last) = selection.assets.last()
                && (selection.assets.len() == self.limit || work.is_used_up())
            {
                let Asset { name, content, .. } = &self.catalog.assets[last];
                selection.more = Some(Cursor {
                    name: name.to_string(),
                    content: self.catalog.contents[*content].info.id(),
                });
                break;
            }
            work.add(NAME_STEPS + self.match_steps(content));
            let assets = self.catalog.assets_of(content, names_per_content);
            selection.assets.extend(assets.first());
        }
        selection
    }
}

/// Names like `text`, from among the nearest in order: all names of a small registry, those
/// that begin alike in a large one.
fn near(catalog: &Catalog, text: &str, config: &RegistryConfig, work: &mut Work) -> Vec<AssetName> {
    let place = first_of(text);
    let following = catalog.listed_from(Bound::Included(place.clone()));
    let mut following = following.map(|(listed, _)| &*listed.name);
    let mut preceding = catalog.listed_before(place).map(|listed| &*listed.name);
    // From both sides in turn, since the work may end before the names do.
    let names = std::iter::from_fn(|| Some([following.next(), preceding.next()]))
        .take_while(|pair| pair.iter().any(Option::is_some))
        .flatten()
        .flatten()
        .take(config.near_scan_names);
    near_names(text, names, config.near_max, config.near_steps_max, work)
        .into_iter()
        .filter_map(asset_name)
        .collect()
}

/// What is not above any listing of this name.
fn first_of(name: &str) -> Listed {
    Listed {
        name: Arc::from(name),
        content: ContentId([0; 32]),
    }
}

/// The name, which was checked when it was announced.
fn asset_name(text: &str) -> Option<AssetName> {
    AssetName::new(text).ok()
}
