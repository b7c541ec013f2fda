//! Which entries of a folder `--include` and `--exclude` select.

use qshare_node::content::NamePattern;

use crate::exit::{Exit, Failure};

/// Globs for entries of a folder. A glob without `/` means a component at any depth, another one a
/// path; either selects what lies beneath a directory, too.
#[derive(Clone)]
pub(super) struct Filter {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
}

#[derive(Clone)]
struct Glob {
    pattern: NamePattern,
    is_path: bool,
}

impl Filter {
    /// Parses the globs.
    pub(super) fn new(include: &[String], exclude: &[String]) -> Result<Filter, Failure> {
        let parse = |globs: &[String]| {
            let globs = globs.iter().map(|text| {
                let trimmed = text.trim_end_matches('/');
                let pattern = NamePattern::new(trimmed).map_err(|error| {
                    Failure::new(
                        Exit::Usage,
                        format!("{text:?} is not a valid glob: {error}"),
                    )
                })?;
                let is_path = trimmed.contains('/');
                Ok(Glob { pattern, is_path })
            });
            globs.collect::<Result<Vec<Glob>, Failure>>()
        };
        Ok(Filter {
            include: parse(include)?,
            exclude: parse(exclude)?,
        })
    }

    /// Whether an entry is selected.
    pub(super) fn allows(&self, name: &str) -> bool {
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
        let filter = Filter::new(&owned(include), &owned(exclude));
        filter.ok().unwrap().allows(name)
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
        assert!(Filter::new(&["[".into()], &[]).is_err());
    }
}
