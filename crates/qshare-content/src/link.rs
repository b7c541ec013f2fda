//! Links:
//! `qshare:CONTENTID,s=SIZE,r=ROOT,t=TRACKERID@HOST:PORT,a=NODEID@HOST:PORT,n=NAME,d=TIME,x=1`.
//!
//! A link that needs more than that to be understood, such as a share key or the mark of a folder,
//! begins with `qshare:2,`, so that older programs refuse it.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::manifest::TIMES_MAX_BYTES;
use crate::{
    AssetName, ContentId, ContentInfo, Hash, LENGTH_MAX_BYTES, MODIFIED_MAX_NS, NameError,
    NodeAddress, NodeAddressError, ShareKey, Topic, TrackerAddress, TrackerAddressError,
};

/// The characters that are percent-encoded in a link. The others need no quoting in a shell.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b':')
    .remove(b'/')
    .remove(b'-');

/// Most trackers of one link.
const LINK_TRACKERS_MAX: usize = 16;
/// Most node addresses of one link.
const LINK_NODES_MAX: usize = 16;
/// Longest link in bytes.
const LINK_MAX_BYTES: usize = 8 * 1024;

/// A link: everything that another person needs to fetch one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Length and root, from which the content id follows.
    pub info: ContentInfo,
    /// Trackers to ask for holders; ids in them are pins.
    pub trackers: Vec<TrackerAddress>,
    /// Nodes that held the content when the link was made, which can be asked without a tracker.
    pub nodes: Vec<NodeAddress>,
    /// The suggested name.
    pub name: Option<AssetName>,
    /// The key of a private share; None if the content is public.
    pub key: Option<ShareKey>,
    /// Modification time, nanoseconds since 1970.
    pub modified_ns: Option<i64>,
    /// Whether the file's owner may execute it.
    pub executable: bool,
    /// Set if the content is the manifest of a folder.
    pub folder: Option<FolderLink>,
}

/// What a link to a folder says beside the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FolderLink {
    /// Length and root of the content with the modification times.
    pub times: Option<ContentInfo>,
}

/// Why a text is not a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkParseError {
    /// It does not begin with `qshare:` and a content id.
    #[error("a link begins with qshare: and 64 hex digits")]
    NotALink,
    /// More than 8 KiB, 16 trackers or 16 addresses of nodes.
    #[error("the link is too long")]
    TooLong,
    /// A field has no value, or an invalid one.
    #[error("the link's field {0:?} is invalid")]
    Field(String),
    /// Size and root do not match the id: the link is damaged.
    #[error("the link is damaged: its size and root do not match its id")]
    Mismatch,
    /// The link has another version, or a field that must be understood and is not known.
    #[error("the link needs a newer version of qshare (unknown {0})")]
    Newer(String),
    /// The name is invalid.
    #[error("the link's name is invalid: {0}")]
    Name(#[from] NameError),
    /// A tracker's address is invalid.
    #[error(transparent)]
    Tracker(#[from] TrackerAddressError),
    /// A node's address is invalid.
    #[error(transparent)]
    Node(#[from] NodeAddressError),
}

impl Link {
    /// Returns whether a text is meant to be a link.
    pub fn is_link(text: &str) -> bool {
        text.starts_with("qshare:")
    }

    /// Returns the topic of a private share; None if the content is public.
    pub fn topic(&self) -> Option<Topic> {
        let key = self.key.as_ref()?;
        Some(key.topic(&self.info.id()))
    }
}

/// The version of the manifest that a link to a folder leads to.
const FOLDER_VERSION: &str = "1";

/// Begins every link of version 2, whose fields in upper case must be understood.
const VERSION_2: &str = "2,";

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "qshare:{}{},s={},r={}",
            match self.key.is_some() || self.folder.is_some() {
                true => VERSION_2,
                false => "",
            },
            self.info.id(),
            self.info.length,
            self.info.root
        )?;
        if let Some(key) = &self.key {
            write!(f, ",K={}", key.to_text())?;
        }
        if let Some(folder) = &self.folder {
            write!(f, ",F={FOLDER_VERSION}")?;
            if let Some(times) = &folder.times {
                write!(f, ",m={}:{}", times.length, times.root)?;
            }
        }
        for tracker in &self.trackers {
            write!(
                f,
                ",t={}",
                utf8_percent_encode(&tracker.to_string(), ENCODED)
            )?;
        }
        for node in &self.nodes {
            write!(f, ",a={}", utf8_percent_encode(&node.to_string(), ENCODED))?;
        }
        if let Some(name) = &self.name {
            write!(f, ",n={}", utf8_percent_encode(name.as_str(), ENCODED))?;
        }
        if let Some(ns) = self.modified_ns {
            write!(f, ",d={}", format_seconds(ns))?;
        }
        if self.executable {
            f.write_str(",x=1")?;
        }
        Ok(())
    }
}

impl FromStr for Link {
    type Err = LinkParseError;

    fn from_str(text: &str) -> Result<Link, LinkParseError> {
        if text.len() > LINK_MAX_BYTES {
            return Err(LinkParseError::TooLong);
        }
        let rest = text
            .strip_prefix("qshare:")
            .ok_or(LinkParseError::NotALink)?;
        let rest = match rest.split_once(',') {
            Some((version, _)) if is_other_version(version) => {
                return Err(LinkParseError::Newer(format!("version {version}")));
            }
            _ => rest,
        };
        let (is_version_2, rest) = match rest.strip_prefix(VERSION_2) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let mut fields = rest.split(',');
        let id: ContentId = fields
            .next()
            .unwrap_or("")
            .parse()
            .map_err(|_| LinkParseError::NotALink)?;
        let (mut length, mut root, mut name, mut share_key) = (None, None, None, None);
        let (mut modified_ns, mut executable) = (None, false);
        let (mut is_folder, mut times) = (false, None);
        let (mut trackers, mut nodes) = (Vec::new(), Vec::new());
        for field in fields {
            // The value may be a secret.
            let refused = || LinkParseError::Field(field_name(field).into());
            let (key, value) = field.split_once('=').ok_or_else(refused)?;
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| refused())?;
            match key {
                "s" => length = Some(value.parse::<u64>().map_err(|_| refused())?),
                "r" => root = Some(value.parse::<Hash>().map_err(|_| refused())?),
                "t" if trackers.len() == LINK_TRACKERS_MAX => return Err(LinkParseError::TooLong),
                "t" => trackers.push(value.parse()?),
                "a" if nodes.len() == LINK_NODES_MAX => return Err(LinkParseError::TooLong),
                "a" => nodes.push(value.parse()?),
                // A later version may write times and bits that this one does not know.
                "d" => modified_ns = parse_seconds(&value),
                "x" => executable = value == "1",
                "n" => name = Some(AssetName::from_local(&value)?),
                "K" if is_version_2 => {
                    share_key = Some(value.parse::<ShareKey>().map_err(|_| refused())?);
                }
                "F" if is_version_2 && value == FOLDER_VERSION => is_folder = true,
                // Another version of this field may have another form.
                "m" => times = parse_times(&value),
                // Later versions add fields. Those in upper case must be understood; unknown
                // others are ignored, so that old and new versions read each other's links.
                _ if key.starts_with(|first: char| first.is_ascii_uppercase()) => {
                    let field = format!("field {:?}", field_name(field));
                    return Err(LinkParseError::Newer(field));
                }
                _ => {}
            }
        }
        let missing = |key: &str| LinkParseError::Field(key.into());
        let info = ContentInfo {
            length: length
                .filter(|&l| l <= LENGTH_MAX_BYTES)
                .ok_or_else(|| missing("s"))?,
            root: root.ok_or_else(|| missing("r"))?,
        };
        if info.id() != id {
            return Err(LinkParseError::Mismatch);
        }
        Ok(Link {
            info,
            trackers,
            nodes,
            name,
            key: share_key,
            modified_ns,
            executable,
            folder: is_folder.then_some(FolderLink { times }),
        })
    }
}

/// Parses `SIZE:ROOT`; None for another form.
fn parse_times(text: &str) -> Option<ContentInfo> {
    let (length, root) = text.split_once(':')?;
    let length = length
        .parse()
        .ok()
        .filter(|&length| length <= TIMES_MAX_BYTES)?;
    let root = Hash(root.parse::<ContentId>().ok()?.0);
    Some(ContentInfo { length, root })
}

/// Whether the first field is the number of a version that this program does not know.
fn is_other_version(first: &str) -> bool {
    let is_number = !first.is_empty() && first.len() <= 8;
    is_number && first != "2" && first.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the name of a field without its value, for errors.
fn field_name(field: &str) -> &str {
    match field.split_once('=') {
        Some((name, _)) if name.len() <= 16 => name,
        _ => "…",
    }
}

/// Formats nanoseconds since 1970 as seconds, with as many decimals as are needed.
fn format_seconds(ns: i64) -> String {
    const PER_SECOND: u64 = 1_000_000_000;
    let sign = if ns < 0 { "-" } else { "" };
    let (seconds, rest) = (
        ns.unsigned_abs() / PER_SECOND,
        ns.unsigned_abs() % PER_SECOND,
    );
    let text = format!("{sign}{seconds}.{rest:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Parses seconds since 1970 with at most nine decimals into nanoseconds. Returns None for another
/// form, and for times that metadata cannot state.
fn parse_seconds(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (seconds, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(seconds) || !is_number(decimals) || decimals.len() > 9 {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let rest: i64 = format!("{decimals:0<9}").parse().ok()?;
    let ns = seconds.checked_mul(1_000_000_000)?.checked_add(rest)?;
    (ns <= MODIFIED_MAX_NS).then_some(sign * ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    fn link() -> Link {
        Link {
            info: ContentInfo {
                length: 42,
                root: Hash([5; 32]),
            },
            trackers: vec![
                format!("{}@[2001:db8::1]:7", NodeId([1; 32]))
                    .parse()
                    .unwrap(),
                "tracker.example".parse().unwrap(),
            ],
            nodes: vec![
                format!("{}@[2001:db8::2]:64500", NodeId([2; 32]))
                    .parse()
                    .unwrap(),
                format!("{}@node.example:7000", NodeId([2; 32]))
                    .parse()
                    .unwrap(),
            ],
            name: Some(AssetName::new("data, été/100%.bin").unwrap()),
            key: None,
            modified_ns: Some(1_577_934_245_000_000_001),
            executable: true,
            folder: None,
        }
    }

    fn private() -> Link {
        let key = Some(ShareKey::from_bytes([0x5a; 16]));
        Link { key, ..link() }
    }

    #[test]
    fn a_private_link_has_version_2_and_round_trips() {
        let text = private().to_string();
        assert!(text.starts_with("qshare:2,"), "{text}");
        assert_eq!(text.parse::<Link>().unwrap(), private());
        assert_eq!(
            private().topic(),
            Some(private().key.unwrap().topic(&link().info.id()))
        );
        assert!(!link().to_string().starts_with("qshare:2,"));
    }

    #[test]
    fn a_link_to_a_folder_has_version_2_and_round_trips() {
        let times = ContentInfo {
            length: 99,
            root: Hash([8; 32]),
        };
        for key in [None, private().key] {
            for times in [None, Some(times)] {
                let folder = Link {
                    folder: Some(FolderLink { times }),
                    key: key.clone(),
                    ..link()
                };
                let text = folder.to_string();
                assert!(text.starts_with("qshare:2,"), "{text}");
                assert_eq!(text.parse::<Link>().unwrap(), folder);
                // A folder is never taken for a file, and times never matter.
                let newer = text.replace(",F=1", ",F=2").parse::<Link>();
                assert!(matches!(newer, Err(LinkParseError::Newer(_))), "{newer:?}");
                let odd = text.replace(",m=", ",m=x").parse::<Link>().unwrap();
                assert_eq!(odd.folder, Some(FolderLink { times: None }));
            }
        }
    }

    #[test]
    fn unknown_fields_in_upper_case_are_refused_and_others_ignored() {
        let text = private().to_string();
        assert_eq!(format!("{text},z=1").parse::<Link>().unwrap(), private());
        for newer in [
            format!("{text},Z=1"),
            format!("{},Z=1", link()),
            text.replace("qshare:2,", "qshare:3,"),
            // A key in a link that older programs would take for a public one.
            text.replace("qshare:2,", "qshare:"),
        ] {
            let refused = newer.parse::<Link>();
            assert!(matches!(refused, Err(LinkParseError::Newer(_))), "{newer}");
        }
    }

    #[test]
    fn errors_do_not_repeat_the_key() {
        let key = private().key.unwrap().to_text();
        for broken in [
            format!("K={key}x"),
            format!("K{key}"),
            format!("{key}=1,K="),
        ] {
            let text = private().to_string().replace(&format!("K={key}"), &broken);
            let error = text.parse::<Link>().unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains(&key[..25]),
                "{error:?}"
            );
        }
        assert!(!format!("{:?}", private()).contains(&key));
    }

    #[test]
    fn links_round_trip_and_need_no_quoting() {
        let text = link().to_string();
        assert_eq!(text.parse::<Link>().unwrap(), link());
        let plain = |c: char| c.is_ascii_alphanumeric() || "._~@:/-=,%".contains(c);
        assert!(text.chars().all(plain), "{text}");
    }

    #[test]
    fn times_round_trip_and_odd_ones_are_ignored() {
        for ns in [0, 1, -1, 1_500_000_000, -2_000_000_010, MODIFIED_MAX_NS] {
            assert_eq!(parse_seconds(&format_seconds(ns)), Some(ns), "{ns}");
        }
        assert_eq!(format_seconds(1_500_000_000), "1.5");
        assert_eq!(format_seconds(20_000_000_000), "20");
        for text in [
            "",
            "-",
            "x",
            "1.",
            ".5",
            "1.0000000001",
            "1e9",
            "+1",
            "9999999999999",
        ] {
            assert_eq!(parse_seconds(text), None, "{text}");
        }
        let odd = link()
            .to_string()
            .replace(",x=1", ",x=2")
            .replace(",d=", ",d=x");
        let odd = odd.parse::<Link>().unwrap();
        assert_eq!((odd.modified_ns, odd.executable), (None, false));
    }

    #[test]
    fn a_link_whose_size_was_changed_is_refused() {
        let text = link().to_string().replace(",s=42,", ",s=43,");
        assert_eq!(text.parse::<Link>(), Err(LinkParseError::Mismatch));
    }

    #[test]
    fn a_link_names_sixteen_nodes_at_most() {
        let id = NodeId([9; 32]);
        let plain = Link {
            nodes: Vec::new(),
            ..link()
        };
        let with = |count| format!("{plain}{}", format!(",a={id}@h:7000").repeat(count));
        assert_eq!(with(16).parse::<Link>().unwrap().nodes.len(), 16);
        assert_eq!(with(17).parse::<Link>(), Err(LinkParseError::TooLong));
    }
}
