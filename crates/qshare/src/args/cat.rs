//! Arguments of `qshare cat`, and byte ranges.

use clap::Args;
use qshare_node::content::Hash;

use super::get::{FOREVER, GetArgs, Wait, parse_sha256, parse_wait};
use super::limits::LimitsArgs;
use super::network::NetworkArgs;
use super::shared::JsonArg;

const HELP: &str = "\
Examples:
  qshare cat notes.txt | less
  qshare cat backup.tar.zst | zstd -d | tar x
  qshare cat --range 0-1023 disk.img | xxd
  qshare cat --range -100 log.txt             the last 100 bytes
  qshare cat 7-zebra-zoo notes/today.txt      one file of a folder

NAME means what it means to `qshare get`. Bytes are verified before they are written, and written
while the rest is fetched. No more than some chunks are held in memory, and nothing on disk: an
interrupted `cat` starts from the beginning. `qshare get -o -` does the same.

What was written cannot be taken back: if the file changes at its source meanwhile, `cat` ends with
an error that says so, and exit code 3.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct CatArgs {
    /// Name, content ID, id:PREFIX, sha256:HEX, NODEID/NAME, link or code of one file; or FOLDER/,
    /// the link or code of a folder
    // Parsed by `argument.rs`: clap's errors would print a mistyped link in full.
    #[arg(value_name = "NAME")]
    pub(crate) wanted: String,
    /// The file to write, if NAME means a folder: its path in the folder
    #[arg(value_name = "FILE")]
    pub(crate) member: Option<String>,
    /// Bytes FIRST-LAST, counted from 0, LAST included; FIRST- to the end; -COUNT from the end
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    #[arg(value_parser = parse_range)]
    pub(crate) range: Option<ByteRange>,
    /// Require this SHA-256 of the whole file; with another one it ends with code 4, after the last
    /// byte
    #[arg(long, value_name = "HEX", conflicts_with = "range", value_parser = parse_sha256)]
    pub(crate) sha256: Option<Hash>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) limits: LimitsArgs,
    /// Keep retrying for SECONDS (default: forever) until a tracker, the name and a source are
    /// available
    #[arg(long, value_name = "SECONDS")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = FOREVER)]
    #[arg(value_parser = parse_wait)]
    pub(crate) wait: Option<Wait>,
}

impl CatArgs {
    /// Returns the arguments of the `get` that does the same: `get -o -`.
    pub(crate) fn into_get(self) -> GetArgs {
        GetArgs {
            include: Vec::new(),
            exclude: Vec::new(),
            list: false,
            wanted: vec![self.wanted],
            member: self.member,
            output: Some(STDOUT.into()),
            range: self.range,
            sha256: self.sha256,
            sums: None,
            network: self.network,
            limits: self.limits,
            seed: false,
            force: false,
            no_times: false,
            no_exec: false,
            no_sync: false,
            wait: self.wait,
            json: JsonArg { on: false },
        }
    }
}

/// What `-o` means standard output by.
pub(crate) const STDOUT: &str = "-";

/// A range of bytes, as in an HTTP `Range` (RFC 9110, section 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteRange {
    /// From the first to the last, both included.
    Between(u64, u64),
    /// From this one to the end.
    From(u64),
    /// This many at the end.
    Last(u64),
}

impl ByteRange {
    /// Returns the offsets of the first byte and of the one after the last, in a file of this
    /// length; None if no byte is in the range.
    pub(crate) fn within(self, length: u64) -> Option<std::ops::Range<u64>> {
        let range = match self {
            ByteRange::Between(first, last) => first..last.saturating_add(1).min(length),
            ByteRange::From(first) => first..length,
            ByteRange::Last(count) => length.saturating_sub(count)..length,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Parses `FIRST-LAST`, `FIRST-` or `-COUNT`.
pub(crate) fn parse_range(text: &str) -> Result<ByteRange, RangeError> {
    let (first, last) = text.split_once('-').ok_or(RangeError)?;
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u64>().map_err(|_| RangeError),
        false => Err(RangeError),
    };
    match (first, last) {
        ("", count) => number(count).map(ByteRange::Last),
        (first, "") => number(first).map(ByteRange::From),
        (first, last) => match (number(first)?, number(last)?) {
            (first, last) if first <= last => Ok(ByteRange::Between(first, last)),
            _ => Err(RangeError),
        },
    }
}

/// The text is not a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write FIRST-LAST, FIRST- or -COUNT, in bytes counted from 0; LAST is included")]
pub(crate) struct RangeError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_reads_them() {
        for (text, length, bytes) in [
            ("0-0", 10, Some(0..1)),
            ("2-4", 10, Some(2..5)),
            ("2-99", 10, Some(2..10)),
            ("7-", 10, Some(7..10)),
            ("-3", 10, Some(7..10)),
            ("-99", 10, Some(0..10)),
            ("10-", 10, None),
            ("10-12", 10, None),
            ("-0", 10, None),
            ("0-", 0, None),
            ("0-18446744073709551615", 10, Some(0..10)),
        ] {
            assert_eq!(parse_range(text).unwrap().within(length), bytes, "{text}");
        }
        for text in [
            "",
            "-",
            "5",
            "4-2",
            "a-b",
            "1-2-3",
            "+1-2",
            "1 -2",
            "99999999999999999999-",
        ] {
            assert_eq!(parse_range(text), Err(RangeError), "{text}");
        }
    }
}
