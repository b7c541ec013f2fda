//! The demo's temporary directory, with files to share.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use qshare_node::content::{AssetName, ContentInfo};
use qshare_node::{DiskError, hash_file};
use tempfile::TempDir;

use crate::exit::{Exit, Failure};

/// The file that is large enough for several sources.
pub(super) const GENERATED: &str = "generated.bin";
/// An empty configuration file, which replaces the user's.
pub(super) const NO_CONFIGURATION: &str = "config.toml";
/// Maximum size of the files that are copied from the user's own assets.
const ASSETS_MAX_BYTES: u64 = 16 << 20;

pub(super) struct Stage {
    temporary: TempDir,
    pub(super) size_bytes: u64,
    pub(super) generated: ContentInfo,
    /// Number of small files.
    pub(super) assets: usize,
    pub(super) assets_from: &'static str,
}

impl Stage {
    pub(super) fn set(size_bytes: u64) -> Result<Stage, Failure> {
        let temporary = tempfile::Builder::new().prefix("qshare-demo-").tempdir();
        let temporary =
            temporary.map_err(|error| disk("make a directory in", &std::env::temp_dir(), error))?;
        let configuration = temporary.path().join(NO_CONFIGURATION);
        fs::write(&configuration, "").map_err(|error| disk("write", &configuration, error))?;
        let shared = temporary.path().join("first/assets");
        fs::create_dir_all(&shared).map_err(|error| disk("make", &shared, error))?;
        let mut budget = ASSETS_MAX_BYTES;
        let mut assets = copy_small(Path::new("assets"), &shared, &mut budget);
        let mut assets_from = "./assets";
        if assets == 0 {
            assets_from = "this program";
            let greeting = shared.join("hello.txt");
            fs::write(&greeting, "Hello from the qshare demo.\n")
                .map_err(|error| disk("write", &greeting, error))?;
            assets = 1;
        }
        let path = shared.join(GENERATED);
        write_noise(&path, size_bytes).map_err(|error| disk("write", &path, error))?;
        let generated = hash_file(&path, &Default::default())?.info;
        Ok(Stage {
            temporary,
            size_bytes,
            generated,
            assets,
            assets_from,
        })
    }

    pub(super) fn dir(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    pub(super) fn generated_name(&self) -> Result<AssetName, Failure> {
        AssetName::new(GENERATED).map_err(|error| Failure::new(Exit::Failed, error.to_string()))
    }

    /// Removes the downloads of a node.
    pub(super) fn clear(&self, name: &str) -> Result<(), Failure> {
        let dir = self.dir(name);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(disk("remove", &dir, error))
            }
            _ => Ok(()),
        }
    }

    /// Returns the paths of all shared files, relative to the shared directory.
    pub(super) fn names(&self) -> Result<Vec<PathBuf>, Failure> {
        let root = self.dir("first/assets");
        let mut names = Vec::new();
        list(&root, Path::new(""), &mut names).map_err(|error| disk("list", &root, error))?;
        Ok(names)
    }
}

fn disk(doing: &'static str, path: &Path, error: io::Error) -> Failure {
    (&DiskError::new(doing, path, error)).into()
}

fn list(root: &Path, beneath: &Path, names: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(beneath))? {
        let entry = entry?;
        let name = beneath.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => list(root, &name, names)?,
            false => names.push(name),
        }
    }
    Ok(())
}

/// Copies regular files up to the budget; unreadable ones are left out.
fn copy_small(from: &Path, to: &Path, budget: &mut u64) -> usize {
    let Ok(entries) = fs::read_dir(from) else {
        return 0;
    };
    let mut copied = 0;
    for entry in entries.flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let Ok(metadata) = fs::symlink_metadata(&source) else {
            continue;
        };
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if metadata.is_dir() && !hidden && fs::create_dir_all(&target).is_ok() {
            copied += copy_small(&source, &target, budget);
        } else if metadata.is_file() && !hidden && metadata.len() <= *budget {
            *budget -= metadata.len();
            copied += usize::from(fs::copy(&source, &target).is_ok());
        }
    }
    copied
}

/// Writes pseudo-random bytes, so that no two chunks are equal.
fn write_noise(path: &Path, length: u64) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut left = length;
    while left > 0 {
        // xorshift64 (Marsaglia, 2003) is fast; the quality of its randomness does not matter here.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let count = left.min(8);
        file.write_all(&state.to_le_bytes()[..count as usize])?;
        left -= count;
    }
    file.flush()
}
