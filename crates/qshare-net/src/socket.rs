//! The UDP socket below quinn.
//!
//! [`Socket`] stands between quinn and the operating system. It takes out datagrams that are not
//! QUIC's and hands them to the one [`NonQuic`] that was installed. It sends packets to a *virtual*
//! address (one for each node that is reached through a relay) to the relay, behind a header. All
//! other packets cost a look at their first byte. Where only another socket gets through to a node,
//! packets to that node's virtual address leave from there (`extra`). `coalesce` combines packets
//! into fewer system calls.

pub(crate) mod address_proof;
pub(crate) mod coalesce;
mod demux;
mod extra;
mod virtual_address;

pub use address_proof::AddressResponder;
pub use demux::{NonQuic, NonQuicSender, Route, Verdict};
pub use virtual_address::{is_virtual, virtual_address};

pub(crate) use demux::Socket;
pub(crate) use virtual_address::is_made_up;
