//! The modification times of a collection's files.
//!
//! ```text
//! magic "qshare\0t" │ version u32 LE │ for each file, in the manifest's order:
//! zigzag varint of the nanoseconds since 1970, less those of the file before (wrapping)
//! ```

use std::io::{Read, Write};

use super::codec::{Input, Output};
use super::{ManifestError, TIMES_MAX_BYTES};

const MAGIC: [u8; 8] = *b"qshare\0t";
const VERSION: u32 = 1;

/// Writes modification times one by one. The sink should be buffered.
pub struct TimesWriter<W> {
    output: Output<W>,
    last: i64,
}

impl<W: Write> TimesWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Io`] if the sink fails.
    pub fn new(sink: W) -> Result<TimesWriter<W>, ManifestError> {
        Ok(TimesWriter {
            output: Output::open(sink, TIMES_MAX_BYTES, MAGIC, VERSION)?,
            last: 0,
        })
    }

    /// Writes the time of the next file, in nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if the sink fails or the times become too long.
    pub fn add(&mut self, modified_ns: i64) -> Result<(), ManifestError> {
        let step = modified_ns.wrapping_sub(self.last);
        self.last = modified_ns;
        self.output.varint((step << 1 ^ step >> 63) as u64)
    }

    /// Flushes the sink and returns it.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Io`] if the sink fails.
    pub fn finish(self) -> Result<W, ManifestError> {
        self.output.into_inner()
    }
}

/// Reads modification times one by one. Without a manifest, any number of them is valid.
pub struct TimesReader<R> {
    input: Input<R>,
    last: i64,
}

impl<R: Read> TimesReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if the bytes are no times, or cannot be read.
    pub fn new(bytes: R) -> Result<TimesReader<R>, ManifestError> {
        Ok(TimesReader {
            input: Input::open(bytes, TIMES_MAX_BYTES, MAGIC, VERSION)?,
            last: 0,
        })
    }

    /// Reads the times of exactly `files` files.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if there are fewer or more, or one is not canonical.
    pub fn read_all(mut self, files: u32) -> Result<Vec<i64>, ManifestError> {
        let mut times = Vec::new();
        for _ in 0..files {
            let step = self.input.varint()?;
            let step = (step >> 1) as i64 ^ -((step & 1) as i64);
            self.last = self.last.wrapping_add(step);
            times.push(self.last);
        }
        match self.input.next()? {
            None => Ok(times),
            Some(_) => Err(ManifestError::NotCanonical("more times than files")),
        }
    }
}
