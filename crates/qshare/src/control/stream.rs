//! Reads server-sent events.

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::client::ClientError;

/// Longest event that is read.
const EVENT_MAX_BYTES: usize = 64 << 20;

/// Events of a node, in order.
pub(crate) struct Events {
    body: Incoming,
    lines: Lines,
}

/// The parser: bytes in, events out.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Bytes of the buffer that hold no end of an event.
    searched: usize,
}

impl Events {
    pub(super) fn new(body: Incoming) -> Events {
        Events {
            body,
            lines: Lines::default(),
        }
    }

    /// Waits for the next event: its name and its body. May be cancelled.
    ///
    /// # Errors
    ///
    /// [`ClientError::Gone`] when the node has closed the connection.
    pub(crate) async fn next(&mut self) -> Result<(String, String), ClientError> {
        loop {
            if let Some(event) = self.lines.next() {
                return Ok(event);
            }
            if self.lines.bytes.len() > EVENT_MAX_BYTES {
                return Err(ClientError::Unreadable("an event is too long".to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.lines.bytes.extend_from_slice(&bytes);
                    }
                }
                Some(Err(_)) | None => return Err(ClientError::Gone),
            }
        }
    }
}

impl Lines {
    /// Takes the next event out of the buffer. Comments, which keep the connection alive, are
    /// skipped.
    fn next(&mut self) -> Option<(String, String)> {
        loop {
            let rest = self.bytes.get(self.searched..)?;
            let end = rest.windows(2).position(|pair| pair == b"\n\n");
            let Some(end) = end else {
                self.searched = self.bytes.len().saturating_sub(1);
                return None;
            };
            let length = self.searched + end + 2;
            let text: Vec<u8> = self.bytes.drain(..length).collect();
            self.searched = 0;
            let text = String::from_utf8_lossy(&text);
            let field = |name: &str| {
                let lines = text.lines().filter_map(|line| line.strip_prefix(name));
                let values: Vec<&str> = lines.map(|value| value.trim_start()).collect();
                (!values.is_empty()).then(|| values.join("\n"))
            };
            if let Some(data) = field("data:") {
                return Some((field("event:").unwrap_or_default(), data));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_from_pieces_of_any_length() {
        let text = b"event: status\ndata: {\"a\":1}\n\n:\n\nevent: rates\ndata: {}\n\nevent: x\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut events = Vec::new();
            for piece in text.chunks(size) {
                lines.bytes.extend_from_slice(piece);
                while let Some(event) = lines.next() {
                    events.push(event);
                }
            }
            let expected = [("status", "{\"a\":1}"), ("rates", "{}")];
            let expected = expected.map(|(name, data)| (name.to_owned(), data.to_owned()));
            assert_eq!(events, expected, "pieces of {size} bytes");
        }
    }
}
