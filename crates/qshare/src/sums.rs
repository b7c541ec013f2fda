//! Files of digests as `sha256sum` writes them: a digest and a name in each line.

use std::collections::BTreeMap;

use qshare_node::content::{AssetName, Hash};

/// Why a file of digests cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SumsError {
    /// A line has another form.
    #[error("line {0} is not a SHA-256 digest, two spaces and a name")]
    Line(usize),
    /// The name cannot be that of a shared file.
    #[error("line {0}: the name cannot be that of a shared file")]
    Name(usize),
    /// Two digests for one name.
    #[error("line {0}: the name has another digest in an earlier line")]
    Repeated(usize),
    /// No line.
    #[error("it lists no file")]
    Empty,
}

/// Parses a file of digests: lines `HEX  NAME` or `HEX *NAME`, with a backslash in front if the
/// name is escaped, and `SHA256 (NAME) = HEX` as BSD writes them. Empty lines and lines that begin
/// with `#` are skipped.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<AssetName, Hash>, SumsError> {
    let mut digests = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, digest) = parse_line(line).ok_or(SumsError::Line(number))?;
        let name = AssetName::from_local(name.strip_prefix("./").unwrap_or(&name))
            .map_err(|_| SumsError::Name(number))?;
        if digests
            .insert(name, digest)
            .is_some_and(|known| known != digest)
        {
            return Err(SumsError::Repeated(number));
        }
    }
    match digests.is_empty() {
        true => Err(SumsError::Empty),
        false => Ok(digests),
    }
}

fn parse_line(line: &str) -> Option<(String, Hash)> {
    let (is_escaped, line) = match line.strip_prefix('\\') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (name, digest) = match line.strip_prefix("SHA256 (") {
        Some(rest) => rest.rsplit_once(") = ")?,
        None => {
            let (digest, rest) = line.split_once(' ')?;
            (rest.strip_prefix([' ', '*'])?, digest)
        }
    };
    let digest = digest.to_ascii_lowercase().parse().ok()?;
    let name = match is_escaped {
        true => unescape(name)?,
        false => name.to_owned(),
    };
    (!name.is_empty()).then_some((name, digest))
}

fn unescape(text: &str) -> Option<String> {
    let mut name = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        name.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            c => c,
        });
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_gnu_and_bsd_are_read() {
        let (a, b) = ("0a".repeat(32), "0B".repeat(32));
        let text = format!(
            "# comment\n\n{a}  plain name.txt\n{b} *binary\n\\{a}  d/\\\\e\nSHA256 (x (1)) = {b}\n{a}  ./here\n"
        );
        // A backslash is no part of a shared name, so the escaped one is refused by its line.
        assert_eq!(parse(&text), Err(SumsError::Name(5)));
        let text = text.replace("\\\\e", "e");
        let digests = parse(&text).unwrap();
        let names: Vec<&str> = digests.keys().map(AssetName::as_str).collect();
        assert_eq!(names, ["binary", "d/e", "here", "plain name.txt", "x (1)"]);
        let binary = AssetName::new("binary").unwrap();
        assert_eq!(digests[&binary], Hash([0x0b; 32]));
    }

    #[test]
    fn other_lines_are_refused_by_number() {
        let a = "0a".repeat(32);
        assert_eq!(parse(""), Err(SumsError::Empty));
        assert_eq!(parse("x"), Err(SumsError::Line(1)));
        assert_eq!(parse(&format!("{a} x")), Err(SumsError::Line(1)));
        assert_eq!(parse(&format!("{a}  ../x")), Err(SumsError::Name(1)));
        assert_eq!(parse(&format!("{a}  ")), Err(SumsError::Line(1)));
        let b = "0b".repeat(32);
        assert_eq!(
            parse(&format!("{a}  x\n{a}  x")).map(|all| all.len()),
            Ok(1)
        );
        assert_eq!(
            parse(&format!("{a}  x\n{b}  x")),
            Err(SumsError::Repeated(2))
        );
    }
}
