//! The format of results: JSON objects for scripts, and amounts, times and tables for people.

use std::path::Path;
use std::time::Duration;

use qshare_node::content::{ContentId, ContentInfo, NodeId};
use qshare_node::{FoundFile, PathKind, Report};
use serde::Serialize;

use crate::argument::found_argument;
use crate::neutral;

/// A finished download, as `get --json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct DownloadedJson {
    content: String,
    name: String,
    size: u64,
    path: String,
    seconds: f64,
    resumed_bytes: u64,
    reused_bytes: u64,
    received_bytes: u64,
    wasted_bytes: u64,
    sources: Vec<SourceJson>,
}

#[derive(Debug, Serialize)]
struct SourceJson {
    node: String,
    address: String,
    path: PathKind,
    bytes: u64,
    chunks: u32,
}

impl From<&Report> for DownloadedJson {
    fn from(report: &Report) -> DownloadedJson {
        let sources = report.sources.iter().map(|source| SourceJson {
            node: source.node.to_string(),
            address: canonical(source.address).to_string(),
            path: source.path,
            bytes: source.bytes,
            chunks: source.chunks,
        });
        DownloadedJson {
            content: report.content.to_string(),
            name: report.name.to_string(),
            size: report.size_bytes,
            path: path(&report.path),
            seconds: report.elapsed.as_secs_f64(),
            resumed_bytes: report.resumed_bytes,
            reused_bytes: report.reused_bytes,
            received_bytes: report.received_bytes,
            wasted_bytes: report.wasted_bytes,
            sources: sources.collect(),
        }
    }
}

/// A file that can be downloaded, as `ls --json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct ListedJson {
    content: String,
    /// In the form that `get` accepts.
    name: String,
    size: u64,
    complete: u32,
    partial: u32,
    /// Seconds since 1970, if the sources agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<f64>,
    /// With `--links` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

impl ListedJson {
    pub(crate) fn new(file: &FoundFile, link: Option<String>) -> ListedJson {
        ListedJson {
            content: file.content.to_string(),
            name: found_argument(file),
            size: file.info.length,
            complete: file.complete,
            partial: file.partial,
            modified: file.metadata.modified_ns.map(|ns| ns as f64 / 1e9),
            link,
        }
    }
}

/// A local file, as `hash --json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct HashedJson {
    content: String,
    root: String,
    name: String,
    size: u64,
    /// With `--sha256` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl HashedJson {
    pub(crate) fn new(
        file: &Path,
        info: &ContentInfo,
        sha256: Option<qshare_node::content::Hash>,
    ) -> HashedJson {
        HashedJson {
            content: info.id().to_string(),
            root: info.root.to_string(),
            name: path(file),
            size: info.length,
            sha256: sha256.map(|digest| digest.to_string()),
        }
    }
}

/// A node or a tracker that is ready.
#[derive(Debug, Serialize)]
pub(crate) struct ReadyJson {
    id: String,
    listen: String,
    /// URL of the web page, without its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
}

impl ReadyJson {
    pub(crate) fn new(id: NodeId, listen: std::net::SocketAddr) -> ReadyJson {
        ReadyJson {
            id: id.to_string(),
            listen: listen.to_string(),
            http: None,
        }
    }

    /// Adds the URL of the web page.
    pub(crate) fn with_http(self, url: Option<String>) -> ReadyJson {
        ReadyJson { http: url, ..self }
    }
}

/// The identities of a directory, as `id --json` prints them.
#[derive(Debug, Serialize)]
pub(crate) struct IdentitiesJson {
    pub(crate) node: String,
    /// Null until a tracker was started from there.
    pub(crate) tracker: Option<String>,
    pub(crate) certs: String,
}

/// The last object of a listing that ended early.
#[derive(Debug, Serialize)]
pub(crate) struct TruncatedJson {
    pub(crate) truncated: bool,
}

/// Returns a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    // Serialisation fails only for maps whose keys are no strings.
    serde_json::to_string(value).unwrap_or_default()
}

/// Returns a path without the `./` that the current directory adds.
pub(crate) fn without_dot(path: &Path) -> &Path {
    path.strip_prefix(".").unwrap_or(path)
}

/// Returns a path for display and JSON: unchanged, or in the form `$'a\377'` if it is not Unicode.
/// In JSON, the console escapes control characters.
pub(crate) fn path(path: &Path) -> String {
    let path = without_dot(path);
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => neutral::shown(path),
    }
}

/// Returns an IPv4-mapped IPv6 address as IPv4.
fn canonical(address: std::net::SocketAddr) -> std::net::SocketAddr {
    std::net::SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns a number of bytes in decimal units: `17 B`, `1.2 MB`, `340 GB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut amount = count as f64 / 1000.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    // 999.5 would be printed as 1000.
    while amount >= 999.5
        && let Some(next) = units.next()
    {
        amount /= 1000.0;
        unit = Some(next);
    }
    let unit = unit.unwrap_or(&"");
    if amount < 9.95 {
        format!("{amount:.1} {unit}")
    } else {
        format!("{amount:.0} {unit}")
    }
}

/// Returns a duration as a clock shows it: `0:07`, `12:34`, `2:03:04`, `3 days`.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{rest:02}"),
        1..48 => format!("{hours}:{minutes:02}:{rest:02}"),
        _ => format!("{} days", hours / 24),
    }
}

/// Returns a number with its noun: `1 file`, `2 files`.
pub(crate) fn count(number: impl Into<u64>, noun: &str) -> String {
    match number.into() {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

/// Returns the number of a file's holders: `3 holders`, `2 holders, 1 partial`.
pub(crate) fn holders(file: &FoundFile) -> String {
    match (file.complete, file.partial) {
        (complete, 0) => count(complete, "holder"),
        (0, partial) => format!("{partial} partial"),
        (complete, partial) => format!("{}, {partial} partial", count(complete, "holder")),
    }
}

/// Returns for each ID its shortest unique `id:PREFIX`, with at least ten digits.
pub(crate) fn prefixes(ids: &[ContentId]) -> Vec<String> {
    const SHORTEST: usize = 10;
    let texts: Vec<String> = ids.iter().map(ContentId::to_string).collect();
    let common = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let unique = |text: &String| {
        let others = texts.iter().filter(|other| *other != text);
        let longest = others
            .map(|other| common(text, other) + 1)
            .max()
            .unwrap_or(0);
        format!("id:{}", text.get(..longest.max(SHORTEST)).unwrap_or(text))
    };
    texts.iter().map(unique).collect()
}

/// Returns rows as lines with aligned columns; those in `right` are aligned to the right.
pub(crate) fn table<const N: usize>(rows: &[[String; N]], right: [bool; N]) -> Vec<String> {
    use unicode_width::UnicodeWidthStr;
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].width())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for column in 0..N {
            let pad = " ".repeat(widths[column].saturating_sub(row[column].width()));
            let gap = if column == 0 { "" } else { "  " };
            line += gap;
            match right[column] {
                true => line += &(pad + &row[column]),
                false => line += &(row[column].clone() + &pad),
            }
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use qshare_node::Source;
    use qshare_node::content::{AssetName, Hash};

    use super::*;

    #[test]
    fn amounts_are_short_and_decimal() {
        for (count, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_951, "10 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (1_234_567_890, "1.2 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
    }

    #[test]
    fn times_read_as_a_clock() {
        for (seconds, shown) in [
            (7, "0:07"),
            (754, "12:34"),
            (7384, "2:03:04"),
            (300_000, "3 days"),
        ] {
            assert_eq!(clock(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn a_finished_download_has_exactly_the_documented_fields() {
        let report = Report {
            content: ContentId([1; 32]),
            name: AssetName::new("a/b").unwrap(),
            size_bytes: 5,
            path: "./a/b".into(),
            elapsed: Duration::from_millis(1500),
            resumed_bytes: 1,
            reused_bytes: 0,
            received_bytes: 4,
            wasted_bytes: 0,
            sources: vec![Source {
                node: NodeId([2; 32]),
                address: "[::ffff:192.0.2.1]:7".parse().unwrap(),
                path: PathKind::Lan,
                bytes: 4,
                chunks: 1,
            }],
            already_there: false,
            files: None,
        };
        let printed = json(&DownloadedJson::from(&report));
        let (content, node) = (report.content, report.sources[0].node);
        let wanted = format!(
            r#"{{"content":"{content}","name":"a/b","size":5,"path":"a/b","seconds":1.5,"resumed_bytes":1,"reused_bytes":0,"received_bytes":4,"wasted_bytes":0,"sources":[{{"node":"{node}","address":"192.0.2.1:7","path":"lan","bytes":4,"chunks":1}}]}}"#
        );
        assert_eq!(printed, wanted);
    }

    #[test]
    fn a_path_that_is_not_unicode_is_printed_so_that_a_shell_can_open_it() {
        use std::os::unix::ffi::OsStrExt;
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"./o\xff/f"));
        assert_eq!(path(odd), r"$'o\377/f'");
        assert_eq!(path(Path::new("./a/b")), "a/b");
    }

    #[test]
    fn a_name_is_listed_in_the_form_that_get_accepts() {
        let info = ContentInfo {
            length: 3,
            root: Hash([0; 32]),
        };
        let file = FoundFile {
            name: AssetName::new("0a".repeat(32)).unwrap(),
            content: info.id(),
            info,
            is_collection: false,
            complete: 1,
            partial: 0,
            holders: Vec::new(),
            metadata: Default::default(),
        };
        let printed = json(&ListedJson::new(&file, None));
        assert!(printed.contains(r#""name":"name:0a0a"#), "{printed}");
    }

    #[test]
    fn a_link_is_listed_only_when_asked_for() {
        let info = ContentInfo {
            length: 3,
            root: Hash([0; 32]),
        };
        let file = FoundFile {
            name: AssetName::new("x").unwrap(),
            content: info.id(),
            info,
            is_collection: false,
            complete: 2,
            partial: 1,
            holders: Vec::new(),
            metadata: Default::default(),
        };
        let plain = json(&ListedJson::new(&file, None));
        let wanted = format!(
            r#"{{"content":"{}","name":"x","size":3,"complete":2,"partial":1}}"#,
            info.id()
        );
        assert_eq!(plain, wanted);
        let linked = json(&ListedJson::new(&file, Some("qshare:…".into())));
        assert!(linked.ends_with(r#","link":"qshare:…"}"#), "{linked}");
        assert_eq!(holders(&file), "2 holders, 1 partial");
    }

    #[test]
    fn prefixes_are_unique_even_for_ids_that_were_made_to_resemble_each_other() {
        let mut twin = [0xab; 32];
        twin[9] = 0;
        let ids = [ContentId([0xab; 32]), ContentId(twin), ContentId([1; 32])];
        let shown = prefixes(&ids);
        assert_eq!(shown[0], format!("id:{}a", "ab".repeat(9)));
        assert_eq!(shown[1], format!("id:{}0", "ab".repeat(9)));
        assert_eq!(shown[2], "id:0101010101");
    }

    #[test]
    fn columns_line_up_in_any_script() {
        let rows = [["数据", "1 B"], ["a", "12 kB"]].map(|row| row.map(String::from));
        assert_eq!(table(&rows, [false, true]), ["数据    1 B", "a     12 kB"]);
    }
}
