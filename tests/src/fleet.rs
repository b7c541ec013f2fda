//! Many nodes in one process, each with one shared file, and lookups that say what went wrong.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{AssetName, ContentId, NodeId, Query};
use qshare_node::{HashOptions, Identity, Node, NodeConfig, Share, ShareRequest, TrackerState};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Deadline of one lookup.
const PATIENCE: Duration = Duration::from_secs(20);
/// A lookup that takes longer was not answered in time, through a sibling if need be.
pub const ANSWER_TARGET: Duration = Duration::from_secs(1);

/// Nodes of this process. They end when the value is dropped.
pub struct Fleet {
    members: Vec<Member>,
    _dir: TempDir,
}

/// One node with one shared file.
pub struct Member {
    /// The node.
    pub node: Node,
    /// The name under which its file is announced.
    pub name: String,
    /// The file's content.
    pub content: ContentId,
    share: Share,
}

impl Fleet {
    /// Starts `count` nodes, the n-th with its session at `tracker_of(n)`, on the current runtime.
    pub async fn start(count: usize, tracker_of: impl Fn(usize) -> SocketAddr) -> Fleet {
        let dir = tempfile::tempdir().unwrap();
        let mut members = Vec::with_capacity(count);
        for number in 0..count {
            let trackers = vec![tracker_of(number).to_string().parse().unwrap()];
            let mut config = NodeConfig::one_shot(Identity::ephemeral().unwrap(), trackers);
            config.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let node = Node::start(config).await.unwrap();
            let name = format!("file-{number:04}.bin");
            let path = dir.path().join(&name);
            fs::write(&path, format!("the content of file {number}")).unwrap();
            let request = ShareRequest {
                path,
                name: AssetName::new(&name).unwrap(),
                key: None,
                hashing: HashOptions::default(),
                index: None,
            };
            let share = node.share_file(request).await.unwrap();
            members.push(Member {
                content: share.version().info.id(),
                node,
                name,
                share,
            });
        }
        Fleet { members, _dir: dir }
    }

    /// Returns the nodes.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Counts the nodes whose session is with this tracker.
    pub fn count_at(&self, tracker: NodeId) -> usize {
        let at = |member: &&Member| member.tracker() == Some(tracker);
        self.members.iter().filter(at).count()
    }

    /// Has random nodes look for the files of random nodes until `end`, and returns what they found
    /// once all lookups are answered.
    pub async fn look_up(&self, load: &Load, end: Instant) -> Audit {
        let audit = Arc::new(Mutex::new(Audit::default()));
        let mut lookups = JoinSet::new();
        let mut rng = SmallRng::seed_from_u64(load.seed);
        let pause = Duration::from_secs(1) / load.per_second;
        while Instant::now() < end {
            let asker = &self.members[rng.random_range(0..self.members.len())];
            let wanted = rng.random_range(0..self.members.len());
            let is_gone = load.gone.contains(&wanted);
            if is_gone && !load.asks_for_gone {
                continue;
            }
            let wanted = &self.members[wanted];
            let (node, name, content) = (asker.node.clone(), wanted.name.clone(), wanted.content);
            let audit = Arc::clone(&audit);
            lookups.spawn(async move {
                let begun = Instant::now();
                let outcome = find(&node, &name, content).await;
                let mut audit = audit.lock().unwrap_or_else(PoisonError::into_inner);
                audit.note(&name, outcome, begun.elapsed(), is_gone);
            });
            while lookups.try_join_next().is_some() {}
            sleep(pause).await;
        }
        while lookups.join_next().await.is_some() {}
        let mut audit = audit.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *audit)
    }
}

impl Member {
    /// Returns the tracker with which the node has its session.
    pub fn tracker(&self) -> Option<NodeId> {
        let states = self.node.tracker_states();
        states.iter().find_map(|status| match status.state {
            TrackerState::Connected { id, .. } => Some(id),
            _ => None,
        })
    }

    /// Withdraws the file.
    pub fn withdraw(&self) {
        self.share.stop();
    }
}

/// What [`Fleet::look_up`] does.
#[derive(Debug, Clone)]
pub struct Load {
    /// Lookups a second.
    pub per_second: u32,
    /// Nodes whose file was withdrawn, or who have left.
    pub gone: Vec<usize>,
    /// Whether their files are looked for, too. While Redis is away, that takes 12 s each.
    pub asks_for_gone: bool,
    /// Seed of the random choices.
    pub seed: u64,
}

/// The answer to one lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The file was found, with its holder.
    Found,
    /// Trackers say that nobody has it.
    Missing,
    /// Another content was found under the name, or no holder.
    Wrong(String),
    /// There was no answer.
    Failed(String),
}

/// Looks for a file.
pub async fn find(node: &Node, name: &str, content: ContentId) -> Outcome {
    match node.find(&Query::Name(name.to_owned()), 4, PATIENCE).await {
        Err(error) => Outcome::Failed(format!("{error:?}")),
        Ok(found) => match &found.files[..] {
            [] => Outcome::Missing,
            [file] if file.content == content && file.complete >= 1 => Outcome::Found,
            other => Outcome::Wrong(format!("{other:?}")),
        },
    }
}

/// What lookups have found.
#[derive(Debug, Default)]
pub struct Audit {
    /// Latencies of lookups that found the file.
    pub latencies: Vec<Duration>,
    /// Lookups for withdrawn files that found nothing.
    pub rightly_missing: usize,
    /// Lookups that did not find a file that a node has.
    pub missed: Vec<String>,
    /// Wrong answers, and withdrawn files that were found.
    pub wrong: Vec<String>,
    /// Lookups without an answer.
    pub failed: Vec<String>,
}

impl Audit {
    fn note(&mut self, name: &str, outcome: Outcome, time: Duration, is_gone: bool) {
        let line = |what: &str| format!("{name}: {what} after {} ms", time.as_millis());
        match (outcome, is_gone) {
            (Outcome::Found, false) => self.latencies.push(time),
            (Outcome::Missing, true) => self.rightly_missing += 1,
            (Outcome::Missing, false) => self.missed.push(line("not found")),
            (Outcome::Found, true) => self.wrong.push(line("withdrawn and found")),
            (Outcome::Wrong(what), _) => self.wrong.push(line(&what)),
            (Outcome::Failed(cause), _) => self.failed.push(line(&cause)),
        }
    }

    /// Adds what other lookups have found.
    pub fn merge(&mut self, other: Audit) {
        self.latencies.extend(other.latencies);
        self.rightly_missing += other.rightly_missing;
        self.missed.extend(other.missed);
        self.wrong.extend(other.wrong);
        self.failed.extend(other.failed);
    }

    /// Returns the number of lookups that took longer than [`ANSWER_TARGET`].
    pub fn late(&self) -> usize {
        let is_late = |time: &&Duration| **time > ANSWER_TARGET;
        self.latencies.iter().filter(is_late).count()
    }

    /// Returns a percentile of the latencies of lookups that found the file.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or_default()
    }

    /// Checks that every lookup was answered rightly.
    ///
    /// # Panics
    ///
    /// With what went wrong.
    pub fn must_be_right(&self, when: &str) {
        let is_right = self.missed.is_empty() && self.wrong.is_empty() && self.failed.is_empty();
        assert!(is_right, "{when}: {self:?}");
        assert!(!self.latencies.is_empty(), "{when}: nothing was looked up");
        eprintln!(
            "{when}: {} found, {} rightly missing, median {} ms, slowest {} ms",
            self.latencies.len(),
            self.rightly_missing,
            self.percentile(50).as_millis(),
            self.percentile(100).as_millis(),
        );
    }
}
