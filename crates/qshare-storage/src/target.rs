//! Where a download goes.

use std::path::{Path, PathBuf};

use qshare_content::AssetName;

/// Where a download goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A stranger's name beneath a directory of ours: sub-directories are made as needed, and
    /// symbolic links beneath the directory are never followed.
    Beneath {
        /// The directory; made if it is not there.
        base: PathBuf,
        /// The name beneath it.
        name: AssetName,
    },
    /// A path that the user chose; links in its directory part are the user's own.
    Path(PathBuf),
}

impl Target {
    /// A name beneath a directory.
    pub fn beneath(base: impl AsRef<Path>, name: AssetName) -> Target {
        Target::Beneath {
            base: base.as_ref().to_path_buf(),
            name,
        }
    }

    /// The final path.
    pub fn path(&self) -> PathBuf {
        match self {
            Target::Beneath { base, name } => base.join(name.as_str()),
            Target::Path(path) => path.clone(),
        }
    }
}
