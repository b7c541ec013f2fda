//! How a connection ended.

use std::fmt;

use qshare_wire::{CloseCode, PeerText};
use quinn::ConnectionError;

/// The end of a connection, safe to print: the peer's reason is neutralized ([`PeerText`]).
#[derive(Debug, Clone)]
pub struct LostConnection(ConnectionError);

impl LostConnection {
    /// Returns the code with which the peer closed the connection, if it did and we know it.
    pub fn code(&self) -> Option<CloseCode> {
        close_reason(&self.0)
    }
}

impl From<ConnectionError> for LostConnection {
    fn from(error: ConnectionError) -> LostConnection {
        LostConnection(error)
    }
}

impl fmt::Display for LostConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ConnectionError::ApplicationClosed(close) => {
                let reason = PeerText::from_bytes(&close.reason);
                match close_reason(&self.0) {
                    Some(code) if reason.is_empty() || *reason == *code.to_string() => {
                        write!(f, "closed by the peer: {code}")
                    }
                    Some(code) => write!(f, "closed by the peer: {code} ({reason})"),
                    None => write!(
                        f,
                        "closed by the peer: code {} ({reason})",
                        close.error_code
                    ),
                }
            }
            ConnectionError::ConnectionClosed(close) => {
                let reason = PeerText::from_bytes(&close.reason);
                write!(f, "aborted by the peer: {} ({reason})", close.error_code)
            }
            other => write!(f, "{}", PeerText::new(&other.to_string())),
        }
    }
}

impl std::error::Error for LostConnection {}

/// Returns the code with which the peer closed the connection, if it did and we know it.
pub fn close_reason(error: &ConnectionError) -> Option<CloseCode> {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseCode::from_code(close.error_code.into()),
        _ => None,
    }
}

/// Returns whether the peer left in good order, as opposed to being lost.
pub fn is_goodbye(error: &ConnectionError) -> bool {
    close_reason(error) == Some(CloseCode::Goodbye)
}

#[cfg(test)]
mod tests {
    use quinn::{ApplicationClose, VarInt};

    use super::*;

    fn closed(code: u32, reason: &str) -> String {
        let close = ApplicationClose {
            error_code: VarInt::from_u32(code),
            reason: reason.to_owned().into(),
        };
        LostConnection(ConnectionError::ApplicationClosed(close)).to_string()
    }

    #[test]
    fn the_reason_of_a_closed_connection_cannot_command_a_terminal() {
        for code in [0, 5, 999] {
            let told = closed(code, "\x1b]52;c;cHduZWQ=\x07\u{202E}");
            assert!(!told.contains(qshare_wire::is_unsafe_to_print), "{told:?}");
            assert!(told.contains("52;c;cHduZWQ="), "{told:?}");
        }
    }

    #[test]
    fn a_known_code_says_what_it_means() {
        assert_eq!(closed(5, "too busy"), "closed by the peer: too busy");
        assert_eq!(closed(5, ""), "closed by the peer: too busy");
    }
}
