//! What lies in Redis: keys, values, and the scripts that change them.
//!
//! ```text
//! q:G:s:{NODE}        string  a node's session; expires with its lease
//! q:G:a:{CONTENT}NAME hash    node → stamp, c (complete) or p, d (collection) or f, metadata
//! q:G:n:{CONTENT}     hash    the content's names → its length and root
//! q:G:d:{DIGEST}      set     contents of a plain SHA-256, as their nodes state it
//! q:G:w:{CONTENT}     set     trackers whose nodes watch the content
//! q:G:x:SHARD         zset    NAME 0 CONTENT LENGTH ROOT, in the order of names
//! q:G:i:SHARD         zset    CONTENT LENGTH ROOT, in the order of ids
//! q:G:b:{TRACKER}     list    messages to a tracker
//! q:G:t:{TRACKER}     string  a tracker's record; expires with its lease
//! q:G:v:{TRACKER}     string  what networks use of a tracker; expires with its lease
//! q:G:t               zset    trackers by the time at which they were last seen
//! q:G:m:{m}:kNUMBER   string  a mailbox; see `mailbox_records`
//! q:G:m:{m}:a         zset    all mailboxes by the time at which they are forgotten
//! q:G:m:{m}:oOWNER    zset    those of one owner, in the order in which they yield
//! q:G:m:{m}:uNETWORK  zset    nodes of a network by their number of mailboxes
//! q:G:m:{m}:n         zset    networks by their number of mailboxes
//! q:id                string  the registry's id
//! ```
//!
//! `G` is the group. In a cluster the part in braces decides which server a key lies on, so all
//! keys of one content lie together, contents and the 16 shards of the two indexes are spread, and
//! each script touches keys of one content or node only. A session's value is
//!
//! ```text
//! stamp 24 │ from 24 │ l (live) or g (gone) │ tracker 32 │ details (postcard)
//! ```
//!
//! A stamp is the number of a session and an epoch, in hex digits: see [`Stamp`]. An entry counts
//! if its stamp is not below its session's `from`.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use qshare_content::{ContentId, ContentInfo, FileMetadata, Hash, NodeId};
use qshare_registry::GroupId;
use redis::Value;

use super::scripts::{Call, ScriptName};

/// Shards of the index of names, and of the index of ids.
pub(super) const SHARDS: u8 = 16;
/// Time to live of an entry. Trackers publish their entries again within a third of it.
pub(super) const ENTRY_LIFETIME: Duration = Duration::from_secs(3600);
/// Time for which an ended session is remembered, so that an older one cannot take its place: twice
/// the time-out after which a tracker knows that the older connection is dead.
const GONE_LIFETIME: Duration = Duration::from_secs(120);
/// How long a tracker that no longer registers stays in the list of trackers. Its record ends with
/// its lease, so the list need not be exact, and trackers' clocks may differ by this much.
const LISTED_FOR: Duration = Duration::from_secs(3600);
/// Messages that wait for one tracker; older ones are dropped.
const INBOX_MAX: isize = 4_096;
/// Time to live of an inbox that is not read.
const INBOX_LIFETIME: Duration = Duration::from_secs(60);

/// Bytes of a stamp.
pub(super) const STAMP_BYTES: usize = 24;

/// The age of what a session published: the number of the session, and an epoch, which its tracker
/// increases when it publishes everything anew after Redis was away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub(crate) number: u64,
    pub(crate) epoch: u32,
}

impl Stamp {
    /// Hex digits compare like numbers, in Lua as well.
    pub(super) fn encode(self) -> String {
        format!("{:016x}{:08x}", self.number, self.epoch)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Stamp> {
        let text = std::str::from_utf8(bytes.get(..STAMP_BYTES)?).ok()?;
        Some(Stamp {
            number: u64::from_str_radix(text.get(..16)?, 16).ok()?,
            epoch: u32::from_str_radix(text.get(16..)?, 16).ok()?,
        })
    }
}

/// What an entry says besides its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryFlags {
    pub(super) complete: bool,
    pub(super) is_collection: bool,
    pub(super) metadata: FileMetadata,
}

impl EntryFlags {
    fn encode(self) -> Vec<u8> {
        let complete = if self.complete { b'c' } else { b'p' };
        let kind = if self.is_collection { b'd' } else { b'f' };
        let mut value = vec![complete, kind];
        value.extend(self.metadata.encode());
        value
    }

    /// Reads the flags of an entry's value.
    pub(super) fn of_value(value: &[u8]) -> EntryFlags {
        EntryFlags {
            complete: value.get(STAMP_BYTES) == Some(&b'c'),
            is_collection: value.get(STAMP_BYTES + 1) == Some(&b'd'),
            metadata: value
                .get(STAMP_BYTES + 2..)
                .and_then(|bytes| FileMetadata::decode(bytes).ok())
                .unwrap_or_default(),
        }
    }
}

/// The keys of one group.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    prefix: String,
}

fn text(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

pub(super) fn millis(time: Duration) -> Vec<u8> {
    time.as_millis().to_string().into_bytes()
}

fn seconds(time: Duration) -> Vec<u8> {
    time.as_secs().to_string().into_bytes()
}

impl Layout {
    pub(crate) fn new(group: GroupId) -> Layout {
        Layout {
            prefix: format!("q:{}:", text(&group.0[..8])),
        }
    }

    pub(super) fn tagged(&self, kind: &str, tag: &[u8]) -> Vec<u8> {
        format!("{}{kind}:{{{}}}", self.prefix, text(tag)).into_bytes()
    }

    fn session(&self, node: NodeId) -> Vec<u8> {
        self.tagged("s", &node.0)
    }

    fn asset(&self, content: ContentId, name: &str) -> Vec<u8> {
        let mut key = self.tagged("a", &content.0);
        key.extend_from_slice(name.as_bytes());
        key
    }

    fn of_content(&self, content: ContentId, name: &str) -> Vec<Vec<u8>> {
        vec![
            self.asset(content, name),
            self.tagged("n", &content.0),
            self.tagged("w", &content.0),
            self.holders(content),
        ]
    }

    /// Returns the key of who holds a content under whatever name: the last entry of each node.
    /// While a node withdraws one of several names its entry may be missing for a while.
    fn holders(&self, content: ContentId) -> Vec<u8> {
        self.tagged("h", &content.0)
    }

    /// Returns the beginning of all keys of mailboxes. They lie on one server, so that a claim is
    /// one atomic step: there are few of them, and claims are rare.
    pub(super) fn mailboxes(&self) -> Vec<u8> {
        format!("{}m:{{m}}:", self.prefix).into_bytes()
    }

    fn index(&self, kind: &str, shard: u8) -> Vec<u8> {
        format!("{}{kind}:{shard}", self.prefix).into_bytes()
    }

    /// Returns the call that names the registry if it has no name yet.
    pub(crate) fn name_registry(id: [u8; 16]) -> Call {
        Call::command("SET", b"q:id".to_vec(), vec![id.to_vec(), b"NX".to_vec()])
    }

    pub(crate) fn registry_name() -> Call {
        Call::command("GET", b"q:id".to_vec(), Vec::new())
    }

    pub(super) fn open(
        &self,
        node: NodeId,
        stamp: Stamp,
        tracker: NodeId,
        details: Vec<u8>,
        lease: Duration,
    ) -> Call {
        let arguments = vec![
            stamp.encode().into(),
            tracker.0.to_vec(),
            details,
            millis(lease),
        ];
        Call::script(ScriptName::Open, vec![self.session(node)], arguments)
    }

    pub(super) fn refresh(
        &self,
        node: NodeId,
        number: u64,
        tracker: NodeId,
        lease: Duration,
    ) -> Call {
        let arguments = vec![
            format!("{number:016x}").into(),
            tracker.0.to_vec(),
            millis(lease),
        ];
        Call::script(ScriptName::Refresh, vec![self.session(node)], arguments)
    }

    pub(super) fn finish(&self, node: NodeId, stamp: Stamp, tracker: NodeId) -> Call {
        let arguments = vec![stamp.encode().into(), tracker.0.to_vec()];
        Call::script(ScriptName::Finish, vec![self.session(node)], arguments)
    }

    pub(super) fn close(&self, node: NodeId, number: u64, tracker: NodeId) -> Call {
        let arguments = vec![
            format!("{number:016x}").into(),
            tracker.0.to_vec(),
            millis(GONE_LIFETIME),
        ];
        Call::script(ScriptName::Close, vec![self.session(node)], arguments)
    }

    pub(super) fn put(
        &self,
        node: NodeId,
        stamp: Stamp,
        name: &str,
        info: &ContentInfo,
        flags: EntryFlags,
    ) -> Call {
        let value = [stamp.encode().as_bytes(), &flags.encode()[..]].concat();
        let arguments = vec![
            node.0.to_vec(),
            value,
            name.into(),
            encode_info(info),
            seconds(ENTRY_LIFETIME),
        ];
        let keys = self.of_content(info.id(), name);
        Call::script(ScriptName::Put, keys, arguments)
    }

    /// Returns the calls that list a name and its content in the indexes.
    pub(super) fn list(&self, name: &str, info: &ContentInfo) -> [Call; 2] {
        let id = info.id();
        let zero = b"0".to_vec();
        [
            Call::command(
                "ZADD",
                self.index("x", shard_of_name(name)),
                vec![zero.clone(), name_member(name, id, info)],
            ),
            Call::command(
                "ZADD",
                self.index("i", shard_of_id(id)),
                vec![zero, id_member(id, info)],
            ),
        ]
    }

    pub(super) fn unlist_name(&self, name: &str, info: &ContentInfo) -> Call {
        let member = name_member(name, info.id(), info);
        Call::command("ZREM", self.index("x", shard_of_name(name)), vec![member])
    }

    pub(super) fn unlist_id(&self, info: &ContentInfo) -> Call {
        let id = info.id();
        let member = id_member(id, info);
        Call::command("ZREM", self.index("i", shard_of_id(id)), vec![member])
    }

    /// Returns the calls that list a content under the plain SHA-256 that a node states.
    pub(super) fn list_digest(&self, digest: &Hash, info: &ContentInfo) -> [Call; 2] {
        let key = self.tagged("d", &digest.0);
        [
            Call::command("SADD", key.clone(), vec![id_member(info.id(), info)]),
            Call::command("EXPIRE", key, vec![seconds(ENTRY_LIFETIME)]),
        ]
    }

    /// Removes a content that no node announces from those of a digest.
    pub(super) fn unlist_digest(&self, digest: &Hash, info: &ContentInfo) -> Call {
        let member = id_member(info.id(), info);
        Call::command("SREM", self.tagged("d", &digest.0), vec![member])
    }

    /// Reads up to `max` contents of a digest, at random.
    pub(super) fn contents_of_digest(&self, digest: &Hash, max: usize) -> Call {
        let key = self.tagged("d", &digest.0);
        Call::command("SRANDMEMBER", key, vec![max.to_string().into()])
    }

    pub(super) fn is_listed(&self, name: &str, content: ContentId) -> Call {
        Call::command("EXISTS", self.asset(content, name), Vec::new())
    }

    pub(super) fn remove(
        &self,
        node: NodeId,
        stamp: Stamp,
        name: &str,
        content: ContentId,
    ) -> Call {
        let arguments = vec![node.0.to_vec(), stamp.encode().into(), name.into()];
        Call::script(
            ScriptName::Remove,
            self.of_content(content, name),
            arguments,
        )
    }

    /// Removes entries, given by node and value, unless they have changed.
    pub(super) fn clean(
        &self,
        name: &str,
        content: ContentId,
        entries: &[(NodeId, Vec<u8>)],
    ) -> Call {
        let mut arguments = vec![name.as_bytes().to_vec()];
        for (node, value) in entries {
            arguments.push(node.0.to_vec());
            arguments.push(value.clone());
        }
        Call::script(ScriptName::Clean, self.of_content(content, name), arguments)
    }

    /// Reads the entries of one name and content: all of them, or `max` at random.
    pub(super) fn read(&self, name: &str, content: ContentId, max: usize) -> Call {
        let keys = vec![self.asset(content, name)];
        Call::script(ScriptName::Read, keys, vec![max.to_string().into()])
    }

    /// Reads who holds a content under whatever name: all of them, or `max` at random.
    pub(super) fn read_holders(&self, content: ContentId, max: usize) -> Call {
        let keys = vec![self.holders(content)];
        Call::script(ScriptName::Read, keys, vec![max.to_string().into()])
    }

    /// Reads whether one node holds a content under whatever name.
    pub(super) fn read_holder(&self, content: ContentId, node: NodeId) -> Call {
        Call::command("HGET", self.holders(content), vec![node.0.to_vec()])
    }

    /// Reads the entry of one node.
    pub(super) fn read_one(&self, name: &str, content: ContentId, node: NodeId) -> Call {
        Call::command("HGET", self.asset(content, name), vec![node.0.to_vec()])
    }

    pub(super) fn read_session(&self, node: NodeId) -> Call {
        Call::command("GET", self.session(node), Vec::new())
    }

    /// Reads up to `max` names of a content.
    pub(super) fn read_names(&self, content: ContentId, max: usize) -> Call {
        let arguments = vec![max.to_string().into(), b"WITHVALUES".to_vec()];
        Call::command("HRANDFIELD", self.tagged("n", &content.0), arguments)
    }

    /// Reads up to `max` members of the index of names between two bounds (`ZRANGEBYLEX`).
    pub(super) fn range_of_names(&self, shard: u8, from: &[u8], to: &[u8], max: usize) -> Call {
        self.range("ZRANGEBYLEX", ("x", shard), from, to, max)
    }

    /// Reads up to `max` members of the index of names whose name is not before `text`.
    pub(super) fn names_from(&self, shard: u8, text: &str, max: usize) -> Call {
        let from = [b"[", text.as_bytes()].concat();
        self.range_of_names(shard, &from, b"+", max)
    }

    /// Reads up to `max` members of the index of names whose name is before `text`, the nearest
    /// first.
    pub(super) fn names_before(&self, shard: u8, text: &str, max: usize) -> Call {
        let from = [b"(", text.as_bytes()].concat();
        self.range("ZREVRANGEBYLEX", ("x", shard), &from, b"-", max)
    }

    /// Reads up to `max` members of the index of ids between two bounds.
    pub(super) fn range_of_ids(&self, shard: u8, from: &[u8], to: &[u8], max: usize) -> Call {
        self.range("ZRANGEBYLEX", ("i", shard), from, to, max)
    }

    fn range(
        &self,
        command: &'static str,
        (kind, shard): (&str, u8),
        from: &[u8],
        to: &[u8],
        max: usize,
    ) -> Call {
        let arguments = vec![
            from.to_vec(),
            to.to_vec(),
            b"LIMIT".to_vec(),
            b"0".to_vec(),
            max.to_string().into(),
        ];
        Call::command(command, self.index(kind, shard), arguments)
    }

    /// Names this tracker to those that publish a change of the content.
    pub(crate) fn begin_watch(&self, content: ContentId, tracker: NodeId) -> [Call; 2] {
        let key = self.tagged("w", &content.0);
        [
            Call::command("SADD", key.clone(), vec![tracker.0.to_vec()]),
            Call::command("EXPIRE", key, vec![seconds(INBOX_LIFETIME)]),
        ]
    }

    pub(crate) fn end_watch(&self, content: ContentId, tracker: NodeId) -> Call {
        let key = self.tagged("w", &content.0);
        Call::command("SREM", key, vec![tracker.0.to_vec()])
    }

    /// Sends messages to a tracker.
    pub(crate) fn post(&self, tracker: NodeId, messages: Vec<Vec<u8>>) -> Call {
        let mut arguments = vec![(-INBOX_MAX).to_string().into(), seconds(INBOX_LIFETIME)];
        arguments.extend(messages);
        Call::script(
            ScriptName::Post,
            vec![self.tagged("b", &tracker.0)],
            arguments,
        )
    }

    /// Waits up to a second for the first message to a tracker.
    pub(crate) fn await_message(&self, tracker: NodeId) -> Call {
        Call::command("BLPOP", self.tagged("b", &tracker.0), vec![b"1".to_vec()])
    }

    pub(crate) fn take_messages(&self, tracker: NodeId, max: usize) -> Call {
        let key = self.tagged("b", &tracker.0);
        Call::command("LPOP", key, vec![max.to_string().into()])
    }

    /// Registers a tracker for its lease; `now_ms` is the time since the epoch.
    pub(crate) fn register_tracker(
        &self,
        tracker: NodeId,
        record: Vec<u8>,
        lease: Duration,
        now_ms: u64,
    ) -> [Call; 3] {
        let all = format!("{}t", self.prefix).into_bytes();
        let listed = u64::try_from(LISTED_FOR.as_millis()).unwrap_or(u64::MAX);
        let old = now_ms.saturating_sub(listed);
        [
            Call::command(
                "SET",
                self.tagged("t", &tracker.0),
                vec![record, b"PX".to_vec(), millis(lease)],
            ),
            Call::command(
                "ZADD",
                all.clone(),
                vec![now_ms.to_string().into(), tracker.0.to_vec()],
            ),
            Call::command(
                "ZREMRANGEBYSCORE",
                all,
                vec![b"-inf".to_vec(), old.to_string().into()],
            ),
        ]
    }

    pub(crate) fn unregister_tracker(&self, tracker: NodeId) -> [Call; 2] {
        let all = format!("{}t", self.prefix).into_bytes();
        [
            Call::command("DEL", self.tagged("t", &tracker.0), Vec::new()),
            Call::command("ZREM", all, vec![tracker.0.to_vec()]),
        ]
    }

    /// Tells other trackers what networks use of this one.
    pub(crate) fn tell_use(&self, tracker: NodeId, record: Vec<u8>, lease: Duration) -> Call {
        let arguments = vec![record, b"PX".to_vec(), millis(lease)];
        Call::command("SET", self.tagged("v", &tracker.0), arguments)
    }

    pub(crate) fn read_use(&self, tracker: NodeId) -> Call {
        Call::command("GET", self.tagged("v", &tracker.0), Vec::new())
    }

    pub(crate) fn list_trackers(&self, max: usize) -> Call {
        let all = format!("{}t", self.prefix).into_bytes();
        let last = (max - 1).to_string().into();
        Call::command("ZREVRANGE", all, vec![b"0".to_vec(), last])
    }

    pub(crate) fn read_tracker(&self, tracker: NodeId) -> Call {
        Call::command("GET", self.tagged("t", &tracker.0), Vec::new())
    }
}

/// Returns the shard of a name in the index: FNV-1a, the same in every version.
pub(super) fn shard_of_name(name: &str) -> u8 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    ((hash >> 32) % u64::from(SHARDS)) as u8
}

/// Returns the shard of an id in the index: its first hex digit.
pub(super) fn shard_of_id(id: ContentId) -> u8 {
    id.0[0] >> 4
}

fn encode_info(info: &ContentInfo) -> Vec<u8> {
    [&info.length.to_be_bytes()[..], &info.root.0].concat()
}

pub(super) fn decode_info(bytes: &[u8]) -> Option<ContentInfo> {
    let (length, root) = bytes.split_first_chunk::<8>()?;
    Some(ContentInfo {
        length: u64::from_be_bytes(*length),
        root: Hash(root.try_into().ok()?),
    })
}

fn name_member(name: &str, id: ContentId, info: &ContentInfo) -> Vec<u8> {
    [name.as_bytes(), &[0], &id.0, &encode_info(info)].concat()
}

fn id_member(id: ContentId, info: &ContentInfo) -> Vec<u8> {
    [&id.0[..], &encode_info(info)].concat()
}

/// Splits a member of the index of names into name and content.
pub(super) fn decode_name_member(member: &[u8]) -> Option<(&str, ContentInfo)> {
    let end = member.iter().position(|&byte| byte == 0)?;
    let name = std::str::from_utf8(&member[..end]).ok()?;
    Some((name, decode_info(member.get(end + 33..)?)?))
}

/// Reads the content of a member of the index of ids.
pub(super) fn decode_id_member(member: &[u8]) -> Option<ContentInfo> {
    decode_info(member.get(32..)?)
}

/// What a removal returns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// The content, if no node has it under this name any more.
    pub(super) unnamed: Option<ContentInfo>,
    /// Whether it has other names.
    pub(super) has_names: bool,
    /// The trackers whose nodes watch the content.
    pub(super) watchers: Vec<NodeId>,
}

pub(super) fn decode_removed(value: Value) -> Option<Removed> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [info, names, watchers] = <[Value; 3]>::try_from(parts).ok()?;
    Some(Removed {
        unnamed: bytes_of(&info).and_then(decode_info),
        has_names: names == Value::Int(1),
        watchers: decode_trackers(&watchers),
    })
}

/// Reads the bytes of a string.
pub(crate) fn bytes_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// Reads a list of strings; others are left out.
pub(crate) fn strings_of(value: &Value) -> Vec<&[u8]> {
    match value {
        Value::Array(values) | Value::Set(values) => values.iter().filter_map(bytes_of).collect(),
        _ => Vec::new(),
    }
}

pub(crate) fn decode_trackers(value: &Value) -> Vec<NodeId> {
    let ids = strings_of(value).into_iter();
    ids.filter_map(|bytes| Some(NodeId(bytes.try_into().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_compare_in_redis_as_they_do_here() {
        let stamps = [
            Stamp {
                number: 9,
                epoch: 300,
            },
            Stamp {
                number: 10,
                epoch: 0,
            },
            Stamp {
                number: 10,
                epoch: 9,
            },
            Stamp {
                number: 10,
                epoch: 10,
            },
            Stamp {
                number: u64::MAX,
                epoch: u32::MAX,
            },
        ];
        for pair in stamps.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].encode() < pair[1].encode());
        }
        for stamp in stamps {
            assert_eq!(Stamp::decode(stamp.encode().as_bytes()), Some(stamp));
        }
        assert_eq!(Stamp::decode(b"12"), None);
    }

    #[test]
    fn index_members_round_trip_and_sort_by_name_then_id() {
        let info = |byte| ContentInfo {
            length: 1 << 40,
            root: Hash([byte; 32]),
        };
        let member = |name, byte| name_member(name, info(byte).id(), &info(byte));
        assert_eq!(
            decode_name_member(&member("été/a b", 3)),
            Some(("été/a b", info(3)))
        );
        assert!(member("a", 9) < member("a b", 0));
        let same = |a, b| member("a", a).cmp(&member("a", b)) == info(a).id().cmp(&info(b).id());
        assert!((1..20).all(|byte| same(byte, byte + 1)));
        let id = info(7).id();
        assert_eq!(decode_id_member(&id_member(id, &info(7))), Some(info(7)));
        assert_eq!(decode_name_member(b"a\0short"), None);
    }

    #[test]
    fn keys_of_one_content_lie_on_one_server() {
        let layout = Layout::new(GroupId::OPEN);
        // 125 is a closing brace.
        let keys = layout.of_content(ContentId([125; 32]), "x}y{z");
        let tag = |key: &[u8]| {
            let open = key.iter().position(|&byte| byte == b'{').unwrap();
            let close = key[open..].iter().position(|&byte| byte == b'}').unwrap();
            key[open..open + close].to_vec()
        };
        assert!(tag(&keys[0]).len() == 44);
        assert_eq!(tag(&keys[0]), tag(&keys[1]));
        assert_eq!(tag(&keys[0]), tag(&keys[2]));
    }
}
