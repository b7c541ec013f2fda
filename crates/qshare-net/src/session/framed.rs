//! Messages on QUIC streams: one frame each ([`qshare_wire`], "Byte layout").

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use qshare_wire::{FRAME_HEADER_BYTES, Frame, FrameHeader, Message, Refused, WireError};
use quinn::{ConnectionError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};

use super::lost::LostConnection;

/// Why no message was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream ended before the first byte of a frame.
    #[error("the stream ended")]
    Ended,
    /// The stream ended, was reset, or lost its connection within a frame: the peer left.
    #[error("the stream ended early: {0}")]
    Broken(#[from] BrokenStream),
    /// The bytes are not a message: the peer misbehaved.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The request was answered with a refusal.
    #[error("refused: {0}")]
    Refused(Refused),
}

/// How a stream was interrupted.
#[derive(Debug, thiserror::Error)]
pub enum BrokenStream {
    /// The peer ended it within a frame.
    #[error("it ended within a frame")]
    Unfinished,
    /// The peer reset it, with this application error code.
    #[error("the peer reset it (code {0})")]
    Reset(VarInt),
    /// The peer does not read it any more.
    #[error("the peer stopped it (code {0})")]
    Stopped(VarInt),
    /// The connection was lost.
    #[error("{0}")]
    Connection(LostConnection),
    /// It was used after its end, or in 0-RTT, which is off.
    #[error("it is closed")]
    Closed,
}

impl From<quinn::ReadError> for BrokenStream {
    fn from(error: quinn::ReadError) -> BrokenStream {
        match error {
            quinn::ReadError::Reset(code) => BrokenStream::Reset(code),
            quinn::ReadError::ConnectionLost(error) => BrokenStream::Connection(error.into()),
            _ => BrokenStream::Closed,
        }
    }
}

impl From<WriteError> for BrokenStream {
    fn from(error: WriteError) -> BrokenStream {
        match error {
            WriteError::Stopped(code) => BrokenStream::Stopped(code),
            WriteError::ConnectionLost(error) => BrokenStream::Connection(error.into()),
            _ => BrokenStream::Closed,
        }
    }
}

impl From<ConnectionError> for BrokenStream {
    fn from(error: ConnectionError) -> BrokenStream {
        BrokenStream::Connection(error.into())
    }
}

impl From<quinn::ReadError> for ReadError {
    fn from(error: quinn::ReadError) -> ReadError {
        ReadError::Broken(error.into())
    }
}

impl From<WriteError> for ReadError {
    fn from(error: WriteError) -> ReadError {
        ReadError::Broken(error.into())
    }
}

impl From<ConnectionError> for ReadError {
    fn from(error: ConnectionError) -> ReadError {
        ReadError::Broken(error.into())
    }
}

/// Writes a message.
pub async fn write<M: Message>(stream: &mut SendStream, message: &M) -> Result<(), WriteError> {
    // Encoding fails only for a message of our own that exceeds its bounds. Nothing is written
    // then, and the other side refuses a stream that ends without a frame.
    let bytes = Frame::encode(message).unwrap_or_default();
    stream.write_chunk(bytes.into()).await
}

/// Reads the header of the next frame. Returns [`ReadError::Ended`] if the stream ends before it.
pub async fn read_header(stream: &mut RecvStream) -> Result<FrameHeader, ReadError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    match stream.read_exact(&mut header).await {
        Ok(()) => Ok(FrameHeader::parse(header)),
        Err(ReadExactError::FinishedEarly(0)) => Err(ReadError::Ended),
        Err(ReadExactError::FinishedEarly(_)) => Err(BrokenStream::Unfinished.into()),
        Err(ReadExactError::ReadError(error)) => Err(error.into()),
    }
}

/// First size of a body's buffer in bytes. Most requests fit.
const BODY_START_BYTES: usize = 512;

/// The body of a frame while it arrives.
///
/// Its buffer doubles as bytes arrive. A header that announces a large body therefore allocates
/// only `BODY_START_BYTES`. Check the header's length before.
#[derive(Debug)]
pub struct IncomingBody {
    kind: u16,
    length: usize,
    bytes: Vec<u8>,
}

impl IncomingBody {
    /// Starts a body; allocates nothing.
    pub fn new(header: FrameHeader) -> IncomingBody {
        IncomingBody {
            kind: header.kind,
            length: header.length_bytes as usize,
            bytes: Vec::new(),
        }
    }

    /// Returns how many bytes have arrived.
    pub fn arrived_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether all bytes have arrived.
    pub fn is_complete(&self) -> bool {
        self.bytes.len() == self.length
    }

    /// Returns the number of bytes by which the next [`IncomingBody::read_more`] grows the buffer:
    /// 0 while the buffer has room. For callers that account for memory before they use it.
    pub fn growth_bytes(&self) -> usize {
        let (filled, room) = (self.bytes.len(), self.bytes.capacity());
        if self.is_complete() || filled < room {
            return 0;
        }
        (2 * filled).max(BODY_START_BYTES).min(self.length) - room
    }

    /// Waits for bytes of the body and stores them, at most as many as the buffer has room for.
    ///
    /// Cancel safe: bytes are taken from the stream only with the result.
    pub async fn read_more(&mut self, stream: &mut RecvStream) -> Result<(), ReadError> {
        self.bytes.reserve_exact(self.growth_bytes());
        let room = self.bytes.capacity().min(self.length) - self.bytes.len();
        if room == 0 {
            return Ok(());
        }
        match stream.read_chunk(room, true).await {
            Ok(Some(chunk)) => {
                self.bytes.extend_from_slice(&chunk.bytes);
                Ok(())
            }
            Ok(None) => Err(BrokenStream::Unfinished.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the frame. Call it once the body is complete; a shorter one fails to decode.
    pub fn into_frame(self) -> Frame {
        Frame {
            kind: self.kind,
            body: self.bytes,
        }
    }
}

/// A frame while it arrives.
#[derive(Debug)]
pub struct IncomingFrame {
    body_max_bytes: usize,
    header: [u8; FRAME_HEADER_BYTES],
    /// How many bytes of the header have arrived.
    header_bytes: usize,
    body: Option<IncomingBody>,
}

impl IncomingFrame {
    /// Starts a frame whose body is at most `body_max_bytes` long; allocates nothing.
    pub fn new(body_max_bytes: usize) -> IncomingFrame {
        IncomingFrame {
            body_max_bytes,
            header: [0; FRAME_HEADER_BYTES],
            header_bytes: 0,
            body: None,
        }
    }

    /// Waits for the rest of the frame.
    ///
    /// Cancel safe: what has arrived is kept. Call it no more once it has returned.
    ///
    /// # Errors
    ///
    /// [`ReadError::Ended`] if the stream ends before the frame.
    pub async fn read(&mut self, stream: &mut RecvStream) -> Result<Frame, ReadError> {
        while self.body.is_none() {
            let missing = FRAME_HEADER_BYTES - self.header_bytes;
            match stream.read_chunk(missing, true).await? {
                Some(chunk) => self.take_header_bytes(&chunk.bytes)?,
                None if self.header_bytes == 0 => return Err(ReadError::Ended),
                None => return Err(BrokenStream::Unfinished.into()),
            }
        }
        loop {
            match &mut self.body {
                Some(body) if !body.is_complete() => body.read_more(stream).await?,
                body => {
                    let body = body.take().ok_or(BrokenStream::Closed)?;
                    return Ok(body.into_frame());
                }
            }
        }
    }

    /// Returns the frame if the rest of it has arrived; never waits.
    pub fn read_now(&mut self, stream: &mut RecvStream) -> Option<Result<Frame, ReadError>> {
        now(self.read(stream))
    }

    fn take_header_bytes(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let end = self.header_bytes + bytes.len();
        self.header[self.header_bytes..end].copy_from_slice(bytes);
        self.header_bytes = end;
        if end == FRAME_HEADER_BYTES {
            let header = FrameHeader::parse(self.header);
            header.check(self.body_max_bytes)?;
            self.body = Some(IncomingBody::new(header));
        }
        Ok(())
    }
}

/// Returns what a future returns at once; None if it has to wait. Such a future is dropped, and
/// wakes nobody.
pub fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

/// Takes the end of a stream behind its last message, if it has arrived.
///
/// quinn asks the peer to stop sending on a stream that is dropped before its end was read
/// (STOP_SENDING), and the peer answers that with a frame and a packet of its own.
pub fn take_end(stream: &mut RecvStream) {
    // There is nothing to do about an error: the stream is not used any more.
    let _ = now(stream.read_chunk(1, true));
}

/// Reads one frame whose body is at most `body_max_bytes` long.
pub async fn read_frame(
    stream: &mut RecvStream,
    body_max_bytes: usize,
) -> Result<Frame, ReadError> {
    IncomingFrame::new(body_max_bytes).read(stream).await
}

/// Reads a message of type `M`, or the refusal that came in its place.
pub async fn read<M: Message>(stream: &mut RecvStream) -> Result<M, ReadError> {
    let body_max_bytes = M::BODY_MAX_BYTES.max(Refused::BODY_MAX_BYTES);
    let frame = read_frame(stream, body_max_bytes).await?;
    if frame.kind == Refused::TYPE && M::TYPE != Refused::TYPE {
        return Err(ReadError::Refused(frame.decode()?));
    }
    Ok(frame.decode()?)
}

/// Opens a stream, sends a request on it and reads its only answer.
///
/// The request ends its half of the stream at once. A stream that ends later, when it is dropped,
/// costs both sides a packet more ([`take_end`]).
pub async fn ask_once<Q: Message, A: Message>(
    connection: &quinn::Connection,
    request: &Q,
) -> Result<A, ReadError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    write(&mut send, request).await?;
    // It fails only for a stream that is closed already.
    let _ = send.finish();
    let answer = read(&mut recv).await?;
    take_end(&mut recv);
    Ok(answer)
}

/// Opens a stream, sends a request on it and reads the first message of the answer.
pub async fn ask<Q: Message, A: Message>(
    connection: &quinn::Connection,
    request: &Q,
) -> Result<(A, SendStream, RecvStream), ReadError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    write(&mut send, request).await?;
    let answer = read(&mut recv).await?;
    Ok((answer, send, recv))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(length_bytes: u32) -> IncomingBody {
        IncomingBody::new(FrameHeader {
            length_bytes,
            kind: 1,
        })
    }

    /// Takes bytes as [`IncomingBody::read_more`] does, from memory.
    fn fill(body: &mut IncomingBody, mut bytes: usize) {
        while bytes > 0 {
            body.bytes.reserve_exact(body.growth_bytes());
            let room = body.bytes.capacity().min(body.length) - body.bytes.len();
            let taken = room.min(bytes);
            body.bytes.resize(body.bytes.len() + taken, 0);
            bytes -= taken;
        }
    }

    #[test]
    fn a_body_holds_no_more_than_twice_what_arrived_of_it() {
        const PROMISED: usize = 4 << 20;
        let mut body = body(PROMISED as u32);
        assert_eq!(body.bytes.capacity(), 0);
        let mut arrived = 0;
        while arrived < PROMISED {
            let piece = 1200.min(PROMISED - arrived);
            fill(&mut body, piece);
            arrived += piece;
            let held = body.bytes.capacity();
            assert!(
                held <= (2 * arrived).max(BODY_START_BYTES),
                "{held} of {arrived}"
            );
        }
        assert!(body.is_complete());
        assert_eq!(body.bytes.capacity(), PROMISED);
    }

    #[test]
    fn growth_is_announced_before_it_happens() {
        let mut body = body(1000);
        assert_eq!(body.growth_bytes(), BODY_START_BYTES);
        fill(&mut body, 100);
        assert_eq!(body.growth_bytes(), 0);
        fill(&mut body, BODY_START_BYTES - 100);
        assert_eq!(body.growth_bytes(), 1000 - BODY_START_BYTES);
        fill(&mut body, 1000 - BODY_START_BYTES);
        assert!(body.is_complete());
        assert_eq!(body.growth_bytes(), 0);
    }
}
