//! Links with a limited rate.

/// Returns the nanoseconds that `bytes` take at a rate.
fn time_ns(bytes: u64, bytes_per_second: u64) -> u64 {
    bytes * 1_000_000_000 / bytes_per_second.max(1)
}

/// A node's uplink, which sends one block at a time.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) bytes_per_second: u64,
    pub(crate) free_at: u64,
}

impl Uplink {
    /// Returns the time at which a block queued now will have been sent.
    pub(crate) fn send(&mut self, now: u64, bytes: u64) -> u64 {
        self.free_at = self.free_at.max(now) + time_ns(bytes, self.bytes_per_second);
        self.free_at
    }
}

/// A node's downlink, which delivers blocks in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Downlink {
    pub(crate) bytes_per_second: u64,
    pub(crate) free_at: u64,
}

impl Downlink {
    /// Returns the time at which a block that arrives now will have been delivered.
    pub(crate) fn deliver(&mut self, now: u64, bytes: u64) -> u64 {
        self.free_at = self.free_at.max(now) + time_ns(bytes, self.bytes_per_second);
        self.free_at
    }
}
