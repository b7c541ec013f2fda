//! Who may have a content: holders as they become known, and nodes that the request names.

pub(crate) mod holders;
pub(crate) mod static_sources;
