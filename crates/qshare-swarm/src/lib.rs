//! The swarm scheduler: it decides which chunk to request from which peer, which request to answer
//! next, and which peer to drop.
//!
//! Pure: no tokio, no quinn, no clock, no logging. The caller reports events with `handle_*` and
//! asks for decisions with `poll_*`, and passes `now` to both. The same events and the same seed
//! give the same decisions. There are two independent state machines:
//!
//! - [`Fetch`], one per content that is being downloaded, decides which [`Span`] to request from
//!   which peer, which waiting request to withdraw, and which peer to drop.
//! - [`Serve`], one per node, decides which of the waiting requests of all peers to answer next.
//!
//! After any number of `handle_*` calls, call `poll_action` (or `poll_start`) until it returns
//! None, then sleep until the next event or [`Fetch::poll_timeout`], whichever comes first.
//!
//! The policy is pull: the scheduler requests the rarest chunk first, from the least loaded holder,
//! and keeps few requests waiting at each. A request that waits at a loaded holder moves to a less
//! loaded one, but only after the first has confirmed that it had not started. Servers answer few
//! requests at a time, and the chunk that they have served least first.

mod fetch;
mod key;
mod serve;
mod span;

pub use fetch::{
    DropReason, Fetch, FetchAction, FetchConfig, FetchStatus, Focus, PeerStatus, Refusal,
};
pub use key::{PeerKey, RequestId, Ticket};
pub use serve::{Busy, Serve, ServeConfig};
pub use span::Span;
