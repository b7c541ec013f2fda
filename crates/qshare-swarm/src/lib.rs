//! The swarm scheduler: which chunk from whom, what to answer next, whom to stop asking.
//!
//! Pure: no tokio, no quinn, no clock, no logging. What happens is told with `handle_*`, what to
//! do is asked with `poll_*`, and both are given `now`; the same events and the same seed give
//! the same decisions. Two machines that know nothing of each other:
//!
//! - [`Fetch`], one per content that is being downloaded: which [`Span`] to ask of which peer,
//!   which waiting request to take back, whom to drop.
//! - [`Serve`], one per node: which of the waiting requests of all peers to answer next.
//!
//! After any number of `handle_*` calls, call `poll_action` (or `poll_start`) until it returns
//! None, then sleep until the next event or [`Fetch::poll_timeout`], whichever comes first.
//!
//! The policy is a pull: rarest chunk first, from the least loaded holder, few requests waiting
//! at each; a request that waits at a loaded holder moves to a less loaded one, but only once the
//! first has confirmed that it had not started. Servers answer few requests at a time, the chunk
//! that they have served least first.

mod fetch;
mod key;
mod serve;
mod span;

pub use fetch::{DropReason, Fetch, FetchAction, FetchConfig, FetchStatus, PeerStatus, Refusal};
pub use key::{PeerKey, RequestId, Ticket};
pub use serve::{Busy, Serve, ServeConfig};
pub use span::Span;
