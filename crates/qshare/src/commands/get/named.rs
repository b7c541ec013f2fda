//! What the command says about a file that was found: by its links, names and globs.

use qshare_node::content::{AnswerFilter, ContentId, NodeAddress, Query, ShareKey, is_glob};
use qshare_node::{FileAttributes, Follow, FoundFile};

use crate::args::GetArgs;
use crate::argument::Wanted;
use crate::choice::Choice;

/// Returns the nodes that links name for a content.
pub(super) fn nodes_in_links(wanted: &[Wanted], content: ContentId) -> Vec<NodeAddress> {
    let nodes = wanted.iter().filter_map(|wanted| match wanted {
        Wanted::Link(link) if link.info.id() == content => Some(link.nodes.iter().cloned()),
        _ => None,
    });
    nodes.flatten().collect()
}

/// Returns the key of the private share as which a content is wanted; None if an argument means it
/// as public.
pub(super) fn key_in_links(wanted: &[Wanted], content: ContentId) -> Option<ShareKey> {
    let mut links = wanted.iter().filter_map(|wanted| match wanted {
        Wanted::Link(link) if link.info.id() == content => Some(&link.key),
        _ => None,
    });
    let first = links.next()?.clone();
    first.filter(|_| links.all(Option::is_some))
}

/// Returns the modification time and execute bit that a file gets. Others than whoever made a link,
/// or the one node that the user named, do not decide that a file is executable.
pub(super) fn attributes(args: &GetArgs, wanted: &[Wanted], file: &FoundFile) -> FileAttributes {
    let is_trusted = wanted.iter().any(|wanted| match wanted {
        Wanted::Link(link) => link.info.id() == file.content && link.executable,
        Wanted::Query(Query::OfNode(_, name)) => *name == file.name,
        Wanted::Query(_) | Wanted::Name(_) | Wanted::Code(_) | Wanted::Folder(_) => false,
    });
    FileAttributes {
        modified_ns: file.metadata.modified_ns.filter(|_| !args.no_times),
        executable: file.metadata.executable && is_trusted && !args.no_exec,
    }
}

/// Returns how a file is looked up again whose sources have a newer version by now; None if the
/// command says which content it must be.
pub(super) fn follow(args: &GetArgs, meanings: &[Meaning<'_>], file: &FoundFile) -> Option<Follow> {
    if args.sha256.is_some() || args.sums.is_some() {
        return None;
    }
    let mut query = None;
    for meaning in meanings.iter().filter(|meaning| meaning.allows(file)) {
        query = Some(match meaning.wanted {
            Wanted::Query(query @ Query::OfNode(..)) => query.clone(),
            Wanted::Name(_) | Wanted::Query(Query::Name(_)) => {
                Query::Name(file.name.as_str().to_owned())
            }
            Wanted::Query(_) | Wanted::Link(_) | Wanted::Code(_) | Wanted::Folder(_) => {
                return None;
            }
        });
    }
    let follow = Follow::of_query(&query?, file)?;
    Some(Follow {
        keeps_times: !args.no_times,
        keeps_exec: follow.keeps_exec && !args.no_exec,
        ..follow
    })
}

/// The files that an argument can mean. Create it once for each argument, because it compiles a
/// glob.
pub(super) struct Meaning<'a> {
    wanted: &'a Wanted,
    filter: Option<AnswerFilter>,
}

impl<'a> Meaning<'a> {
    pub(super) fn new(wanted: &'a Wanted) -> Meaning<'a> {
        let filter = match wanted {
            Wanted::Query(query) => Some(AnswerFilter::new(query)),
            Wanted::Name(_) | Wanted::Link(_) | Wanted::Code(_) | Wanted::Folder(_) => None,
        };
        Meaning { wanted, filter }
    }

    pub(super) fn allows(&self, file: &FoundFile) -> bool {
        match self.wanted {
            Wanted::Name(name) => *name == file.name,
            Wanted::Link(link) => link.info.id() == file.content,
            Wanted::Query(_) => self
                .filter
                .as_ref()
                .is_some_and(|filter| filter.allows(&file.name, &file.content)),
            Wanted::Code(_) | Wanted::Folder(_) => false,
        }
    }

    /// Returns whether the command itself names the file.
    fn names(&self, file: &FoundFile) -> bool {
        match self.wanted {
            Wanted::Name(name) => *name == file.name,
            Wanted::Link(link) => link.name.as_ref() == Some(&file.name),
            Wanted::Query(query) => query.is_about_names() && self.allows(file),
            Wanted::Code(_) | Wanted::Folder(_) => false,
        }
    }
}

/// Returns whether the command itself names a file.
pub(super) fn is_named(meanings: &[Meaning<'_>], file: &FoundFile) -> bool {
    meanings.iter().any(|meaning| meaning.names(file))
}

/// Returns whether an argument was used as a glob, and not as the exact name of a file.
pub(super) fn has_glob(wanted: &[Wanted], choice: &Choice) -> bool {
    wanted.iter().any(|wanted| match wanted {
        Wanted::Query(Query::Name(text)) => {
            is_glob(text) && !choice.files.iter().any(|file| file.name.as_str() == text)
        }
        Wanted::Name(_)
        | Wanted::Query(_)
        | Wanted::Link(_)
        | Wanted::Code(_)
        | Wanted::Folder(_) => false,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use qshare_node::content::{AssetName, ContentInfo, FileMetadata, Hash, Link};

    use super::*;

    /// Files `d/0`, `d/1`, …, each of another content.
    pub(in crate::commands::get) fn files(count: u8) -> Choice {
        let file = |byte| {
            let info = ContentInfo {
                length: 1,
                root: Hash([byte; 32]),
            };
            FoundFile {
                name: AssetName::new(format!("d/{byte}")).unwrap(),
                content: info.id(),
                info,
                is_collection: false,
                complete: 1,
                partial: 0,
                holders: Vec::new(),
                metadata: FileMetadata::default(),
            }
        };
        Choice {
            files: (0..count).map(file).collect(),
            ..Choice::default()
        }
    }

    #[test]
    fn a_glob_that_is_the_exact_name_of_a_file_is_a_name() {
        let found = files(1);
        let wanted = |text: &str| [Wanted::Query(text.parse().unwrap())];
        assert!(has_glob(&wanted("d/*"), &found));
        assert!(!has_glob(&wanted("d/0"), &found));
        let mut odd = files(1);
        odd.files[0].name = AssetName::new("[x]").unwrap();
        assert!(!has_glob(&wanted("[x]"), &odd));
    }

    #[test]
    fn only_a_name_in_the_command_lets_a_file_be_replaced() {
        let file = files(1).files.remove(0);
        let id = file.content.to_string();
        let link = |name: Option<&str>| {
            Wanted::Link(Box::new(Link {
                info: file.info,
                trackers: Vec::new(),
                nodes: Vec::new(),
                name: name.map(|name| AssetName::new(name).unwrap()),
                key: None,
                modified_ns: None,
                executable: false,
                folder: None,
            }))
        };
        let query = |text: &str| Wanted::Query(text.parse().unwrap());
        for wanted in [query("d/0"), query("d/*"), link(Some("d/0"))] {
            assert!(is_named(&[Meaning::new(&wanted)], &file), "{wanted}");
        }
        for wanted in [query(&id), query("id:1"), query("other"), link(None)] {
            assert!(!is_named(&[Meaning::new(&wanted)], &file), "{wanted}");
        }
    }
}
