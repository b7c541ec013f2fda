//! What a person asks for: an id, the beginning of one, a node's name, a name or a glob.

use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use crate::{AssetName, ContentId, IdParseError, IdPrefix, NameError, NodeId};

/// Longest glob in bytes: a stranger's glob is compiled by the tracker.
pub const GLOB_MAX_BYTES: usize = 256;

/// What is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Exactly one content.
    Id(ContentId),
    /// All contents whose id begins so: `id:3fa9`.
    IdPrefix(IdPrefix),
    /// What one node calls so: `NODEID/NAME`.
    OfNode(NodeId, AssetName),
    /// Everything of this name; if there is nothing and it is a glob, all that match it.
    Name(String),
}

/// Why a text cannot be looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryParseError {
    /// After `id:` come 1 to 64 hex digits.
    #[error(transparent)]
    Prefix(#[from] IdParseError),
    /// Neither a name that could be shared nor a glob.
    #[error("{text:?} is not a name that can be shared: {cause}")]
    Name {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        cause: NameError,
    },
    /// Not a valid glob, or longer than [`GLOB_MAX_BYTES`].
    #[error("{text:?} is not a valid glob: {cause}")]
    Glob {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// Whether a text has a glob's special characters.
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

impl FromStr for Query {
    type Err = QueryParseError;

    fn from_str(text: &str) -> Result<Query, QueryParseError> {
        if let Ok(id) = text.parse() {
            return Ok(Query::Id(id));
        }
        if let Some(digits) = text.strip_prefix("id:") {
            return Ok(Query::IdPrefix(digits.parse()?));
        }
        if let Some((node, name)) = text.split_once('/')
            && let (Ok(node), Ok(name)) = (node.parse(), AssetName::from_local(name))
        {
            return Ok(Query::OfNode(node, name));
        }
        match AssetName::from_local(text) {
            Ok(name) => Ok(Query::Name(name.into())),
            Err(_) if is_glob(text) => {
                NamePattern::new(text)?;
                Ok(Query::Name(text.into()))
            }
            Err(cause) => Err(QueryParseError::Name {
                text: text.into(),
                cause,
            }),
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Query::Id(id) => write!(f, "{id}"),
            Query::IdPrefix(prefix) => write!(f, "id:{}", prefix.digits()),
            Query::OfNode(node, name) => write!(f, "{node}/{name}"),
            Query::Name(text) => write!(f, "{text}"),
        }
    }
}

/// A compiled glob over names: `*` stops at `/`, `**` does not.
#[derive(Clone, Debug)]
pub struct NamePattern(GlobMatcher);

impl NamePattern {
    /// Compiles a glob of at most [`GLOB_MAX_BYTES`].
    pub fn new(glob: &str) -> Result<NamePattern, QueryParseError> {
        let refused = |cause: String| QueryParseError::Glob {
            text: glob.into(),
            cause,
        };
        if glob.len() > GLOB_MAX_BYTES {
            return Err(refused(format!("longer than {GLOB_MAX_BYTES} bytes")));
        }
        GlobBuilder::new(glob)
            .literal_separator(true)
            .backslash_escape(false)
            .build()
            .map(|glob| NamePattern(glob.compile_matcher()))
            .map_err(|cause| refused(cause.kind().to_string()))
    }

    /// Whether the name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_apart() {
        let node = NodeId([9; 32]);
        let id = ContentId([3; 32]);
        let name = |text: &str| AssetName::new(text).unwrap();
        assert_eq!(id.to_string().parse::<Query>().unwrap(), Query::Id(id));
        assert_eq!("id:0A".parse::<Query>().unwrap().to_string(), "id:0a");
        assert_eq!(
            format!("{node}/a/b").parse::<Query>().unwrap(),
            Query::OfNode(node, name("a/b"))
        );
        assert_eq!("a/b".parse::<Query>().unwrap(), Query::Name("a/b".into()));
        assert_eq!(
            "**/*.txt".parse::<Query>().unwrap(),
            Query::Name("**/*.txt".into())
        );
        assert!("../x".parse::<Query>().is_err());
        assert!("id:zz".parse::<Query>().is_err());
        assert!("".parse::<Query>().is_err());
    }

    #[test]
    fn a_star_stops_at_a_slash_and_two_do_not() {
        let one = NamePattern::new("a/*").unwrap();
        assert!(one.matches("a/b") && !one.matches("a/b/c"));
        let two = NamePattern::new("a/**").unwrap();
        assert!(two.matches("a/b") && two.matches("a/b/c"));
        let all = NamePattern::new("**").unwrap();
        assert!(all.matches("b") && all.matches("a/b/c"));
        assert!(NamePattern::new(&"*".repeat(300)).is_err());
        assert!(NamePattern::new("[").is_err());
    }
}
