//! Frames: a length, a type and a postcard body.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a frame's header: u32 length and u16 type, little-endian.
pub const FRAME_HEADER_BYTES: usize = 6;

/// A message, which a frame of its own type carries.
pub trait Message: Serialize + DeserializeOwned {
    /// The type in the frame's header; never reused for another message.
    const TYPE: u16;
    /// Largest body in bytes. A longer one is refused by its header.
    const BODY_MAX_BYTES: usize;
    /// The message's name in errors.
    const NAME: &'static str;

    /// Checks the bounds that the types alone do not enforce.
    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }
}

/// Why bytes are not the expected message. Each is a fault of the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The type is not allowed here.
    #[error("unexpected frame type {0}")]
    UnexpectedType(u16),
    /// The header announces more than a frame of this type may hold.
    #[error("frame type {kind} of {length_bytes} bytes is larger than {max_bytes}")]
    TooLarge {
        /// Type in the header.
        kind: u16,
        /// Length in the header.
        length_bytes: u32,
        /// The limit.
        max_bytes: usize,
    },
    /// The body is not a message of its type.
    #[error("{0} cannot be decoded")]
    Malformed(&'static str),
    /// The message is valid, but does not answer the request that it came for.
    #[error("{0} does not match its request")]
    Mismatch(&'static str),
    /// A list or text in the message is longer than allowed.
    #[error("{message}: {what} exceeds {max}")]
    TooMany {
        /// The message.
        message: &'static str,
        /// The field.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

/// Refuses a field that exceeds its limit.
pub(crate) fn check_len<M: Message>(
    what: &'static str,
    len: usize,
    max: usize,
) -> Result<(), WireError> {
    if len > max {
        Err(WireError::TooMany {
            message: M::NAME,
            what,
            max,
        })
    } else {
        Ok(())
    }
}

/// A frame's header: length u32, type u16, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the body.
    pub length_bytes: u32,
    /// Type of the message.
    pub kind: u16,
}

impl FrameHeader {
    /// Parses a header.
    pub fn parse(bytes: [u8; FRAME_HEADER_BYTES]) -> FrameHeader {
        let [a, b, c, d, e, f] = bytes;
        FrameHeader {
            length_bytes: u32::from_le_bytes([a, b, c, d]),
            kind: u16::from_le_bytes([e, f]),
        }
    }

    /// Refuses a body of more than `max_bytes`, before it is read.
    pub fn check(&self, max_bytes: usize) -> Result<(), WireError> {
        if self.length_bytes as usize > max_bytes {
            let FrameHeader { length_bytes, kind } = *self;
            return Err(WireError::TooLarge {
                kind,
                length_bytes,
                max_bytes,
            });
        }
        Ok(())
    }
}

/// A frame as it was read: type and body, not decoded.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Type in the header.
    pub kind: u16,
    /// Body, postcard.
    pub body: Vec<u8>,
}

/// Bytes of a frame's first buffer: most messages fit, and need no larger one.
const FIRST_BUFFER_BYTES: usize = 192;

impl Frame {
    /// Encodes a message: header and body.
    pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, WireError> {
        message.check()?;
        let mut buffer = Vec::with_capacity(FIRST_BUFFER_BYTES);
        buffer.resize(FRAME_HEADER_BYTES, 0);
        let mut bytes =
            postcard::to_extend(message, buffer).map_err(|_| WireError::Malformed(M::NAME))?;
        let length_bytes = (bytes.len() - FRAME_HEADER_BYTES) as u32;
        FrameHeader {
            length_bytes,
            kind: M::TYPE,
        }
        .check(M::BODY_MAX_BYTES)?;
        bytes[..4].copy_from_slice(&length_bytes.to_le_bytes());
        bytes[4..6].copy_from_slice(&M::TYPE.to_le_bytes());
        Ok(bytes)
    }

    /// Decodes the message, if this frame has type `M`. Ignores trailing bytes.
    pub fn decode<M: Message>(&self) -> Result<M, WireError> {
        if self.kind != M::TYPE {
            return Err(WireError::UnexpectedType(self.kind));
        }
        if self.body.len() > M::BODY_MAX_BYTES {
            return Err(WireError::TooLarge {
                kind: self.kind,
                length_bytes: u32::try_from(self.body.len()).unwrap_or(u32::MAX),
                max_bytes: M::BODY_MAX_BYTES,
            });
        }
        let (message, _rest) = postcard::take_from_bytes::<M>(&self.body)
            .map_err(|_| WireError::Malformed(M::NAME))?;
        message.check()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        number: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        number: u32,
        text: String,
    }

    impl Message for Old {
        const TYPE: u16 = 999;
        const BODY_MAX_BYTES: usize = 64;
        const NAME: &'static str = "Old";
    }

    impl Message for New {
        const TYPE: u16 = 999;
        const BODY_MAX_BYTES: usize = 64;
        const NAME: &'static str = "New";
    }

    fn frame(bytes: &[u8]) -> Frame {
        let header = FrameHeader::parse(bytes[..6].try_into().unwrap());
        assert_eq!(header.length_bytes as usize, bytes.len() - 6);
        Frame {
            kind: header.kind,
            body: bytes[6..].to_vec(),
        }
    }

    #[test]
    fn an_older_reader_ignores_what_a_newer_writer_adds() {
        let bytes = Frame::encode(&New {
            number: 7,
            text: "later".into(),
        })
        .unwrap();
        assert_eq!(frame(&bytes).decode::<Old>().unwrap(), Old { number: 7 });
        let bytes = Frame::encode(&Old { number: 7 }).unwrap();
        assert_eq!(
            frame(&bytes).decode::<New>(),
            Err(WireError::Malformed("New"))
        );
    }

    #[test]
    fn an_overlong_body_is_refused_on_both_sides() {
        let long = New {
            number: 1,
            text: "x".repeat(100),
        };
        assert!(matches!(
            Frame::encode(&long),
            Err(WireError::TooLarge { .. })
        ));
        let body = vec![0; 100];
        let refused = Frame { kind: 999, body }.decode::<Old>();
        assert!(matches!(refused, Err(WireError::TooLarge { .. })));
    }

    #[test]
    fn another_type_is_refused() {
        let refused = Frame {
            kind: 1000,
            body: vec![],
        }
        .decode::<Old>();
        assert_eq!(refused, Err(WireError::UnexpectedType(1000)));
    }
}
