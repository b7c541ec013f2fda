//! The qshare protocols, version 1: what participants say to each other, byte for byte.
//!
//! # Participants
//!
//! - A **node** shares files and downloads them from other nodes.
//! - A **tracker** knows which node holds what, and introduces nodes to each other. File bytes
//!   pass through it only as a relay of last resort, as packets that it cannot read.
//!
//! Both speak over QUIC (RFC 9000) with TLS 1.3 and mutual self-signed Ed25519 certificates;
//! a node is known by the SHA-256 of its public key. Tracker connections negotiate the ALPN
//! [`ALPN_TRACKER`], connections between nodes [`ALPN_PEER`].
//!
//! # Goals
//!
//! - A stranger's bytes are parsed once, into valid and bounded types, or refused with a reason.
//! - Versions can add fields, messages and extensions without a new ALPN.
//! - One request, one bidirectional stream: nothing waits behind anything else.
//!
//! # Non-goals
//!
//! - Hiding how much is transferred, or with whom, from the network in between.
//! - Frames for bulk data: once a reply has said how many, chunk bytes follow raw.
//!
//! # Byte layout
//!
//! Every message is a frame:
//!
//! ```text
//! 0        4      6                6 + length
//! ├────────┼──────┼────────────────┤
//! │ length │ type │ body           │   length: u32 LE, bytes of the body
//! └────────┴──────┴────────────────┘   type: u16 LE; body: postcard
//! ```
//!
//! An unknown type is refused from the header and the connection lives. Trailing bytes of a
//! body are ignored: that is where later versions put what earlier ones do not know. The
//! messages stand in [`hello`], [`tracker`], [`introduction`], [`knock`] and [`peer`]; what travels
//! beside QUIC in [`datagram`]; every limit in [`limits`].
//! docs/protocol.md tells the same story with the order of events.

mod address;
mod close;
pub mod datagram;
mod frame;
pub mod hello;
pub mod introduction;
pub mod knock;
pub mod limits;
pub mod peer;
mod refused;
mod text;
pub mod tracker;

pub use address::{Address, Candidate, CandidateKind, is_private};
pub use close::CloseCode;
pub use frame::{FRAME_HEADER_BYTES, Frame, FrameHeader, Message, WireError};
pub use refused::{Refusal, Refused};
pub use text::{PeerText, is_unsafe_to_print, neutralize};

/// ALPN between a node and a tracker.
pub const ALPN_TRACKER: &[u8] = b"qshare-tracker/1";
/// ALPN between two nodes.
pub const ALPN_PEER: &[u8] = b"qshare-peer/1";
