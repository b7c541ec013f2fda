//! Identities, groups, and whom to trust.

use std::io;

use qshare_node::{GroupError, IdentityError, TrackerFault, TrustError};

use super::disk::exit_of_io;
use crate::exit::{Exit, Failure};
use crate::neutral::shown;

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
pub(super) fn trust_remedy(error: &TrustError) -> Option<String> {
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
