//! Names for files that are not finished enough for a name of their own.

use std::ffi::{OsStr, OsString};

use data_encoding::HEXLOWER;
use qshare_content::ContentId;
use sha2::{Digest, Sha256};

/// A hidden name that follows from the final name and the content: who writes the same content
/// to the same place uses the same one, so what a kill leaves behind is taken up the next time.
pub(crate) fn temporary_name(final_name: &OsStr, id: &ContentId) -> OsString {
    let digest = short_digest(&[&id.0, final_name.as_encoded_bytes()]);
    format!(".qshare-{digest}.tmp").into()
}

/// The first 8 bytes of the SHA-256 of all parts, as hex digits.
pub(crate) fn short_digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    HEXLOWER.encode(&hasher.finalize()[..8])
}
