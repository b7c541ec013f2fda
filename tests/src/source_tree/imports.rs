//! The graph of files that import each other.

use std::collections::{BTreeMap, BTreeSet};

/// For each file, the files of which it names something.
pub(super) type Imports = BTreeMap<String, BTreeSet<String>>;

/// Groups of at least two files each of which imports every other, directly or through others of
/// the group; the largest first.
pub(super) fn circles(imports: &Imports) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<_, _> = imports
        .keys()
        .map(|file| (file, reach(imports, file)))
        .collect();
    let mut found: BTreeSet<BTreeSet<String>> = BTreeSet::new();
    for (file, others) in &reached {
        let back = |other: &&String| reached.get(other).is_some_and(|back| back.contains(*file));
        let mut circle: BTreeSet<_> = others.iter().filter(back).cloned().collect();
        circle.insert((*file).clone());
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    found
}

/// The files that `from` imports, directly or through others.
fn reach(imports: &Imports, from: &String) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for next in imports.get(file).into_iter().flatten() {
            if reached.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    reached
}

/// The imports among the files of a circle, one file a line.
pub(super) fn edges_within(imports: &Imports, circle: &BTreeSet<String>) -> String {
    let line = |file: &String| {
        let within = imports[file].intersection(circle).cloned();
        format!("  {file} → {}", within.collect::<Vec<_>>().join(", "))
    };
    circle.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> Imports {
        let mut imports = Imports::new();
        for (from, to) in edges {
            imports
                .entry((*from).into())
                .or_default()
                .insert((*to).into());
        }
        imports
    }

    #[test]
    fn circles_are_found_and_chains_are_none() {
        let imports = graph(&[
            ("a", "b"),
            ("b", "c"),
            ("c", "a"),
            ("c", "d"),
            ("d", "e"),
            ("e", "f"),
            ("f", "e"),
        ]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let found: Vec<BTreeSet<String>> = vec![names(&["a", "b", "c"]), names(&["e", "f"])];
        assert_eq!(circles(&imports), found);
        assert_eq!(edges_within(&imports, &found[1]), "  e → f\n  f → e");
    }
}
