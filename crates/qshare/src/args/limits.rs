//! Arguments that limit rates, connections and memory.

use std::str::FromStr;

use clap::Args;
use qshare_node::{Limits, RateLimit};

/// Limits of a node.
#[derive(Debug, Args)]
pub(crate) struct LimitsArgs {
    /// Limit on sending per second, as 10MB (10^6 bytes), 10MiB or 80Mbit; 0 for none
    #[arg(long, value_name = "RATE", default_value_t)]
    pub(crate) limit_up: RateLimit,
    /// Limit on receiving per second, as 10MB (10^6 bytes), 10MiB or 80Mbit; 0 for none
    #[arg(long, value_name = "RATE", default_value_t)]
    pub(crate) limit_down: RateLimit,
    /// Maximum number of accepted connections
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 512,
        hide_short_help = true
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) max_connections: u32,
    /// Memory for buffers, as 256MB or 1GiB, at least 64MB [default: 224MB]
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    pub(crate) max_memory: Option<MemorySize>,
}

impl LimitsArgs {
    /// Applies them to the limits of a node.
    pub(crate) fn apply(&self, limits: &mut Limits) {
        limits.set_rates(self.limit_up, self.limit_down);
        limits.accepted_connections_max = self.max_connections as usize;
        limits.half_open_max = limits.half_open_max.min(self.max_connections as usize);
        if let Some(MemorySize(bytes)) = self.max_memory {
            limits.set_memory(bytes);
        }
    }
}

/// An amount of memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemorySize(pub(crate) u64);

const UNITS: [(&str, u64); 6] = [
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

impl FromStr for MemorySize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<MemorySize, &'static str> {
        let upper = text.trim().to_ascii_uppercase();
        let unit = UNITS.iter().find(|(name, _)| upper.ends_with(name));
        let (name, bytes) = unit.ok_or("give a size as 256MB or 1GiB")?;
        let number = upper.trim_end_matches(name).trim_end();
        let number: u64 = number
            .parse()
            .map_err(|_| "give a whole number of MB, MiB, GB or GiB")?;
        match number.saturating_mul(*bytes) {
            size @ Limits::MEMORY_MIN_BYTES.. => Ok(MemorySize(size)),
            _ => Err("give at least 64MB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        let parsed = |text: &str| text.parse::<MemorySize>().map(|MemorySize(bytes)| bytes);
        assert_eq!(parsed("256MB"), Ok(256_000_000));
        assert_eq!(parsed("1 GiB"), Ok(1 << 30));
        assert_eq!(parsed("64mb"), Ok(64_000_000));
        for text in ["", "MB", "64", "63MB", "-1GB", "1.5GB", "99TB"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
