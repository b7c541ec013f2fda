//! The wording of every error, with its remedy.
//!
//! Libraries return typed errors. This module alone decides the wording of an error, its exit code,
//! and its remedy. An error names the operation, the object and the cause; the remedy follows on a
//! line of its own.

mod argument;
mod codes;
mod configuration;
mod control;
mod disk;
mod download;
mod identity;
mod lookup;
mod reader;
mod web;

use qshare_node::{BindError, LibraryError, NetReportError, PartFailed, StartError};

use crate::exit::{Exit, Failure};
use crate::neutral::neutral_line;

pub(crate) use argument::argument;
pub(crate) use codes::{code_event, redeem};
pub(crate) use configuration::{configuration, no_such_command};
pub(crate) use control::{
    client, no_control_socket, no_download, no_node, no_share, node_stopped, not_shareable,
};
pub(crate) use disk::{disk, not_a_directory};
pub(crate) use download::{FORCE_NEEDS_A_NAME, download, liar, nothing_to_discard};
pub(crate) use identity::identity_in_use;
pub(crate) use lookup::{
    find, is_a_folder, listing_truncated, not_found, prompt_listing_truncated, tracker_state,
};
pub(crate) use reader::Reader;
pub(crate) use web::http_needs_token;

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

/// Describes a panic, which is a bug of this program.
pub(crate) fn panicked(cause: &str, place: Option<&std::panic::Location<'_>>) -> String {
    let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
    let problem = Failure::internal(format!("{cause}{place}")).message;
    format!("{problem}\nPlease report this; RUST_BACKTRACE=1 adds details")
}

impl From<PartFailed> for Failure {
    fn from(error: PartFailed) -> Failure {
        Failure::internal(neutral_line(&error.to_string()))
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use qshare_node::content::{AssetName, NodeId};
    use qshare_node::{DiskError, DownloadError, FindError, GroupError, TrackerFault, TrustError};

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
