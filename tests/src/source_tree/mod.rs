//! Checks of the source text itself: import circles, long comment lines, messages that are not
//! fuzzed.
//!
//! `./task layout` runs them without the other tests.

mod comments;
mod imports;
mod modules;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

/// Largest number of files that may import each other in a circle. A parent module with two or
/// three children that use its types is within it; a circle that nobody can read at once is not.
const CIRCLE_FILES_MAX: usize = 4;

/// The workspace's root directory.
fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Every file below `dir`, build output and hidden directories left out, in a fixed order.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("a directory entry").path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let skipped = name == "target" || (name.starts_with('.') && name != ".ci");
        if path.is_dir() && !skipped {
            files.extend(files_below(&path));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}

#[test]
fn no_import_circle_has_more_than_four_files() {
    let mut too_large = Vec::new();
    let crates = fs::read_dir(root().join("crates")).unwrap();
    for directory in crates.map(|entry| entry.unwrap().path()) {
        let name = directory
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let source = directory.join("src");
        let start = ["lib.rs", "main.rs"].map(|start| source.join(start));
        let start = start.iter().find(|start| start.exists());
        let start = start.unwrap_or_else(|| panic!("{name} has neither lib.rs nor main.rs"));
        let imports = modules::Crate::read(start).imports();
        for circle in imports::circles(&imports) {
            if circle.len() > CIRCLE_FILES_MAX {
                let edges = imports::edges_within(&imports, &circle);
                too_large.push(format!(
                    "{name}: {} files import each other (at most {CIRCLE_FILES_MAX} may):\n{edges}",
                    circle.len()
                ));
            }
        }
    }
    assert!(too_large.is_empty(), "{}", too_large.join("\n"));
}

#[test]
fn every_message_is_fuzzed() {
    let target = fs::read_to_string(root().join("fuzz/fuzz_targets/frames.rs")).unwrap();
    let mut forgotten = Vec::new();
    for path in files_below(&root().join("crates/qshare-wire/src")) {
        let tokens = tokens::of(&fs::read_to_string(&path).unwrap());
        for four in tokens.windows(4) {
            if let [implementing, message, token, tokens::Token::Word(name)] = four
                && implementing.is("impl")
                && message.is("Message")
                && token.is("for")
                && !target.contains(&format!("decode::<{name}>"))
            {
                forgotten.push(name.clone());
            }
        }
    }
    assert!(
        forgotten.is_empty(),
        "fuzz/fuzz_targets/frames.rs lacks {forgotten:?}"
    );
}

#[test]
fn no_comment_line_is_longer_than_a_hundred_columns() {
    let root = root();
    let mut long = Vec::new();
    for path in files_below(&root) {
        let Some(marker) = comments::marker(&path) else {
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(&root).unwrap().display();
        for (line, columns) in comments::long_lines(&text, marker) {
            long.push(format!("{shown}:{line}: {columns} columns"));
        }
    }
    assert!(
        long.is_empty(),
        "comment lines over {} columns:\n{}",
        comments::COLUMNS_MAX,
        long.join("\n")
    );
}
