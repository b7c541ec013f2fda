//! Chooses the files to download from the findings: which files a query means, where it is
//! ambiguous, and the local name of each.

use std::collections::BTreeMap;

use qshare_node::FoundFile;
use qshare_node::content::{AssetName, ContentId, Query};

use crate::argument::printed_name;
use crate::output;

/// The choice among the files that a query found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// To be downloaded: each name once.
    pub(crate) files: Vec<FoundFile>,
    /// Different contents under one name, or one prefix.
    pub(crate) ambiguous: Vec<Vec<FoundFile>>,
    /// Contents without a complete holder that were passed over, because exactly one other content
    /// of their name has one.
    pub(crate) passed_over: Vec<FoundFile>,
}

/// Decides which of the found files a query means.
pub(crate) fn choose(query: &Query, found: Vec<FoundFile>) -> Choice {
    match query {
        Query::Id(_) => Choice {
            files: found.into_iter().take(1).map(without_directory).collect(),
            ..Choice::default()
        },
        Query::Sha256(_) => Choice {
            files: candidates_of_digest(found).into_iter().take(1).collect(),
            ..Choice::default()
        },
        Query::IdPrefix(_) => {
            let mut by_content = BTreeMap::new();
            for file in found {
                by_content.entry(file.content).or_insert(file);
            }
            let mut choice = one_or_ambiguous(by_content.into_values().collect());
            choice.files = choice.files.into_iter().map(without_directory).collect();
            choice
        }
        Query::OfNode(..) => by_name(found, complete_or_ambiguous),
        Query::Name(text) => {
            // Each tracker lets an exact name win over a glob; several trackers may differ.
            let exact = found.iter().any(|file| file.name.as_str() == text);
            let meant = |file: &FoundFile| !exact || file.name.as_str() == text;
            by_name(
                found.into_iter().filter(meant).collect(),
                complete_or_ambiguous,
            )
        }
    }
}

/// Orders the contents that nodes claim to have a digest: those with most complete holders first.
/// All but one are lies, which shows when the digest of the download is checked.
pub(crate) fn candidates_of_digest(found: Vec<FoundFile>) -> Vec<FoundFile> {
    let mut by_content = BTreeMap::new();
    for file in found {
        by_content.entry(file.content).or_insert(file);
    }
    let mut candidates: Vec<FoundFile> = by_content.into_values().collect();
    candidates.sort_by_key(|file| std::cmp::Reverse((file.complete, file.partial)));
    candidates.into_iter().map(without_directory).collect()
}

/// Keeps only the last component of a file's name. A query by ID leaves the name open, so the name
/// comes from a stranger, who must not choose a directory here.
fn without_directory(file: FoundFile) -> FoundFile {
    FoundFile {
        name: local_name(&file.name, file.content),
        ..file
    }
}

/// Returns the name under which a content is written when only a stranger names it: the last
/// component of that name, or else the content ID.
pub(crate) fn local_name(told: &AssetName, content: ContentId) -> AssetName {
    AssetName::new(told.file_name()).unwrap_or_else(|_| content.into())
}

/// Combines the choices of several arguments: a file that two of them mean is fetched once, and a
/// name for which they mean different contents is ambiguous.
pub(crate) fn combine(choices: Vec<Choice>) -> Choice {
    let mut files = Vec::new();
    let mut all = Choice::default();
    for choice in choices {
        files.extend(choice.files);
        all.ambiguous.extend(choice.ambiguous);
        all.passed_over.extend(choice.passed_over);
    }
    let combined = by_name(files, one_or_ambiguous);
    all.files = combined.files;
    all.ambiguous.extend(combined.ambiguous);
    all
}

/// Groups files by name, and lets `decide` choose among the contents of each name.
fn by_name(found: Vec<FoundFile>, decide: impl Fn(Vec<FoundFile>) -> Choice) -> Choice {
    let mut by_name: BTreeMap<AssetName, Vec<FoundFile>> = BTreeMap::new();
    for file in found {
        let same_name = by_name.entry(file.name.clone()).or_default();
        if !same_name.iter().any(|known| known.content == file.content) {
            same_name.push(file);
        }
    }
    let mut choice = Choice::default();
    for same_name in by_name.into_values() {
        let one = decide(same_name);
        choice.files.extend(one.files);
        choice.ambiguous.extend(one.ambiguous);
        choice.passed_over.extend(one.passed_over);
    }
    choice
}

fn one_or_ambiguous(candidates: Vec<FoundFile>) -> Choice {
    match candidates.len() {
        0 | 1 => Choice {
            files: candidates,
            ..Choice::default()
        },
        _ => Choice {
            ambiguous: vec![candidates],
            ..Choice::default()
        },
    }
}

/// Chooses the only candidate that has a complete holder. The others cannot be completed now, so
/// a request cannot mean them; the remains of an old version would otherwise block its name.
fn complete_or_ambiguous(candidates: Vec<FoundFile>) -> Choice {
    let (complete, passed_over): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|file| file.complete > 0);
    match complete.len() {
        1 => Choice {
            files: complete,
            passed_over,
            ..Choice::default()
        },
        _ => one_or_ambiguous(complete.into_iter().chain(passed_over).collect()),
    }
}

/// Describes a content that was passed over in favour of another of its name.
pub(crate) fn explain_passed_over(file: &FoundFile) -> String {
    format!(
        "{}: another content of that name, {}, has no complete holder ({}) and was passed over",
        printed_name(&file.name),
        output::prefixes(&[file.content]).join(""),
        output::holders(file)
    )
}

/// Lists candidates, each with the command that fetches it.
pub(crate) fn explain_ambiguity(
    candidates: &[FoundFile],
    command: impl Fn(&str) -> String,
) -> String {
    let ids: Vec<_> = candidates.iter().map(|file| file.content).collect();
    let rows: Vec<[String; 5]> = candidates
        .iter()
        .zip(output::prefixes(&ids))
        .map(|(file, prefix)| {
            [
                format!("  {prefix}"),
                printed_name(&file.name),
                output::bytes(file.info.length),
                holders_by_name(file),
                command(&prefix),
            ]
        })
        .collect();
    let same_name = candidates
        .windows(2)
        .all(|pair| pair[0].name == pair[1].name);
    let what = match (same_name, candidates.first()) {
        (true, Some(file)) => format!("are named {:?}", file.name.as_str()),
        _ => "have an ID with this prefix".to_owned(),
    };
    let lines = output::table(&rows, [false, false, true, false, false]);
    format!(
        "{} different files {what}; choose one:\n{}",
        candidates.len(),
        lines.join("\n")
    )
}

/// Returns the number of holders and some of their IDs: `2 holders (abcdefghij, klmnopqrst)`.
fn holders_by_name(file: &FoundFile) -> String {
    const SHOWN_MAX: usize = 3;
    let named: Vec<String> = file
        .holders
        .iter()
        .take(SHOWN_MAX)
        .map(|holder| holder.node.short())
        .collect();
    match named.is_empty() {
        true => output::holders(file),
        false => format!("{} ({})", output::holders(file), named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use qshare_node::content::{ContentInfo, FileMetadata, Hash};

    use super::*;

    fn file(name: &str, byte: u8) -> FoundFile {
        let info = ContentInfo {
            length: 5,
            root: Hash([byte; 32]),
        };
        FoundFile {
            name: AssetName::new(name).unwrap(),
            content: info.id(),
            info,
            is_collection: false,
            complete: 1,
            partial: 0,
            holders: Vec::new(),
            metadata: FileMetadata::default(),
        }
    }

    fn chosen(query: &str, found: &[FoundFile]) -> (Vec<FoundFile>, usize) {
        let choice = choose(&query.parse().unwrap(), found.to_vec());
        (choice.files, choice.ambiguous.len())
    }

    #[test]
    fn a_name_with_two_contents_is_ambiguous_and_with_one_is_not() {
        let (a, b) = (file("x", 1), file("x", 2));
        assert_eq!(chosen("x", &[a.clone(), a.clone()]), (vec![a.clone()], 0));
        assert_eq!(chosen("x", &[a, b]), (vec![], 1));
    }

    #[test]
    fn the_only_content_with_a_complete_holder_is_chosen_and_the_others_are_reported() {
        let partial = |byte| FoundFile {
            complete: 0,
            partial: 1,
            ..file("x", byte)
        };
        let (a, b, c) = (file("x", 1), partial(2), partial(3));
        let choice = choose(&"x".parse().unwrap(), vec![b.clone(), a.clone(), c.clone()]);
        assert_eq!(
            (&choice.files, choice.ambiguous.len()),
            (&vec![a.clone()], 0)
        );
        assert_eq!(choice.passed_over, [b.clone(), c.clone()]);
        let told = explain_passed_over(&b);
        assert!(
            told.contains(&b.content.short()) && told.contains("1 partial"),
            "{told}"
        );
        // Without a complete holder, or with two, nothing is guessed.
        assert_eq!(chosen("x", &[b.clone(), c.clone()]), (vec![], 1));
        assert_eq!(
            chosen("x", &[a.clone(), b.clone(), file("x", 4)]),
            (vec![], 1)
        );
        assert_eq!(chosen("*", &[a.clone(), b]), (vec![a.clone()], 0));
        // Two arguments that mean different contents contradict each other.
        let one = |file: FoundFile| Choice {
            files: vec![file],
            ..Choice::default()
        };
        assert_eq!(combine(vec![one(a), one(c)]).ambiguous.len(), 1);
    }

    #[test]
    fn an_exact_name_wins_over_what_its_glob_matches() {
        let (exact, other) = (file("[x]", 1), file("x", 2));
        assert_eq!(chosen("[x]", &[exact.clone(), other]), (vec![exact], 0));
    }

    #[test]
    fn a_glob_takes_what_is_clear_and_reports_what_is_not() {
        let (a, b1, b2) = (file("a", 1), file("b", 1), file("b", 2));
        assert_eq!(chosen("*", &[a.clone(), b1, b2]), (vec![a], 1));
    }

    #[test]
    fn a_content_under_several_names_is_one_file_by_id_and_two_by_glob() {
        let (a, b) = (file("a", 1), file("b", 1));
        let id = a.content.to_string();
        assert_eq!(chosen(&id, &[a.clone(), b.clone()]), (vec![a.clone()], 0));
        assert_eq!(
            chosen("id:0", &[a.clone(), b.clone()]),
            (vec![a.clone()], 0)
        );
        assert_eq!(chosen("*", &[a.clone(), b.clone()]), (vec![a, b], 0));
    }

    #[test]
    fn a_query_by_id_leaves_the_directory_of_a_strangers_name_out() {
        let (told, here) = (file("src/Makefile", 1), file("Makefile", 1));
        let id = told.content.to_string();
        let found = [told.clone()];
        for query in [id.clone(), format!("id:{}", &id[..8])] {
            assert_eq!(chosen(&query, &found), (vec![here.clone()], 0));
        }
        assert_eq!(chosen("src/*", &found), (vec![told], 0));
    }

    #[test]
    fn what_is_wanted_twice_is_fetched_once_and_contradictions_are_ambiguous() {
        let one = |file: FoundFile| Choice {
            files: vec![file],
            ..Choice::default()
        };
        let same = combine(vec![
            one(file("a", 1)),
            one(file("a", 1)),
            one(file("b", 1)),
        ]);
        assert_eq!(same.files, [file("a", 1), file("b", 1)]);
        let contradiction = combine(vec![one(file("a", 1)), one(file("a", 2))]);
        assert_eq!(
            (contradiction.files.len(), contradiction.ambiguous.len()),
            (0, 1)
        );
    }

    #[test]
    fn candidates_come_with_the_command_that_picks_them() {
        let text = explain_ambiguity(&[file("x", 1), file("x", 2)], |id| format!("get {id}"));
        assert!(
            text.starts_with("2 different files are named \"x\""),
            "{text}"
        );
        let id = file("x", 2).content.short();
        assert!(text.contains(&format!("get id:{id}")), "{text}");
    }
}
