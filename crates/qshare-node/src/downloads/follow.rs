//! Downloads by name: when a file is replaced at its sources, its name means the newer version.

use std::collections::BTreeMap;

use qshare_content::{AssetName, ContentId, NodeId, Query};

use crate::vocabulary::{Contact, FoundFile};

/// Nodes that are remembered as sources of the version at hand.
const HAD_MAX: usize = 16;

/// How a file or folder is looked up again, of which the user knows the name only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// The name that the user gave.
    pub name: AssetName,
    /// The only node whose file it is.
    pub node: Option<NodeId>,
    /// Whether the file gets the modification time that its sources state.
    pub keeps_times: bool,
    /// Whether the sources decide that the file is executable.
    pub keeps_exec: bool,
    /// Some nodes that had the version at hand. No other node decides what the name means by now.
    pub had: Vec<NodeId>,
}

impl Follow {
    /// Follows a name, of which these nodes hold the version at hand.
    pub fn new(name: AssetName, holders: &[Contact]) -> Follow {
        Follow {
            name,
            node: None,
            keeps_times: true,
            keeps_exec: false,
            had: Follow::nodes(holders),
        }
    }

    /// Follows a found file, if the query was for a name; None if it was for a content.
    pub fn of_query(query: &Query, file: &FoundFile) -> Option<Follow> {
        let follow = Follow::new(file.name.clone(), &file.holders);
        match query {
            Query::Name(_) => Some(follow),
            Query::OfNode(node, _) => Some(Follow {
                node: Some(*node),
                keeps_exec: true,
                ..follow
            }),
            Query::Id(_) | Query::IdPrefix(_) | Query::Sha256(_) => None,
        }
    }

    fn nodes(holders: &[Contact]) -> Vec<NodeId> {
        let nodes = holders.iter().map(|holder| holder.node);
        nodes.take(HAD_MAX).collect()
    }

    /// Follows on from a newer version.
    pub fn renewed(&self, holders: &[Contact]) -> Follow {
        Follow {
            had: Follow::nodes(holders),
            ..self.clone()
        }
    }

    /// Returns the query that finds the name.
    pub fn query(&self) -> Query {
        match self.node {
            None => Query::Name(self.name.as_str().to_owned()),
            Some(node) => Query::OfNode(node, self.name.clone()),
        }
    }

    /// Returns the file that the name means among those that [`query`](Self::query) found, if it is
    /// another content than `present` and one of the nodes that had that offers it.
    pub fn newer(&self, present: &ContentId, files: Vec<FoundFile>) -> Option<FoundFile> {
        let mut complete = BTreeMap::new();
        for file in files {
            if file.name == self.name && !file.is_collection && file.complete > 0 {
                complete.entry(file.content).or_insert(file);
            }
        }
        let (content, file) = complete.pop_first()?;
        let had_it = |holder: &Contact| self.had.contains(&holder.node);
        let is_newer = complete.is_empty() && content != *present;
        (is_newer && file.holders.iter().any(had_it)).then_some(file)
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::{ContentInfo, FileMetadata, Hash};

    use super::*;

    fn contact(byte: u8) -> Contact {
        Contact {
            node: NodeId([byte; 32]),
            addresses: Vec::new(),
            complete: true,
        }
    }

    fn file(byte: u8, complete: u32, holder: u8) -> FoundFile {
        let info = ContentInfo {
            length: 5,
            root: Hash([byte; 32]),
        };
        FoundFile {
            name: AssetName::new("x").unwrap(),
            content: info.id(),
            info,
            is_collection: false,
            complete,
            partial: 0,
            metadata: FileMetadata::default(),
            holders: vec![contact(holder)],
        }
    }

    #[test]
    fn only_a_node_that_had_the_file_offers_its_newer_version() {
        let name = AssetName::new("x").unwrap();
        let follow = Follow::new(name, &[contact(1), contact(2)]);
        let present = file(3, 1, 1).content;
        let newer = |files: &[FoundFile]| follow.newer(&present, files.to_vec());
        let new = file(7, 1, 1);
        let old_partial = file(8, 0, 2);
        assert_eq!(newer(&[new.clone(), old_partial]), Some(new.clone()));
        assert_eq!(newer(&[file(7, 0, 1)]), None);
        assert_eq!(newer(&[file(7, 1, 9)]), None);
        assert_eq!(newer(&[new, file(9, 1, 9)]), None);
        assert_eq!(newer(&[file(3, 1, 1)]), None);
        let other_name = FoundFile {
            name: AssetName::new("y").unwrap(),
            ..file(7, 1, 1)
        };
        assert_eq!(newer(&[other_name]), None);
    }

    #[test]
    fn a_content_is_not_followed_and_a_name_is() {
        let found = file(7, 1, 1);
        let id = Query::Id(found.content);
        assert_eq!(Follow::of_query(&id, &found), None);
        let follow = Follow::of_query(&"*".parse().unwrap(), &found).unwrap();
        assert_eq!(follow.query(), "x".parse().unwrap());
        let of_node = Query::OfNode(NodeId([4; 32]), found.name.clone());
        let follow = Follow::of_query(&of_node, &found).unwrap();
        assert_eq!((follow.query(), follow.keeps_exec), (of_node, true));
    }
}
