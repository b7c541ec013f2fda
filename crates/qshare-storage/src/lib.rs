//! What qshare keeps on disk: the files it shares, and the files it is still downloading.
//!
//! Blocking and thread-safe: no tokio; call it from blocking threads. Two things matter to
//! the outside:
//!
//! - [`Library`]: shared directories, scanned, hashed, watched; reads checked against change.
//! - [`Part`]: one unfinished download, its verified and its durable chunks; [`Batch`]
//!   for small files, [`unfinished`] for what an earlier run left, [`Existing`] for what lies at
//!   a target.
//!
//! The bytes of `.qshare.meta` files are described in docs/format.md. Names that come from
//! strangers are opened beneath their directory without following symbolic links.

mod batch;
mod beneath;
mod cancel;
mod directories;
mod disk;
mod error;
mod event;
mod existing;
mod followed;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hash_jobs;
mod hashing;
mod index;
mod library;
mod library_state;
mod meta;
mod naming;
mod offered_files;
mod open_files;
mod own_files;
mod part;
mod reading;
mod roots;
mod scanner;
mod settling;
mod shared_file;
mod stamp;
mod system;
mod target;
mod temporary;
mod watch;

pub use batch::{Batch, BatchError, SingleChunk};
pub use cancel::Cancel;
pub use error::DiskError;
pub use event::{Asset, FileAttributes, LibraryEvent, SkipReason};
pub use existing::Existing;
pub use hashing::{
    HashError, HashOptions, HashPage, HashedFile, OnHashed, THREAD_WORTH_BYTES, hash_file,
    hash_small_files,
};
pub use library::{AdoptError, Library, LibraryConfig, LibraryError, RECONCILE_EVERY, ReadError};
pub use own_files::{OwnFile, TOKEN_FILE_PREFIX};
pub use part::{
    Durability, FinishError, OpenError, Opened, Part, PartError, PartOptions, Unfinished,
    unfinished,
};
pub use shared_file::SharedFile;
pub use target::Target;
