//! Merges the findings of several trackers and nodes.

use std::collections::BTreeMap;

use qshare_content::{AssetName, ContentId};

use crate::vocabulary::{Contact, Findings, FoundFile};

/// Merges the findings of two trackers, or of trackers and the local network. The larger count of
/// holders is taken, because the same nodes announce to several trackers.
pub(super) fn merge(a: Findings, b: Findings, limit: usize) -> Findings {
    let mut files: BTreeMap<(AssetName, ContentId), FoundFile> = BTreeMap::new();
    for file in a.files.into_iter().chain(b.files) {
        let key = (file.name.clone(), file.content);
        match files.get_mut(&key) {
            None => _ = files.insert(key, file),
            Some(known) => {
                known.complete = known.complete.max(file.complete);
                known.partial = known.partial.max(file.partial);
                known.metadata.merge(&file.metadata);
                add_contacts(&mut known.holders, file.holders);
            }
        }
    }
    let mut near = a.near;
    near.extend(b.near);
    near.dedup();
    Findings {
        truncated: a.truncated || b.truncated || files.len() > limit,
        files: files.into_values().take(limit).collect(),
        near,
    }
}

fn add_contacts(known: &mut Vec<Contact>, more: Vec<Contact>) {
    for contact in more {
        match known.iter_mut().find(|other| other.node == contact.node) {
            None => known.push(contact),
            Some(other) => {
                other.complete |= contact.complete;
                for address in contact.addresses {
                    if !other.addresses.contains(&address) {
                        other.addresses.push(address);
                    }
                }
            }
        }
    }
}

/// Merged findings of several neighbours. Each neighbour reports only itself as a holder, so the
/// counts are added.
#[derive(Default)]
pub(super) struct Neighbourhood {
    files: BTreeMap<(AssetName, ContentId), FoundFile>,
    truncated: bool,
}

impl Neighbourhood {
    /// Adds the findings of one neighbour, up to `limit` files in all.
    pub(super) fn add(&mut self, found: Findings, limit: usize) {
        self.truncated |= found.truncated;
        for file in found.files {
            let key = (file.name.clone(), file.content);
            let has_room = self.files.len() < limit;
            match self.files.get_mut(&key) {
                Some(known) => {
                    known.complete += file.complete;
                    known.partial += file.partial;
                    known.metadata.merge(&file.metadata);
                    known.holders.extend(file.holders);
                }
                None if has_room => _ = self.files.insert(key, file),
                None => self.truncated = true,
            }
        }
    }

    /// Returns all holders, so that the caller can complete their addresses.
    pub(super) fn holders_mut(&mut self) -> impl Iterator<Item = &mut Contact> {
        self.files.values_mut().flat_map(|file| &mut file.holders)
    }

    pub(super) fn into_findings(self) -> Findings {
        Findings {
            files: self.files.into_values().collect(),
            truncated: self.truncated,
            near: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::{ContentInfo, FileMetadata, Hash, NodeId};

    use super::*;

    fn file(name: &str, byte: u8, holders: &[(u8, u16)]) -> FoundFile {
        let info = ContentInfo {
            length: 1,
            root: Hash([byte; 32]),
        };
        let holder = |&(node, port): &(u8, u16)| Contact {
            node: NodeId([node; 32]),
            addresses: vec![([192, 0, 2, node], port).into()],
            complete: true,
        };
        FoundFile {
            name: AssetName::new(name).unwrap(),
            content: info.id(),
            info,
            is_collection: false,
            complete: holders.len() as u32,
            partial: 0,
            holders: holders.iter().map(holder).collect(),
            metadata: FileMetadata::default(),
        }
    }

    fn found(files: Vec<FoundFile>) -> Findings {
        Findings {
            files,
            ..Findings::default()
        }
    }

    #[test]
    fn holders_that_two_trackers_know_count_once() {
        let a = found(vec![file("x", 1, &[(1, 7000), (2, 7000)])]);
        let b = found(vec![file("x", 1, &[(2, 7001), (3, 7000)])]);
        let merged = merge(a, b, 10);
        assert_eq!(merged.files.len(), 1);
        assert_eq!(merged.files[0].complete, 2);
        assert_eq!(merged.files[0].holders.len(), 3);
        assert_eq!(merged.files[0].holders[1].addresses.len(), 2);
    }

    #[test]
    fn files_are_ordered_by_name_and_cut_at_the_limit() {
        let a = found(vec![file("c", 1, &[]), file("a", 1, &[])]);
        let b = found(vec![file("b", 1, &[]), file("a", 2, &[])]);
        let merged = merge(a, b, 3);
        let names: Vec<&str> = merged.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a", "a", "b"]);
        assert!(merged.truncated);
    }

    #[test]
    fn a_truncated_part_makes_the_whole_truncated() {
        let truncated = Findings {
            truncated: true,
            ..Findings::default()
        };
        assert!(merge(found(vec![]), truncated, 10).truncated);
    }

    #[test]
    fn a_time_counts_only_if_all_state_the_same() {
        let stating = |modified_ns| FoundFile {
            metadata: FileMetadata {
                modified_ns,
                ..FileMetadata::default()
            },
            ..file("x", 1, &[(1, 7000)])
        };
        for (a, b, agreed) in [
            (Some(1), Some(1), Some(1)),
            (Some(1), Some(2), None),
            (None, Some(2), Some(2)),
        ] {
            let merged = merge(found(vec![stating(a)]), found(vec![stating(b)]), 10);
            assert_eq!(merged.files[0].metadata.modified_ns, agreed);
            let mut around = Neighbourhood::default();
            around.add(found(vec![stating(a)]), 10);
            around.add(found(vec![stating(b)]), 10);
            assert_eq!(around.into_findings().files[0].metadata.modified_ns, agreed);
        }
    }

    #[test]
    fn neighbours_answer_for_themselves() {
        let mut neighbourhood = Neighbourhood::default();
        neighbourhood.add(found(vec![file("x", 1, &[(1, 7000)])]), 1);
        neighbourhood.add(found(vec![file("x", 1, &[(2, 7000)])]), 1);
        let both = vec![file("x", 1, &[(3, 7000)]), file("y", 1, &[(3, 7000)])];
        neighbourhood.add(found(both), 1);
        let found = neighbourhood.into_findings();
        assert_eq!(found.files[0].complete, 3);
        assert!(found.files.len() == 1 && found.truncated);
    }
}
