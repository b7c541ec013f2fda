//! Authentication of probes: a MAC under the key of their introduction.

use hmac::{Hmac, KeyInit, Mac};
use qshare_content::NodeId;
use qshare_wire::datagram::Probe;
use sha2::Sha256;

/// Returns the MAC of a probe or answer that `sender` sends: the first half of HMAC-SHA-256 over
/// the bytes before it and the sender's id.
pub(super) fn sign(key: &[u8; 16], probe: &Probe, is_answer: bool, sender: NodeId) -> [u8; 16] {
    let whole = state(key, probe, is_answer, sender).finalize().into_bytes();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    half
}

/// Returns whether the MAC of a probe or answer is that of `sender`, in constant time.
pub(super) fn verify(key: &[u8; 16], probe: &Probe, is_answer: bool, sender: NodeId) -> bool {
    state(key, probe, is_answer, sender)
        .verify_truncated_left(&probe.mac)
        .is_ok()
}

fn state(key: &[u8; 16], probe: &Probe, is_answer: bool, sender: NodeId) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(&probe.authenticated(is_answer));
    mac.update(&sender.0);
    mac
}
