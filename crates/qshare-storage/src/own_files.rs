//! qshare's own files, which are never offered. They are recognised by their contents, under any
//! name and anywhere in a shared directory.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;

use data_encoding::BASE64;

use crate::meta::MAGIC;
use crate::system::read_at;

/// The first bytes of a file that holds a node's access token.
pub const TOKEN_FILE_PREFIX: &str = "qshare-token:";

/// Largest file that is searched for a key or certificate. qshare's own are smaller than 1 KiB; a
/// file with a whole chain is smaller than 16 KiB.
pub(crate) const SMALL_MAX_BYTES: u64 = 16 * 1024;
/// Length of a group file: 64 hex digits and a line feed.
const GROUP_BYTES: u64 = 65;
/// The first bytes of a redb database.
const REDB_MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
/// Base64 of the first 15 bytes of an Ed25519 private key in PKCS#8, version 1 (RFC 8410, which
/// OpenSSL writes) and version 2 (RFC 5958, which qshare writes): everything before the key.
const ED25519_KEYS: [&str; 2] = ["MC4CAQAwBQYDK2VwBCIE", "MFECAQEwBQYDK2VwBCIE"];
/// Part of the DER of every certificate that qshare creates: no issuer, valid from 1975 to 4096, no
/// subject.
const CERTIFICATE_MARK: &[u8] =
    b"\x30\x00\x30\x20\x17\x0d750101000000Z\x18\x0f40960101000000Z\x30\x00";

/// The kinds of qshare's own files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnFile {
    /// An identity's private key.
    PrivateKey,
    /// An identity's certificate.
    Certificate,
    /// A group's secret.
    GroupSecret,
    /// An access token.
    Token,
    /// The meta file of an unfinished download.
    Meta,
    /// The index of a node's files.
    Index,
    /// A list of trusted trackers, or the lock of an identity.
    State,
}

impl fmt::Display for OwnFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OwnFile::PrivateKey => "an identity's private key",
            OwnFile::Certificate => "an identity's certificate",
            OwnFile::GroupSecret => "a group's secret",
            OwnFile::Token => "an access token",
            OwnFile::Meta => "the record of an unfinished download",
            OwnFile::Index => "a node's index",
            OwnFile::State => "a node's own state",
        })
    }
}

/// Returns the kind of a file if it is one of qshare's own. Reads at most 16 KiB of it.
pub(crate) fn recognise(file: &File, name: &OsStr, size: u64) -> io::Result<Option<OwnFile>> {
    match name.to_str() {
        Some("known_trackers") => return Ok(Some(OwnFile::State)),
        Some("node.lock" | "tracker.lock") if size == 0 => return Ok(Some(OwnFile::State)),
        _ => {}
    }
    let length = if size <= SMALL_MAX_BYTES { size } else { 16 };
    let mut bytes = vec![0; length as usize];
    let mut read = 0;
    while read < bytes.len() {
        match read_at(file, &mut bytes[read..], read as u64)? {
            0 => break,
            count => read += count,
        }
    }
    bytes.truncate(read);
    Ok(recognise_bytes(&bytes, name, size))
}

fn recognise_bytes(bytes: &[u8], name: &OsStr, size: u64) -> Option<OwnFile> {
    if bytes.starts_with(&MAGIC) {
        return Some(OwnFile::Meta);
    }
    if bytes.starts_with(&REDB_MAGIC) && name == "index.redb" {
        return Some(OwnFile::Index);
    }
    if size > SMALL_MAX_BYTES {
        return None;
    }
    if bytes.starts_with(TOKEN_FILE_PREFIX.as_bytes()) {
        return Some(OwnFile::Token);
    }
    if size == GROUP_BYTES
        && let Some((b'\n', digits)) = bytes.split_last()
        && digits
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Some(OwnFile::GroupSecret);
    }
    let text = String::from_utf8_lossy(bytes);
    let is_key = |body: String| ED25519_KEYS.iter().any(|begin| body.starts_with(begin));
    if pem_bodies(&text, "PRIVATE KEY").any(is_key) {
        return Some(OwnFile::PrivateKey);
    }
    let is_certificate = |body: String| {
        let der = BASE64.decode(body.as_bytes()).unwrap_or_default();
        der.windows(CERTIFICATE_MARK.len())
            .any(|window| window == CERTIFICATE_MARK)
    };
    pem_bodies(&text, "CERTIFICATE")
        .any(is_certificate)
        .then_some(OwnFile::Certificate)
}

/// The base64 text of each PEM block of a label, without white space.
fn pem_bodies<'a>(text: &'a str, label: &str) -> impl Iterator<Item = String> + 'a {
    let begin = format!("-----BEGIN {label}-----");
    let blocks: Vec<&str> = text.split(begin.as_str()).skip(1).collect();
    blocks.into_iter().map(|block| {
        let body = block.split("-----").next().unwrap_or_default();
        body.split_whitespace().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key as qshare writes it; the private part is all sevens.
    fn key() -> String {
        let mut der = b"\x30\x51\x02\x01\x01\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        der.extend([7; 32]);
        der.extend(b"\x81\x21\x00");
        der.extend([8; 32]);
        pem("PRIVATE KEY", &der)
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let body = BASE64.encode(der);
        let lines: Vec<&str> = body
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let body = lines.join("\r\n");
        format!("-----BEGIN {label}-----\r\n{body}\r\n-----END {label}-----\r\n")
    }

    fn look(bytes: &[u8], name: &str) -> Option<OwnFile> {
        let file = tempfile::tempfile().unwrap();
        crate::system::write_all_at(&file, bytes, 0).unwrap();
        recognise(&file, OsStr::new(name), bytes.len() as u64).unwrap()
    }

    #[test]
    fn secrets_are_recognised_whatever_they_are_called() {
        let certificate = [b"\x30\x82\x01".as_slice(), CERTIFICATE_MARK, &[1; 99]].concat();
        let certificate = pem("CERTIFICATE", &certificate);
        let group = "0123456789abcdef".repeat(4) + "\n";
        for (bytes, expected) in [
            (key(), OwnFile::PrivateKey),
            (key().replace("\r\n", "\n"), OwnFile::PrivateKey),
            (certificate.clone() + &key(), OwnFile::PrivateKey),
            (certificate, OwnFile::Certificate),
            (group, OwnFile::GroupSecret),
            ("qshare-token:abc\n".into(), OwnFile::Token),
        ] {
            assert_eq!(look(bytes.as_bytes(), "holiday.jpg"), Some(expected));
        }
        let meta = [MAGIC.as_slice(), &[0; 50_000]].concat();
        assert_eq!(look(&meta, "x"), Some(OwnFile::Meta));
        assert_eq!(look(&REDB_MAGIC, "index.redb"), Some(OwnFile::Index));
        assert_eq!(look(b"", "node.lock"), Some(OwnFile::State));
    }

    #[test]
    fn other_files_are_not_mistaken() {
        let other_key = pem("PRIVATE KEY", &[0x30; 200]);
        let other_certificate = pem("CERTIFICATE", &[0x30; 300]);
        let digest = "0123456789abcdef".repeat(4) + "  file\n";
        let upper = "0123456789ABCDEF".repeat(4) + "\n";
        for bytes in [other_key, other_certificate, digest, upper, String::new()] {
            assert_eq!(look(bytes.as_bytes(), "x"), None, "{bytes}");
        }
        assert_eq!(look(&REDB_MAGIC, "mine.redb"), None);
        assert_eq!(look(b"key", "node.lock"), None);
    }
}
