//! Files on disk: the files that qshare shares, and the files that it downloads.
//!
//! The crate is blocking, thread-safe and free of tokio; call it from blocking threads. Start with
//!
//! - [`Library`]: shared directories, which are scanned, hashed and followed.
//! - [`Part`]: an unfinished download with its verified and its durable chunks. [`Batch`] writes
//!   small files, [`unfinished`] finds the downloads of earlier runs, and [`TargetLooks`] tells
//!   what is at a download's target.
//!
//! [`build_folder`] makes the manifest of a directory, and [`SharedFolder`] serves its files.
//!
//! docs/format.md describes the format of `.qshare.meta` files. Paths from the network are opened
//! beneath their directory without following symbolic links.

mod batch;
mod beneath;
mod cancel;
mod directories;
mod disk;
mod error;
mod event;
mod existing;
mod folder;
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
mod plain_digest;
mod reading;
mod roots;
mod scanner;
mod settling;
mod share_keys;
mod shared_file;
mod stamp;
mod system;
mod target;
mod temporary;
mod watch;

pub use batch::{Batch, BatchError, SingleChunk};
pub use cancel::Cancel;
pub use error::{DiskError, LibraryError, ReadError};
pub use event::{Asset, LibraryEvent, SkipReason};
pub use existing::{Existing, TargetLook, TargetLooks};
pub use folder::{
    BuiltFolder, FolderError, FolderOptions, FolderPlace, FolderProgress, FolderSkip,
    FolderSkipReason, HashIndex, PlaceError, SharedFolder, build_folder, is_case_insensitive,
};
pub use hashing::{
    HashError, HashOptions, HashPage, HashedFile, OnHashed, THREAD_WORTH_BYTES, hash_file,
    hash_small_files,
};
pub use library::{AdoptError, Library, LibraryConfig, RECONCILE_EVERY};
pub use own_files::{OwnFile, TOKEN_FILE_PREFIX};
pub use part::{
    Durability, FinishError, OpenError, Opened, Part, PartError, PartOptions, ReuseHooks,
    Unfinished, durable_chunks, unfinished,
};
pub use plain_digest::{PrefixDigest, sha256_of_file};
pub use share_keys::{PrivateFile, ShareKeys};
pub use shared_file::SharedFile;
pub use stamp::FileAttributes;
pub use target::Target;
