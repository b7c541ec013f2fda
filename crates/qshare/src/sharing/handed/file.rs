//! The file that holds the handed-over shares between runs: one JSON object a line
//! (docs/format.md). It holds share keys, so only its owner may read it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use qshare_node::DiskError;
use qshare_node::content::{AssetName, ShareKey};
use serde::{Deserialize, Serialize};
use tracing::warn;
use zeroize::{Zeroize, Zeroizing};

use super::row::ShareId;

/// Name of the file in the state directory.
pub(super) const FILE_NAME: &str = "shares";
/// The version of the format.
const VERSION: u32 = 1;
/// A larger file is not read.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    qshare_shares: u32,
}

/// A share that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: ShareId,
    pub(super) name: AssetName,
    pub(super) path: PathBuf,
    pub(super) is_folder: bool,
    /// The key of a private share.
    pub(super) key: Option<ShareKey>,
    pub(super) has_code: bool,
    /// Receivers that may still be given the link by code; None for any number.
    pub(super) uses_left: Option<u32>,
    pub(super) added_at: SystemTime,
}

impl Record {
    /// Whether two records share one path in one way without end.
    pub(super) fn is_same(&self, other: &Record) -> bool {
        self.path == other.path
            && self.name == other.name
            && self.is_folder == other.is_folder
            && self.key.is_some() == other.key.is_some()
            && self.has_code == other.has_code
            && self.uses_left.is_none()
            && other.uses_left.is_none()
    }

    /// Whether receivers may still be given the link by code.
    pub(super) fn offers_code(&self) -> bool {
        self.has_code && self.uses_left != Some(0)
    }
}

/// A line.
#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    name: String,
    path: String,
    folder: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    code: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uses_left: Option<u32>,
    added_ms: u64,
}

impl Line {
    /// Returns the line of a share; None if its path is not UTF-8.
    fn of(record: &Record) -> Option<Line> {
        let added = record.added_at.duration_since(SystemTime::UNIX_EPOCH);
        Some(Line {
            id: record.id.to_string(),
            name: record.name.to_string(),
            path: record.path.to_str()?.to_owned(),
            folder: record.is_folder,
            key: record.key.as_ref().map(ShareKey::to_text),
            code: record.has_code,
            uses_left: record.uses_left,
            added_ms: added.map_or(0, |since| since.as_millis() as u64),
        })
    }

    /// Returns the share. A key that is not readable leaves the whole line out: without it the
    /// share would be public.
    fn record(self) -> Option<Record> {
        let key = match self.key {
            None => None,
            Some(text) => Some(Zeroizing::new(text).parse::<ShareKey>().ok()?),
        };
        Some(Record {
            id: self.id.parse().ok()?,
            name: AssetName::from_local(&self.name).ok()?,
            path: self.path.into(),
            is_folder: self.folder,
            key,
            has_code: self.code,
            uses_left: self.uses_left,
            added_at: SystemTime::UNIX_EPOCH + Duration::from_millis(self.added_ms),
        })
    }
}

/// Reads all shares. A file that does not exist has none, and a damaged line is left out. Blocks.
pub(super) fn read(path: &Path) -> Vec<Record> {
    match read_text(path) {
        Ok(text) => parse(&text, path),
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            warn!(path = %path.display(), %error, "cannot read the list of shares");
            Vec::new()
        }
    }
}

fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    if fs::metadata(path)?.len() > FILE_MAX_BYTES {
        return Err(ErrorKind::FileTooLarge.into());
    }
    fs::read_to_string(path).map(Zeroizing::new)
}

fn parse(text: &str, path: &Path) -> Vec<Record> {
    let mut lines = text.lines();
    let head = lines.next().map(serde_json::from_str::<Head>);
    let is_known = |head: &Head| head.qshare_shares == VERSION;
    if !matches!(&head, Some(Ok(head)) if is_known(head)) {
        warn!(path = %path.display(), "the list of shares has an unknown format");
        return Vec::new();
    }
    let mut records = Vec::new();
    for line in lines {
        // The error would repeat parts of the line, which holds a secret.
        let record = serde_json::from_str::<Line>(line).ok();
        match record.and_then(Line::record) {
            Some(record) => records.push(record),
            None => warn!(path = %path.display(), "damaged entry of a share"),
        }
    }
    records
}

/// Replaces the file. Afterwards the new one is durable. Blocks.
pub(super) fn write(path: &Path, records: &[Record]) -> Result<(), DiskError> {
    let failed = |error| DiskError::new("write", path, error);
    let mut text = Zeroizing::new(Vec::new());
    let mut line = |value: serde_json::Result<Vec<u8>>| {
        let value = Zeroizing::new(value.map_err(|error| failed(error.into()))?);
        text.extend_from_slice(&value);
        text.push(b'\n');
        Ok::<_, DiskError>(())
    };
    line(serde_json::to_vec(&Head {
        qshare_shares: VERSION,
    }))?;
    for mut record in records.iter().filter_map(Line::of) {
        line(serde_json::to_vec(&record))?;
        record.key.zeroize();
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    let replace = || {
        // Only its owner may read a temporary file.
        let mut new = tempfile::Builder::new()
            .prefix("shares.")
            .suffix(".new")
            .tempfile_in(dir)?;
        new.write_all(&text)?;
        new.as_file().sync_all()?;
        new.persist(path)?;
        File::open(dir)?.sync_all()
    };
    replace().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn record(name: &str, key: Option<u8>) -> Record {
        Record {
            id: ShareId::random(),
            name: AssetName::new(name).unwrap(),
            path: PathBuf::from("/data").join(name),
            is_folder: false,
            key: key.map(|byte| ShareKey::from_bytes([byte; 16])),
            has_code: true,
            uses_left: key.map(u32::from),
            added_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567),
        }
    }

    #[test]
    fn shares_are_read_back_and_only_the_owner_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        assert_eq!(read(&path), []);
        let records = [record("a b", Some(3)), record("c", None)];
        write(&path, &records).unwrap();
        write(&path, &records).unwrap();
        assert_eq!(read(&path), records);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_share_whose_key_is_damaged_does_not_become_public() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let records = [record("a", Some(3)), record("c", None)];
        write(&path, &records).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let key = ShareKey::from_bytes([3; 16]).to_text();
        fs::write(&path, text.replace(&key, "damaged")).unwrap();
        assert_eq!(read(&path), records[1..]);
        fs::write(&path, "{\"qshare_shares\":2}\n").unwrap();
        assert_eq!(read(&path), []);
    }
}
