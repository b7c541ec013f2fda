//! Walks a directory in the order of a manifest.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{FileType, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use qshare_content::manifest::LinkTarget;
use qshare_content::{AssetName, LENGTH_MAX_BYTES, NameError};

use super::{FolderError, FolderSkip, FolderSkipReason, failed};
use crate::stamp::{DirectoryStamp, Stamp};
use crate::system::{directory_stamp_of, stamp_of};

/// An entry of the directory.
pub(super) enum Seen {
    File {
        name: AssetName,
        path: PathBuf,
        stamp: Stamp,
    },
    Symlink {
        name: AssetName,
        target: LinkTarget,
    },
    EmptyDirectory {
        name: AssetName,
    },
}

/// A walk over one directory. Links are not followed, except for the directory itself.
pub(super) struct Walk<'a> {
    root: &'a Path,
    /// The directory without links, to judge where links lead.
    real_root: PathBuf,
    exclude: HashSet<PathBuf>,
    skipped: &'a (dyn Fn(FolderSkip) + Sync),
    /// The directories that were read, as they were before.
    directories: Mutex<Vec<(PathBuf, DirectoryStamp)>>,
}

/// A child of a directory that is being read.
struct Child {
    /// The last component of its name, in normal form C.
    component: String,
    file_name: OsString,
    kind: FileType,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        root: &'a Path,
        exclude: &[PathBuf],
        skipped: &'a (dyn Fn(FolderSkip) + Sync),
    ) -> Result<Walk<'a>, FolderError> {
        let real_root = root.canonicalize().map_err(failed("read", root))?;
        let real = |path: &PathBuf| path.canonicalize().ok();
        Ok(Walk {
            root,
            real_root,
            exclude: exclude.iter().filter_map(real).collect(),
            skipped,
            directories: Mutex::default(),
        })
    }

    /// Passes every entry to `visit`, in the order of names.
    pub(super) fn run(
        &self,
        visit: &mut dyn FnMut(Seen) -> Result<(), FolderError>,
    ) -> Result<(), FolderError> {
        // An unreadable directory inside is skipped, but not this one.
        let children = self.children(self.root);
        let children = children.map_err(failed("read", self.root))?;
        self.visit_all(self.root, None, children, visit).map(drop)
    }

    /// Visits children. Returns whether any of them is part of the folder.
    fn visit_all(
        &self,
        dir: &Path,
        name: Option<&AssetName>,
        children: Vec<Child>,
        visit: &mut dyn FnMut(Seen) -> Result<(), FolderError>,
    ) -> Result<bool, FolderError> {
        let mut any = false;
        let mut last: Option<String> = None;
        for child in children {
            let path = dir.join(&child.file_name);
            let full = match name {
                Some(name) => format!("{name}/{}", child.component),
                None => child.component.clone(),
            };
            let name = match AssetName::new(full) {
                Ok(name) => name,
                Err(NameError::Hidden(_) | NameError::OwnSuffix(_)) => continue,
                Err(error) => {
                    self.skip(path, error);
                    continue;
                }
            };
            if last.as_ref() == Some(&child.component) {
                self.skip(path, FolderSkipReason::Twice);
                continue;
            }
            last = Some(child.component);
            any |= self.visit_one(path, name, child.kind, visit)?;
        }
        Ok(any)
    }

    fn visit_one(
        &self,
        path: PathBuf,
        name: AssetName,
        kind: FileType,
        visit: &mut dyn FnMut(Seen) -> Result<(), FolderError>,
    ) -> Result<bool, FolderError> {
        if kind.is_dir() {
            if self.is_excluded(&path) {
                return Ok(false);
            }
            let children = match self.children(&path) {
                Ok(children) => children,
                Err(error) => {
                    self.skip_unread(path, error);
                    return Ok(false);
                }
            };
            if !self.visit_all(&path, Some(&name), children, visit)? {
                visit(Seen::EmptyDirectory { name })?;
            }
            return Ok(true);
        }
        if kind.is_symlink() {
            let target = match self.target(&path, &name) {
                Ok(Some(target)) => target,
                Ok(None) => {
                    self.skip(path, FolderSkipReason::LinkOutside);
                    return Ok(false);
                }
                Err(error) => {
                    self.skip_unread(path, error);
                    return Ok(false);
                }
            };
            visit(Seen::Symlink { name, target })?;
            return Ok(true);
        }
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                self.skip_unread(path, error);
                return Ok(false);
            }
        };
        if !self.is_file(&path, &metadata) {
            return Ok(false);
        }
        let stamp = stamp_of(&metadata, &path);
        visit(Seen::File { name, path, stamp })?;
        Ok(true)
    }

    fn is_file(&self, path: &Path, metadata: &Metadata) -> bool {
        let reason = if !metadata.is_file() {
            FolderSkipReason::Special
        } else if metadata.len() > LENGTH_MAX_BYTES {
            FolderSkipReason::TooLong
        } else {
            return true;
        };
        self.skip(path.into(), reason);
        false
    }

    /// Reads a directory, and sorts what is in it.
    fn children(&self, dir: &Path) -> io::Result<Vec<Child>> {
        let mut children = Vec::new();
        let stamp = directory_stamp_of(&dir.metadata()?, dir);
        let mut directories = self.lock();
        directories.push((dir.to_path_buf(), stamp));
        drop(directories);
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let file_name = entry.file_name();
            let Some(text) = file_name.to_str() else {
                if !crate::naming::is_hidden(&file_name) {
                    self.skip(entry.path(), FolderSkipReason::NotUnicode);
                }
                continue;
            };
            // Normalises the component. Hidden ones and those of unfinished downloads are left out
            // silently.
            let component = match AssetName::from_local(text) {
                Ok(component) if component.as_str().contains('/') => continue,
                Ok(component) => String::from(component),
                Err(NameError::Hidden(_) | NameError::OwnSuffix(_)) => continue,
                Err(error) => {
                    self.skip(entry.path(), error);
                    continue;
                }
            };
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                Err(error) => {
                    self.skip_unread(entry.path(), error);
                    continue;
                }
            };
            children.push(Child {
                component,
                file_name,
                kind,
            });
        }
        children.sort_unstable_by(|a, b| {
            (&a.component, &a.file_name).cmp(&(&b.component, &b.file_name))
        });
        Ok(children)
    }

    /// Returns the directories that were read, as they were before.
    pub(super) fn directories(&self) -> Vec<(PathBuf, DirectoryStamp)> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(PathBuf, DirectoryStamp)>> {
        self.directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the target of a link in the form of a manifest; None if it leads out of the folder.
    fn target(&self, path: &Path, name: &AssetName) -> io::Result<Option<LinkTarget>> {
        let target = std::fs::read_link(path)?;
        if let Some(text) = target.to_str()
            && let Ok(target) = LinkTarget::new(name, text)
        {
            return Ok(Some(target));
        }
        // A target of another form, such as an absolute path, is kept if it leads inside.
        let Some(parent) = path.parent() else {
            return Ok(None);
        };
        let Ok(real) = parent.join(&target).canonicalize() else {
            return Ok(None);
        };
        let Ok(inside) = real.strip_prefix(&self.real_root) else {
            return Ok(None);
        };
        let mut parts = vec![".."; name.components().count() - 1];
        for component in inside.components() {
            match component {
                Component::Normal(component) => match component.to_str() {
                    Some(component) => parts.push(component),
                    None => return Ok(None),
                },
                _ => return Ok(None),
            }
        }
        let text = match parts.is_empty() {
            true => ".".to_owned(),
            false => parts.join("/"),
        };
        Ok(LinkTarget::new(name, text).ok())
    }

    fn is_excluded(&self, dir: &Path) -> bool {
        let real = || dir.canonicalize();
        !self.exclude.is_empty() && real().is_ok_and(|real| self.exclude.contains(&real))
    }

    pub(super) fn skip(&self, path: PathBuf, reason: impl Into<FolderSkipReason>) {
        let reason = reason.into();
        (self.skipped)(FolderSkip { path, reason });
    }

    pub(super) fn skip_unread(&self, path: PathBuf, error: io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => FolderSkipReason::Vanished,
            _ => FolderSkipReason::Unreadable(error),
        };
        self.skip(path, reason);
    }
}
