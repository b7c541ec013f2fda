//! Lookups: what a query finds in one group, page by page.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use qshare_content::{
    AssetName, ContentId, ContentInfo, IdPrefix, NamePattern, NodeId, Query, QueryParseError,
    is_glob,
};

use crate::catalog::{Asset, Catalog, Content, Listed};
use crate::near::near_names;
use crate::registry::{GroupId, Holder, Shared};
use crate::room::Room;
use crate::slab::Key;

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
    /// The next page's [`Find::after`], if there may be more. A page that passed over
    /// [`crate::RegistryConfig::scan_names_max`] names may be empty and still have this.
    pub more: Option<Cursor>,
    /// Where nothing was found: names that look like the one that was asked for.
    pub near: Vec<AssetName>,
    /// Whether nothing means nothing.
    pub readiness: Readiness,
}

impl Page {
    pub(crate) fn empty(readiness: Readiness) -> Page {
        Page {
            matches: Vec::new(),
            more: None,
            near: Vec::new(),
            readiness,
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
        let selection = self.select(find, shared)?;
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
        })
    }

    fn select(&self, find: &Find, shared: &Shared) -> Result<Selection, FindError> {
        let config = &shared.config;
        let limit = find.limit.clamp(1, config.page_max);
        let after = find.after.as_ref();
        let catalog = &self.catalog;
        let scan = Scan {
            after,
            limit,
            passed_max: config.scan_names_max,
        };
        Ok(match &find.query {
            Query::Id(id) => Selection {
                assets: catalog.content(*id).map_or_else(Vec::new, |content| {
                    catalog.assets_of(content, limit.min(config.names_per_content))
                }),
                ..Selection::default()
            },
            Query::IdPrefix(prefix) => {
                select_prefix(catalog, prefix, after, limit, config.names_per_content)
            }
            Query::OfNode(id, name) => match self.node(*id) {
                Some(node) => scan.select(
                    catalog,
                    name.as_str(),
                    |listed| listed == name.as_str(),
                    |_, asset| self.nodes[node].announces(asset),
                ),
                None => Selection::default(),
            },
            Query::Name(text) if catalog.has_name(text) => {
                scan.select(catalog, text, |listed| listed == text, |_, _| true)
            }
            Query::Name(glob) if is_glob(glob) => {
                let pattern = NamePattern::new(glob)?;
                let literal = glob.split(['*', '?', '[', '{']).next().unwrap_or_default();
                scan.select(
                    catalog,
                    literal,
                    |listed| listed.starts_with(literal),
                    |listed, _| pattern.matches(listed),
                )
            }
            Query::Name(text) => Selection {
                near: near(catalog, text, config.near_scan_names, config.near_max),
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

/// A walk through the names in order, from where the last page ended.
struct Scan<'a> {
    after: Option<&'a Cursor>,
    limit: usize,
    passed_max: usize,
}

impl Scan<'_> {
    /// Selects what is `wanted` among the names from `first` on, as long as they are `within`.
    fn select(
        &self,
        catalog: &Catalog,
        first: &str,
        within: impl Fn(&str) -> bool,
        wanted: impl Fn(&str, Key<Asset>) -> bool,
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
        for (passed, (listed, asset)) in catalog.listed_from(from).enumerate() {
            if !within(&listed.name) {
                break;
            }
            if selection.assets.len() == self.limit || passed == self.passed_max {
                selection.more = last.map(|last| Cursor {
                    name: last.name.to_string(),
                    content: last.content,
                });
                break;
            }
            if wanted(&listed.name, asset) {
                selection.assets.push(asset);
            }
            last = Some(listed);
        }
        selection
    }
}

fn select_prefix(
    catalog: &Catalog,
    prefix: &IdPrefix,
    after: Option<&Cursor>,
    limit: usize,
    names_per_content: usize,
) -> Selection {
    let (low, high) = prefix.range();
    let from = match after {
        Some(cursor) if cursor.content >= low => Bound::Excluded(cursor.content),
        _ => Bound::Included(low),
    };
    let mut contents: Vec<Key<Content>> = catalog
        .contents_between(from, high)
        .take(limit + 1)
        .collect();
    let further = contents.len() > limit;
    contents.truncate(limit);
    let assets: Vec<Key<Asset>> = contents
        .iter()
        .filter_map(|&content| {
            let assets = catalog.assets_of(content, names_per_content);
            assets.first().copied()
        })
        .collect();
    let more = assets.last().filter(|_| further).map(|&last| Cursor {
        name: catalog.assets[last].name.to_string(),
        content: catalog.contents[catalog.assets[last].content].info.id(),
    });
    Selection {
        assets,
        more,
        near: Vec::new(),
    }
}

/// Names like `text`, from among the nearest in order: all names of a small registry, those
/// that begin alike in a large one.
fn near(catalog: &Catalog, text: &str, scanned: usize, max: usize) -> Vec<AssetName> {
    let place = first_of(text);
    let following = catalog.listed_from(Bound::Included(place.clone()));
    let following = following.map(|(listed, _)| listed).take(scanned / 2);
    let preceding = catalog.listed_before(place).take(scanned / 2);
    let names = following.chain(preceding).map(|listed| &*listed.name);
    near_names(text, names, max)
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
