//! The downloads of one `get`: a bounded number at once. A failure of one does not stop the others.

mod newer;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use qshare_node::content::{
    AssetName, Chunks, ContentId, ContentInfo, Hash, NodeAddress, ShareKey,
};
use qshare_node::{
    Contact, Download, DownloadError, DownloadRequest, Durability, FileAttributes, Follow,
    FoundFile, Node, Report, Target,
};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::newer::Newer;
use crate::argument::printed_name;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages;
use crate::output::{self, DownloadedJson};
use crate::progress::{self, Board};

/// Maximum number of downloads handed to the node at once; each takes a few kilobytes. The node
/// limits how many of them fetch. Fetched ones wait to become durable, and one sync serves all that
/// wait.
const HANDED_OVER_MAX: usize = 16 * 1024;

/// One file to fetch.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) name: AssetName,
    pub(crate) info: ContentInfo,
    pub(crate) holders: Vec<Contact>,
    /// Nodes that a link names.
    pub(crate) nodes: Vec<NodeAddress>,
    /// The key of a private share, from a link.
    pub(crate) share_key: Option<ShareKey>,
    pub(crate) target: Target,
    /// Whether a different file at the target is replaced.
    pub(crate) force: bool,
    /// Modification time and execute bit of the finished file.
    pub(crate) attributes: FileAttributes,
    /// The plain digest that the file must have.
    pub(crate) sha256: Option<Hash>,
    /// Other contents that nodes claim to have this digest.
    pub(crate) others: Vec<FoundFile>,
    /// How to look the file up again; None if the user asked for this content and no other.
    pub(crate) follow: Option<Follow>,
    /// An earlier version, of which a part was fetched to the same target.
    pub(crate) supersedes: Option<ContentInfo>,
}

/// Options for all files.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The user asked to replace files, which holds only for items that have `force`.
    pub(crate) force: bool,
    /// Report success only once a file survives a power cut.
    pub(crate) durable: bool,
    pub(crate) seed: bool,
    /// Fail after this time without a usable source; None retries forever.
    pub(crate) give_up_after: Option<Duration>,
    pub(crate) json: bool,
}

/// Fetches all files. Prints every failure, and returns the worst one.
pub(crate) async fn fetch_all(
    node: &Node,
    items: Vec<Item>,
    terms: Terms,
    mut board: Board,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut run = Run {
        node: node.clone(),
        console: console.clone(),
        terms,
        under_way: HashMap::new(),
        worst: None,
    };
    board.expect(items.len(), items.iter().map(|item| item.info.length).sum());
    let mut waiting = VecDeque::from(items);
    let mut busy: HashSet<ContentId> = HashSet::new();
    let mut deferred: HashMap<ContentId, VecDeque<Item>> = HashMap::new();
    let mut ends: JoinSet<(usize, Outcome)> = JoinSet::new();
    let mut keys = 0..;
    let mut newer = Newer::new(node);
    let mut ticks = tokio::time::interval(progress::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        while ends.len() < HANDED_OVER_MAX && !stop.is_cancelled() {
            let Some(item) = waiting.pop_front() else {
                break;
            };
            let content = item.info.id();
            // Two names of one content would fetch the same chunks twice at once.
            if is_chunked(&item) && !busy.insert(content) {
                deferred.entry(content).or_default().push_back(item);
                continue;
            }
            let Some(key) = keys.next() else { break };
            let download = run.start(key, item);
            board.add(key, download.clone());
            ends.spawn(async move { (key, download.finished().await) });
        }
        tokio::select! {
            ended = ends.join_next() => match ended {
                None => break,
                Some(Ok((key, outcome))) => {
                    let Some(under_way) = run.under_way.remove(&key) else { continue };
                    let renewed = run.renewed(&under_way, &outcome);
                    let item = under_way.item;
                    match &renewed {
                        Some(renewed) => {
                            board.withdraw(key, item.info.length);
                            board.expect(1, renewed.info.length);
                        }
                        None => board.remove(key, item.info.length),
                    }
                    let content = item.info.id();
                    busy.remove(&content);
                    if let Some(next) = deferred.get_mut(&content).and_then(VecDeque::pop_front) {
                        waiting.push_front(next);
                    }
                    match renewed.or_else(|| item.instead_of_liar(&outcome)) {
                        Some(next) if next.supersedes.is_some() => waiting.push_front(next),
                        Some(next) => {
                            let text = format!(
                                "{}: its SHA-256 is not what a node states; trying another file",
                                item.name
                            );
                            console.note(&text);
                            waiting.push_front(next);
                        }
                        None => run.take(&item, outcome, board.is_about_few_files())?,
                    }
                }
                Some(Err(panicked)) => {
                    let failure = Failure::internal(format!("a download task was lost: {panicked}"));
                    console.error(&failure.message);
                    run.worst = run.worst.max(Some(failure.exit));
                }
            },
            _ = ticks.tick() => {
                board.tick();
                for (&key, under_way) in &run.under_way {
                    newer.look(key, &under_way.item, &under_way.download);
                }
            }
            Some((key, found)) = newer.found() => run.replace(key, found),
            () = stop.cancelled(), if !run.is_stopped() => run.stop(),
        }
    }
    drop(board);
    match run.worst {
        None => Ok(()),
        Some(exit) => Err(Failure::printed(exit)),
    }
}

type Outcome = Result<Arc<Report>, Arc<DownloadError>>;

impl Item {
    /// Returns the next content that is claimed to have the digest, if this one has not.
    fn instead_of_liar(&self, outcome: &Outcome) -> Option<Item> {
        let Err(error) = outcome else { return None };
        let mut others = self.others.clone();
        if !matches!(**error, DownloadError::OtherDigest { .. }) || others.is_empty() {
            return None;
        }
        let next = others.remove(0);
        Some(Item {
            info: next.info,
            holders: next.holders,
            others,
            ..self.clone()
        })
    }
}

fn is_chunked(item: &Item) -> bool {
    Chunks::of_length(item.info.length).count() > 1
}

struct UnderWay {
    item: Item,
    download: Download,
    /// The version that the name means by now. The download was stopped for its sake.
    newer: Option<FoundFile>,
}

struct Run {
    node: Node,
    console: Console,
    terms: Terms,
    under_way: HashMap<usize, UnderWay>,
    worst: Option<Exit>,
}

impl Run {
    fn start(&mut self, key: usize, item: Item) -> Download {
        let durability = match self.terms.durable {
            true => Durability::Immediate,
            false => Durability::Deferred,
        };
        let request = DownloadRequest::new(item.name.clone(), item.info, item.target.clone())
            .holders(item.holders.clone())
            .nodes(item.nodes.clone())
            .attributes(item.attributes)
            .sha256(item.sha256)
            .share_key(item.share_key.clone())
            .force(item.force)
            .follow(item.follow.clone())
            .supersedes(item.supersedes)
            .durability(durability)
            .give_up_after(self.terms.give_up_after)
            .keep_serving(self.terms.seed);
        let download = self.node.download(request);
        self.under_way.insert(
            key,
            UnderWay {
                item,
                download: download.clone(),
                newer: None,
            },
        );
        download
    }

    /// Stops a download, of which a newer version was found.
    fn replace(&mut self, key: usize, found: FoundFile) {
        if let Some(under_way) = self.under_way.get_mut(&key) {
            let text = format!(
                "{} has changed at its source; fetching the new version",
                printed_name(&found.name)
            );
            self.console.note(&text);
            under_way.newer = Some(found);
            under_way.download.stop();
        }
    }

    /// Returns the newer version that is fetched next, if a download was stopped for its sake.
    fn renewed(&self, under_way: &UnderWay, outcome: &Outcome) -> Option<Item> {
        let found = under_way.newer.clone()?;
        let Err(error) = outcome else { return None };
        let has_ended_for_it = matches!(
            **error,
            DownloadError::Stopped | DownloadError::Changed { .. } | DownloadError::NoSource { .. }
        );
        (has_ended_for_it && !self.is_stopped()).then(|| under_way.item.renewed(found))?
    }

    fn is_stopped(&self) -> bool {
        self.worst == Some(Exit::Interrupted)
    }

    fn stop(&mut self) {
        self.worst = Some(Exit::Interrupted);
        self.under_way
            .values()
            .for_each(|under_way| under_way.download.stop());
    }

    /// Prints the result of a download.
    fn take(&mut self, item: &Item, outcome: Outcome, in_detail: bool) -> Result<(), Failure> {
        match outcome {
            Ok(report) => {
                if in_detail {
                    self.console.note(&progress::finished_line(&report));
                }
                match self.terms.json {
                    true => self.console.json(&DownloadedJson::from(&*report)),
                    false => self.console.path(output::without_dot(&report.path)),
                }
            }
            Err(error) => {
                let failure = Failure::from(&*error);
                self.worst = self.worst.max(Some(failure.exit));
                if !matches!(*error, DownloadError::Stopped) {
                    self.console.error(&failure.message);
                }
                if matches!(*error, DownloadError::Different { .. })
                    && self.terms.force
                    && !item.force
                {
                    self.console.error(messages::FORCE_NEEDS_A_NAME);
                }
                Ok(())
            }
        }
    }
}
