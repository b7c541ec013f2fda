//! Why a node cannot start, find or download.
//!
//! These types name the operation, the object and the cause. The program adds remedies, which
//! name its options.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::manifest::ManifestError;
use qshare_content::{AssetName, Hash, NodeId, TrackerAddress};
use qshare_net::framed::ReadError;
use qshare_net::{BindError, DialError, KnockError, MappingError, ResolveError, TrustError};
use qshare_storage::{DiskError, LibraryError, OpenError};
use qshare_swarm::DropReason;
use qshare_wire::{Refusal, Refused};

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The UDP port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The shared directories cannot be opened.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A directory cannot be created.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The system refused to start a thread.
    #[error("cannot start the thread {name}: {cause}")]
    Thread {
        /// The thread's name.
        name: &'static str,
        /// The system's error.
        cause: io::Error,
    },
}

/// A part of the node that must run until shutdown is lost. The node is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {cause}")]
pub struct PartFailed {
    /// The part.
    pub part: &'static str,
    /// The message of its panic, for example.
    pub cause: String,
}

/// Why there is no session with a tracker.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TrackerFault {
    /// The resolver did not answer within this time.
    #[error("its host name was not resolved within {} s", .0.as_secs())]
    ResolveTimedOut(Duration),
    /// Its host name cannot be resolved.
    #[error("{0}")]
    Resolve(Arc<ResolveError>),
    /// It has no address of this family.
    #[error("it has no {0} address")]
    NoAddress(&'static str),
    /// This machine has no socket of this family.
    #[error("{0}")]
    NoSocket(Arc<BindError>),
    /// It did not answer within this time.
    #[error("no answer within {:.0} s", .0.as_secs_f64())]
    NoAnswer(Duration),
    /// The connection was not established.
    #[error("{0}")]
    Dial(Arc<DialError>),
    /// Its key is not the one that was expected, or the remembered keys cannot be read.
    #[error("{0}")]
    Trust(Arc<TrustError>),
    /// An established connection was lost.
    #[error("connection lost: {0}")]
    Lost(#[from] quinn::ConnectionError),
    /// It broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(Arc<ReadError>),
    /// Nothing can be sent to it.
    #[error("cannot send: {0}")]
    Send(#[from] quinn::WriteError),
    /// It acknowledges no announcements any more.
    #[error("it stopped acknowledging announcements")]
    NoAcknowledgement,
    /// A task of this node was lost.
    #[error("internal error: {0}")]
    Internal(String),
}

impl TrackerFault {
    /// Whether the tracker refuses this node, or is not the expected one, which only a person can
    /// change.
    pub fn is_refusal(&self) -> bool {
        match self {
            TrackerFault::Dial(error) => matches!(
                **error,
                DialError::GroupRefused(_)
                    | DialError::Version(_)
                    | DialError::WrongIdentity { .. }
            ),
            TrackerFault::Trust(error) => !matches!(**error, TrustError::Io { .. }),
            _ => false,
        }
    }

    /// Whether the tracker belongs to another group than this node.
    pub fn is_group_mismatch(&self) -> bool {
        matches!(self, TrackerFault::Dial(error) if matches!(**error, DialError::GroupRefused(_)))
    }
}

impl From<ReadError> for TrackerFault {
    fn from(error: ReadError) -> TrackerFault {
        TrackerFault::Protocol(Arc::new(error))
    }
}

/// Two faults are the same if they read the same.
impl PartialEq for TrackerFault {
    fn eq(&self, other: &TrackerFault) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for TrackerFault {}

/// Why a request to a tracker or node has no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AskError {
    /// No answer came within this time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// It refused.
    #[error("refused: {}", refusal_text(.0))]
    Refused(Refused),
    /// The connection broke, or the answer is no message.
    #[error("{0}")]
    Failed(Arc<ReadError>),
    /// The answer names another node than the question.
    #[error("the answer is about another node")]
    OtherNode,
    /// No tracker is connected.
    #[error("no tracker is connected")]
    NoTracker,
}

impl From<ReadError> for AskError {
    fn from(error: ReadError) -> AskError {
        match error {
            ReadError::Refused(refused) => AskError::Refused(refused),
            other => AskError::Failed(Arc::new(other)),
        }
    }
}

/// Returns the reason that came with a refusal, or what its code means.
fn refusal_text(refused: &Refused) -> String {
    match refused.reason.is_empty() {
        true => refusal_name(refused.refusal()),
        false => refused.reason.to_string(),
    }
}

fn refusal_name(refusal: Refusal) -> String {
    match refusal {
        Refusal::NotHere => "it does not have the content".into(),
        Refusal::NotYet => "it does not have the chunk yet".into(),
        Refusal::Busy => "it is busy".into(),
        Refusal::Changed => "its file has changed".into(),
        Refusal::NotAllowed => "it does not allow this".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Why a lookup has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FindError {
    /// No tracker is configured.
    #[error("no tracker to ask")]
    NoTracker,
    /// No tracker could be reached in time.
    #[error("cannot reach any tracker: {}", list(.0))]
    Unreachable(Vec<(TrackerAddress, TrackerFault)>),
    /// Every tracker that could be reached refuses this node, or is not the expected one.
    #[error("{}", list(.0))]
    Refused(Vec<(TrackerAddress, TrackerFault)>),
    /// A tracker refused the lookup, or its answer is no message.
    #[error("lookup at tracker {tracker} failed: {cause}")]
    Failed {
        /// The tracker.
        tracker: TrackerAddress,
        /// Why.
        cause: AskError,
    },
    /// A task of this node was lost.
    #[error("internal error: {0}")]
    Internal(String),
}

fn list(faults: &[(TrackerAddress, TrackerFault)]) -> String {
    let describe = |(tracker, fault): &(TrackerAddress, TrackerFault)| match fault {
        // These name the tracker themselves.
        TrackerFault::Trust(error) if !matches!(**error, TrustError::Io { .. }) => {
            error.to_string()
        }
        _ => format!("tracker {}: {fault}", tracker.host_port()),
    };
    faults.iter().map(describe).collect::<Vec<_>>().join("; ")
}

/// Why there is no connection to a node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReachError {
    /// The node is this node.
    #[error("the node is this node itself")]
    Ourselves,
    /// The node sent bytes that failed verification for several contents.
    #[error("it sent bytes that failed verification for several contents")]
    Shunned,
    /// Every path failed.
    #[error("{}", paths(.0))]
    NoPath(Vec<PathFault>),
    /// A connection was established and then replaced by another one, which is closed by now.
    #[error("its connection was replaced")]
    Replaced,
}

/// Returns a number with its noun: `1 port`, `2 ports`.
fn counted(number: impl fmt::Display, one: &str, many: &str) -> String {
    let number = number.to_string();
    match number == "1" {
        true => format!("1 {one}"),
        false => format!("{number} {many}"),
    }
}

fn paths(faults: &[PathFault]) -> String {
    match faults.is_empty() {
        true => "it has no address".into(),
        false => {
            let faults: Vec<String> = faults.iter().map(PathFault::to_string).collect();
            faults.join("; ")
        }
    }
}

/// Why one path to a node does not work.
#[derive(Debug, Clone)]
pub enum PathFault {
    /// The node cannot be dialled at this address.
    Dial {
        /// The address; None for the path through the relay.
        address: Option<SocketAddr>,
        /// Why.
        cause: Arc<DialError>,
    },
    /// The node accepted the connection and sent no Hello.
    NoHello {
        /// The address; None for the path through the relay.
        address: Option<SocketAddr>,
    },
    /// No tracker introduced the two nodes.
    Introduction(AskError),
    /// The tracker offers no relay.
    NoRelay,
    /// This node has the maximum number of relay channels.
    TooManyChannels,
    /// No probe was answered.
    ProbesUnanswered {
        /// How many addresses were probed.
        addresses: usize,
        /// How many ports were probed beside them (birthday punching).
        ports: usize,
    },
}

impl PartialEq for PathFault {
    fn eq(&self, other: &PathFault) -> bool {
        self.to_string() == other.to_string()
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |address: &Option<SocketAddr>| match address {
            Some(address) => address.to_string(),
            None => "relay".into(),
        };
        match self {
            PathFault::Dial { address, cause } => match &**cause {
                DialError::TimedOut(_) => write!(f, "{}: no answer", at(address)),
                DialError::Unanswered(_) => {
                    write!(f, "{}: several dials were not answered", at(address))
                }
                DialError::WrongIdentity { found, .. } => {
                    write!(
                        f,
                        "{}: another node answered, {}",
                        at(address),
                        found.short()
                    )
                }
                other => write!(f, "{}: {other}", at(address)),
            },
            PathFault::NoHello { address } => write!(f, "{}: no Hello in time", at(address)),
            PathFault::Introduction(cause) => write!(f, "introduction: {cause}"),
            PathFault::NoRelay => f.write_str("relay: the tracker offers none"),
            PathFault::TooManyChannels => f.write_str("relay: too many channels"),
            PathFault::ProbesUnanswered {
                addresses,
                ports: 0,
            } => {
                write!(
                    f,
                    "no answer to probes of {}",
                    counted(*addresses, "address", "addresses")
                )
            }
            PathFault::ProbesUnanswered { addresses, ports } => {
                write!(
                    f,
                    "no answer to probes of {} and {}",
                    counted(*addresses, "address", "addresses"),
                    counted(*ports, "port", "ports")
                )
            }
        }
    }
}

/// Why a port that the router granted is not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedPort {
    /// Why the check through a tracker failed.
    pub check: PortCheckFault,
    /// Why the router did not renew the mapping after an earlier check failed.
    pub renewal: Option<MappingError>,
}

impl fmt::Display for UnverifiedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.renewal {
            None => write!(f, "{}", self.check),
            Some(renewal) => write!(f, "{} ({renewal})", self.check),
        }
    }
}

/// Why a check through a tracker did not verify a port.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PortCheckFault {
    /// The tracker's knock did not arrive.
    #[error("no packet arrived through {0}")]
    Silent(SocketAddr),
    /// The tracker did not knock.
    #[error("{0}")]
    Knock(Arc<KnockError>),
}

/// Two faults are the same if they read the same.
impl PartialEq for PortCheckFault {
    fn eq(&self, other: &PortCheckFault) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for PortCheckFault {}

/// Why a holder of a content is not fetched from at the moment.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceFault {
    /// It cannot be reached.
    #[error("{0}")]
    Reach(#[from] ReachError),
    /// Its host name cannot be resolved.
    #[error("{0}")]
    Unresolved(Arc<ResolveError>),
    /// Its host name was not resolved in time.
    #[error("cannot resolve {0} in time")]
    ResolveTimedOut(String),
    /// Its host name belongs to no address that may be dialled.
    #[error("{0} has no usable address")]
    NoAddress(String),
    /// It has no usable answer.
    #[error("{0}")]
    Ask(#[from] AskError),
    /// Its `have` message holds no valid bitmap of this content.
    #[error("invalid `have` message")]
    InvalidHave,
    /// It sends `have` messages faster than the protocol allows.
    #[error("`have` rate limit exceeded")]
    HaveRate,
    /// It did not prove that it knows the key of the private share, so nothing was requested.
    #[error("it does not know the share's key")]
    Unproven,
    /// The connection was lost.
    #[error("connection lost")]
    Lost,
    /// The scheduler gave it up.
    #[error("{}", drop_reason(.0))]
    Dropped(DropReason),
    /// It had no chunk that is missing here, and other peers wait for its slot.
    #[error("it had no missing chunk")]
    NothingMissing,
    /// It sent bytes that failed verification.
    #[error("it sent bytes that failed verification")]
    Corrupt,
}

impl SourceFault {
    /// Whether the holder's file has changed since it was announced.
    pub(crate) fn is_changed(&self) -> bool {
        matches!(self, SourceFault::Ask(AskError::Refused(refused))
            if refused.refusal() == Refusal::Changed)
    }

    /// Whether the holder says that it does not have what was asked for.
    pub(crate) fn is_lacking(&self) -> bool {
        matches!(self, SourceFault::Ask(AskError::Refused(refused))
            if matches!(refused.refusal(), Refusal::NotHere | Refusal::NotYet))
    }
}

/// Returns the name of a reason to drop a peer, as `status` prints it.
pub(crate) fn drop_reason(reason: &DropReason) -> String {
    format!("{reason:?}").to_lowercase()
}

/// Why a download ended without the file. The chunks that were fetched are kept, and the next
/// attempt resumes from them.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No tracker could be asked.
    #[error(transparent)]
    Tracker(#[from] FindError),
    /// No holder is known, or none can be reached.
    #[error("no reachable peer has {name}{}", list_sources(.failures))]
    NoSource {
        /// The name.
        name: AssetName,
        /// Some of the holders that were tried, and why each failed.
        failures: Vec<(NodeId, SourceFault)>,
    },
    /// Every holder sent bytes that failed verification.
    #[error("every source of {name} sent bytes that failed verification")]
    VerificationFailed {
        /// The name.
        name: AssetName,
    },
    /// The file has changed at every holder since its link was made.
    #[error("{name} has changed at its source since the link was made")]
    Changed {
        /// The name.
        name: AssetName,
    },
    /// The file's plain SHA-256 is not the required one. Its data was deleted, unless it was there
    /// before.
    #[error("{name}: its SHA-256 is {found}, not {wanted}")]
    OtherDigest {
        /// The name.
        name: AssetName,
        /// The required digest.
        wanted: Hash,
        /// The digest of the file.
        found: Hash,
    },
    /// A different file is at the target.
    #[error("{}: a different file is already there", .path.display())]
    Different {
        /// The path.
        path: PathBuf,
    },
    /// A directory, device, FIFO or socket is at the target. It is never replaced.
    #[error("{}: not a regular file", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Something else than a directory is at the target of a folder.
    #[error("{}: not a directory", .path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The list of a folder is not valid. Nothing of the folder was written.
    #[error("{name}: {cause}")]
    InvalidFolder {
        /// The name.
        name: AssetName,
        /// Why.
        cause: ManifestError,
    },
    /// A glob that selects files of a folder is not valid.
    #[error("{glob:?} is not a valid glob")]
    InvalidGlob {
        /// The glob.
        glob: String,
    },
    /// The list of a folder was not downloaded.
    #[error("{0}")]
    List(Arc<DownloadError>),
    /// Some files of a folder were not downloaded. The others are there.
    #[error("{failed} of the files of {name} could not be downloaded; the first: {first}")]
    Files {
        /// The folder's name.
        name: AssetName,
        /// Their number.
        failed: u64,
        /// Why the first one was not.
        first: Arc<DownloadError>,
    },
    /// The part or meta file cannot be opened.
    #[error("{}: {cause}", .path.display())]
    Open {
        /// The path of the target.
        path: PathBuf,
        /// Why.
        cause: OpenError,
    },
    /// This machine's disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It was stopped, and can be resumed.
    #[error("stopped")]
    Stopped,
    /// A task or thread of this node was lost.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Nothing can be fetched at the moment.
#[derive(Debug, Clone)]
pub struct NoSource {
    /// Some of the holders that were tried, and why each failed.
    pub failures: Vec<(NodeId, SourceFault)>,
}

impl fmt::Display for NoSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no reachable source{}", list_sources(&self.failures))
    }
}

/// Lists sources and their faults, after a colon. Empty if there are none.
fn list_sources(failures: &[(NodeId, SourceFault)]) -> String {
    let describe = |(node, fault): &(NodeId, SourceFault)| format!("{} ({fault})", node.short());
    let failures: Vec<String> = failures.iter().map(describe).collect();
    match failures.is_empty() {
        true => String::new(),
        false => format!(": {}", failures.join(", ")),
    }
}
