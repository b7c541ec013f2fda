//! Parsing of rates, losses and times.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A text that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct UnitError {
    text: String,
    wanted: &'static str,
}

/// Bits per second, Ethernet headers included; written `20mbit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// Makes a rate in bits per second; at least 1 kbit/s, below which no packet would pass.
    pub const fn from_bits_per_second(bits: u64) -> Rate {
        Rate(if bits < 1000 { 1000 } else { bits })
    }

    /// Returns bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }

    /// Returns bytes per second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }

    /// Returns the bytes that pass in this time.
    pub fn bytes_in(self, time: Duration) -> u64 {
        (self.bytes_per_second() as f64 * time.as_secs_f64()) as u64
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Rate, UnitError> {
        let error = || UnitError {
            text: text.into(),
            wanted: "a rate such as 20mbit, 1gbit or 500kbit",
        };
        let digits = text.trim_end_matches("bit");
        let (number, factor) = match digits.chars().last() {
            _ if digits == text => return Err(error()),
            Some('k') => (digits.trim_end_matches('k'), 1e3),
            Some('m') => (digits.trim_end_matches('m'), 1e6),
            Some('g') => (digits.trim_end_matches('g'), 1e9),
            _ => (digits, 1.0),
        };
        let bits = number.parse::<f64>().map_err(|_| error())? * factor;
        if !(1000.0..=1e12).contains(&bits) {
            return Err(error());
        }
        Ok(Rate(bits as u64))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bits if bits % 1_000_000_000 == 0 => write!(f, "{}gbit", bits / 1_000_000_000),
            bits if bits % 1_000_000 == 0 => write!(f, "{}mbit", bits / 1_000_000),
            bits if bits % 1000 == 0 => write!(f, "{}kbit", bits / 1000),
            bits => write!(f, "{bits}bit"),
        }
    }
}

/// Probability that a packet is lost, independent of others; written `0.1%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Loss {
    per_million: u32,
}

impl Loss {
    /// No loss.
    pub const NONE: Loss = Loss { per_million: 0 };

    /// Returns lost packets per million.
    pub const fn per_million(self) -> u32 {
        self.per_million
    }
}

impl FromStr for Loss {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Loss, UnitError> {
        let error = || UnitError {
            text: text.into(),
            wanted: "a share such as 0.1% or 2%",
        };
        let percent = text.strip_suffix('%').ok_or_else(error)?;
        let percent = percent.parse::<f64>().map_err(|_| error())?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(error());
        }
        let per_million = (percent * 10_000.0).round() as u32;
        Ok(Loss { per_million })
    }
}

/// Reads `50ms`, `1.5s` or `200us`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let error = || UnitError {
        text: text.into(),
        wanted: "a time such as 50ms, 1.5s or 200us",
    };
    let (number, unit) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix("us") {
        (number, 1e-6)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else {
        return Err(error());
    };
    let seconds = number.parse::<f64>().map_err(|_| error())? * unit;
    Duration::try_from_secs_f64(seconds).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written_alike() {
        for text in ["20mbit", "1gbit", "500kbit", "1500mbit", "1001bit"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!("2.5mbit".parse::<Rate>().unwrap().to_string(), "2500kbit");
        for text in ["20", "20m", "bit", "mbit", "-1mbit", "nanmbit", "1bit"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn losses_and_times_need_their_units() {
        assert_eq!("0.1%".parse::<Loss>().unwrap().per_million(), 1000);
        assert!("0.1".parse::<Loss>().is_err());
        assert!("101%".parse::<Loss>().is_err());
        assert_eq!(parse_duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("200us"), Ok(Duration::from_micros(200)));
        assert!(parse_duration("50").is_err());
        assert!(parse_duration("-1s").is_err());
    }
}
