//! Unavoidable work on a file's bytes beside moving them, each part alone on one core.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use qshare_content::{ChunkIndex, Chunks, tree};
use rustix::time::{ClockId, clock_gettime};

/// Processor time that a file's bytes take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts {
    /// Hashing all chunks.
    pub hashing: Duration,
    /// Reading all of it, and writing it into a new file.
    pub copying: Duration,
}

impl Parts {
    /// Copies a file, chunk by chunk, and hashes it.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written.
    pub fn of(file: &Path, copy: &Path) -> anyhow::Result<Parts> {
        let (from, to) = (File::open(file)?, File::create(copy)?);
        let chunks = Chunks::of_length(from.metadata()?.len());
        let mut parts = Parts::default();
        let mut bytes = vec![0; chunks.chunk_bytes() as usize];
        for chunk in (0..chunks.count()).map(ChunkIndex) {
            let range = chunks.range(chunk);
            let bytes = &mut bytes[..(range.end - range.start) as usize];
            let begun = cpu_time();
            from.read_exact_at(bytes, range.start)?;
            to.write_all_at(bytes, range.start)?;
            let copied = cpu_time();
            std::hint::black_box(tree::chunk_hash(&chunks, bytes));
            parts.copying += copied.saturating_sub(begun);
            parts.hashing += cpu_time().saturating_sub(copied);
        }
        Ok(parts)
    }
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
