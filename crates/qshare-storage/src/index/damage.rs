//! Damage of the database, which redb reports by an error or a panic.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The reason why an operation on the database failed.
pub(super) enum Failure {
    /// The database is damaged.
    Damage(String),
    Other(redb::Error),
}

/// Runs an operation of redb, which reports damage by an error or a panic.
pub(super) fn guard<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if is_damage(&error) => Err(Failure::Damage(error.to_string())),
        Ok(Err(error)) => Err(Failure::Other(error)),
        Err(panic) => Err(Failure::Damage(panic_message(&*panic))),
    }
}

/// Returns whether an error means a damaged database, not a failed disk or a wrong call.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        ),
        redb::Error::DatabaseAlreadyOpen | redb::Error::ValueTooLarge(_) => false,
        _ => true,
    }
}

/// Returns the message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}
