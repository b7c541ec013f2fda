//! The qshare protocols, version 1: messages, datagrams and limits, byte for byte. Pure: no IO.
//!
//! # Participants
//!
//! - A **node** shares files and downloads them from other nodes.
//! - A **tracker** keeps which node holds which content, and introduces nodes to each other. File
//!   bytes pass through it only as a relay of last resort, in encrypted packets.
//!
//! Both speak over QUIC (RFC 9000) with TLS 1.3 and mutual self-signed Ed25519 certificates;
//! a node is identified by the SHA-256 of its public key. Tracker connections negotiate the ALPN
//! [`ALPN_TRACKER`], connections between nodes [`ALPN_PEER`].
//!
//! # Goals
//!
//! - A stranger's bytes are parsed once, into valid and bounded types, or refused with a reason.
//! - Later versions can add fields, messages and extensions without a new ALPN.
//! - One request, one bidirectional stream: no head-of-line blocking between requests.
//!
//! # Non-goals
//!
//! - Hiding from the network how much is transferred, and between whom.
//! - Framing bulk data: after a reply that says how many bytes, chunk bytes follow raw.
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
//! A request of an unknown type is refused by its header, and the connection stays open. Trailing
//! bytes of a body are ignored: later versions append fields there. In a body, postcard writes
//! integers of more than 8 bits as LEB128 varints, `u8` and `bool` as one byte, byte arrays as they
//! are, lists and texts as a varint length and their elements, an option as 0 or 1 and the value, a
//! struct as its fields in order, and an enum as the varint index of its variant and that
//! variant's fields.
//!
//! Messages are in [`hello`], [`tracker`], [`introduction`], [`knock`], [`mailbox`], [`peer`],
//! [`private`] and [`collection`], datagrams beside QUIC in [`datagram`], all limits in [`limits`].
//! docs/protocol.md describes the order of events.

mod address;
mod close;
pub mod collection;
pub mod datagram;
mod frame;
pub mod hello;
pub mod introduction;
pub mod knock;
pub mod limits;
pub mod mailbox;
pub mod peer;
pub mod private;
mod refused;
pub mod siblings;
mod text;
pub mod tracker;

pub use address::{Address, Candidate, CandidateKind, is_private};
pub use close::CloseCode;
pub use frame::{FRAME_HEADER_BYTES, Frame, FrameHeader, Message, WireError};
pub use refused::{Refusal, Refused};
pub use text::{PeerText, is_unsafe_to_print, neutralize};

/// ALPN between a node and a tracker.
pub const ALPN_TRACKER: &[u8] = b"qshare-tracker/2";
/// ALPN between two nodes.
pub const ALPN_PEER: &[u8] = b"qshare-peer/2";
