//! Names of temporary files.

use std::ffi::{OsStr, OsString};

use data_encoding::HEXLOWER;
use qshare_content::ContentId;
use sha2::{Digest, Sha256};

/// Returns a hidden name that depends only on the final name and the content. The next attempt to
/// write the same content to the same place overwrites what a killed process has left.
pub(crate) fn temporary_name(final_name: &OsStr, id: &ContentId) -> OsString {
    let digest = short_digest(&[&id.0, final_name.as_encoded_bytes()]);
    format!(".qshare-{digest}.tmp").into()
}

/// Returns the first 8 bytes of the SHA-256 of all parts, as hex digits.
pub(crate) fn short_digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    HEXLOWER.encode(&hasher.finalize()[..8])
}
