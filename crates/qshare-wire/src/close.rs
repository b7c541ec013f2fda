//! Why a connection was closed: the QUIC application error code.

use std::fmt;

/// Application error codes of a closed connection. A reason for people goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// The sender is done and leaves in good order.
    Goodbye = 0,
    /// The sender is shutting down; it may come back.
    ShuttingDown = 1,
    /// What was received broke the protocol.
    Protocol = 2,
    /// No protocol version in common.
    Version = 3,
    /// The group's proof is missing, wrong, or not wanted.
    GroupRefused = 4,
    /// Too many connections, or too many that have not said Hello.
    Busy = 5,
    /// The same node opened a newer session; this one is void.
    Replaced = 6,
    /// Another connection between the same two nodes stays.
    Duplicate = 7,
    /// The first frame did not come in time.
    HelloTimeout = 8,
    /// A budget (requests a second, bytes, streams) was exceeded by far.
    Flood = 9,
    /// The acceptor is not who the dialler wanted.
    WrongIdentity = 10,
    /// Nothing has been asked or answered for long.
    Idle = 11,
}

impl CloseCode {
    /// All codes, for reading one back.
    const ALL: [CloseCode; 12] = [
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
    ];

    /// The number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// Reads a number; None for one that this version does not know.
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
            CloseCode::Duplicate => "another connection stays",
            CloseCode::HelloTimeout => "no Hello in time",
            CloseCode::Flood => "too many requests",
            CloseCode::WrongIdentity => "not the node that was wanted",
            CloseCode::Idle => "idle",
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
