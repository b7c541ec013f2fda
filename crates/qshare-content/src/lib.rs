//! Content: the identifiers of a file's bytes, their division into chunks, and their hash tree.
//!
//! Pure: no tokio, no quinn, no files. A clock is read once, to compare the hashing kernels.
//! Start with [`ContentInfo`] (length and root, hence [`ContentId`]), then [`Chunks`] (the
//! division into chunks), then [`tree`] (the verification of a chunk against the root).
//! [`AssetName`], [`Query`], [`Link`] and [`Code`] are what people type. [`manifest`] lists what a
//! folder holds.

mod address;
mod answer;
mod bitmap;
mod chunks;
mod code;
pub mod fair;
mod glob;
mod id;
mod link;
pub mod manifest;
mod metadata;
mod name;
mod plain_digest;
mod query;
mod sha256;
mod share_key;
pub mod tree;

pub use address::{
    DEFAULT_TRACKER_PORT, NodeAddress, NodeAddressError, TrackerAddress, TrackerAddressError,
};
pub use answer::AnswerFilter;
pub use bitmap::Bitmap;
pub use chunks::{ChunkIndex, Chunks, LEAF_BYTES, LENGTH_MAX_BYTES};
pub use code::{CODE_BITS, Code, CodeError, WrongWords, code_words};
pub use glob::{GLOB_MAX_BYTES, GlobError, NamePattern};
pub use id::{ContentId, ContentInfo, Hash, IdParseError, IdPrefix, NodeId};
pub use link::{FolderLink, Link, LinkParseError};
pub use metadata::{FileMetadata, METADATA_MAX_BYTES, MODIFIED_MAX_NS, MetadataError};
pub use name::{AssetName, META_SUFFIX, NAME_MAX_BYTES, NameError, PART_SUFFIX};
pub use plain_digest::PlainDigest;
pub use query::{Query, QueryParseError, is_glob};
pub use share_key::{ShareKey, ShareKeyError, Topic};
