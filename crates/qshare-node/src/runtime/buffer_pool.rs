//! A pool of reusable buffers for the bytes of chunks.
//!
//! Without the pool, the system maps, zeroes, faults in and unmaps a megabyte for every chunk,
//! which is a tenth of the cost of a transfer. A buffer returns to the pool when its last reader
//! drops it.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};

/// A free buffer is reused for a request that is at most this many times smaller: the last chunk
/// of a file is shorter than the others.
const SLACK_MAX: usize = 8;
/// Large buffers begin at a multiple of this number of bytes, so that they can be written around
/// the page cache.
const ALIGNMENT: usize = 4096;
/// Shorter buffers are never written so.
const ALIGNED_MIN: usize = 64 * 1024;

/// Returns the bytes to allocate for an aligned buffer of `length` bytes.
fn allocated(length: usize) -> usize {
    match length < ALIGNED_MIN {
        true => length,
        false => length.saturating_add(ALIGNMENT - 1),
    }
}

/// The free buffers, up to a bound.
pub(crate) struct BufferPool {
    kept: Mutex<Kept>,
    kept_max_bytes: usize,
}

#[derive(Default)]
struct Kept {
    free: Vec<Vec<u8>>,
    bytes: usize,
}

impl BufferPool {
    /// Creates an empty pool that keeps at most `kept_max_bytes` of free buffers.
    pub(crate) fn new(kept_max_bytes: usize) -> Arc<BufferPool> {
        Arc::new(BufferPool {
            kept: Mutex::default(),
            kept_max_bytes,
        })
    }

    /// Returns a buffer of `length` bytes. Their contents are left over from earlier use.
    pub(crate) fn take(self: &Arc<Self>, length: usize) -> Buffer {
        let (least, most) = (
            allocated(length),
            allocated(length.saturating_mul(SLACK_MAX)),
        );
        let fits = |free: &Vec<u8>| (least..=most).contains(&free.len());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // The buffer that was freed last is the most likely to be in the processor's cache.
        let found = kept.free.iter().rposition(fits);
        let bytes = found.map(|at| kept.free.remove(at));
        kept.bytes -= bytes.as_ref().map_or(0, Vec::len);
        drop(kept);
        let bytes = bytes.unwrap_or_else(|| vec![0; least]);
        let start = match length < ALIGNED_MIN {
            true => 0,
            false => bytes.as_ptr().align_offset(ALIGNMENT),
        };
        let start = start.min(bytes.len() - length);
        Buffer {
            range: start..start + length,
            bytes,
            pool: self.clone(),
        }
    }

    fn put_back(&self, bytes: Vec<u8>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + bytes.len() <= self.kept_max_bytes {
            kept.bytes += bytes.len();
            kept.free.push(bytes);
        }
    }
}

/// Bytes that return to their pool when they are dropped.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    range: Range<usize>,
    pool: Arc<BufferPool>,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.range.clone()]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.put_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_reused_after_its_last_reader_is_dropped() {
        let buffers = BufferPool::new(1000);
        let mut first = buffers.take(100);
        first[99] = 7;
        let place = first.as_ptr();
        let bytes = bytes::Bytes::from_owner(first);
        let later = bytes.slice(50..);
        drop(bytes);
        assert_ne!(buffers.take(100).as_ptr(), place);
        drop(later);
        let again = buffers.take(60);
        assert!(again.len() == 60 && again.as_ptr() == place);
    }

    #[test]
    fn free_buffers_stay_within_the_bound() {
        let buffers = BufferPool::new(1000);
        let taken: Vec<Buffer> = (0..5).map(|_| buffers.take(300)).collect();
        drop(taken);
        let kept = buffers.kept.lock().unwrap();
        assert_eq!((kept.free.len(), kept.bytes), (3, 900));
    }

    #[test]
    fn large_buffers_are_aligned_and_are_reused_for_others_of_their_size() {
        let buffers = BufferPool::new(10_000_000);
        let taken: Vec<Buffer> = (0..5).map(|_| buffers.take(1 << 20)).collect();
        for buffer in &taken {
            assert!(buffer.as_ptr().addr().is_multiple_of(ALIGNMENT));
            assert_eq!(buffer.len(), 1 << 20);
        }
        let last = taken[4].as_ptr();
        drop(taken);
        assert_eq!(buffers.take(1 << 20).as_ptr(), last);
    }

    #[test]
    fn a_large_buffer_is_not_used_for_a_few_bytes() {
        let buffers = BufferPool::new(1000);
        drop(buffers.take(1000));
        assert_eq!(buffers.take(10).bytes.len(), 10);
        assert_eq!(buffers.take(200).bytes.len(), 1000);
    }
}
