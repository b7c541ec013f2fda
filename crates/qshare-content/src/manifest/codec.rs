//! Varints and the header, which the manifest and the times share.

use std::io::{self, BufReader, Read, Write};

use super::entry::ManifestError;

/// Longest varint of 64 bits.
const VARINT_BYTES_MAX: u32 = 10;

/// Bytes that arrive one by one, up to a limit.
pub(super) struct Input<R> {
    bytes: BufReader<R>,
    left: u64,
}

impl<R: Read> Input<R> {
    /// Reads the header.
    pub(super) fn open(
        bytes: R,
        max_bytes: u64,
        magic: [u8; 8],
        version: u32,
    ) -> Result<Input<R>, ManifestError> {
        let mut input = Input {
            bytes: BufReader::new(bytes),
            left: max_bytes,
        };
        let mut found = [0; 8];
        match input.fill(&mut found) {
            Ok(()) if found == magic => {}
            Ok(()) | Err(ManifestError::CutOff) => return Err(ManifestError::NotAManifest),
            Err(error) => return Err(error),
        }
        let mut number = [0; 4];
        input.fill(&mut number)?;
        match u32::from_le_bytes(number) {
            known if known == version => Ok(input),
            other => Err(ManifestError::Version(other)),
        }
    }

    /// Reads one byte; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<u8>, ManifestError> {
        let mut byte = [0];
        loop {
            match self.bytes.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) if self.left == 0 => return Err(ManifestError::TooLong),
                Ok(_) => {
                    self.left -= 1;
                    return Ok(Some(byte[0]));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn byte(&mut self) -> Result<u8, ManifestError> {
        self.next()?.ok_or(ManifestError::CutOff)
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ManifestError> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or(ManifestError::TooLong)?;
        self.bytes
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => ManifestError::CutOff,
                _ => error.into(),
            })
    }

    /// Reads a varint: LEB128 of the smallest length.
    pub(super) fn varint(&mut self) -> Result<u64, ManifestError> {
        let mut value = 0u64;
        for at in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if at == VARINT_BYTES_MAX - 1 && bits > 1 {
                break;
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                return match byte == 0 && at > 0 {
                    true => Err(ManifestError::NotCanonical("a number is too long")),
                    false => Ok(value),
                };
            }
        }
        Err(ManifestError::NotCanonical("a number is too large"))
    }

    /// Reads a varint that is a length of at most `max`.
    pub(super) fn length(&mut self, max: usize) -> Result<usize, ManifestError> {
        let length = self.varint()?;
        let length = usize::try_from(length).ok().filter(|&length| length <= max);
        length.ok_or(ManifestError::NotCanonical("a text is too long"))
    }
}

/// Bytes that are written, up to a limit.
pub(super) struct Output<W> {
    bytes: W,
    left: u64,
}

impl<W: Write> Output<W> {
    /// Writes the header.
    pub(super) fn open(
        bytes: W,
        max_bytes: u64,
        magic: [u8; 8],
        version: u32,
    ) -> Result<Output<W>, ManifestError> {
        let left = max_bytes;
        let mut output = Output { bytes, left };
        output.write(&magic)?;
        output.write(&version.to_le_bytes())?;
        Ok(output)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ManifestError> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or(ManifestError::TooLong)?;
        Ok(self.bytes.write_all(bytes)?)
    }

    pub(super) fn varint(&mut self, mut value: u64) -> Result<(), ManifestError> {
        while value >= 0x80 {
            self.write(&[value as u8 | 0x80])?;
            value >>= 7;
        }
        self.write(&[value as u8])
    }

    pub(super) fn into_inner(mut self) -> Result<W, ManifestError> {
        self.bytes.flush()?;
        Ok(self.bytes)
    }
}
