//! Names that resemble one that was not found.

use qshare_content::AssetName;

use crate::work::{NAME_STEPS, Work};

/// Names are compared by their first characters only, to bound the work.
const COMPARED_CHARS: usize = 64;
/// Jaro-Winkler similarity from which a name is worth offering: one or two slips in a name of
/// ordinary length.
const SIMILAR_FROM: f64 = 0.85;
/// The similarity of a name that contains the wanted text as a whole.
const CONTAINS: f64 = 0.9;
/// Limit on the steps of [`similar_names`].
const STEPS_MAX: u64 = 100_000;
/// A shorter text is contained in too many names to be significant.
const CONTAINED_MIN_CHARS: usize = 3;

/// Returns those of `names` that resemble `wanted`, best first, at most `max`.
pub fn similar_names(wanted: &str, names: &[AssetName], max: usize) -> Vec<AssetName> {
    let mut work = Work::new(STEPS_MAX);
    near_names(wanted, names.iter(), max, STEPS_MAX, &mut work)
}

/// Returns the most similar of `names`, best first, at most `max`, each once. Stops after
/// `steps_max` steps with the best so far.
pub(crate) fn near_names<'a>(
    wanted: &str,
    names: impl Iterator<Item = &'a AssetName>,
    max: usize,
    steps_max: u64,
    work: &mut Work,
) -> Vec<AssetName> {
    let wanted = Compared::new(wanted);
    let until = work.steps() + steps_max;
    let mut near: Vec<(f64, &AssetName)> = Vec::new();
    for name in names {
        if work.steps() >= until {
            break;
        }
        work.add(NAME_STEPS);
        let similarity = wanted.similarity(&Compared::new(name.as_str()), work);
        if similarity >= SIMILAR_FROM {
            near.push((similarity, name));
        }
    }
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    near.dedup_by(|a, b| a.1 == b.1);
    near.truncate(max);
    near.into_iter().map(|(_, name)| name.clone()).collect()
}

/// A name in lower case, bounded, and its last component.
struct Compared {
    path: Text,
    file: Text,
}

impl Compared {
    fn new(name: &str) -> Compared {
        let file = name.rsplit('/').next().unwrap_or(name);
        Compared {
            path: Text::new(name),
            file: Text::new(file),
        }
    }

    fn similarity(&self, other: &Compared, work: &mut Work) -> f64 {
        let path = self.path.similarity(&other.path, work);
        let file = self.file.similarity(&other.file, work);
        let contained = if self.path.chars.len() >= CONTAINED_MIN_CHARS
            && self.path.is_within(&other.path, work)
        {
            CONTAINS
        } else {
            0.0
        };
        path.max(file).max(contained)
    }
}

/// Characters in lower case, and how many there are of each kind.
struct Text {
    chars: Vec<char>,
    kinds: [u8; KINDS],
}

/// Number of classes of characters, by the last bits of their code, so that letters and digits of
/// one script rarely share a class.
const KINDS: usize = 64;

impl Text {
    fn new(text: &str) -> Text {
        let mut chars: Vec<char> = Vec::with_capacity(text.len().min(COMPARED_CHARS));
        chars.extend(
            text.chars()
                .flat_map(char::to_lowercase)
                .take(COMPARED_CHARS),
        );
        let mut kinds = [0; KINDS];
        for &c in &chars {
            kinds[c as usize % KINDS] += 1;
        }
        Text { chars, kinds }
    }

    /// Returns an upper bound of the number of characters that can be paired.
    fn common_at_most(&self, other: &Text) -> usize {
        let pairs = self.kinds.iter().zip(&other.kinds);
        pairs.map(|(&a, &b)| usize::from(a.min(b))).sum()
    }

    /// Jaro-Winkler similarity; 0 where it is sure to be below [`SIMILAR_FROM`].
    fn similarity(&self, other: &Text, work: &mut Work) -> f64 {
        let (a, b) = (self.chars.len(), other.chars.len());
        work.add((KINDS / 4 + b) as u64);
        let common = self.common_at_most(other) as f64;
        if common == 0.0 {
            return 0.0;
        }
        let jaro_at_most = (common / a as f64 + common / b as f64 + 1.0) / 3.0;
        // Winkler adds a tenth of what is missing for each of the first four that agree.
        if jaro_at_most + 0.4 * (1.0 - jaro_at_most) < SIMILAR_FROM {
            return 0.0;
        }
        work.add((a * b / 2) as u64);
        strsim::generic_jaro_winkler(&self.chars, &other.chars)
    }

    fn is_within(&self, other: &Text, work: &mut Work) -> bool {
        if self.common_at_most(other) < self.chars.len() {
            return false;
        }
        work.add(other.chars.len() as u64);
        let mut places = other.chars.windows(self.chars.len());
        places.any(|place| place == self.chars)
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

    fn names(texts: &[impl AsRef<str>]) -> Vec<AssetName> {
        let names = texts
            .iter()
            .map(|text| AssetName::new(text.as_ref()).unwrap());
        names.collect()
    }

    fn near(wanted: &str) -> Vec<String> {
        let mut work = Work::new(0);
        let names = names(&NAMES);
        near_names(wanted, names.iter(), 3, 1_000_000, &mut work)
            .into_iter()
            .map(String::from)
            .collect()
    }

    #[test]
    fn slips_case_and_missing_folders_are_forgiven() {
        assert_eq!(
            near("repotr.txt").first().map(String::as_str),
            Some("report.txt")
        );
        assert_eq!(
            near("NOTES.TXT").first().map(String::as_str),
            Some("notes.txt")
        );
        assert_eq!(
            near("linux").first().map(String::as_str),
            Some("linux-6.18.tar.xz")
        );
        assert_eq!(
            near("report.csv").first().map(String::as_str),
            Some("data/report.csv")
        );
    }

    #[test]
    fn what_is_ruled_out_by_counting_characters_is_not_similar() {
        let names = [
            "a",
            "ab",
            "report",
            "tropper",
            "RéSUMÉ",
            "résumé.txt",
            "0123456789",
        ];
        for (wanted, name) in names.iter().flat_map(|a| names.iter().map(move |b| (a, b))) {
            let (wanted, name) = (Text::new(wanted), Text::new(name));
            let real = strsim::generic_jaro_winkler(&wanted.chars, &name.chars);
            let found = wanted.similarity(&name, &mut Work::new(0));
            assert!(found == real || (found == 0.0 && real < SIMILAR_FROM));
        }
    }

    #[test]
    fn the_search_ends_with_its_steps() {
        let names: Vec<String> = (0..1_000).map(|n| format!("{:a<60}{n:04}", "")).collect();
        let wanted = format!("{:a<64}", "");
        let mut work = Work::new(0);
        let names = self::names(&names);
        assert_eq!(
            near_names(&wanted, names.iter(), 3, 10_000, &mut work).len(),
            3
        );
        assert!((10_000..20_000).contains(&work.steps()), "{}", work.steps());
    }

    #[test]
    fn each_name_comes_once_and_unlike_ones_not_at_all() {
        let found = near("report.csv");
        assert_eq!(found.iter().filter(|&n| n == "data/report.csv").count(), 1);
        assert!(near("zzzz").is_empty());
    }
}
