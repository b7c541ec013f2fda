//! Comment lines that are too long to be read beside each other.

use std::path::Path;

/// The width that rustfmt keeps code within.
pub(super) const COLUMNS_MAX: usize = 100;

/// How a comment line of this file starts; None for a file that is not checked.
pub(super) fn marker(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    match (extension, name) {
        (Some("rs"), _) => Some("//"),
        (_, "Cargo.lock") => None,
        (Some("toml" | "sh" | "py"), _) | (None, "task" | "run") => Some("#"),
        _ => None,
    }
}

/// The numbers and widths of the comment lines in `text` that are too wide. A line of one word,
/// such as an address, cannot be broken and may be as wide as it is.
pub(super) fn long_lines(text: &str, marker: &str) -> Vec<(usize, usize)> {
    let long = |(at, line): (usize, &str)| {
        let comment = line.trim_start().strip_prefix(marker)?;
        let words = comment.trim_start_matches(['/', '!']).split_whitespace();
        let columns = line.chars().count();
        (columns > COLUMNS_MAX && words.count() > 1).then_some((at + 1, columns))
    };
    text.lines().enumerate().filter_map(long).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_comment_lines_with_several_words_are_too_long() {
        let (fits, long) = ("x".repeat(95), "x".repeat(96));
        let text = format!("// a {fits}\n    // b {long}\n//! {long}{long}\nlet c = \"d {long}\";");
        assert_eq!(long_lines(&text, "//"), [(2, 105)]);
        assert_eq!(long_lines(&text, "#"), []);
    }
}
