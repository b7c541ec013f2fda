//! The sources of one content: holders as they become known, and nodes that the request names.

mod blame;
mod collection;
mod holders;
mod static_sources;
mod watch;

pub(super) use blame::Blame;
pub(crate) use collection::CollectionSources;
pub(super) use holders::Holders;
pub(super) use watch::SourceWatch;
