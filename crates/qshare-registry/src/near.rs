//! Names that look like one that was not found.

/// Names are compared by their first characters only, to bound the work.
const COMPARED_CHARS: usize = 64;
/// Jaro-Winkler similarity from which a name is worth offering: one or two slips in a name of
/// ordinary length.
const SIMILAR_FROM: f64 = 0.85;
/// What a name counts that holds the wanted text as a whole.
const CONTAINS: f64 = 0.9;
/// A shorter text is contained in too many names to mean something.
const CONTAINED_MIN_CHARS: usize = 3;

/// The most similar of `names`, best first, at most `max`, each once.
pub(crate) fn near_names<'a>(
    wanted: &str,
    names: impl Iterator<Item = &'a str>,
    max: usize,
) -> Vec<&'a str> {
    let wanted = Compared::new(wanted);
    let mut near: Vec<(f64, &str)> = names
        .map(|name| (wanted.similarity(&Compared::new(name)), name))
        .filter(|&(similarity, _)| similarity >= SIMILAR_FROM)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    near.dedup_by(|a, b| a.1 == b.1);
    near.truncate(max);
    near.into_iter().map(|(_, name)| name).collect()
}

/// A name in lower case, bounded, and its last component.
struct Compared {
    path: String,
    file: String,
}

impl Compared {
    fn new(name: &str) -> Compared {
        let bounded = |text: &str| {
            text.chars()
                .take(COMPARED_CHARS)
                .flat_map(char::to_lowercase)
                .collect::<String>()
        };
        let file = name.rsplit('/').next().unwrap_or(name);
        Compared {
            path: bounded(name),
            file: bounded(file),
        }
    }

    fn similarity(&self, other: &Compared) -> f64 {
        let path = strsim::jaro_winkler(&self.path, &other.path);
        let file = strsim::jaro_winkler(&self.file, &other.file);
        let long_enough = self.path.chars().count() >= CONTAINED_MIN_CHARS;
        let contained = if long_enough && other.path.contains(&self.path) {
            CONTAINS
        } else {
            0.0
        };
        path.max(file).max(contained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = [
        "backup.tar",
        "data/report.csv",
        "data/report.csv",
        "linux-6.18.tar.xz",
        "notes.txt",
        "report.txt",
    ];

    fn near(wanted: &str) -> Vec<&'static str> {
        near_names(wanted, NAMES.into_iter(), 3)
    }

    #[test]
    fn slips_case_and_missing_folders_are_forgiven() {
        assert_eq!(near("repotr.txt").first(), Some(&"report.txt"));
        assert_eq!(near("NOTES.TXT").first(), Some(&"notes.txt"));
        assert_eq!(near("linux").first(), Some(&"linux-6.18.tar.xz"));
        assert_eq!(near("report.csv").first(), Some(&"data/report.csv"));
    }

    #[test]
    fn each_name_comes_once_and_unlike_ones_not_at_all() {
        let found = near("report.csv");
        assert_eq!(found.iter().filter(|&&n| n == "data/report.csv").count(), 1);
        assert!(near("zzzz").is_empty());
    }
}
