//! Amounts of bytes on a command line.

use std::str::FromStr;

/// An amount of bytes, read from a number or one with KiB, MiB or GiB.
#[derive(Debug, Clone, Copy)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
        let split = |&(unit, shift)| Some((text.strip_suffix(unit)?, shift));
        let (number, shift) = units.iter().find_map(split).unwrap_or((text, 0));
        let number: u64 = number
            .trim()
            .parse()
            .map_err(|_| "write a number of bytes, such as 1GiB")?;
        number
            .checked_mul(1 << shift)
            .map(Size)
            .ok_or_else(|| "too many bytes".into())
    }
}
