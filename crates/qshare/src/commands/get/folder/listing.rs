//! `--list`: prints what a folder holds, without downloading it.

use qshare_node::content::manifest::cmp_names;
use qshare_node::{Folder, Selection};
use serde::Serialize;

use crate::console::Console;
use crate::exit::Failure;
use crate::{neutral, output};

/// An entry, as `--list --json` prints it.
#[derive(Debug, Serialize)]
struct EntryJson<'a> {
    name: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executable: Option<bool>,
    /// Nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    modified_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
}

/// An entry by its position in its part of the list.
enum Entry {
    File(u32),
    Link(usize),
    Directory(usize),
}

/// Prints the selected entries, in the order of names.
pub(super) fn print(
    folder: &Folder,
    selection: &Selection,
    json: bool,
    console: &Console,
) -> Result<(), Failure> {
    let list = folder.list();
    let (links, directories) = (list.links(), list.empty_directories());
    let name_of = |entry: &Entry| match entry {
        Entry::File(at) => list.name(*at),
        Entry::Link(at) => links.get(*at).map(|(name, _)| name.as_str()),
        Entry::Directory(at) => directories.get(*at).map(|name| name.as_str()),
    };
    let files = (0..list.file_count()).map(Entry::File);
    let mut entries: Vec<Entry> = files
        .chain((0..links.len()).map(Entry::Link))
        .chain((0..directories.len()).map(Entry::Directory))
        .filter(|entry| name_of(entry).is_some_and(|name| selection.allows(name)))
        .collect();
    entries.sort_by(|a, b| cmp_names(name_of(a).unwrap_or(""), name_of(b).unwrap_or("")));
    for entry in &entries {
        let Some(name) = name_of(entry) else { continue };
        let mut row = EntryJson {
            name,
            kind: "directory",
            size: None,
            content: None,
            executable: None,
            modified_ns: None,
            target: None,
        };
        let line = match entry {
            Entry::File(at) => {
                let Some(file) = list.file(*at) else { continue };
                row.kind = "file";
                row.size = Some(file.info.length);
                row.content = Some(file.info.id().to_string());
                row.executable = Some(file.executable);
                row.modified_ns = folder.attributes(*at).modified_ns;
                let mark = if file.executable { "*" } else { "" };
                format!("{:>10}  {name}{mark}", output::bytes(file.info.length))
            }
            Entry::Link(at) => {
                row.kind = "link";
                row.target = links.get(*at).map(|(_, target)| target.as_str());
                format!("{:>10}  {name} -> {}", "", row.target.unwrap_or_default())
            }
            Entry::Directory(_) => format!("{:>10}  {name}/", ""),
        };
        match json {
            true => console.json(&row)?,
            false => console.result(&neutral::neutral_line(&line))?,
        }
    }
    let totals = list.totals();
    console.note(&format!(
        "{}, {}",
        output::count(totals.files, "file"),
        output::bytes(totals.bytes)
    ));
    Ok(())
}
