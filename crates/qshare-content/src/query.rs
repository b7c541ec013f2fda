//! Queries: an id, an id prefix, a node's name for a content, a name, a glob or a plain digest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    AssetName, ContentId, GlobError, Hash, IdParseError, IdPrefix, NameError, NamePattern, NodeId,
};

/// What a plain digest begins with.
const SHA256_PREFIX: &str = "sha256:";

/// A query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Exactly one content.
    Id(ContentId),
    /// All contents whose id begins with these digits: `id:3fa9`.
    IdPrefix(IdPrefix),
    /// The content to which one node gives this name: `NODEID/NAME`.
    OfNode(NodeId, AssetName),
    /// All contents of this name; if there are none and the text is a glob, all that match it.
    Name(String),
    /// The contents whose plain SHA-256 a node states to be this: `sha256:HEX`. The statements are
    /// claims, which a hash tree cannot prove: check the digest of what was downloaded.
    Sha256(Hash),
}

/// Why a text is not a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryParseError {
    /// `id:` is not followed by 1 to 64 hex digits.
    #[error(transparent)]
    Prefix(#[from] IdParseError),
    /// `sha256:` is not followed by 64 hex digits.
    #[error("a SHA-256 digest is sha256: and 64 hex digits")]
    Sha256,
    /// Neither a valid name nor a glob.
    #[error("{text:?} is not a name that can be shared: {cause}")]
    Name {
        /// The text.
        text: String,
        /// The reason.
        cause: NameError,
    },
    /// Not a valid glob.
    #[error("{text:?} is not a valid glob: {cause}")]
    Glob {
        /// The text.
        text: String,
        /// The reason.
        cause: GlobError,
    },
}

/// Returns whether a text has one of a glob's special characters.
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
        if let Some(prefix) = text.get(..SHA256_PREFIX.len())
            && prefix.eq_ignore_ascii_case(SHA256_PREFIX)
        {
            let digits = text[SHA256_PREFIX.len()..].to_ascii_lowercase();
            let digest = digits.parse().map_err(|_| QueryParseError::Sha256)?;
            return Ok(Query::Sha256(digest));
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
            Query::Sha256(digest) => write!(f, "{SHA256_PREFIX}{digest}"),
        }
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
        let digest = Query::Sha256(Hash([0x0a; 32]));
        let text = digest.to_string();
        assert_eq!(text, format!("sha256:{}", "0a".repeat(32)));
        assert_eq!(text.to_uppercase().parse::<Query>().unwrap(), digest);
        assert_eq!("sha256:0a".parse::<Query>(), Err(QueryParseError::Sha256));
        assert!("../x".parse::<Query>().is_err());
        assert!("id:zz".parse::<Query>().is_err());
        assert!("".parse::<Query>().is_err());
    }
}
