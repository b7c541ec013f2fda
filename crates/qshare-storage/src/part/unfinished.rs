//! The unfinished downloads of earlier runs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use qshare_content::{AssetName, Bitmap, Chunks, ContentInfo, META_SUFFIX, ShareKey};

use crate::meta::{HEAD_BYTES, Head, HeadRead, Layout, Slot};
use crate::system::read_exact_at;
use crate::target::{Target, working_name};

/// An unfinished download of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The target, for [`crate::Part::open`].
    pub target: Target,
    /// Its name beneath the directory.
    pub name: AssetName,
    /// Length and root of the content.
    pub info: ContentInfo,
    /// The key of a private share.
    pub share_key: Option<ShareKey>,
    /// Durable chunks according to the last checkpoint.
    pub durable_chunks: u32,
}

/// Finds the unfinished downloads beneath a directory by their meta files, in the order of their
/// names. Unreadable and damaged meta files are left out, and a missing directory has none.
pub fn unfinished(dir: &Path) -> Vec<Unfinished> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let Ok(entries) = fs::read_dir(dir.join(&relative)) else {
            continue;
        };
        for entry in entries.flatten() {
            let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else {
                continue;
            };
            let inner = relative.join(&name);
            if kind.is_dir() && !name.starts_with('.') {
                pending.push(inner);
            } else if kind.is_file()
                && name.ends_with(META_SUFFIX)
                && let Some((head, durable_chunks)) = read(&entry.path())
                && let Some(file_name) = final_name(&name, &head)
                && let Some(text) = relative.join(file_name).to_str()
                && let Ok(name) = AssetName::from_local(text)
            {
                let info = head.info;
                found.push(Unfinished {
                    target: Target::beneath(dir, name.clone()),
                    name,
                    info,
                    share_key: head.share_key,
                    durable_chunks,
                });
            }
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// Returns the durable chunks of an unfinished download, as its meta file notes them at the last
/// checkpoint; None if there is no readable meta file of this content. Reads no data and takes no
/// lock, so the download may be running. Blocks.
pub fn durable_chunks(target: &Target, info: ContentInfo) -> Option<Bitmap> {
    let path = target.path();
    let meta = path.with_file_name(working_name(path.file_name()?, META_SUFFIX));
    let file = File::open(meta).ok()?;
    let HeadRead::Good(head) = read_head(&file).ok()? else {
        return None;
    };
    let chunks = Chunks::of_length(info.length);
    let is_same = head.info == info;
    let slot = is_same.then(|| latest_slot(&file, &head, &chunks))?;
    Some(slot.map_or_else(|| Bitmap::new(chunks.count()), |slot| slot.durable))
}

/// The name of the file that a meta file belongs to. The meta file's own name does not show it
/// if it was too long; then the head does.
fn final_name(meta_name: &str, head: &Head) -> Option<String> {
    let of_head = head.name.rsplit('/').next().unwrap_or(&head.name);
    if working_name(OsStr::new(of_head), META_SUFFIX) == meta_name {
        return Some(of_head.to_owned());
    }
    // The user has renamed both working files.
    meta_name.strip_suffix(META_SUFFIX).map(str::to_owned)
}

/// Returns the head of a meta file, and how many chunks it has noted as durable.
fn read(path: &Path) -> Option<(Head, u32)> {
    let file = File::open(path).ok()?;
    let HeadRead::Good(head) = read_head(&file).ok()? else {
        return None;
    };
    let chunks = Chunks::of_length(head.info.length);
    let slot = latest_slot(&file, &head, &chunks);
    Some((head, slot.map_or(0, |slot| slot.durable.count())))
}

/// Reads the head of a meta file.
pub(super) fn read_head(file: &File) -> io::Result<HeadRead> {
    let mut bytes = Vec::new();
    let mut start = file;
    io::Seek::rewind(&mut start)?;
    start.take(HEAD_BYTES).read_to_end(&mut bytes)?;
    Ok(Head::decode(&bytes))
}

/// The valid slot with the larger generation.
pub(super) fn latest_slot(file: &File, head: &Head, chunks: &Chunks) -> Option<Slot> {
    let layout = Layout::of(chunks);
    (0..2)
        .filter_map(|generation| {
            let mut bytes = vec![0; layout.slot_bytes()];
            read_exact_at(file, &mut bytes, layout.slot_offset(generation)).ok()?;
            Slot::decode(&bytes, &head.id, chunks)
        })
        .max_by_key(|slot| slot.generation)
}
