//! Codes: a short code stands for a link, which sharer and receiver exchange by a password.
//!
//! [`Exchange`](exchange::Exchange) is the sharer's side of all runs of one code: it counts
//! guesses, and decides, without IO. `offer` keeps a code claimed at all trackers and on the local
//! network, and replaces it. `redeem` is the receiver's side. docs/protocol.md describes the
//! messages.

mod attempts;
mod claim;
mod draw;
mod error;
mod event;
mod exchange;
mod offer;
mod places;
mod redeem;
mod service;
mod uses;

pub use error::{ClaimFault, RedeemError};
pub use event::{CodeEnd, CodeEvent, OfferedCode};
pub use offer::{CodeOffer, CodeOfferConfig, LinkProvider};
pub use redeem::{RedeemPatience, Redeemed};
pub(crate) use service::Codes;
