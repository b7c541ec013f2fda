//! Reads the indexes: names in their order, contents by their ids, and the names of contents.

use qshare_content::{ContentId, ContentInfo, Hash};
use qshare_registry::{Cursor, Order, is_topic};
use redis::Value;

use super::super::layout::{
    SHARDS, decode_id_member, decode_info, decode_name_member, shard_of_id, shard_of_name,
    strings_of,
};
use super::super::link::RegistryFault;
use super::super::scripts::Call;
use super::{Named, Names, Reader};

/// Names read of one content.
const NAMES_MAX: usize = 16;
/// Contents read of one digest. An honest digest has one.
const CONTENTS_OF_DIGEST_MAX: usize = 64;
/// Names read from one shard of an index at a time.
const SCAN_BATCH: usize = 256;

impl Reader {
    /// Returns contents of a name in the order of their ids, those behind `after`.
    pub(in super::super) async fn contents_of(
        &self,
        name: &str,
        after: Option<ContentId>,
    ) -> Result<Names, RegistryFault> {
        let from = match after {
            Some(content) => behind(name, content),
            None => [b"[", name.as_bytes(), &[0]].concat(),
        };
        let to = [b"(", name.as_bytes(), &[1]].concat();
        let shard = shard_of_name(name);
        let call = self.layout.range_of_names(shard, &from, &to, SCAN_BATCH);
        let values = self.link.run(&[call]).await?;
        let members: Vec<&[u8]> = values.iter().flat_map(strings_of).collect();
        let is_cut = members.len() == SCAN_BATCH;
        let names = members.into_iter().filter_map(decode_name_member);
        let names = names.filter_map(|(name, info)| Named::new(name, info));
        let names: Vec<Named> = names.collect();
        Ok(Names {
            more: names.last().filter(|_| is_cut).map(cursor_at),
            names,
        })
    }

    /// Returns the names that begin with `prefix` and are `wanted`, behind the cursor `after`, up
    /// to `limit`; visits a bounded number of names.
    pub(in super::super) async fn names(
        &self,
        prefix: &str,
        after: Option<&Cursor>,
        limit: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Names, RegistryFault> {
        let first = [b"[", prefix.as_bytes()].concat();
        let from = match after {
            Some(cursor) => {
                let behind = behind(&cursor.name, cursor.content);
                // Both begin with the kind of the bound, which is no part of the order.
                match behind[1..] > first[1..] {
                    true => behind,
                    false => first,
                }
            }
            None => first,
        };
        // No name holds the byte 0xff.
        let to = [b"(", prefix.as_bytes(), &[0xff]].concat();
        let calls: Vec<Call> = (0..SHARDS)
            .map(|shard| self.layout.range_of_names(shard, &from, &to, SCAN_BATCH))
            .collect();
        let values = self.link.run(&calls).await?;
        let mut found: Vec<Named> = Vec::new();
        // A shard that was not read to its end limits how far the names are complete.
        let mut complete_to: Option<Named> = None;
        for value in &values {
            let members = strings_of(value);
            let is_cut = members.len() == SCAN_BATCH;
            let named: Vec<Named> = members
                .into_iter()
                .filter_map(decode_name_member)
                .filter_map(|(name, info)| Named::new(name, info))
                .collect();
            if is_cut && let Some(last) = named.last() {
                let nearest = complete_to
                    .take()
                    .map_or(last.clone(), |at| at.min(last.clone()));
                complete_to = Some(nearest);
            }
            found.extend(named);
        }
        found.sort();
        if let Some(end) = &complete_to {
            found.retain(|named| named <= end);
        }
        let mut names = Names::default();
        let mut last: Option<Named> = complete_to;
        for named in found {
            if names.names.len() == limit {
                last = names.names.last().cloned();
                break;
            }
            if wanted(named.name.as_str()) {
                names.names.push(named);
            }
        }
        names.more = last.map(|last| cursor_at(&last));
        Ok(names)
    }

    /// Returns the contents whose ids lie between two ids of one shard, the first one exclusive if
    /// `after`, each with one name.
    pub(in super::super) async fn contents_between(
        &self,
        first: ContentId,
        after: bool,
        last: ContentId,
        limit: usize,
    ) -> Result<Names, RegistryFault> {
        let from = match after {
            true => [b"(", &first.0[..], &[0xff; 41]].concat(),
            false => [b"[", &first.0[..]].concat(),
        };
        let to = [b"(", &last.0[..], &[0xff; 41]].concat();
        let shard = shard_of_id(last);
        let call = self.layout.range_of_ids(shard, &from, &to, limit);
        let values = self.link.run(&[call]).await?;
        let infos: Vec<ContentInfo> = values
            .iter()
            .flat_map(strings_of)
            .filter_map(decode_id_member)
            .collect();
        let is_cut = infos.len() == limit;
        let ids: Vec<ContentId> = infos.iter().map(ContentInfo::id).collect();
        let named = self.names_of(&ids).await?;
        let names: Vec<Named> = named
            .into_iter()
            .filter_map(|names| names.into_iter().min())
            .collect();
        // The name of this cursor is not looked at.
        let last = ids.last().filter(|_| is_cut);
        let more = last.map(|&content| Cursor {
            order: Order::Forward,
            name: String::new(),
            content,
        });
        Ok(Names { names, more })
    }

    /// Returns some names of the contents whose nodes state this plain SHA-256.
    pub(in super::super) async fn names_of_digest(
        &self,
        digest: &Hash,
    ) -> Result<Vec<Named>, RegistryFault> {
        let call = self
            .layout
            .contents_of_digest(digest, CONTENTS_OF_DIGEST_MAX);
        let values = self.link.run(&[call]).await?;
        let members = values.iter().flat_map(strings_of);
        let infos: Vec<ContentInfo> = members.filter_map(decode_id_member).collect();
        let ids: Vec<ContentId> = infos.iter().map(ContentInfo::id).collect();
        let names = self.names_of(&ids).await?;
        // What nobody announces any more is listed until somebody looks.
        let gone = infos
            .iter()
            .zip(&names)
            .filter(|(_, names)| names.is_empty());
        let gone = gone.map(|(info, _)| self.layout.unlist_digest(digest, info));
        self.link.run(&gone.collect::<Vec<Call>>()).await?;
        let mut names: Vec<Named> = names.into_iter().flatten().collect();
        names.retain(|named| !is_topic(&named.info));
        names.sort();
        Ok(names)
    }

    /// Returns some names of each content.
    pub(in super::super) async fn names_of(
        &self,
        contents: &[ContentId],
    ) -> Result<Vec<Vec<Named>>, RegistryFault> {
        let calls: Vec<Call> = contents
            .iter()
            .map(|&content| self.layout.read_names(content, NAMES_MAX))
            .collect();
        let values = self.link.run(&calls).await?;
        let names = values.iter().map(|value| {
            let pairs = strings_of(value);
            let pairs = pairs.chunks_exact(2);
            pairs
                .filter_map(|pair| {
                    Named::new(std::str::from_utf8(pair[0]).ok()?, decode_info(pair[1])?)
                })
                .collect()
        });
        Ok(names.collect())
    }

    /// Returns names of all trackers next to `text` in the order of names, about `max`, the nearest
    /// first: in turn one that follows and one that precedes.
    pub(in super::super) async fn neighbours(
        &self,
        text: &str,
        max: usize,
    ) -> Result<Vec<Named>, RegistryFault> {
        let of_shard = max.div_ceil(usize::from(SHARDS));
        let following = (0..SHARDS).map(|shard| self.layout.names_from(shard, text, of_shard));
        let preceding = (0..SHARDS).map(|shard| self.layout.names_before(shard, text, of_shard));
        let calls: Vec<Call> = following.chain(preceding).collect();
        let values = self.link.run(&calls).await?;
        let (following, preceding) = values.split_at(usize::from(SHARDS));
        let (following, preceding) = (sorted_names(following), sorted_names(preceding));
        let mut following = following.into_iter();
        let mut preceding = preceding.into_iter().rev();
        let pairs = std::iter::from_fn(|| {
            let pair = [following.next(), preceding.next()];
            pair.iter().any(Option::is_some).then_some(pair)
        });
        Ok(pairs.flatten().flatten().take(max).collect())
    }
}

/// Reads members of the index of names from answers of several shards.
fn sorted_names(values: &[Value]) -> Vec<Named> {
    let members = values.iter().flat_map(strings_of);
    let mut names: Vec<Named> = members
        .filter_map(decode_name_member)
        .filter_map(|(name, info)| Named::new(name, info))
        .collect();
    names.sort();
    names
}

/// Returns the bound of the index of names behind a name and content.
fn behind(name: &str, content: ContentId) -> Vec<u8> {
    [b"(", name.as_bytes(), &[0], &content.0[..], &[0xff; 41]].concat()
}

fn cursor_at(named: &Named) -> Cursor {
    Cursor {
        order: Order::Forward,
        name: named.name.to_string(),
        content: named.content,
    }
}
