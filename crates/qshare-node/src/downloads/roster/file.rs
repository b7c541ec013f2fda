//! The file that holds the roster between runs: one JSON object a line (docs/format.md).

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use qshare_content::{AssetName, ContentInfo, Hash, NodeAddress, ShareKey};
use qshare_net::RateLimit;
use qshare_storage::{DiskError, FileAttributes};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::super::folder::{FolderTerms, KnownFolder};
use super::super::follow::Follow;
use super::super::rates::Priority;
use super::table::Row;
use crate::vocabulary::Progress;

/// The version of the format.
const VERSION: u32 = 1;
/// A larger file is not read: 4 million downloads.
const FILE_MAX_BYTES: u64 = 1 << 30;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    qshare_downloads: u32,
}

/// Whether a recorded download runs at the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RecordState {
    /// It runs.
    Running,
    /// It is listed, and waits for its user.
    Paused,
    /// Its user removed it and kept the fetched data, which no start resumes.
    Removed,
}

/// A recorded download, beneath the directory of downloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) name: String,
    length: u64,
    /// Hexadecimal.
    root: String,
    pub(super) state: RecordState,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) force: bool,
    /// The key of a private share.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "key_text")]
    pub(super) key: Option<ShareKey>,
    /// Whether it has a share key. Without one, it does not resume.
    #[serde(
        default,
        rename = "private",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub(super) is_private: bool,
    #[serde(default, skip_serializing_if = "is_normal")]
    pub(super) priority: Priority,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_bytes_per_second: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified_ns: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    executable: bool,
    /// Hexadecimal: the plain SHA-256 that the file must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// What makes it the download of a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) folder: Option<FolderRecord>,
    /// How it is looked up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    follow: Option<FollowRecord>,
    /// The earlier version whose unfinished data this download reuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    supersedes: Option<InfoRecord>,
    added_ms: u64,
}

/// How a download by name is looked up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FollowRecord {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    times: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    executable: bool,
    had: Vec<String>,
}

impl FollowRecord {
    fn new(follow: &Follow) -> FollowRecord {
        FollowRecord {
            name: follow.name.to_string(),
            node: follow.node.map(|node| node.to_string()),
            times: follow.keeps_times,
            executable: follow.keeps_exec,
            had: follow.had.iter().map(ToString::to_string).collect(),
        }
    }

    fn follow(&self) -> Option<Follow> {
        let node = self.node.as_ref().map(|node| node.parse());
        Some(Follow {
            name: AssetName::from_local(&self.name).ok()?,
            node: node.transpose().ok()?,
            keeps_times: self.times,
            keeps_exec: self.executable,
            had: self
                .had
                .iter()
                .filter_map(|node| node.parse().ok())
                .collect(),
        })
    }
}

/// What is recorded of the download of a folder only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FolderRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<InfoRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    include: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    executables: bool,
    #[serde(flatten)]
    known: KnownFolder,
}

/// Length and root of a content; the root is hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct InfoRecord {
    length: u64,
    root: String,
}

impl InfoRecord {
    fn new(info: ContentInfo) -> InfoRecord {
        InfoRecord {
            length: info.length,
            root: info.root.to_string(),
        }
    }

    fn info(&self) -> Option<ContentInfo> {
        Some(ContentInfo {
            length: self.length,
            root: self.root.parse().ok()?,
        })
    }
}

impl FolderRecord {
    fn new(terms: &FolderTerms, progress: &Progress) -> FolderRecord {
        FolderRecord {
            times: terms.times.map(InfoRecord::new),
            include: terms.include.clone(),
            exclude: terms.exclude.clone(),
            executables: terms.keeps_exec,
            known: KnownFolder {
                total_bytes: progress.total_bytes,
                verified_bytes: progress.verified_bytes,
                files: progress.files.unwrap_or_default(),
            },
        }
    }

    fn terms(&self) -> FolderTerms {
        let times = self.times.as_ref().and_then(InfoRecord::info);
        FolderTerms {
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            keeps_exec: self.executables,
            known: self.known,
            ..FolderTerms::new(times)
        }
    }
}

impl Record {
    /// Records a download of `name` beneath the directory.
    pub(super) fn new(name: &AssetName, row: &Row, state: RecordState) -> Record {
        let (info, nodes) = (&row.request.info, &row.request.nodes);
        let folder = row.request.folder.as_ref();
        let added = row.added_at.duration_since(SystemTime::UNIX_EPOCH);
        Record {
            name: name.to_string(),
            length: info.length,
            root: info.root.to_string(),
            state,
            nodes: nodes.iter().map(ToString::to_string).collect(),
            force: row.request.force,
            key: row.request.share_key.clone(),
            is_private: row.request.share_key.is_some(),
            modified_ns: row.request.attributes.modified_ns,
            executable: row.request.attributes.executable,
            sha256: row.request.sha256.map(|digest| digest.to_string()),
            priority: row.priority,
            limit_bytes_per_second: row.limit.bytes_per_second(),
            follow: row.request.follow.as_ref().map(FollowRecord::new),
            supersedes: row.request.supersedes.map(InfoRecord::new),
            folder: folder.map(|terms| FolderRecord::new(terms, &row.progress())),
            added_ms: added.map_or(0, |since| since.as_millis() as u64),
        }
    }

    /// Returns the name; None if it is invalid.
    pub(super) fn name(&self) -> Option<AssetName> {
        AssetName::from_local(&self.name).ok()
    }

    /// Returns length and root, if they are readable.
    pub(super) fn info(&self) -> Option<ContentInfo> {
        let root: Hash = self.root.parse().ok()?;
        Some(ContentInfo {
            length: self.length,
            root,
        })
    }

    pub(super) fn nodes(&self) -> Vec<NodeAddress> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|node| node.parse().ok()).collect()
    }

    /// Returns how it is looked up again.
    pub(super) fn follow(&self) -> Option<Follow> {
        self.follow.as_ref().and_then(FollowRecord::follow)
    }

    /// Returns the earlier version that it goes on from.
    pub(super) fn supersedes(&self) -> Option<ContentInfo> {
        self.supersedes.as_ref().and_then(InfoRecord::info)
    }

    /// Returns what makes it the download of a folder.
    pub(super) fn folder_terms(&self) -> Option<FolderTerms> {
        self.folder.as_ref().map(FolderRecord::terms)
    }

    pub(super) fn attributes(&self) -> FileAttributes {
        FileAttributes {
            modified_ns: self.modified_ns,
            executable: self.executable,
        }
    }

    /// Returns the required digest. A damaged one is met by no file.
    pub(super) fn sha256(&self) -> Option<Hash> {
        let digest = self.sha256.as_ref();
        digest.map(|digest| digest.parse().unwrap_or(Hash::ZERO))
    }

    pub(super) fn limit(&self) -> RateLimit {
        let limit = self.limit_bytes_per_second.map(RateLimit::from_bytes);
        limit.and_then(Result::ok).unwrap_or(RateLimit::NONE)
    }

    pub(super) fn added_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.added_ms)
    }
}

/// A share key as text.
mod key_text {
    use qshare_content::ShareKey;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(
        key: &Option<ShareKey>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = key.as_ref().map(|key| Zeroizing::new(key.to_text()));
        text.as_deref().serialize(serializer)
    }

    /// Reads an unreadable key as none.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ShareKey>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.map(Zeroizing::new);
        Ok(text.and_then(|text| text.parse().ok()))
    }
}

fn is_normal(priority: &Priority) -> bool {
    *priority == Priority::Normal
}

/// Reads all records. A file that does not exist has none, and a damaged line is left out: the
/// download's meta file, if there is one, still resumes it. A file of an unknown format, which a
/// later version wrote, has none either; it is renamed, so that the next write does not replace it.
/// Blocks.
pub(super) fn read(path: &Path) -> Vec<Record> {
    match read_text(path) {
        Ok(text) => parse(&text, path),
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            warn!(path = %path.display(), %error, "cannot read the list of downloads");
            Vec::new()
        }
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_MAX_BYTES {
        return Err(ErrorKind::FileTooLarge.into());
    }
    fs::read_to_string(path)
}

fn parse(text: &str, path: &Path) -> Vec<Record> {
    let mut lines = text.lines();
    let head = lines.next().map(serde_json::from_str::<Head>);
    if !matches!(
        head,
        Some(Ok(Head {
            qshare_downloads: VERSION
        }))
    ) {
        let kept = path.with_extension("unknown");
        let renamed = fs::rename(path, &kept);
        warn!(
            path = %path.display(),
            kept = %kept.display(),
            ?renamed,
            "the list of downloads has an unknown format, and is kept under another name"
        );
        return Vec::new();
    }
    let mut records = Vec::new();
    for line in lines {
        match serde_json::from_str(line) {
            Ok(record) => records.push(record),
            Err(error) => warn!(path = %path.display(), %error, "damaged entry of a download"),
        }
    }
    records
}

/// Replaces the file. Afterwards the new one is durable. Blocks.
pub(super) fn write(path: &Path, records: &[Record]) -> Result<(), DiskError> {
    let failed = |error| DiskError::new("write", path, error);
    let mut text = Vec::new();
    let mut line = |value: serde_json::Result<Vec<u8>>| {
        text.extend(value.map_err(|error| failed(error.into()))?);
        text.push(b'\n');
        Ok::<_, DiskError>(())
    };
    line(serde_json::to_vec(&Head {
        qshare_downloads: VERSION,
    }))?;
    for record in records {
        line(serde_json::to_vec(record))?;
    }
    let new = temporary(path);
    let replace = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    replace().map_err(failed)
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("new")
}

#[cfg(test)]
mod tests {
    use qshare_storage::Target;

    use super::super::super::request::DownloadRequest;
    use super::super::row::RosterState;
    use super::*;

    fn record(name: &str, state: RecordState) -> Record {
        let info = ContentInfo {
            length: 7,
            root: Hash([3; 32]),
        };
        let name = AssetName::new(name).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567);
        let target = Target::beneath("downloads", name.clone());
        let request = DownloadRequest::new(name.clone(), info, target);
        let request = request.sha256(Hash([5; 32]));
        let mut row = Row::new(request, RosterState::Paused, at);
        row.priority = Priority::High;
        row.limit = RateLimit::from_bytes(50_000).unwrap();
        Record::new(&name, &row, state)
    }

    #[test]
    fn records_are_read_back_and_damaged_lines_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("downloads");
        assert_eq!(read(&path), []);
        let records = [
            record("a/b", RecordState::Running),
            record("c", RecordState::Paused),
            record("d", RecordState::Removed),
        ];
        write(&path, &records).unwrap();
        assert_eq!(read(&path), records);
        assert_eq!(
            read(&path)[0].limit(),
            RateLimit::from_bytes(50_000).unwrap()
        );
        assert_eq!(read(&path)[0].sha256(), Some(Hash([5; 32])));
        assert_eq!(records[0].added_at(), read(&path)[0].added_at());
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("\"root\"", "\"toor\"", 1)).unwrap();
        assert_eq!(read(&path), records[1..]);
        let unknown = "{\"qshare_downloads\":2}\n";
        fs::write(&path, unknown).unwrap();
        assert_eq!(read(&path), []);
        write(&path, &records).unwrap();
        let kept = fs::read_to_string(dir.path().join("downloads.unknown"));
        assert_eq!(kept.unwrap(), unknown);
    }

    #[test]
    fn the_file_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("downloads");
        write(&path, &[record("a", RecordState::Running)]).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
