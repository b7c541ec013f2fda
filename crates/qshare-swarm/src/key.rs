//! The names by which the scheduler and its caller speak of peers, requests and answers.

/// A peer, as the caller knows it. Chosen by the caller, never used again for another peer or
/// for another connection to the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u64);

/// A request that a [`Fetch`](crate::Fetch) made. Chosen by it, unique within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request that a [`Serve`](crate::Serve) is to answer. Chosen by it, unique within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);
