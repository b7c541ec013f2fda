//! How a command ends: exit codes, and messages that name the thing, the cause and the way out.

use std::io;

use qshare_node::{
    DiskError, DownloadError, FindError, GroupError, HashError, IdentityError, StartError,
    TrustError,
};

/// What the exit code says. In ascending order of what a person should look at first, so that
/// the worst of several is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Anything that has no code of its own.
    Failed,
    /// Wrong arguments.
    Usage,
    /// No such name, or several.
    NotFound,
    /// No tracker, or nobody who has it.
    Unreachable,
    /// Everybody who has it sent wrong bytes.
    Unverified,
    /// Full, or not allowed.
    Disk,
    /// The tracker's key changed, or the group does not match.
    Refused,
    /// Ctrl-C or SIGTERM; what was fetched is kept.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Unverified => 4,
            Exit::Unreachable => 5,
            Exit::Disk => 6,
            Exit::Refused => 7,
            Exit::Interrupted => 130,
        }
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For scripts.
    pub(crate) exit: Exit,
    /// For people; empty if everything was said already.
    pub(crate) message: String,
}

impl Failure {
    /// A failure with its message.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
        }
    }

    /// A failure whose message has been printed.
    pub(crate) fn said(exit: Exit) -> Failure {
        Failure::new(exit, "")
    }
}

/// The code for something that the system said about a file.
fn exit_of_io(error: &io::Error) -> Exit {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Exit::Disk,
        Kind::StorageFull | Kind::QuotaExceeded => Exit::Disk,
        _ => Exit::Failed,
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Failure {
        match &error {
            IdentityError::Io { cause, .. } => Failure::new(
                exit_of_io(cause),
                format!(
                    "the identity cannot be used: {error}\nName another directory: --certs DIR"
                ),
            ),
            IdentityError::InUse { .. }
            | IdentityError::Damaged { .. }
            | IdentityError::NoDirectory => Failure::new(Exit::Failed, error.to_string()),
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
                        "there is no group file {path}; make one with `qshare group new FILE`, or \
                         get it from somebody who belongs to the group",
                        path = path.display()
                    ),
                )
            }
            GroupError::Io { path, cause } if cause.kind() == io::ErrorKind::AlreadyExists => {
                Failure::new(
                    Exit::Failed,
                    format!(
                        "{path} exists and is left alone; name a file that does not exist",
                        path = path.display()
                    ),
                )
            }
            GroupError::Io { cause, .. } => Failure::new(exit_of_io(cause), error.to_string()),
            GroupError::NotAGroupFile(_) => Failure::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Failure {
        let exit = match &error {
            TrustError::KeyChanged { .. } | TrustError::NotThePinned { .. } => Exit::Refused,
            TrustError::Io { cause, .. } => exit_of_io(cause),
        };
        Failure::new(exit, error.to_string())
    }
}

impl From<&DiskError> for Failure {
    fn from(error: &DiskError) -> Failure {
        let way_out = match error {
            DiskError::Full { .. } => "\nFree some space, then run the same command again",
            DiskError::Permission { .. } => "\nName a directory that you may write to",
            DiskError::InTheWay { .. } => "\nMove it away, or name another directory",
            DiskError::Io { .. } => "",
        };
        Failure::new(Exit::Disk, format!("{error}{way_out}"))
    }
}

impl From<HashError> for Failure {
    fn from(error: HashError) -> Failure {
        match &error {
            // A name that was mistyped is no trouble of the disk.
            HashError::Disk(DiskError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Failure::new(Exit::Failed, error.to_string())
            }
            HashError::Disk(disk) => disk.into(),
            HashError::Changed(_) => Failure::new(
                Exit::Failed,
                format!("{error}; try again when nobody writes to it"),
            ),
            HashError::Cancelled | HashError::NotAFile(_) | HashError::TooLong(_) => {
                Failure::new(Exit::Failed, error.to_string())
            }
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        match &error {
            StartError::Disk(disk) => disk.into(),
            StartError::Bind(_) | StartError::Library(_) => {
                Failure::new(Exit::Failed, error.to_string())
            }
        }
    }
}

impl From<&FindError> for Failure {
    fn from(error: &FindError) -> Failure {
        match error {
            FindError::NoTracker => Failure::new(
                Exit::Unreachable,
                "no tracker to ask; name one: --tracker HOST:PORT",
            ),
            FindError::Unreachable(_) => Failure::new(
                Exit::Unreachable,
                format!(
                    "{error}\nStart one with `qshare tracker`, or name another with \
                     --tracker HOST:PORT"
                ),
            ),
            FindError::Refused(_) => Failure::new(Exit::Refused, error.to_string()),
            FindError::Failed { .. } => Failure::new(Exit::Failed, error.to_string()),
        }
    }
}

impl From<&DownloadError> for Failure {
    fn from(error: &DownloadError) -> Failure {
        match error {
            DownloadError::Tracker(find) => find.into(),
            DownloadError::Disk(disk) => disk.into(),
            DownloadError::NoSource { .. } => Failure::new(
                Exit::Unreachable,
                format!(
                    "{error}\nWhat was fetched is kept; run the same command again later, or with \
                     --wait"
                ),
            ),
            DownloadError::VerificationFailed { .. } => Failure::new(
                Exit::Unverified,
                format!("{error}\nNone of those bytes were kept; try again when others share it"),
            ),
            DownloadError::InTheWay { .. } => Failure::new(Exit::Failed, error.to_string()),
            DownloadError::Stopped => Failure::new(Exit::Interrupted, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use qshare_node::content::{AssetName, NodeId};

    use super::*;

    fn disk(kind: io::ErrorKind) -> DiskError {
        DiskError::new("write", "/x/y", kind.into())
    }

    #[test]
    fn codes_are_those_of_the_documentation() {
        let name = AssetName::new("a").unwrap();
        let tracker = || vec![("t:1".parse().unwrap(), "why".to_owned())];
        let cases: Vec<(DownloadError, u8)> = vec![
            (FindError::NoTracker.into(), 5),
            (FindError::Unreachable(tracker()).into(), 5),
            (FindError::Refused(tracker()).into(), 7),
            (
                DownloadError::NoSource {
                    name: name.clone(),
                    detail: String::new(),
                },
                5,
            ),
            (DownloadError::VerificationFailed { name }, 4),
            (
                DownloadError::InTheWay {
                    path: "a".into(),
                    why: "other".into(),
                },
                1,
            ),
            (disk(io::ErrorKind::StorageFull).into(), 6),
            (disk(io::ErrorKind::PermissionDenied).into(), 6),
            (DownloadError::Stopped, 130),
        ];
        for (error, code) in cases {
            assert_eq!(Failure::from(&error).exit.code(), code, "{error}");
        }
    }

    #[test]
    fn messages_name_the_thing_and_the_way_out() {
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
    fn the_worst_of_several_failures_is_the_maximum() {
        assert_eq!(Exit::NotFound.max(Exit::Disk), Exit::Disk);
        assert_eq!(Exit::Interrupted.max(Exit::Refused), Exit::Interrupted);
        assert_eq!(Exit::Unreachable.max(Exit::Unverified), Exit::Unverified);
    }
}
