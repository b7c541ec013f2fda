//! Text from outside in a form that a terminal cannot misread: names, paths and messages of other
//! nodes may hold control characters, which move the cursor or set the clipboard, and bidirectional
//! characters, which reorder what is displayed.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether a terminal does something else with a character than to print it: C0 and C1 controls,
/// line and paragraph separators, and the characters that change the direction of text (UAX #9).
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061C}' | '\u{200E}' | '\u{200F}'
                | '\u{2028}' | '\u{2029}'
                | '\u{202A}'..='\u{202E}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// Returns a text with all deceptive characters but newline and tab escaped: `\u{1b}`.
pub(crate) fn neutral(text: &str) -> Cow<'_, str> {
    escape(
        text,
        |c| is_deceptive(c) && !matches!(c, '\n' | '\t'),
        |out, c| {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        },
    )
}

/// Returns a text from outside as a part of one line: newline and tab are escaped, too.
pub(crate) fn neutral_line(text: &str) -> Cow<'_, str> {
    escape(text, is_deceptive, |out, c| {
        let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
    })
}

/// Returns JSON with all deceptive characters escaped. They occur in strings only, where `\u001b`
/// means the same.
pub(crate) fn neutral_json(json: &str) -> Cow<'_, str> {
    escape(json, is_deceptive, |out, c| {
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

/// Returns a log line with all deceptive characters but newline, tab and colours escaped. A colour
/// is ESC `[`, digits and `;`, and `m` (ECMA-48 SGR), which the log's own formatting uses.
pub(crate) fn neutral_log(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        out += &neutral(&rest[..at]);
        rest = &rest[at..];
        let colour = rest[1..].strip_prefix('[').and_then(|after| {
            let end = after.find(|c: char| !c.is_ascii_digit() && c != ';')?;
            after[end..].starts_with('m').then_some(2 + end + 1)
        });
        let length = colour.unwrap_or(1);
        match colour {
            Some(_) => out += &rest[..length],
            None => out += &neutral(&rest[..length]),
        }
        rest = &rest[length..];
    }
    out += &neutral(rest);
    out
}

fn escape(
    text: &str,
    wanted: impl Fn(char) -> bool,
    write: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    if !text.contains(&wanted) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match wanted(c) {
            true => write(&mut out, c),
            false => out.push(c),
        }
    }
    out.into()
}

/// Returns a path or argument as text if it is Unicode without deceptive characters.
pub(crate) fn as_plain(text: &OsStr) -> Option<&str> {
    text.to_str().filter(|text| !text.contains(is_deceptive))
}

/// Returns a path for display: unchanged if it can be printed, else in the form `$'a\xff'`, which
/// bash, zsh and POSIX.1-2024 shells read back.
pub(crate) fn shown(path: &Path) -> String {
    match as_plain(path.as_os_str()) {
        Some(text) => text.to_owned(),
        None => dollar_quoted(path.as_os_str()),
    }
}

/// Returns any text in the form `$'…'` with everything escaped that cannot be printed.
pub(crate) fn dollar_quoted(text: &OsStr) -> String {
    let mut out = String::from("$'");
    for chunk in text.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => out.extend(['\\', c]),
                c if is_deceptive(c) => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        push_octal(&mut out, byte);
                    }
                }
                c => out.push(c),
            }
        }
        for &byte in chunk.invalid() {
            push_octal(&mut out, byte);
        }
    }
    out.push('\'');
    out
}

/// Writes three octal digits: unlike `\x`, their end does not depend on the next character.
fn push_octal(out: &mut String, byte: u8) {
    let _ = write!(out, "\\{byte:03o}");
}

/// Returns a path as a result for scripts. Bytes that are not Unicode stay as they are where no
/// terminal reads them, so that the printed path can be opened.
pub(crate) fn path_result(path: &Path, to_terminal: impl FnOnce() -> bool) -> Vec<u8> {
    let bytes = path.as_os_str().as_bytes();
    let is_harmless = bytes
        .utf8_chunks()
        .all(|chunk| !chunk.valid().contains(is_deceptive));
    let is_unicode = path.to_str().is_some();
    match is_harmless && (is_unicode || !to_terminal()) {
        true => bytes.to_vec(),
        false => dollar_quoted(path.as_os_str()).into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "a\x1b]0;title\x07\u{9b}2J\r\u{202e}b";

    #[test]
    fn control_and_bidirectional_characters_are_escaped_and_text_is_not() {
        assert_eq!(neutral(EVIL), r"a\u{1b}]0;title\u{7}\u{9b}2J\u{d}\u{202e}b");
        assert_eq!(neutral("数据 é\n\tok"), "数据 é\n\tok");
        assert_eq!(neutral_line("a\nb"), r"a\u{a}b");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let json = serde_json::to_string(EVIL).unwrap();
        let neutral = neutral_json(&json).into_owned();
        assert!(!neutral.contains(is_deceptive), "{neutral}");
        assert_eq!(serde_json::from_str::<String>(&neutral).unwrap(), EVIL);
    }

    #[test]
    fn logs_keep_colours_and_nothing_else() {
        let colour = "\x1b[2m12:00\x1b[0m \x1b[32;1mINFO\x1b[0m";
        assert_eq!(neutral_log(colour), colour);
        assert_eq!(neutral_log("\x1b[2Jx\x1b"), r"\u{1b}[2Jx\u{1b}");
        assert_eq!(neutral_log("\x1b[31"), r"\u{1b}[31");
    }

    #[test]
    fn the_quoted_form_is_read_back_by_a_shell() {
        for bytes in [
            &b"a\xffb"[..],
            b"evil\x1b]0;x\x07\r7",
            b"it's \\ 1\xff2\n",
            "\u{202e}x".as_bytes(),
        ] {
            let path = Path::new(OsStr::from_bytes(bytes));
            let shown = shown(path);
            assert!(!shown.contains(is_deceptive), "{shown:?}");
            let echoed = std::process::Command::new("bash")
                .args(["-c", &format!("printf %s {shown}")])
                .output()
                .unwrap();
            assert_eq!(echoed.stdout, bytes, "{shown}");
        }
        assert_eq!(shown(Path::new("a b/数据")), "a b/数据");
    }

    #[test]
    fn a_script_gets_the_bytes_of_a_path_and_a_terminal_does_not() {
        let path = Path::new(OsStr::from_bytes(b"o\xff/f"));
        assert_eq!(path_result(path, || false), b"o\xff/f");
        assert_eq!(path_result(path, || true), br"$'o\377/f'");
        let evil = Path::new("a\x1bb");
        assert_eq!(path_result(evil, || false), br"$'a\033b'");
    }
}
