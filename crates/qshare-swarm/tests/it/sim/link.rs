//! Shaped links.

/// Nanoseconds that `bytes` take at a rate.
fn time_ns(bytes: u64, bytes_per_second: u64) -> u64 {
    bytes * 1_000_000_000 / bytes_per_second.max(1)
}

/// Sends one block at a time.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) bytes_per_second: u64,
    pub(crate) free_at: u64,
}

impl Uplink {
    /// When a block that is handed over now has been sent.
    pub(crate) fn send(&mut self, now: u64, bytes: u64) -> u64 {
        self.free_at = self.free_at.max(now) + time_ns(bytes, self.bytes_per_second);
        self.free_at
    }
}

/// Delivers blocks in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Downlink {
    pub(crate) bytes_per_second: u64,
    pub(crate) free_at: u64,
}

impl Downlink {
    /// When a block that arrives now has been delivered.
    pub(crate) fn deliver(&mut self, now: u64, bytes: u64) -> u64 {
        self.free_at = self.free_at.max(now) + time_ns(bytes, self.bytes_per_second);
        self.free_at
    }
}
