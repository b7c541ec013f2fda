//! The interface of a registry to a tracker, independent of its implementation.

use std::net::SocketAddr;
use std::time::Instant;

use qshare_content::{ContentId, NodeId, Topic};

use crate::lookup::{Find, FindError, Page, Readiness, Sample};
use crate::registry::Registry;
use crate::types::{
    Announced, AnnouncedTopic, Counts, EntryKey, Evicted, GroupId, HolderChange, NotAnnouncing,
    OpenError, Output, Refused, SessionGone, SessionId, Timeout, WatchError, WatchId,
};

/// A registry as a tracker uses it. [`Registry`] keeps everything in memory; an implementation
/// that shares entries with other trackers answers from memory, too, and exchanges them through
/// outputs of its own.
///
/// No call waits or does IO. Calls are made with a time that never runs backwards, and after each
/// of them the caller drains [`RegistryBackend::poll_output`] and looks at
/// [`RegistryBackend::poll_timeout`]. The tests in `tests/it` hold for every implementation; they
/// are generic over it.
pub trait RegistryBackend {
    /// Opens a session; see [`Registry::handle_session_opened`].
    fn handle_session_opened(
        &mut self,
        now: Instant,
        group: GroupId,
        node: NodeId,
        observed: SocketAddr,
        claimed: &[SocketAddr],
    ) -> Result<SessionId, OpenError>;

    /// Ends a session; see [`Registry::handle_session_closed`].
    fn handle_session_closed(&mut self, now: Instant, session: SessionId, clean: bool);

    /// Changes the addresses of a node; see [`Registry::handle_moved`].
    fn handle_moved(
        &mut self,
        now: Instant,
        session: SessionId,
        observed: SocketAddr,
        claimed: &[SocketAddr],
    ) -> Result<(), SessionGone>;

    /// Begins a full announcement; see [`Registry::handle_announcement_begun`].
    fn handle_announcement_begun(
        &mut self,
        now: Instant,
        session: SessionId,
    ) -> Result<(), SessionGone>;

    /// Adds or changes entries; see [`Registry::handle_announced`].
    fn handle_announced(
        &mut self,
        now: Instant,
        session: SessionId,
        batch: &[Announced],
    ) -> Result<Vec<Refused>, SessionGone>;

    /// Removes entries; see [`Registry::handle_withdrawn`].
    fn handle_withdrawn(
        &mut self,
        now: Instant,
        session: SessionId,
        batch: &[EntryKey],
    ) -> Result<(), SessionGone>;

    /// Adds or changes topics; see [`Registry::handle_topics_announced`].
    fn handle_topics_announced(
        &mut self,
        now: Instant,
        session: SessionId,
        batch: &[AnnouncedTopic],
    ) -> Result<Vec<Refused>, SessionGone>;

    /// Removes topics; see [`Registry::handle_topics_withdrawn`].
    fn handle_topics_withdrawn(
        &mut self,
        now: Instant,
        session: SessionId,
        batch: &[Topic],
    ) -> Result<(), SessionGone>;

    /// Ends a full announcement; see [`Registry::handle_announcement_ended`].
    fn handle_announcement_ended(
        &mut self,
        now: Instant,
        session: SessionId,
    ) -> Result<usize, NotAnnouncing>;

    /// Does what is due; see [`Registry::handle_timeout`].
    fn handle_timeout(&mut self, now: Instant);

    /// Answers a lookup; see [`Registry::find`].
    fn find(&mut self, now: Instant, find: &Find) -> Result<Page, FindError>;

    /// Returns some holders of a content; see [`Registry::holders`].
    fn holders(
        &mut self,
        now: Instant,
        group: GroupId,
        content: ContentId,
        limit: usize,
        asking: Option<NodeId>,
    ) -> Sample;

    /// Returns some holders of a topic; see [`Registry::topic_holders`].
    fn topic_holders(
        &mut self,
        now: Instant,
        group: GroupId,
        topic: Topic,
        limit: usize,
        asking: Option<NodeId>,
    ) -> Sample;

    /// Returns whether an empty answer is final; see [`Registry::readiness`].
    fn readiness(&self, now: Instant) -> Readiness;

    /// Begins a watch; see [`Registry::watch`].
    fn watch(
        &mut self,
        now: Instant,
        session: SessionId,
        content: ContentId,
    ) -> Result<WatchId, WatchError>;

    /// Begins a watch of a topic; see [`Registry::watch_topic`].
    fn watch_topic(
        &mut self,
        now: Instant,
        session: SessionId,
        topic: Topic,
    ) -> Result<WatchId, WatchError>;

    /// Ends a watch; see [`Registry::unwatch`].
    fn unwatch(&mut self, watch: WatchId);

    /// Returns the next change of a watch; see [`Registry::poll_change`].
    fn poll_change(&mut self, now: Instant, watch: WatchId) -> Option<HolderChange>;

    /// Returns what was evicted of a node; see [`Registry::take_evicted`].
    fn take_evicted(&mut self, group: GroupId, node: NodeId) -> Evicted;

    /// Returns the next thing to do; see [`Registry::poll_output`].
    fn poll_output(&mut self) -> Option<Output>;

    /// Returns when to call [`RegistryBackend::handle_timeout`]; see [`Registry::poll_timeout`].
    fn poll_timeout(&self) -> Option<Timeout>;

    /// Returns the numbers of nodes, entries and contents; see [`Registry::counts`].
    fn counts(&self) -> Counts;
}

/// Passes each call on to the method of the same name.
macro_rules! delegate {
    ($($(#[$meta:meta])* fn $name:ident(&mut self $(, $arg:ident: $type:ty)*) $(-> $result:ty)?;)*) => {
        $(fn $name(&mut self $(, $arg: $type)*) $(-> $result)? {
            Registry::$name(self $(, $arg)*)
        })*
    };
}

impl RegistryBackend for Registry {
    delegate! {
        fn handle_session_opened(
            &mut self, now: Instant, group: GroupId, node: NodeId, observed: SocketAddr,
            claimed: &[SocketAddr]
        ) -> Result<SessionId, OpenError>;
        fn handle_session_closed(&mut self, now: Instant, session: SessionId, clean: bool);
        fn handle_moved(
            &mut self, now: Instant, session: SessionId, observed: SocketAddr,
            claimed: &[SocketAddr]
        ) -> Result<(), SessionGone>;
        fn handle_announcement_begun(
            &mut self, now: Instant, session: SessionId
        ) -> Result<(), SessionGone>;
        fn handle_announced(
            &mut self, now: Instant, session: SessionId, batch: &[Announced]
        ) -> Result<Vec<Refused>, SessionGone>;
        fn handle_withdrawn(
            &mut self, now: Instant, session: SessionId, batch: &[EntryKey]
        ) -> Result<(), SessionGone>;
        fn handle_topics_announced(
            &mut self, now: Instant, session: SessionId, batch: &[AnnouncedTopic]
        ) -> Result<Vec<Refused>, SessionGone>;
        fn handle_topics_withdrawn(
            &mut self, now: Instant, session: SessionId, batch: &[Topic]
        ) -> Result<(), SessionGone>;
        fn handle_announcement_ended(
            &mut self, now: Instant, session: SessionId
        ) -> Result<usize, NotAnnouncing>;
        fn handle_timeout(&mut self, now: Instant);
        fn find(&mut self, now: Instant, find: &Find) -> Result<Page, FindError>;
        fn holders(
            &mut self, now: Instant, group: GroupId, content: ContentId, limit: usize,
            asking: Option<NodeId>
        ) -> Sample;
        fn topic_holders(
            &mut self, now: Instant, group: GroupId, topic: Topic, limit: usize,
            asking: Option<NodeId>
        ) -> Sample;
        fn watch(
            &mut self, now: Instant, session: SessionId, content: ContentId
        ) -> Result<WatchId, WatchError>;
        fn watch_topic(
            &mut self, now: Instant, session: SessionId, topic: Topic
        ) -> Result<WatchId, WatchError>;
        fn unwatch(&mut self, watch: WatchId);
        fn poll_change(&mut self, now: Instant, watch: WatchId) -> Option<HolderChange>;
        fn take_evicted(&mut self, group: GroupId, node: NodeId) -> Evicted;
        fn poll_output(&mut self) -> Option<Output>;
    }

    fn readiness(&self, now: Instant) -> Readiness {
        Registry::readiness(self, now)
    }

    fn poll_timeout(&self) -> Option<Timeout> {
        Registry::poll_timeout(self)
    }

    fn counts(&self) -> Counts {
        Registry::counts(self)
    }
}
