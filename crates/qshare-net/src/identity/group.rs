//! Private swarms: a shared secret, and the proof that a peer knows it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use hmac::{Hmac, KeyInit, Mac};
use qshare_content::NodeId;
use sha2::{Digest, Sha256};

/// Exports keying material that both ends of one TLS connection, and nobody else, can compute.
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-qshare-group-1";

/// The 32 random bytes that a group shares.
///
/// On disk: one line of 64 hex digits, file mode 0600. Whoever can read the file belongs to the
/// group.
#[derive(Clone)]
pub struct GroupSecret([u8; 32]);

/// Why a group file cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// It cannot be read or written.
    #[error("group file {path}: {cause}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It holds something else.
    #[error("{path} is not a group file: it should hold 64 hex digits (make one with `qshare group new FILE`)", path = .0.display())]
    NotAGroupFile(PathBuf),
}

impl GroupSecret {
    /// Makes a secret from the system's randomness.
    pub fn random() -> GroupSecret {
        GroupSecret(rand::random())
    }

    /// Reads a group file.
    pub fn load(path: &Path) -> Result<GroupSecret, GroupError> {
        let text = fs::read_to_string(path).map_err(|cause| GroupError::Io {
            path: path.into(),
            cause,
        })?;
        HEXLOWER_PERMISSIVE
            .decode(text.trim().as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(GroupSecret)
            .ok_or_else(|| GroupError::NotAGroupFile(path.into()))
    }

    /// Writes a new group file; one that exists already is left alone.
    pub fn create(path: &Path) -> Result<GroupSecret, GroupError> {
        let io = |cause| GroupError::Io {
            path: path.into(),
            cause,
        };
        let secret = GroupSecret::random();
        let mut file = super::create_private(path).map_err(io)?;
        let line = HEXLOWER_PERMISSIVE.encode(&secret.0) + "\n";
        file.write_all(line.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(io)?;
        Ok(secret)
    }

    /// A name for the group that gives nothing of the secret away, for registry keys.
    pub fn group_id(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(b"qshare/group/1");
        hasher.update(self.0);
        hasher.finalize().into()
    }

    /// What tells members that a node on their network belongs to the group: HMAC-SHA-256 under
    /// the secret of its id, cut to 16 bytes. Others cannot tell it from noise.
    pub(crate) fn lan_tag(&self, node: &NodeId) -> [u8; 16] {
        let mut mac = self.keyed();
        mac.update(b"qshare/lan/1");
        mac.update(&node.0);
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        std::array::from_fn(|at| full[at])
    }

    /// HMAC-SHA-256 under the secret of: the connection's exported key, the prover's side
    /// (0 dialler, 1 acceptor), the prover's id, the verifier's id.
    fn mac(&self, binding: &ProofBinding) -> Hmac<Sha256> {
        let mut mac = self.keyed();
        mac.update(&binding.exported);
        mac.update(&[binding.prover_side]);
        mac.update(&binding.prover.0);
        mac.update(&binding.verifier.0);
        mac
    }

    fn keyed(&self) -> Hmac<Sha256> {
        // HMAC pads a short key with zeroes up to the hash's block (RFC 2104 section 2).
        let mut key = [0; 64];
        key[..32].copy_from_slice(&self.0);
        Hmac::<Sha256>::new(&key.into())
    }

    /// What the prover sends.
    pub(crate) fn prove(&self, binding: &ProofBinding) -> [u8; 32] {
        self.mac(binding).finalize().into_bytes().into()
    }

    /// Whether a proof is right, in constant time.
    pub(crate) fn verify(&self, binding: &ProofBinding, proof: &[u8; 32]) -> bool {
        self.mac(binding).verify_slice(proof).is_ok()
    }
}

impl std::fmt::Debug for GroupSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupSecret(…)")
    }
}

/// What a proof is bound to, so that it serves on no other connection and in no other direction.
pub(crate) struct ProofBinding {
    pub(crate) exported: [u8; 32],
    pub(crate) prover_side: u8,
    pub(crate) prover: NodeId,
    pub(crate) verifier: NodeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(exported: u8, prover_side: u8) -> ProofBinding {
        ProofBinding {
            exported: [exported; 32],
            prover_side,
            prover: NodeId([1; 32]),
            verifier: NodeId([2; 32]),
        }
    }

    #[test]
    fn a_proof_serves_only_its_own_connection_and_direction() {
        let secret = GroupSecret::random();
        let proof = secret.prove(&binding(7, 0));
        assert!(secret.verify(&binding(7, 0), &proof));
        assert!(!secret.verify(&binding(8, 0), &proof));
        assert!(!secret.verify(&binding(7, 1), &proof));
        assert!(!GroupSecret::random().verify(&binding(7, 0), &proof));
    }

    #[test]
    fn group_files_round_trip_and_are_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("team.group");
        let secret = GroupSecret::create(&path).unwrap();
        assert_eq!(
            GroupSecret::load(&path).unwrap().group_id(),
            secret.group_id()
        );
        assert!(GroupSecret::create(&path).is_err());
        fs::write(&path, "hello").unwrap();
        assert!(matches!(
            GroupSecret::load(&path),
            Err(GroupError::NotAGroupFile(_))
        ));
    }
}
