//! Checks whether an answer belongs to its query. Trackers and nodes of the local network are
//! untrusted, and may answer a lookup with other files.

use crate::{AssetName, ContentId, NamePattern, Query, is_glob};

/// Decides which answers a [`Query`] allows. Create it once for each lookup, because it compiles
/// the query's glob.
#[derive(Clone, Debug)]
pub struct AnswerFilter {
    query: Query,
    pattern: Option<NamePattern>,
}

impl AnswerFilter {
    /// Returns the filter for the answers to `query`.
    pub fn new(query: &Query) -> AnswerFilter {
        let pattern = match query {
            Query::Name(text) if is_glob(text) => NamePattern::new(text).ok(),
            _ => None,
        };
        AnswerFilter {
            query: query.clone(),
            pattern,
        }
    }

    /// Whether a file of this name and content answers the query.
    ///
    /// An id or a prefix decides about the content and leaves the name open, a digest leaves both
    /// open; everything else decides about the name and leaves the content open.
    pub fn allows(&self, name: &AssetName, content: &ContentId) -> bool {
        match &self.query {
            Query::Id(id) => id == content,
            Query::IdPrefix(prefix) => prefix.matches(content),
            // Nothing in an answer proves a digest. The asker checks what was downloaded.
            Query::Sha256(_) => true,
            Query::OfNode(_, wanted) => wanted == name,
            Query::Name(text) => {
                text == name.as_str()
                    || self
                        .pattern
                        .as_ref()
                        .is_some_and(|pattern| pattern.matches(name.as_str()))
            }
        }
    }
}

impl Query {
    /// Whether the query determines the names of files. The name in an answer to any other query
    /// was not asked for.
    pub fn is_about_names(&self) -> bool {
        match self {
            Query::Id(_) | Query::IdPrefix(_) | Query::Sha256(_) => false,
            Query::OfNode(..) | Query::Name(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    fn allows(query: &str, name: &str, content: ContentId) -> bool {
        let filter = AnswerFilter::new(&query.parse().unwrap());
        filter.allows(&AssetName::new(name).unwrap(), &content)
    }

    #[test]
    fn an_id_and_a_prefix_allow_their_contents_under_any_name() {
        let (wanted, other) = (ContentId([0x3f; 32]), ContentId([0x40; 32]));
        for query in [wanted.to_string(), "id:3f".into(), "id:3".into()] {
            assert!(allows(&query, "a/b", wanted), "{query}");
            assert!(!allows(&query, "a/b", other), "{query}");
        }
        assert!(!AnswerFilter::new(&Query::Id(wanted)).query.is_about_names());
    }

    #[test]
    fn a_name_allows_itself_with_any_content_and_nothing_else() {
        let node = NodeId([7; 32]);
        for query in ["a/b".to_owned(), format!("{node}/a/b")] {
            for content in [ContentId([0; 32]), ContentId([9; 32])] {
                assert!(allows(&query, "a/b", content), "{query}");
                assert!(!allows(&query, "b", content), "{query}");
                assert!(!allows(&query, "a/b/c", content), "{query}");
            }
        }
    }

    #[test]
    fn a_glob_allows_what_it_matches_and_the_name_that_looks_like_it() {
        let content = ContentId([1; 32]);
        assert!(allows("*.txt", "a.txt", content));
        assert!(!allows("*.txt", "d/a.txt", content));
        assert!(!allows("*.txt", "a.txt.exe", content));
        assert!(allows("[x]", "[x]", content));
        assert!(allows("[x]", "x", content));
    }
}
