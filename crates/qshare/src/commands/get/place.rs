//! Where the files of a command go.

use std::path::{Path, PathBuf};

use qshare_node::Target;
use qshare_node::content::AssetName;

use crate::choice::Choice;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::suggest::quoted;

/// Where the files go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Each under its full name beneath this directory.
    Directory(PathBuf),
    /// The only file, to this path.
    File(PathBuf),
}

impl Place {
    /// Decides where the files go. With a glob, `-o` names a directory even if one file matches.
    pub(super) fn choose(
        output: Option<&Path>,
        choice: &Choice,
        has_glob: bool,
    ) -> Result<Place, Failure> {
        let Some(output) = output else {
            return Ok(Place::Directory(".".into()));
        };
        let ends_in_slash = output.as_os_str().as_encoded_bytes().ends_with(b"/");
        if ends_in_slash || output.is_dir() {
            return Ok(Place::Directory(output.into()));
        }
        if output.symlink_metadata().is_err() && has_glob {
            return Ok(Place::Directory(output.into()));
        }
        if choice.files.len() > 1 || has_glob {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "cannot write {} to {path}: several files and globs need a directory\nName \
                     one: -o {path}/",
                    output::count(choice.files.len() as u64, "file"),
                    path = quoted(output.as_os_str())
                ),
            ));
        }
        Ok(Place::File(output.into()))
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Place::File(_))
    }

    pub(super) fn target(&self, name: &AssetName) -> Target {
        match self {
            Place::Directory(dir) => Target::beneath(dir, name.clone()),
            Place::File(path) => Target::Path(path.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::named::tests::files;
    use super::*;

    #[test]
    fn output_is_a_file_for_one_and_a_directory_for_several() {
        let temp = tempfile::tempdir().unwrap();
        let place = |output: &str, count, has_glob| {
            Place::choose(Some(Path::new(output)), &files(count), has_glob)
        };
        let choose = |output, count| place(output, count, false);
        assert_eq!(choose("new", 1).unwrap(), Place::File("new".into()));
        assert_eq!(choose("new", 2).unwrap_err().exit, Exit::Usage);
        assert_eq!(choose("new/", 2).unwrap(), Place::Directory("new/".into()));
        let existing = temp.path().to_str().unwrap();
        assert_eq!(
            choose(existing, 2).unwrap(),
            Place::Directory(existing.into())
        );
        assert_eq!(
            Place::choose(None, &files(2), false).unwrap(),
            Place::Directory(".".into())
        );
        // A glob means a directory, even if a single file matches.
        assert_eq!(
            place("new", 1, true).unwrap(),
            Place::Directory("new".into())
        );
        let file = temp.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(choose(file, 1).unwrap(), Place::File(file.into()));
        assert_eq!(place(file, 1, true).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn names_keep_their_directories_beneath_the_place() {
        let name = AssetName::new("d/0").unwrap();
        let beneath = Place::Directory("album".into());
        assert_eq!(beneath.target(&name).path(), Path::new("album/d/0"));
        let file = Place::File("x".into());
        assert_eq!(file.target(&name).path(), Path::new("x"));
    }
}
