//! The wording of every error, with its remedy.
//!
//! Libraries return typed errors. This module alone decides the wording of an error, its exit code,
//! and its remedy. An error names the operation, the object and the cause; the remedy follows on a
//! line of its own.

mod codes;
mod configuration;
mod control;
mod web;

use std::io;
use std::path::Path;

use qshare_node::content::{
    AssetName, ContentId, LinkParseError, NodeId, QueryParseError, TrackerAddress,
};
use qshare_node::{
    BindError, DiskError, DownloadError, FindError, GroupError, HashError, IdentityError,
    LibraryError, NetReportError, OpenError, PartFailed, StartError, TrackerFault, TrackerState,
    TrustError,
};

use crate::argument::ArgumentError;
use crate::exit::{Exit, Failure};
use crate::neutral::{neutral_line, shown};

pub(crate) use codes::{code_event, not_a_code, redeem};
pub(crate) use configuration::{configuration, no_such_command};
pub(crate) use control::{client, no_control_socket, no_download, no_node, node_stopped};
pub(crate) use web::http_needs_token;

/// Where a message is read, which decides which remedies are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A person or script that ran a command and can run another.
    Shell,
    /// The same for `qshare get`, which has more options.
    Get,
    /// A person at the prompt of a running node.
    Prompt,
}

impl Reader {
    /// Appends the remedy that this reader can follow.
    fn advise(self, problem: String, in_shell: &str, at_prompt: &str) -> String {
        let remedy = match self {
            Reader::Shell | Reader::Get => in_shell,
            Reader::Prompt => at_prompt,
        };
        match remedy {
            "" => problem,
            remedy => format!("{problem}\n{remedy}"),
        }
    }
}

/// Returns the exit code for an error of the file system.
fn exit_of_io(error: &io::Error) -> Exit {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Exit::Disk,
        Kind::StorageFull | Kind::QuotaExceeded => Exit::Disk,
        _ => Exit::Failed,
    }
}

/// Describes an argument that means nothing. Text in the form of a link or code is not repeated.
pub(crate) fn argument(text: &str, error: &ArgumentError, _reader: Reader) -> Failure {
    let quoted = format!("{text:?}");
    let (problem, remedy) = match error {
        ArgumentError::Link(cause) => (
            format!("cannot use the link: {}", link_cause(cause)),
            "Copy the whole link again; a file whose name starts with qshare: is name:NAME",
        ),
        ArgumentError::Code(cause) => return not_a_code(cause),
        ArgumentError::Digest => (
            "cannot look up sha256:...: 64 hex digits do not follow".to_owned(),
            "A file whose name starts with sha256: is name:NAME",
        ),
        ArgumentError::Dash => (
            "cannot download `-`: it is not a name".to_owned(),
            "A file named `-` is ./-",
        ),
        ArgumentError::LinkNotAllowed => (
            "`ls` takes names and IDs, not links or codes".to_owned(),
            "List names, or download the link or code with `get`",
        ),
        ArgumentError::Name(cause) => (
            format!("cannot look up {quoted}: {cause}"),
            "No shared file can have that name; `ls` lists the names",
        ),
        ArgumentError::Query(QueryParseError::Name { cause, .. }) => (
            format!("cannot look up {quoted}: {cause}"),
            "No shared file can have that name; `ls` lists the names",
        ),
        ArgumentError::Query(QueryParseError::Glob { cause, .. }) => (
            format!("cannot look up {quoted}: it is not a valid glob: {cause}"),
            "A file with exactly that name is name:NAME",
        ),
        ArgumentError::Query(cause) => (
            format!("cannot look up {quoted}: {cause}"),
            "A file with exactly that name is name:NAME",
        ),
    };
    Failure::new(Exit::Usage, format!("{problem}\n{remedy}"))
}

/// Describes what is wrong with a link without repeating its values.
fn link_cause(cause: &LinkParseError) -> String {
    match cause {
        LinkParseError::NotALink => "a link starts with qshare: and a content ID".into(),
        LinkParseError::TooLong => "it is too long".into(),
        LinkParseError::Mismatch => {
            "its size and root do not match its content ID, so it was damaged".into()
        }
        LinkParseError::Newer(_) => "it needs a newer version of qshare".into(),
        LinkParseError::Field(_) => "a field is missing or cannot be read".into(),
        LinkParseError::Name(_) => "no shared file can have its name".into(),
        LinkParseError::Tracker(_) => "the address of its tracker cannot be read".into(),
        LinkParseError::Node(_) => "the address of its node cannot be read".into(),
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Failure {
        match &error {
            IdentityError::Io { path, cause } => Failure::new(
                exit_of_io(cause),
                format!(
                    "cannot use the identity file {}: {cause}\nName another directory: --certs DIR",
                    shown(path)
                ),
            ),
            IdentityError::NoDirectory => Failure::new(
                Exit::Failed,
                "cannot choose a directory for the identity: neither HOME nor XDG_DATA_HOME is \
                 set\nName one: --certs DIR",
            ),
            IdentityError::InUse { .. } => Failure::new(Exit::Failed, error.to_string()),
            IdentityError::LooseMode { path, mode } => Failure::new(
                Exit::Failed,
                format!(
                    "cannot use the key {path}: its mode {mode:04o} lets others read or change \
                     it\nRun `chmod 600 {path}`, or move it away to have a new identity made",
                    path = shown(path)
                ),
            ),
            IdentityError::Damaged { .. } => Failure::new(
                Exit::Failed,
                format!(
                    "cannot use the identity: {error}\nMove the file away to have a new identity \
                     made"
                ),
            ),
            IdentityError::Generate(_) => Failure::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<GroupError> for Failure {
    fn from(error: GroupError) -> Failure {
        match &error {
            GroupError::Io { path, cause } if cause.kind() == io::ErrorKind::NotFound => {
                Failure::new(
                    Exit::Failed,
                    format!(
                        "cannot read the group file {}: it does not exist\nCreate one with `qshare \
                         group new FILE`, or get it from a member of the group",
                        shown(path)
                    ),
                )
            }
            GroupError::Io { path, cause } if cause.kind() == io::ErrorKind::AlreadyExists => {
                Failure::new(
                    Exit::Failed,
                    format!(
                        "cannot create the group file {path}: {path} exists\nName a file that does \
                         not exist",
                        path = shown(path)
                    ),
                )
            }
            GroupError::Io { path, cause } => Failure::new(
                exit_of_io(cause),
                format!("cannot use the group file {}: {cause}", shown(path)),
            ),
            GroupError::LooseMode { path, mode } => Failure::new(
                Exit::Failed,
                format!(
                    "cannot use the group file {path}: its mode {mode:04o} lets every user read or \
                     change it\nRun `chmod 600 {path}`",
                    path = shown(path)
                ),
            ),
            GroupError::NotAGroupFile(path) => Failure::new(
                Exit::Failed,
                format!(
                    "cannot use the group file {}: it does not hold 64 hex digits\nCreate one \
                     with `qshare group new FILE`",
                    shown(path)
                ),
            ),
        }
    }
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Failure {
        let exit = match &error {
            TrustError::KeyChanged { .. } | TrustError::NotThePinned { .. } => Exit::Refused,
            TrustError::Io { cause, .. } => exit_of_io(cause),
        };
        let remedy = trust_remedy(&error).map_or_else(String::new, |remedy| format!("\n{remedy}"));
        Failure::new(exit, format!("{error}{remedy}"))
    }
}

/// Returns what to do about a tracker whose identity is not the expected one.
fn trust_remedy(error: &TrustError) -> Option<String> {
    match error {
        TrustError::KeyChanged { place, .. } => Some(format!(
            "Somebody may be impersonating it. If it really was set up anew, run `qshare forget \
             {place}`"
        )),
        TrustError::NotThePinned { .. } => Some(
            "Somebody may be impersonating it. If it was set up anew, ask its operator for the new \
             address"
                .to_owned(),
        ),
        TrustError::Io { .. } => None,
    }
}

/// Returns what to do about a tracker that refuses this node, or whose identity is not the
/// expected one.
pub(crate) fn refused_remedy(fault: &TrackerFault) -> Option<String> {
    match fault {
        TrackerFault::Trust(error) => trust_remedy(error),
        fault if fault.is_group_mismatch() => {
            Some("Name the group file that the tracker was started with: --group FILE".to_owned())
        }
        _ => None,
    }
}

impl From<&DiskError> for Failure {
    fn from(error: &DiskError) -> Failure {
        disk(error, Reader::Shell)
    }
}

/// Describes a failure of the local disk.
pub(crate) fn disk(error: &DiskError, reader: Reader) -> Failure {
    let (problem, in_shell, at_prompt) = match error {
        DiskError::Full { doing, path } => (
            format!("cannot {doing} {}: no space left", shown(path)),
            "Free some space, then run the same command again",
            "Free some space, then enter the name again",
        ),
        DiskError::Permission {
            doing,
            path,
            source,
        } => (
            format!("cannot {doing} {}: {source}", shown(path)),
            "Name a directory that you may write to",
            "Allow it, then enter the name again",
        ),
        DiskError::InTheWay { doing, path } => (
            format!(
                "cannot {doing} {}: it is a symbolic link or a file, not a directory",
                shown(path)
            ),
            "Move it away, or name another directory",
            "Move it away, then enter the name again",
        ),
        DiskError::Io {
            doing,
            path,
            source,
        } => (format!("cannot {doing} {}: {source}", shown(path)), "", ""),
    };
    Failure::new(Exit::Disk, reader.advise(problem, in_shell, at_prompt))
}

impl From<HashError> for Failure {
    fn from(error: HashError) -> Failure {
        let message = match &error {
            // A mistyped name is not a problem of the disk.
            HashError::Disk(DiskError::Io {
                doing,
                path,
                source,
            }) if source.kind() == io::ErrorKind::NotFound => {
                format!("cannot {doing} {}: {source}", shown(path))
            }
            HashError::Disk(error) => return error.into(),
            HashError::Changed(path) => format!(
                "cannot hash {}: it changed meanwhile\nTry again when no program writes to it",
                shown(path)
            ),
            HashError::NotAFile(path) => {
                format!(
                    "cannot hash {path}: {path} is not a regular file",
                    path = shown(path)
                )
            }
            HashError::TooLong(path) => {
                format!("cannot hash {}: it is longer than 16 TiB", shown(path))
            }
            HashError::Cancelled => "hashing was cancelled".to_owned(),
        };
        Failure::new(Exit::Failed, message)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        match &error {
            StartError::Disk(disk) => disk.into(),
            StartError::Library(LibraryError::Disk(disk)) => disk.into(),
            StartError::Bind(_) | StartError::Library(_) | StartError::Thread { .. } => {
                Failure::new(Exit::Failed, error.to_string())
            }
        }
    }
}

/// Describes a port that cannot be used, with a command that works.
pub(crate) fn port_in_use(error: &BindError, command: &impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("{error}\nThis works: {command}"))
}

/// Describes an identity that another process uses, with a command that works beside it.
pub(crate) fn identity_in_use(
    error: &IdentityError,
    what: &str,
    command: &impl std::fmt::Display,
) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("{error}\nTo run another {what} beside it: {command}"),
    )
}

/// Describes a `--assets` or `--downloads` that is no directory.
pub(crate) fn not_a_directory(option: &str, path: &Path) -> Failure {
    Failure::new(
        Exit::Failed,
        format!(
            "cannot use {option} {path}: {path} is not a directory\nName the directory to use; to \
             share one file, put it or a hard link to it into a directory of its own",
            path = shown(path)
        ),
    )
}

impl From<&FindError> for Failure {
    fn from(error: &FindError) -> Failure {
        find(error, Reader::Shell)
    }
}

/// Describes a lookup without an answer.
pub(crate) fn find(error: &FindError, reader: Reader) -> Failure {
    match error {
        FindError::NoTracker => Failure::new(
            Exit::Unreachable,
            reader.advise(
                "cannot look anything up: no tracker is configured".into(),
                "Name one: --tracker HOST:PORT",
                "A link with node addresses works without a tracker",
            ),
        ),
        FindError::Unreachable(causes) => Failure::new(
            Exit::Unreachable,
            reader.advise(
                format!("cannot reach {}", list_trackers(causes)),
                match reader {
                    Reader::Get => {
                        "Start a tracker with `qshare tracker`, name another with --tracker \
                         HOST:PORT, or wait with --wait"
                    }
                    Reader::Shell | Reader::Prompt => {
                        "Start a tracker with `qshare tracker`, or name another with --tracker \
                         HOST:PORT"
                    }
                },
                "The node keeps retrying; `status` shows the tracker's state",
            ),
        ),
        FindError::Refused(causes) => {
            let in_shell = causes.iter().find_map(|(_, cause)| refused_remedy(cause));
            let problem = format!("refused: {}", list_trackers(causes));
            let in_shell = in_shell.unwrap_or_default();
            // A running node does not change its group.
            let at_prompt = causes.iter().find_map(|(_, cause)| match cause {
                TrackerFault::Trust(error) => trust_remedy(error),
                _ => None,
            });
            let at_prompt = at_prompt.unwrap_or_default();
            let message = reader.advise(problem, &in_shell, &at_prompt);
            Failure::new(Exit::Refused, message)
        }
        FindError::Internal(cause) => internal(cause),
        FindError::Failed { tracker, cause } => Failure::new(
            Exit::Failed,
            format!(
                "cannot look it up: tracker {} answered: {}",
                tracker.host_port(),
                neutral_line(&cause.to_string())
            ),
        ),
    }
}

/// Describes the loss of a task or thread of this process.
fn internal(cause: &str) -> Failure {
    Failure::internal(neutral_line(cause))
}

impl From<PartFailed> for Failure {
    fn from(error: PartFailed) -> Failure {
        internal(&error.to_string())
    }
}

fn list_trackers(causes: &[(TrackerAddress, TrackerFault)]) -> String {
    let described: Vec<String> = causes
        .iter()
        .map(|(tracker, cause)| {
            let cause = cause.to_string();
            format!("tracker {}: {}", tracker.host_port(), neutral_line(&cause))
        })
        .collect();
    described.join("; ")
}

impl From<&DownloadError> for Failure {
    fn from(error: &DownloadError) -> Failure {
        download(error, Reader::Get)
    }
}

/// Describes a download that ended without its file.
pub(crate) fn download(error: &DownloadError, reader: Reader) -> Failure {
    match error {
        DownloadError::Tracker(error) => find(error, reader),
        DownloadError::Disk(error) => disk(error, reader),
        DownloadError::NoSource { .. } => Failure::new(
            Exit::Unreachable,
            reader.advise(
                neutral_line(&error.to_string()).into_owned(),
                "Fetched data is kept; run the same command again later, or with --wait",
                "Fetched data is kept; enter the name again to resume",
            ),
        ),
        DownloadError::Changed { name } => Failure::new(
            Exit::NotFound,
            reader.advise(
                format!("cannot finish {name}: the file has changed at its source"),
                "Ask for a new link, or get the code again: it leads to the present file",
                "Ask for a new link, or get the code again: it leads to the present file",
            ),
        ),
        DownloadError::VerificationFailed { name } => Failure::new(
            Exit::Unverified,
            reader.advise(
                format!("cannot verify {name}: every source sent wrong bytes"),
                "None of those bytes were kept; try again when other nodes share it",
                "None of those bytes were kept; try again when other nodes share it",
            ),
        ),
        DownloadError::OtherDigest { .. } => Failure::new(
            Exit::Unverified,
            reader.advise(
                format!("cannot accept {error}"),
                "Nothing of it was kept; check the digest, and who shares the file",
                "Nothing of it was kept; check the digest, and who shares the file",
            ),
        ),
        DownloadError::Different { path } => Failure::new(
            Exit::Failed,
            reader.advise(
                format!("cannot write {}: a different file is there", shown(path)),
                "Replace it with --force, or write elsewhere with -o",
                "Move it away, then enter the name again",
            ),
        ),
        DownloadError::NotAFile { path } => Failure::new(
            Exit::Failed,
            reader.advise(
                format!("cannot write {}: it is not a regular file", shown(path)),
                "It is never replaced; write elsewhere with -o",
                "It is never replaced; move it away, then enter the name again",
            ),
        ),
        DownloadError::Open { path, cause } => {
            let (in_shell, at_prompt) = match cause {
                OpenError::OtherUnfinished { .. } => (
                    "Discard that one with --force, or write elsewhere with -o",
                    "Discard that one with `discard NAME`",
                ),
                OpenError::Locked(_) => (
                    "Wait for the other qshare, or stop it",
                    "Wait for the other qshare, or stop it",
                ),
                _ => ("", ""),
            };
            let problem = format!("cannot write {}: {cause}", shown(path));
            Failure::new(Exit::Failed, reader.advise(problem, in_shell, at_prompt))
        }
        DownloadError::Internal(cause) => internal(cause),
        DownloadError::Stopped => Failure::new(Exit::Interrupted, "stopped"),
    }
}

impl From<NetReportError> for Failure {
    fn from(error: NetReportError) -> Failure {
        match error {
            NetReportError::Start(error) => error.into(),
            NetReportError::Identity(error) => error.into(),
            NetReportError::Tracker(error) => (&error).into(),
        }
    }
}

/// Describes a name that no node shares, with similar names.
pub(crate) fn not_found(wanted: &str, near: &[AssetName]) -> String {
    let mut text = format!("no node shares {wanted:?}");
    if !near.is_empty() {
        let near: Vec<String> = near.iter().map(crate::argument::printed_name).collect();
        text += &format!("\nSimilar names: {}", near.join(", "));
    }
    text
}

/// Describes a `discard` that means no unfinished download.
pub(crate) fn nothing_to_discard(text: &str) -> Failure {
    Failure::new(
        Exit::NotFound,
        format!(
            "cannot discard {text:?}: no unfinished download has this name\n`status` lists them"
        ),
    )
}

/// Says how a folder is downloaded; the prompt downloads files.
pub(crate) fn folder_at_the_prompt(argument: &str) -> Failure {
    Failure::new(
        Exit::Usage,
        format!(
            "the prompt downloads files, not folders\nDownload the folder from a shell: qshare get \
             {argument}"
        ),
    )
}

/// Describes a name that no node shares although there are files beneath it.
pub(crate) fn is_a_folder(wanted: &str, command: &str) -> String {
    format!("{wanted:?} is a folder, not a file\nDownload it with a slash at the end: {command}")
}

/// Why `--force` did not replace a file that an argument by content ID led to.
pub(crate) const FORCE_NEEDS_A_NAME: &str =
    "--force does not replace a file whose name only other nodes chose\nName the file: -o FILE";

/// Describes a panic, which is a bug of this program.
pub(crate) fn panicked(cause: &str, place: Option<&std::panic::Location<'_>>) -> String {
    let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
    let problem = Failure::internal(format!("{cause}{place}")).message;
    format!("{problem}\nPlease report this; RUST_BACKTRACE=1 adds details")
}

/// Describes a listing that could not be completed.
pub(crate) fn listing_truncated(shown: usize) -> String {
    format!(
        "the listing is incomplete: it ended after {}. Give a narrower GLOB, or more time with \
         --timeout SECONDS",
        crate::output::count(shown as u64, "file")
    )
}

/// Describes a lookup at the prompt that could not be completed.
pub(crate) fn prompt_listing_truncated(shown: usize) -> String {
    format!(
        "the listing is incomplete: it ended after {}. Enter a narrower glob",
        crate::output::count(shown as u64, "file")
    )
}

/// Describes a node that sent bytes that failed verification.
pub(crate) fn liar(node: &NodeId, content: &ContentId) -> String {
    format!(
        "node {} sent wrong bytes of {}; they were discarded, and it is not asked for that content \
         again",
        node.short(),
        content.short()
    )
}

/// Describes the state of a tracker in a few words.
pub(crate) fn tracker_state(state: &TrackerState) -> String {
    match state {
        TrackerState::Connected { id, seen_at, .. } => match seen_at {
            Some(at) => format!("connected ({}, sees this node at {at})", id.short()),
            None => format!("connected ({})", id.short()),
        },
        TrackerState::Away { cause: Some(cause) } => {
            format!("unreachable: {}", neutral_line(&cause.to_string()))
        }
        TrackerState::Away { cause: None } => "unreachable".to_owned(),
        TrackerState::Refused { cause } => {
            format!("refused: {}", neutral_line(&cause.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::argument::Wanted;

    fn disk(kind: io::ErrorKind) -> DiskError {
        DiskError::new("write", "/x/y", kind.into())
    }

    fn fault(text: &str) -> TrackerFault {
        TrackerFault::Internal(text.into())
    }

    #[test]
    fn the_loss_of_a_task_is_an_internal_error_and_no_interruption() {
        let error = DownloadError::Internal("the download's task panicked".into());
        let failure = Failure::from(&error);
        assert_eq!(failure.exit, Exit::Failed);
        let expected = "internal error: the download's task panicked";
        assert_eq!(failure.message, expected);
        let part = PartFailed {
            part: "upload queue",
            cause: "on purpose".into(),
        };
        let failure = Failure::from(part);
        assert_eq!(failure.message, "internal error: upload queue: on purpose");
        assert_eq!(failure.exit.code(), 1);
    }

    #[test]
    fn codes_are_those_of_the_documentation() {
        let name = AssetName::new("a").unwrap();
        let tracker = || vec![("t:1".parse().unwrap(), fault("why"))];
        let cases: Vec<(DownloadError, u8)> = vec![
            (FindError::NoTracker.into(), 5),
            (FindError::Unreachable(tracker()).into(), 5),
            (FindError::Refused(tracker()).into(), 7),
            (
                DownloadError::NoSource {
                    name: name.clone(),
                    failures: Vec::new(),
                },
                5,
            ),
            (DownloadError::VerificationFailed { name }, 4),
            (DownloadError::Different { path: "a".into() }, 1),
            (disk(io::ErrorKind::StorageFull).into(), 6),
            (disk(io::ErrorKind::PermissionDenied).into(), 6),
            (DownloadError::Stopped, 130),
            (DownloadError::Internal("a task panicked".into()), 1),
            (FindError::Internal("a task panicked".into()).into(), 1),
        ];
        for (error, code) in cases {
            assert_eq!(Failure::from(&error).exit.code(), code, "{error}");
        }
    }

    #[test]
    fn messages_name_the_object_and_the_remedy() {
        let full = Failure::from(&disk(io::ErrorKind::StorageFull)).message;
        assert!(
            full.contains("/x/y") && full.contains("Free some space"),
            "{full}"
        );
        let changed = TrustError::KeyChanged {
            place: "t:1".into(),
            known: NodeId([1; 32]),
            found: NodeId([2; 32]),
        };
        let changed = Failure::from(changed);
        assert_eq!(changed.exit.code(), 7);
        assert!(
            changed.message.contains("qshare forget t:1"),
            "{}",
            changed.message
        );
        let missing = GroupError::Io {
            path: PathBuf::from("team.group"),
            cause: io::ErrorKind::NotFound.into(),
        };
        let missing = Failure::from(missing).message;
        assert!(
            missing.contains("team.group") && missing.contains("group new"),
            "{missing}"
        );
    }

    #[test]
    fn the_prompt_is_not_told_to_use_options() {
        let tracker = vec![("t:1".parse().unwrap(), fault("no answer"))];
        let name = AssetName::new("a").unwrap();
        let failures = Vec::new();
        for error in [
            DownloadError::Tracker(FindError::Unreachable(tracker)),
            DownloadError::Tracker(FindError::NoTracker),
            DownloadError::NoSource { name, failures },
            DownloadError::Disk(disk(io::ErrorKind::StorageFull)),
            DownloadError::Disk(disk(io::ErrorKind::PermissionDenied)),
        ] {
            let said = download(&error, Reader::Prompt).message;
            assert!(!said.contains("--") && !said.contains("command"), "{said}");
            assert!(said.contains('\n'), "no remedy: {said}");
        }
    }

    #[test]
    fn a_broken_link_or_a_code_is_not_repeated() {
        for text in ["qshare:K=geheim", "qshare:x,s=geheim", "7-geheim-walrus"] {
            let error = Wanted::parse(text).unwrap_err();
            let failure = argument(text, &error, Reader::Shell);
            assert_eq!(failure.exit, Exit::Usage);
            assert!(!failure.message.contains("geheim"), "{}", failure.message);
        }
    }

    #[test]
    fn a_missing_name_comes_with_similar_names() {
        let near = [
            AssetName::new("report.pdf").unwrap(),
            AssetName::new("id:abc").unwrap(),
        ];
        assert_eq!(
            not_found("reprot.pdf", &near),
            "no node shares \"reprot.pdf\"\nSimilar names: report.pdf, name:id:abc"
        );
    }

    #[test]
    fn a_panic_is_an_internal_error_with_its_place() {
        let here = std::panic::Location::caller();
        let said = panicked("index out of bounds", Some(here));
        assert!(
            said.starts_with("internal error: index out of bounds ("),
            "{said}"
        );
        assert!(said.contains(here.file()), "{said}");
    }

    #[test]
    fn words_of_a_tracker_stay_on_one_line() {
        let evil = vec![("t:1".parse().unwrap(), fault("x\nqshare: all is well"))];
        let said = find(&FindError::Refused(evil), Reader::Shell).message;
        assert!(!said.contains('\n'), "{said:?}");
    }
}
