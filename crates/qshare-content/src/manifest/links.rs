//! The targets of symbolic links in a folder.

use crate::{AssetName, NameError};

/// The target of a symbolic link that stays inside of its folder: any number of `..`, then a path
/// of plain components.
///
/// Above the first plain component there are only real directories of the folder, because nothing
/// lies beneath a link in a manifest. So a target of this form that does not climb above the folder
/// leads inside, through whatever links follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkTarget(String);

/// Why a text is not the target of a link inside of a folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkTargetError {
    /// It is absolute, or climbs above the folder.
    #[error("it leads out of the folder")]
    Outside,
    /// `.` or an empty component, or a `..` behind a plain component.
    #[error("it is not a plain path")]
    NotPlain,
    /// A component that is no valid name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl LinkTarget {
    /// Parses the target of a link.
    ///
    /// # Errors
    ///
    /// [`LinkTargetError`] if it is of another form, or leads out of the folder.
    pub fn new(link: &AssetName, target: impl Into<String>) -> Result<LinkTarget, LinkTargetError> {
        let target = LinkTarget(target.into());
        target.check_for(link)?;
        Ok(target)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn unchecked(text: String) -> LinkTarget {
        LinkTarget(text)
    }

    pub(super) fn check_for(&self, link: &AssetName) -> Result<(), LinkTargetError> {
        let depth = link.components().count() - 1;
        let mut rest = self.0.as_str();
        let mut climbs = 0;
        if rest == "." {
            return Ok(());
        }
        loop {
            if rest == ".." {
                climbs += 1;
                rest = "";
            } else if let Some(after) = rest.strip_prefix("../") {
                climbs += 1;
                rest = after;
                // A slash at the end is another form of the same target.
                if rest.is_empty() {
                    return Err(LinkTargetError::NotPlain);
                }
            } else {
                break;
            }
        }
        if climbs > depth || rest.starts_with('/') {
            return Err(LinkTargetError::Outside);
        }
        if rest.is_empty() {
            return match climbs {
                0 => Err(LinkTargetError::NotPlain),
                _ => Ok(()),
            };
        }
        match AssetName::new(rest) {
            Ok(_) => Ok(()),
            Err(NameError::NotRelative(_)) => Err(LinkTargetError::NotPlain),
            Err(cause) => Err(cause.into()),
        }
    }
}
