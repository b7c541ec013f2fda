//! Which entries of a folder are wanted.

use qshare_content::{NamePattern, QueryParseError};

/// Globs for entries of a folder. A glob without `/` means a component at any depth, another one a
/// path; either selects what lies beneath a directory, too.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
}

/// A glob that is not valid.
#[derive(Debug, thiserror::Error)]
#[error("{glob:?} is not a valid glob: {cause}")]
pub struct InvalidGlob {
    /// The glob.
    pub glob: String,
    /// Why.
    pub cause: QueryParseError,
}

#[derive(Debug, Clone)]
struct Glob {
    pattern: NamePattern,
    is_path: bool,
}

impl Selection {
    /// Parses the globs.
    ///
    /// # Errors
    ///
    /// [`InvalidGlob`] names the first one that is not valid.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Selection, InvalidGlob> {
        let parse = |globs: &[String]| {
            let globs = globs.iter().map(|text| {
                let trimmed = text.trim_end_matches('/');
                let pattern = NamePattern::new(trimmed).map_err(|cause| InvalidGlob {
                    glob: text.clone(),
                    cause,
                })?;
                let is_path = trimmed.contains('/');
                Ok(Glob { pattern, is_path })
            });
            globs.collect::<Result<Vec<Glob>, InvalidGlob>>()
        };
        Ok(Selection {
            include: parse(include)?,
            exclude: parse(exclude)?,
        })
    }

    /// Whether an entry is selected.
    pub fn allows(&self, name: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

impl Glob {
    fn matches(&self, name: &str) -> bool {
        if !self.is_path {
            return name.split('/').any(|part| self.pattern.matches(part));
        }
        let ends = name.match_indices('/').map(|(at, _)| at);
        let mut paths = ends.chain([name.len()]).filter_map(|end| name.get(..end));
        paths.any(|path| self.pattern.matches(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(include: &[&str], exclude: &[&str], name: &str) -> bool {
        let owned = |globs: &[&str]| {
            globs
                .iter()
                .map(|&glob| glob.to_owned())
                .collect::<Vec<_>>()
        };
        let selection = Selection::new(&owned(include), &owned(exclude));
        selection.unwrap().allows(name)
    }

    #[test]
    fn globs_without_a_slash_mean_components_and_others_paths() {
        assert!(selects(&[], &[], "a/b"));
        assert!(selects(&["*.jpg"], &[], "a/b/c.jpg"));
        assert!(!selects(&["*.jpg"], &[], "a/b/c.png"));
        assert!(selects(&["b"], &[], "a/b/c.png"));
        assert!(selects(&["a/*"], &[], "a/b/c.png"));
        assert!(!selects(&["b/*"], &[], "a/b/c.png"));
        assert!(selects(&["**/c.png"], &[], "a/b/c.png"));
        assert!(selects(&["a/b/"], &[], "a/b/c.png"));
    }

    #[test]
    fn what_is_excluded_is_not_included() {
        assert!(!selects(&["*.jpg"], &["raw"], "raw/c.jpg"));
        assert!(selects(&["*.jpg"], &["raw"], "c.jpg"));
        assert!(!selects(&[], &["a/*.tmp"], "a/x.tmp"));
        assert!(Selection::new(&["[".into()], &[]).is_err());
    }
}
