//! A rate limit as people write it.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// A limit on bytes per second, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RateLimit(Option<NonZeroU64>);

/// A text that is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// The text is not a number with one of the units.
    #[error("give a rate per second as 10MB, 10MiB, 80Mbit or 500kB, or 0 for no limit")]
    Form,
    /// The limit is below [`RateLimit::MIN_BYTES`] or beyond any link.
    #[error("give at least 10kB and at most 1000GB per second, or 0 for no limit")]
    Range,
}

impl RateLimit {
    /// No limit.
    pub const NONE: RateLimit = RateLimit(None);
    /// The smallest limit in bytes per second. Below it, answers to requests time out.
    pub const MIN_BYTES: u64 = 10_000;
    /// The largest limit in bytes per second.
    pub const MAX_BYTES: u64 = 1_000_000_000_000;

    /// Returns a limit in bytes per second; 0 is none.
    ///
    /// # Errors
    ///
    /// [`RateError::Range`] for a limit below [`RateLimit::MIN_BYTES`] or above
    /// [`RateLimit::MAX_BYTES`].
    pub fn from_bytes(bytes_per_second: u64) -> Result<RateLimit, RateError> {
        match bytes_per_second {
            0 => Ok(RateLimit::NONE),
            RateLimit::MIN_BYTES..=RateLimit::MAX_BYTES => {
                Ok(RateLimit(NonZeroU64::new(bytes_per_second)))
            }
            _ => Err(RateError::Range),
        }
    }

    /// Returns the limit in bytes per second; None if there is none.
    pub fn bytes_per_second(self) -> Option<u64> {
        self.0.map(NonZeroU64::get)
    }

    /// Returns the bytes that the limit lets pass within this time; `u64::MAX` without a limit.
    pub fn bytes_within(self, time: std::time::Duration) -> u64 {
        match self.0 {
            Some(limit) => (limit.get() as f64 * time.as_secs_f64()) as u64,
            None => u64::MAX,
        }
    }
}

/// Units with their bytes, or their bits. Without a unit, a number counts bytes.
const UNITS: [(&str, f64); 17] = [
    ("", 1.0),
    ("b", 1.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("k", 1e3),
    ("m", 1e6),
    ("g", 1e9),
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
    ("bit", 0.125),
    ("kbit", 125.0),
    ("mbit", 125e3),
    ("gbit", 125e6),
    ("kibit", 128.0),
    ("mibit", 131_072.0),
];

impl FromStr for RateLimit {
    type Err = RateError;

    /// Parses `10MB` (10⁶ bytes), `10MiB`, `80Mbit`, `1.5 MB`, with or without `/s` and in any
    /// case, and `0` or `none` for no limit.
    fn from_str(text: &str) -> Result<RateLimit, RateError> {
        let text = text.trim().to_ascii_lowercase();
        if text == "none" {
            return Ok(RateLimit::NONE);
        }
        let text = text.strip_suffix("/s").unwrap_or(&text);
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
        let unit = unit.trim_start();
        let number: f64 = match number.starts_with('.') || number.ends_with('.') {
            true => return Err(RateError::Form),
            false => number.parse().map_err(|_| RateError::Form)?,
        };
        let found = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, bytes) = found.ok_or(RateError::Form)?;
        let rate = (number * bytes).round();
        if number > 0.0 && rate < 1.0 {
            return Err(RateError::Range);
        }
        // A float beyond the integer's range becomes its maximum.
        RateLimit::from_bytes(rate as u64)
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(limit) = self.bytes_per_second() else {
            return f.pad("0");
        };
        let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
        let unit = units.iter().find(|(bytes, _)| limit % bytes == 0);
        match unit {
            Some((bytes, name)) => f.pad(&format!("{}{name}", limit / bytes)),
            None => f.pad(&format!("{limit}B")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<u64> {
        text.parse::<RateLimit>().unwrap().bytes_per_second()
    }

    #[test]
    fn units_are_decimal_binary_and_bits() {
        for (text, bytes) in [
            ("10MB", 10_000_000),
            ("10MiB", 10_485_760),
            ("80Mbit", 10_000_000),
            ("10mb", 10_000_000),
            ("1.5 MB", 1_500_000),
            ("2MB/s", 2_000_000),
            ("500kB", 500_000),
            ("500 KiB/s", 512_000),
            ("2M", 2_000_000),
            ("1GB", 1_000_000_000),
            ("1gbit", 125_000_000),
            ("123456", 123_456),
            ("20000B", 20_000),
        ] {
            assert_eq!(parsed(text), Some(bytes), "{text}");
        }
        assert_eq!(parsed("0"), None);
        assert_eq!(parsed("0MB"), None);
        assert_eq!(parsed("none"), None);
    }

    #[test]
    fn other_texts_and_rates_beyond_the_bounds_are_refused() {
        for text in [
            "", "MB", "-1MB", "10 MB s", "10XB", "1e6", "1..5MB", ".5MB", "5.MB", "+5MB",
        ] {
            assert_eq!(text.parse::<RateLimit>(), Err(RateError::Form), "{text}");
        }
        for text in ["9kB", "1", "0.1b", "1001GB", "999999999999999999999999GB"] {
            assert_eq!(text.parse::<RateLimit>(), Err(RateError::Range), "{text}");
        }
    }

    #[test]
    fn a_limit_is_printed_as_it_can_be_parsed() {
        for text in ["0", "10MB", "1GB", "12345B", "500kB"] {
            let limit: RateLimit = text.parse().unwrap();
            assert_eq!(limit.to_string(), text);
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
    }
}
