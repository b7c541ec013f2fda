//! Sharing files and folders from where they lie: by `qshare share` in the foreground, and by a
//! running node to which a path was handed.

mod cancel;
mod code;
mod handed;
mod link;
mod path;

pub(crate) use cancel::CancelOnDrop;
pub(crate) use code::{ShareCode, ShownCode, is_end, shown as shown_code};
pub(crate) use handed::{
    AddError, Handed, HandedConfig, HandedShares, HandedState, Happening, NewHanded, ShareId,
};
pub(crate) use link::{link_to, pinned};
pub(crate) use path::{PathError, SharedPath};
