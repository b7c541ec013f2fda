//! Messages on QUIC streams.

use qshare_wire::{FRAME_HEADER_BYTES, Frame, FrameHeader, Message, Refused, WireError};
use quinn::{ReadExactError, RecvStream, SendStream, WriteError};

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream ended in good order.
    #[error("the stream ended")]
    Ended,
    /// The stream was reset, or the connection was lost: the peer left.
    #[error("the stream broke off: {0}")]
    Broken(String),
    /// The bytes are not a message: the peer misbehaved.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The request was answered with a refusal.
    #[error("refused: {0:?}")]
    Refused(Refused),
}

/// Writes a message.
pub async fn write<M: Message>(stream: &mut SendStream, message: &M) -> Result<(), WriteError> {
    // Only a message of our own making fails here, and a stream that carries none of it is
    // refused by the other side.
    let bytes = Frame::encode(message).unwrap_or_default();
    stream.write_chunk(bytes.into()).await
}

/// Reads one frame whose body is at most `body_max_bytes` long.
pub async fn read_frame(
    stream: &mut RecvStream,
    body_max_bytes: usize,
) -> Result<Frame, ReadError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    match stream.read_exact(&mut header).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Err(ReadError::Ended),
        Err(error) => return Err(ReadError::Broken(error.to_string())),
    }
    let header = FrameHeader::parse(header);
    header.check(body_max_bytes)?;
    let mut body = vec![0; header.length_bytes as usize];
    stream
        .read_exact(&mut body)
        .await
        .map_err(|error| ReadError::Broken(error.to_string()))?;
    Ok(Frame {
        kind: header.kind,
        body,
    })
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

/// Opens a stream, sends a request on it and reads the first message of the answer.
pub async fn ask<Q: Message, A: Message>(
    connection: &quinn::Connection,
    request: &Q,
) -> Result<(A, SendStream, RecvStream), ReadError> {
    let broken = |error: &dyn std::fmt::Display| ReadError::Broken(error.to_string());
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| broken(&error))?;
    write(&mut send, request)
        .await
        .map_err(|error| broken(&error))?;
    let answer = read(&mut recv).await?;
    Ok((answer, send, recv))
}
