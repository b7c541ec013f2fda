//! The proof that a peer knows the key of a private share, bound to the connection, the direction
//! and both identities.

use hmac::{Hmac, KeyInit, Mac};
use qshare_content::{NodeId, ShareKey, Topic};
use quinn::Connection;
use sha2::Sha256;
use zeroize::Zeroize;

/// Label of the TLS exporter, whose output only the two ends of a connection can compute.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-qshare-share-1";

/// The role of the side that proves. On the wire: 0 requester, 1 holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareRole {
    /// It wants to fetch.
    Requester,
    /// It offers the content.
    Holder,
}

/// A connection whose two ends prove to each other that they know a share key.
///
/// ```text
/// proof = HMAC-SHA-256(key, "qshare/share-proof/1" ‖ exported ‖ role ‖ prover ‖ verifier ‖ topic)
/// ```
#[derive(Clone, Copy)]
pub struct ShareBinding {
    exported: [u8; 32],
    requester: NodeId,
    holder: NodeId,
}

impl ShareBinding {
    /// Returns the binding to a connection; None if the connection has no keys to export.
    pub fn of(connection: &Connection, requester: NodeId, holder: NodeId) -> Option<ShareBinding> {
        let mut exported = [0; 32];
        connection
            .export_keying_material(&mut exported, EXPORTER_LABEL, b"")
            .ok()?;
        Some(ShareBinding {
            exported,
            requester,
            holder,
        })
    }

    /// Returns the proof of the side that has this role.
    pub fn prove(&self, role: ShareRole, key: &ShareKey, topic: &Topic) -> [u8; 32] {
        self.mac(role, key, topic).finalize().into_bytes().into()
    }

    /// Verifies the proof of the side that has this role, in constant time.
    pub fn verify(&self, role: ShareRole, key: &ShareKey, topic: &Topic, proof: &[u8; 32]) -> bool {
        self.mac(role, key, topic).verify_slice(proof).is_ok()
    }

    fn mac(&self, role: ShareRole, key: &ShareKey, topic: &Topic) -> Hmac<Sha256> {
        let (number, prover, verifier) = match role {
            ShareRole::Requester => (0, self.requester, self.holder),
            ShareRole::Holder => (1, self.holder, self.requester),
        };
        // HMAC pads a short key with zeroes up to the hash's block (RFC 2104 section 2).
        let mut padded = hmac::digest::Key::<Hmac<Sha256>>::default();
        padded[..16].copy_from_slice(key.as_bytes());
        let mut mac = Hmac::<Sha256>::new(&padded);
        padded.as_mut_slice().zeroize();
        mac.update(b"qshare/share-proof/1");
        mac.update(&self.exported);
        mac.update(&[number]);
        mac.update(&prover.0);
        mac.update(&verifier.0);
        mac.update(&topic.0);
        mac
    }
}

impl std::fmt::Debug for ShareBinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShareBinding(…)")
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use qshare_content::ContentId;

    use super::*;

    fn key() -> ShareKey {
        ShareKey::from_bytes(std::array::from_fn(|at| at as u8))
    }

    fn topic() -> Topic {
        key().topic(&ContentId([0xab; 32]))
    }

    fn binding(exported: u8, requester: u8) -> ShareBinding {
        ShareBinding {
            exported: [exported; 32],
            requester: NodeId([requester; 32]),
            holder: NodeId([2; 32]),
        }
    }

    /// Computed with Python's hmac.
    #[test]
    fn proofs_are_those_of_the_specification() {
        let proof = |role| HEXLOWER.encode(&binding(7, 1).prove(role, &key(), &topic()));
        assert_eq!(
            proof(ShareRole::Requester),
            "8e5d27873bc3dd175ffa86a7f50ce57cd05373e30a4cfd8625f7e53cda44d530"
        );
        assert_eq!(
            proof(ShareRole::Holder),
            "863b92e39ae24da5dfeb89755b4c8efb5cc5f4737a209a2ba3a1f1dc06c8b568"
        );
    }

    #[test]
    fn a_proof_serves_only_its_own_connection_role_nodes_key_and_topic() {
        let role = ShareRole::Requester;
        let proof = binding(7, 1).prove(role, &key(), &topic());
        assert!(binding(7, 1).verify(role, &key(), &topic(), &proof));
        assert!(!binding(8, 1).verify(role, &key(), &topic(), &proof));
        assert!(!binding(7, 3).verify(role, &key(), &topic(), &proof));
        assert!(!binding(7, 1).verify(ShareRole::Holder, &key(), &topic(), &proof));
        let other = ShareKey::from_bytes([9; 16]);
        assert!(!binding(7, 1).verify(role, &other, &topic(), &proof));
        assert!(!binding(7, 1).verify(role, &key(), &Topic([0; 32]), &proof));
    }
}
