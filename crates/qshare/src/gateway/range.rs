//! Which bytes a request wants, and whether it wants any (RFC 9110, sections 13 and 14).

use std::ops::Range;

use axum::http::HeaderMap;
use axum::http::header;

/// The part of a content that a request wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: 200.
    Whole,
    /// These bytes: 206.
    Part(Range<u64>),
    /// Bytes beyond its end: 416.
    Unsatisfiable,
    /// Nothing, since the client has it: 304.
    NotModified,
    /// Nothing, since the client has another: 412.
    Mismatch,
}

/// Reads the conditions and the range of a request for a content of this length and tag. Several
/// ranges in one request are answered with the whole content, as section 14.2 allows.
pub(super) fn wanted(headers: &HeaderMap, length: u64, tag: &str) -> Wanted {
    if let Some(matching) = text(headers, header::IF_MATCH)
        && !names(matching, tag, false)
    {
        return Wanted::Mismatch;
    }
    if let Some(known) = text(headers, header::IF_NONE_MATCH)
        && names(known, tag, true)
    {
        return Wanted::NotModified;
    }
    let Some(range) = text(headers, header::RANGE) else {
        return Wanted::Whole;
    };
    // A date or another tag: the client's part is of something else, and it needs all.
    if let Some(condition) = headers.get(header::IF_RANGE)
        && condition.as_bytes() != tag.as_bytes()
    {
        return Wanted::Whole;
    }
    parse(range, length)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Returns whether a list of entity tags contains `tag`. Weak tags match only if `weak`.
fn names(list: &str, tag: &str, weak: bool) -> bool {
    list.split(',').map(str::trim).any(|one| {
        let one = match weak {
            true => one.strip_prefix("W/").unwrap_or(one),
            false => one,
        };
        one == "*" || one == tag
    })
}

fn parse(range: &str, length: u64) -> Wanted {
    let Some(spec) = range.trim().strip_prefix("bytes=") else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Wanted::Whole;
    };
    let range = match (number(first), number(last)) {
        (Some(Some(first)), Some(last)) => {
            let last = last.unwrap_or(u64::MAX);
            if last < first {
                return Wanted::Whole;
            }
            first..last.saturating_add(1).min(length)
        }
        (Some(None), Some(Some(suffix))) => length.saturating_sub(suffix)..length,
        _ => return Wanted::Whole,
    };
    match range.is_empty() {
        true => Wanted::Unsatisfiable,
        false => Wanted::Part(range),
    }
}

/// Reads decimal digits: Some(None) for an empty text, None for other texts. A number beyond `u64`
/// is the largest.
fn number(digits: &str) -> Option<Option<u64>> {
    let digits = digits.trim();
    if digits.is_empty() {
        return Some(None);
    }
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Some(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"abc\"";

    fn of(headers: &[(&'static str, &str)]) -> Wanted {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        wanted(&map, 1000, TAG)
    }

    fn range(text: &str) -> Wanted {
        of(&[("range", text)])
    }

    #[test]
    fn one_range_is_answered_with_its_bytes() {
        assert_eq!(range("bytes=0-0"), Wanted::Part(0..1));
        assert_eq!(range("bytes=10-19"), Wanted::Part(10..20));
        assert_eq!(range("bytes=990-"), Wanted::Part(990..1000));
        assert_eq!(range("bytes=990-5000"), Wanted::Part(990..1000));
        assert_eq!(range("bytes=-10"), Wanted::Part(990..1000));
        assert_eq!(range("bytes=-5000"), Wanted::Part(0..1000));
        let huge = "bytes=5-99999999999999999999999999";
        assert_eq!(range(huge), Wanted::Part(5..1000));
    }

    #[test]
    fn a_range_beyond_the_end_cannot_be_satisfied() {
        for text in ["bytes=1000-", "bytes=1000-1001", "bytes=-0"] {
            assert_eq!(range(text), Wanted::Unsatisfiable, "{text}");
        }
    }

    #[test]
    fn several_ranges_and_what_is_no_range_are_answered_with_everything() {
        for text in [
            "bytes=0-1,5-6",
            "bytes=5-1",
            "bytes=x-1",
            "bytes=-",
            "bytes=1",
            "pages=1-2",
            "bytes=+1-2",
        ] {
            assert_eq!(range(text), Wanted::Whole, "{text}");
        }
        assert_eq!(of(&[]), Wanted::Whole);
    }

    #[test]
    fn a_range_counts_only_for_the_same_content() {
        let part = ("range", "bytes=5-6");
        assert_eq!(of(&[part, ("if-range", TAG)]), Wanted::Part(5..7));
        for other in ["\"abd\"", "W/\"abc\"", "Sat, 28 Nov 2026 00:00:00 GMT"] {
            assert_eq!(of(&[part, ("if-range", other)]), Wanted::Whole, "{other}");
        }
    }

    #[test]
    fn a_client_that_has_the_content_gets_none() {
        for tags in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            let headers = [("if-none-match", tags), ("range", "bytes=0-1")];
            assert_eq!(of(&headers), Wanted::NotModified, "{tags}");
        }
        assert_eq!(of(&[("if-none-match", "\"x\"")]), Wanted::Whole);
        assert_eq!(of(&[("if-match", "\"x\"")]), Wanted::Mismatch);
        assert_eq!(of(&[("if-match", "\"x\", \"abc\"")]), Wanted::Whole);
    }
}
