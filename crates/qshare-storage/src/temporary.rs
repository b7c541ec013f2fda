//! Names for files that are not finished enough for a name of their own.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;

use qshare_content::ContentId;
use sha2::{Digest, Sha256};

/// A hidden name that follows from the final name and the content: who writes the same content
/// to the same place uses the same one, so what a kill leaves behind is taken up the next time.
pub(crate) fn temporary_name(final_name: &OsStr, id: &ContentId) -> OsString {
    let digest = Sha256::new()
        .chain_update(id.0)
        .chain_update(final_name.as_encoded_bytes())
        .finalize();
    let mut name = String::from(".qshare-");
    for byte in &digest[..8] {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.push_str(".tmp");
    name.into()
}
