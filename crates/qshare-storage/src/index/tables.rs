//! The tables of the database: their keys, values and changes.

use std::path::Path;

use qshare_content::{Chunks, ContentId, Hash, tree};
use redb::{Database, DatabaseError, Durability, ReadableTable, TableDefinition};

use super::Entry;
use crate::meta::encode_hashes;
use crate::own_files::SMALL_MAX_BYTES;
use crate::stamp::Stamp;

/// Size of redb's cache; its default is 1 GiB. A page of chunk hashes has 128 KiB, an entry of a
/// file 72 bytes. A restart looks files up roughly in their order on disk, and is as fast with
/// 2 MiB as with 8 MiB.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

pub(super) const FILES: TableDefinition<'_, [u8; 16], [u8; 56]> = TableDefinition::new("files");
pub(super) const HASHES: TableDefinition<'_, [u8; 36], &[u8]> = TableDefinition::new("hashes");
const FORMAT: TableDefinition<'_, &str, u64> = TableDefinition::new("format");
const VERSION: u64 = 2;
pub(super) const PAGE_ROOTS: TableDefinition<'_, [u8; 32], &[u8]> =
    TableDefinition::new("page_roots");

pub(super) fn try_put<'a>(
    database: &Database,
    hashed: impl Iterator<Item = Entry<'a>>,
    durable: bool,
) -> Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    write.set_durability(if durable {
        Durability::Immediate
    } else {
        Durability::None
    })?;
    {
        let mut files = write.open_table(FILES)?;
        let mut tables = (write.open_table(HASHES)?, write.open_table(PAGE_ROOTS)?);
        for Entry {
            stamp,
            info,
            hashes,
        } in hashed
        {
            if let Some(stamp) = stamp {
                files.insert(file_key(stamp), file_value(stamp, &info.root))?;
            }
            let chunks = Chunks::of_length(info.length);
            if chunks.count() == 1 {
                continue;
            }
            let id = info.id();
            let mut roots = Vec::new();
            for (page, hashes) in hashes.chunks(tree::PAGE_CHUNKS as usize).enumerate() {
                let key = page_key(&id, page as u32);
                tables.0.insert(key, encode_hashes(hashes).as_slice())?;
                roots.push(tree::page_root(&chunks, hashes));
            }
            if roots.len() > 1 {
                tables.1.insert(id.0, encode_hashes(&roots).as_slice())?;
            }
        }
    }
    write.commit()?;
    Ok(())
}

pub(super) fn try_retain(
    database: &Database,
    live_file: impl Fn(u64, u64) -> bool,
    live_content: impl Fn(&ContentId) -> bool,
) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(FILES)?.retain(|key, _| {
        let (device, inode) = split_u64s(&key);
        live_file(device, inode)
    })?;
    write.open_table(HASHES)?.retain(|key, _| {
        key.first_chunk()
            .is_some_and(|id| live_content(&ContentId(*id)))
    })?;
    write
        .open_table(PAGE_ROOTS)?
        .retain(|id, _| live_content(&ContentId(id)))?;
    write.commit()?;
    Ok(())
}

pub(super) fn open_database(path: &Path) -> Result<Database, redb::Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let database = builder.create(path).map_err(|error| match error {
        DatabaseError::LockProtocolMismatch => redb::Error::DatabaseAlreadyOpen,
        other => other.into(),
    })?;
    let write = database.begin_write()?;
    // Creates the tables, so that readers find them.
    let mut files = write.open_table(FILES)?;
    let mut format = write.open_table(FORMAT)?;
    let version = format.get("version")?.map(|version| version.value());
    if version != Some(VERSION) {
        // Version 1 did not recognise qshare's own files by their bytes.
        files.retain(|_, value| {
            let size = value.first_chunk().map(|size| u64::from_le_bytes(*size));
            size.is_some_and(|size| size > SMALL_MAX_BYTES)
        })?;
        format.insert("version", VERSION)?;
    }
    drop((files, format));
    write.open_table(HASHES)?;
    write.open_table(PAGE_ROOTS)?;
    write.commit()?;
    Ok(database)
}

pub(super) fn file_key(stamp: &Stamp) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&stamp.device.to_be_bytes());
    key[8..].copy_from_slice(&stamp.inode.to_be_bytes());
    key
}

fn split_u64s(key: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_be_bytes(*key);
    ((both >> 64) as u64, both as u64)
}

pub(super) fn stamp_times(stamp: &Stamp) -> [u8; 24] {
    let mut times = [0; 24];
    times[..8].copy_from_slice(&stamp.size.to_le_bytes());
    times[8..16].copy_from_slice(&stamp.mtime_ns.to_le_bytes());
    times[16..].copy_from_slice(&stamp.ctime_ns.to_le_bytes());
    times
}

pub(super) fn file_value(stamp: &Stamp, root: &Hash) -> [u8; 56] {
    let mut value = [0; 56];
    value[..24].copy_from_slice(&stamp_times(stamp));
    value[24..].copy_from_slice(&root.0);
    value
}

pub(super) fn page_key(id: &ContentId, page: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&id.0);
    key[32..].copy_from_slice(&page.to_be_bytes());
    key
}
