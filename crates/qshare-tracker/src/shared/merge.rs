//! Merges what this tracker's own registry answers with what other trackers know.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use qshare_content::fair::Network;
use qshare_content::{AssetName, ContentId, ContentInfo, Hash, Query};
use qshare_registry::{Cursor, Find, Holder, Match, Order, Page, Readiness, similar_names};
use rand::seq::SliceRandom;

use super::reader::Described;

/// Holders of a sample that share a network, as in the registry in memory.
const HOLDERS_PER_NETWORK: usize = 3;
/// Holders up to which the known ones are compared one by one; more are found by a hash.
const COMPARED_MAX: usize = 16;
/// Similar names that are offered.
pub(super) const SIMILAR_MAX: usize = 5;

/// What other trackers know about one lookup.
#[derive(Debug, Default)]
pub(super) struct RemotePage {
    pub(super) matches: Vec<Described>,
    pub(super) more: Option<Cursor>,
    /// Whether a node of another tracker announces exactly the text that is looked up. Then it is
    /// a name and no glob.
    pub(super) is_exact: bool,
    pub(super) similar: Option<Similar>,
}

impl RemotePage {
    /// Returns about how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let of_match = |described: &Described| {
            let found = &described.found;
            let holders = found.holders.iter();
            let claimed: usize = holders.map(|one| one.contact.claimed.len()).sum();
            size_of::<Described>()
                + found.name.as_str().len()
                + found.holders.len() * size_of::<Holder>()
                + claimed * size_of::<SocketAddr>()
                + described.digests.len() * 2 * size_of::<Hash>()
        };
        let similar = self.similar.iter().flat_map(|similar| &similar.names);
        let similar: usize = similar.map(|name| name.as_str().len()).sum();
        size_of::<RemotePage>() + similar + self.matches.iter().map(of_match).sum::<usize>()
    }
}

/// Names of all trackers that resemble one that was not found, best first.
#[derive(Clone, Debug)]
pub(super) struct Similar {
    pub(super) read_at: Instant,
    pub(super) names: Vec<AssetName>,
}

/// What this tracker's own registry is asked while a page is completed.
pub(crate) trait OwnNodes {
    /// Returns who of this tracker's nodes holds a content, under whatever name.
    fn holding(&self, content: ContentId) -> Option<Match>;

    /// Returns this tracker's names that resemble the wanted one.
    fn similar(&self) -> Vec<AssetName>;
}

/// Merges a page of this tracker with one of the others.
pub(super) fn merge(
    mut local: Page,
    remote: &RemotePage,
    find: &Find,
    own: &impl OwnNodes,
) -> Page {
    // A text that is a name at one tracker and a glob at another one is a name.
    let name = match &find.query {
        Query::Name(text) => Some(text.as_str()),
        _ => None,
    };
    let is_called_so = |found: &Match| Some(found.name.as_str()) == name;
    let is_exact_here = local.matches.iter().any(is_called_so);
    let is_exact = is_exact_here || remote.is_exact;
    if is_exact {
        local.matches.retain(is_called_so);
        local.more = local.more.filter(|_| is_exact_here);
    }
    let is_wanted = |described: &&Described| !is_exact || is_called_so(&described.found);
    let elsewhere = remote.matches.iter().filter(is_wanted);
    let remote_more = remote.more.as_ref();
    let remote_more = remote_more.filter(|_| !is_exact || remote.is_exact);

    // Both pages are complete up to their cursors only.
    let by_id = matches!(find.query, Query::IdPrefix(_));
    let of_node = matches!(find.query, Query::OfNode(..));
    let of_cursor = |cursor| Place::of_cursor(cursor, by_id);
    let ends = [local.more.as_ref(), remote_more];
    let end = ends
        .into_iter()
        .flatten()
        .min_by_key(|&cursor| of_cursor(cursor));
    let end = end.cloned();
    let begin = find.after.as_ref().map(of_cursor);
    let mut matches = Matches::new(local.matches, remote.matches.len(), by_id);
    for Described {
        found, is_named, ..
    } in elsewhere
    {
        if begin
            .as_ref()
            .is_some_and(|begin| Place::of_match(found, by_id) <= *begin)
        {
            continue;
        }
        match matches.same_as(found) {
            Some(known) => {
                add_holders(known, found);
                // What one node calls the content is described by that node alone.
                if !of_node {
                    known.metadata.merge(&found.metadata);
                }
            }
            None if *is_named => {
                let mut found = found.clone();
                if let Some(here) = own.holding(found.info.id()) {
                    add_holders(&mut found, &here);
                }
                matches.push(found);
            }
            // A node of this tracker has just withdrawn it.
            None => {}
        }
    }
    let mut matches = matches.all;
    match by_id {
        true => matches.sort_by_cached_key(|found| found.info.id()),
        false => matches.sort_by(|a, b| {
            let by_content = || a.info.id().cmp(&b.info.id());
            a.name.cmp(&b.name).then_with(by_content)
        }),
    }
    let by_digest = matches!(find.query, Query::Sha256(_));
    if by_digest {
        // As in the registry in memory, the content with the most holders comes first.
        matches.sort_by_key(|found| std::cmp::Reverse(found.complete + found.partial));
    }
    if let Some(end) = &end {
        let end = Place::of_cursor(end, by_id);
        matches.retain(|found| Place::of_match(found, by_id) <= end);
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
    let near = match (matches.is_empty(), &remote.similar, name) {
        (true, Some(similar), Some(text)) => {
            let names: Vec<AssetName> = [own.similar(), similar.names.clone()].concat();
            similar_names(text, &names, SIMILAR_MAX)
        }
        (true, ..) => own.similar(),
        (false, ..) => Vec::new(),
    };
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

/// The matches of a merged page. Few are compared one by one, many are found by a hash.
struct Matches {
    all: Vec<Match>,
    by_id: bool,
    position: Option<HashMap<(ContentInfo, Option<AssetName>), usize>>,
}

impl Matches {
    /// Takes the matches of one page, to which up to `more` are added.
    fn new(all: Vec<Match>, more: usize, by_id: bool) -> Matches {
        let key = |found: &Match| Matches::key(found, by_id);
        let keys = all.iter().map(key).enumerate();
        let is_large = all.len() + more > COMPARED_MAX;
        Matches {
            position: is_large.then(|| keys.map(|(at, key)| (key, at)).collect()),
            all,
            by_id,
        }
    }

    /// Returns what tells matches apart: the content and, unless the listing is by id, the name.
    fn key(found: &Match, by_id: bool) -> (ContentInfo, Option<AssetName>) {
        (found.info, (!by_id).then(|| found.name.clone()))
    }

    fn same_as(&mut self, found: &Match) -> Option<&mut Match> {
        let by_id = self.by_id;
        match &self.position {
            Some(position) => {
                let at = *position.get(&Matches::key(found, by_id))?;
                self.all.get_mut(at)
            }
            None => self
                .all
                .iter_mut()
                .find(|known| known.info == found.info && (by_id || known.name == found.name)),
        }
    }

    fn push(&mut self, found: Match) {
        if let Some(position) = &mut self.position {
            let key = Matches::key(&found, self.by_id);
            position.entry(key).or_insert(self.all.len());
        }
        self.all.push(found);
    }
}

/// A place in the order of a listing.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    /// In a listing by id.
    Content(ContentId),
    /// In a listing by name.
    Name(&'a str, ContentId),
}

impl Place<'_> {
    fn of_cursor(cursor: &Cursor, by_id: bool) -> Place<'_> {
        match by_id {
            true => Place::Content(cursor.content),
            false => Place::Name(&cursor.name, cursor.content),
        }
    }

    fn of_match(found: &Match, by_id: bool) -> Place<'_> {
        match by_id {
            true => Place::Content(found.info.id()),
            false => Place::Name(found.name.as_str(), found.info.id()),
        }
    }
}

/// Adds the holders that another place knows. A node that moves from one tracker to another is
/// known twice for a while, and counts once.
fn add_holders(known: &mut Match, other: &Match) {
    known.complete += other.complete;
    known.partial += other.partial;
    let before = known.holders.len();
    let position_by_node: HashMap<_, _> = match before > COMPARED_MAX && !other.holders.is_empty() {
        true => {
            let nodes = known.holders.iter().map(|holder| holder.node);
            nodes.enumerate().map(|(at, node)| (node, at)).collect()
        }
        false => HashMap::new(),
    };
    for holder in &other.holders {
        let position = match before > COMPARED_MAX {
            true => position_by_node.get(&holder.node).copied(),
            false => {
                let mut nodes = known.holders[..before].iter().map(|one| one.node);
                nodes.position(|node| node == holder.node)
            }
        };
        let Some(same) = position.map(|at| &mut known.holders[at]) else {
            known.holders.push(holder.clone());
            continue;
        };
        match (same.complete, holder.complete) {
            (true, true) => known.complete = known.complete.saturating_sub(1),
            _ => known.partial = known.partial.saturating_sub(1),
        }
        same.complete |= holder.complete;
    }
}

/// Draws the holders that one asker is told, at most some of each network.
fn sample(holders: Vec<Holder>, find: &Find) -> Vec<Holder> {
    let mut order: Vec<Holder> = holders;
    order.retain(|holder| Some(holder.node) != find.asking);
    if order.len() > find.holders {
        order.shuffle(&mut rand::rng());
    }
    if order.len() > HOLDERS_PER_NETWORK {
        let mut by_network: HashMap<Network, usize> = HashMap::new();
        order.retain(|holder| {
            let network = Network::of(holder.contact.observed.ip());
            let told = by_network.entry(network).or_default();
            *told += 1;
            network.is_local() || *told <= HOLDERS_PER_NETWORK
        });
    }
    order.truncate(find.holders);
    order
}

#[cfg(test)]
mod tests {
    use qshare_content::{FileMetadata, NodeId};
    use qshare_registry::{Contact, GroupId};
    use std::collections::BTreeSet;

    use super::*;

    fn holder(node: u8, complete: bool) -> Holder {
        Holder {
            node: NodeId([node; 32]),
            contact: Contact {
                observed: SocketAddr::from(([127, 0, 0, 1], 1)),
                claimed: [].into(),
            },
            complete,
        }
    }

    fn found(name: &str, holders: Vec<Holder>) -> Match {
        let complete = holders.iter().filter(|holder| holder.complete).count();
        Match {
            name: AssetName::new(name).unwrap(),
            info: ContentInfo {
                length: 1,
                root: Hash([1; 32]),
            },
            is_collection: false,
            complete,
            partial: holders.len() - complete,
            holders,
            metadata: FileMetadata::default(),
        }
    }

    fn page(matches: Vec<Match>, more: Option<&str>) -> Page {
        Page {
            matches,
            more: more.map(cursor),
            near: Vec::new(),
            readiness: Readiness::Ready,
            steps: 0,
        }
    }

    fn cursor(name: &str) -> Cursor {
        Cursor {
            order: Order::Forward,
            name: name.into(),
            content: ContentId([0xff; 32]),
        }
    }

    fn remote(matches: Vec<Match>, is_exact: bool, more: Option<&str>) -> RemotePage {
        let describe = |found| Described {
            found,
            is_named: true,
            digests: BTreeSet::new(),
        };
        RemotePage {
            matches: matches.into_iter().map(describe).collect(),
            more: more.map(cursor),
            is_exact,
            similar: None,
        }
    }

    /// A tracker without nodes.
    struct Nobody;

    impl OwnNodes for Nobody {
        fn holding(&self, _: ContentId) -> Option<Match> {
            None
        }

        fn similar(&self) -> Vec<AssetName> {
            Vec::new()
        }
    }

    fn merged(local: Page, remote: &RemotePage, text: &str) -> (Vec<String>, bool) {
        let find = Find {
            group: GroupId::OPEN,
            query: Query::Name(text.into()),
            after: None,
            limit: 10,
            holders: 100,
            asking: None,
            near: false,
        };
        let page = merge(local, remote, &find, &Nobody);
        let names = page.matches.iter().map(|found| found.name.to_string());
        (names.collect(), page.more.is_some())
    }

    #[test]
    fn a_name_anywhere_hides_what_the_text_matches_as_a_glob() {
        let one = |name: &str| vec![found(name, vec![holder(1, true)])];
        let only_name = (vec!["a[1]".to_owned()], false);
        let here = page(one("a[1]"), None);
        let there = remote(one("a1"), false, Some("a1"));
        assert_eq!(merged(here, &there, "a[1]"), only_name);
        let here = page(one("a1"), Some("a1"));
        let there = remote(one("a[1]"), true, None);
        assert_eq!(merged(here, &there, "a[1]"), only_name);
        // A glob on both sides has both pages, up to the nearer end.
        let here = page(one("a1"), None);
        let there = remote(one("a1"), false, Some("a1"));
        let glob = (vec!["a1".to_owned()], true);
        assert_eq!(merged(here, &there, "a[1]"), glob);
    }

    #[test]
    fn many_matches_are_merged_as_few_are() {
        for count in [3, 300] {
            let names: Vec<String> = (0..count).map(|number| format!("n{number:03}")).collect();
            let all = |node| {
                let one = |name: &String| found(name, vec![holder(node, true)]);
                names.iter().map(one).collect::<Vec<Match>>()
            };
            let find = Find {
                group: GroupId::OPEN,
                query: Query::Name("n*".into()),
                after: None,
                limit: 1_000,
                holders: 100,
                asking: None,
                near: false,
            };
            // The other trackers' names are the same and, of the same content, some more.
            let mut there = all(2);
            there.extend(
                names
                    .iter()
                    .map(|name| found(&format!("{name}x"), Vec::new())),
            );
            let remote = remote(there, false, None);
            let merged = merge(page(all(1), None), &remote, &find, &Nobody);
            assert_eq!(merged.matches.len(), 2 * count);
            let first = &merged.matches[0];
            assert_eq!((first.name.as_str(), first.complete), ("n000", 2));
            assert_eq!(merged.matches[1].name.as_str(), "n000x");
            let by_id = Find {
                query: Query::IdPrefix("0".parse().unwrap()),
                ..find
            };
            let one = vec![found("n000", vec![holder(1, true)])];
            let merged = merge(page(one, None), &remote, &by_id, &Nobody);
            assert_eq!(merged.matches.len(), 1, "one content");
        }
    }

    #[test]
    fn a_node_that_is_known_twice_counts_once() {
        for fill in [0, 40] {
            let others = (100..100 + fill).map(|node| holder(node, true));
            let here = [holder(1, true), holder(2, false), holder(3, false)];
            let there = [holder(1, true), holder(2, true), holder(4, false)];
            let mut known = found("a", here.into_iter().chain(others).collect());
            add_holders(&mut known, &found("a", there.into()));
            let fill = usize::from(fill);
            assert_eq!((known.complete, known.partial), (2 + fill, 2));
            assert_eq!(known.holders.len(), 4 + fill);
            let nodes: BTreeSet<NodeId> = known.holders.iter().map(|one| one.node).collect();
            assert_eq!(nodes.len(), 4 + fill);
        }
    }
}
