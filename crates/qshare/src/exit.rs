//! How a command ends: exit codes, and failures with their message.

/// An exit code of the program. In ascending order of urgency: the code of several failures is
/// their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Any failure without a code of its own, internal errors among them.
    Failed,
    /// Wrong arguments.
    Usage,
    /// The name does not exist, or is ambiguous.
    NotFound,
    /// No tracker or no source can be reached.
    Unreachable,
    /// Every source sent bytes that failed verification.
    Unverified,
    /// The local disk is full, not writable or failing.
    Disk,
    /// The tracker's key changed, or the group does not match.
    Refused,
    /// Ctrl-C or SIGTERM; fetched data is kept.
    Interrupted,
}

impl Exit {
    /// Returns the exit code of the process.
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

/// Why a command failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code, for scripts.
    pub(crate) exit: Exit,
    /// The message, for people; empty if it has been printed.
    pub(crate) message: String,
}

impl Failure {
    /// Creates a failure with a message.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
        }
    }

    /// Creates a failure whose message has been printed.
    pub(crate) fn printed(exit: Exit) -> Failure {
        Failure::new(exit, "")
    }

    /// Creates a failure of the program itself: a bug.
    pub(crate) fn internal(what: impl std::fmt::Display) -> Failure {
        Failure::new(Exit::Failed, format!("internal error: {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_failures_is_the_maximum() {
        assert_eq!(Exit::NotFound.max(Exit::Disk), Exit::Disk);
        assert_eq!(Exit::Interrupted.max(Exit::Refused), Exit::Interrupted);
        assert_eq!(Exit::Unreachable.max(Exit::Unverified), Exit::Unverified);
    }
}
