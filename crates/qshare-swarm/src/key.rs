//! The keys by which the scheduler and its caller refer to peers, requests and answers.

/// A connection to a peer. Chosen by the caller, and never reused for another peer or another
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u64);

/// A request of a [`Fetch`](crate::Fetch). Chosen by it, unique within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request that a [`Serve`](crate::Serve) received. Chosen by it, unique within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);
