//! Codes of closed connections: QUIC application error codes.

use std::fmt;

/// Application error code of a closed connection. A reason for people accompanies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// The sender is done and leaves.
    Goodbye = 0,
    /// The sender is shutting down; it may come back.
    ShuttingDown = 1,
    /// The receiver broke the protocol.
    Protocol = 2,
    /// The two sides have no protocol version in common.
    Version = 3,
    /// The group's proof is missing, wrong, or unexpected.
    GroupRefused = 4,
    /// There are too many connections, or too many without a Hello.
    Busy = 5,
    /// The same node opened a newer session, which replaces this one.
    Replaced = 6,
    /// Another connection between the same two nodes is kept.
    Duplicate = 7,
    /// The first frame did not come in time.
    HelloTimeout = 8,
    /// The receiver exceeded a budget (requests a second, bytes, streams) by far.
    Flood = 9,
    /// The acceptor's id is not the one that the dialler wanted.
    WrongIdentity = 10,
    /// The connection was unused for long.
    Idle = 11,
    /// The acceptor's operator has barred this node.
    NotAllowed = 12,
}

impl CloseCode {
    /// All codes, for reading one back.
    const ALL: [CloseCode; 13] = [
        CloseCode::Goodbye,
        CloseCode::ShuttingDown,
        CloseCode::Protocol,
        CloseCode::Version,
        CloseCode::GroupRefused,
        CloseCode::Busy,
        CloseCode::Replaced,
        CloseCode::Duplicate,
        CloseCode::HelloTimeout,
        CloseCode::Flood,
        CloseCode::WrongIdentity,
        CloseCode::Idle,
        CloseCode::NotAllowed,
    ];

    /// Returns the number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// Converts a number from the wire; None for one that this version does not know.
    pub fn from_code(code: u64) -> Option<CloseCode> {
        Self::ALL
            .into_iter()
            .find(|known| u64::from(known.code()) == code)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseCode::Goodbye => "goodbye",
            CloseCode::ShuttingDown => "shutting down",
            CloseCode::Protocol => "protocol violation",
            CloseCode::Version => "no version in common",
            CloseCode::GroupRefused => "group refused",
            CloseCode::Busy => "too busy",
            CloseCode::Replaced => "replaced by a newer session of the same node",
            CloseCode::Duplicate => "another connection is kept",
            CloseCode::HelloTimeout => "no Hello in time",
            CloseCode::Flood => "too many requests",
            CloseCode::WrongIdentity => "not the node that was wanted",
            CloseCode::Idle => "idle",
            CloseCode::NotAllowed => "this node is not allowed here",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_unknown_ones_are_none() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_code(code.code().into()), Some(code));
        }
        assert_eq!(CloseCode::from_code(CloseCode::ALL.len() as u64), None);
    }
}
