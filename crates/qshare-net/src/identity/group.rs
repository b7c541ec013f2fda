//! Groups (private swarms): a shared secret, and the proof that a peer knows it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use hmac::{Hmac, KeyInit, Mac};
use qshare_content::NodeId;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::private_file::{self, ForbiddenMode, ReadError};

/// Label of the TLS exporter, whose output only the two ends of a connection can compute.
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-qshare-group-1";

/// The 32 random bytes that a group shares; zeroed when dropped.
///
/// On disk: one line of 64 hex digits, file mode 0600. Whoever can read the file belongs to the
/// group.
#[derive(Clone, ZeroizeOnDrop)]
pub struct GroupSecret([u8; 32]);

/// Why a group file cannot be used or created.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The file cannot be read or written.
    #[error("group file {path}: {cause}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// It holds something else than 64 hex digits.
    #[error("{path} is not a group file: it does not hold 64 hex digits", path = .0.display())]
    NotAGroupFile(PathBuf),
    /// Every user of the machine may read or write it.
    #[error("group file {path}: mode {mode:04o} lets every user read or change it", path = path.display())]
    LooseMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl GroupSecret {
    /// Generates a secret from the system's random generator.
    pub fn random() -> GroupSecret {
        GroupSecret(rand::random())
    }

    /// Reads a group file. One that every user may read or change is refused; the owner's Unix
    /// group may have access.
    pub fn load(path: &Path) -> Result<GroupSecret, GroupError> {
        let text = private_file::read(path, ForbiddenMode::WORLD).map_err(|error| match error {
            ReadError::Io(cause) => GroupError::Io {
                path: path.into(),
                cause,
            },
            ReadError::LooseMode(mode) => GroupError::LooseMode {
                path: path.into(),
                mode,
            },
        })?;
        let digits = text.trim_ascii();
        let mut secret = GroupSecret([0; 32]);
        // Decoding into a buffer of another length would panic.
        let is_decoded = digits.len() == 2 * secret.0.len()
            && HEXLOWER_PERMISSIVE
                .decode_mut(digits, &mut secret.0)
                .is_ok();
        match is_decoded {
            true => Ok(secret),
            false => Err(GroupError::NotAGroupFile(path.into())),
        }
    }

    /// Creates a group file with a new secret; fails if the file exists.
    pub fn create(path: &Path) -> Result<GroupSecret, GroupError> {
        let io = |cause| GroupError::Io {
            path: path.into(),
            cause,
        };
        let secret = GroupSecret::random();
        let mut file = private_file::create_new(path).map_err(io)?;
        let line = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&secret.0) + "\n");
        file.write_all(line.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| private_file::sync_directory_of(path))
            .map_err(io)?;
        Ok(secret)
    }

    /// Returns an id of the group that reveals nothing of the secret, for registry keys.
    pub fn group_id(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(b"qshare/group/1");
        hasher.update(self.0);
        hasher.finalize().into()
    }

    /// Returns the tag by which members recognize a node of the group on their network:
    /// HMAC-SHA-256 under the secret over its id, cut to 16 bytes. To others it looks random.
    pub(crate) fn lan_tag(&self, node: &NodeId) -> [u8; 16] {
        let mut mac = self.keyed();
        mac.update(b"qshare/lan/1");
        mac.update(&node.0);
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        std::array::from_fn(|at| full[at])
    }

    /// HMAC-SHA-256 under the secret over the connection's exported key, the prover's side
    /// (0 dialler, 1 acceptor), the prover's id, and the verifier's id.
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
        let mut key = hmac::digest::Key::<Hmac<Sha256>>::default();
        key[..32].copy_from_slice(&self.0);
        let mac = Hmac::<Sha256>::new(&key);
        key.as_mut_slice().zeroize();
        mac
    }

    /// Returns the proof that the prover sends.
    pub(crate) fn prove(&self, binding: &ProofBinding) -> [u8; 32] {
        self.mac(binding).finalize().into_bytes().into()
    }

    /// Verifies a proof in constant time.
    pub(crate) fn verify(&self, binding: &ProofBinding, proof: &[u8; 32]) -> bool {
        self.mac(binding).verify_slice(proof).is_ok()
    }
}

impl std::fmt::Debug for GroupSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupSecret(…)")
    }
}

/// The connection and direction that a proof is bound to; it is invalid for any other.
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

    #[cfg(unix)]
    #[test]
    fn a_group_file_that_every_user_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("team.group");
        GroupSecret::create(&path).unwrap();
        let set = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(0o640);
        GroupSecret::load(&path).unwrap();
        for mode in [0o644, 0o602, 0o601] {
            set(mode);
            assert!(matches!(
                GroupSecret::load(&path),
                Err(GroupError::LooseMode { mode: found, .. }) if found == mode
            ));
        }
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
        std::fs::write(&path, "hello").unwrap();
        assert!(matches!(
            GroupSecret::load(&path),
            Err(GroupError::NotAGroupFile(_))
        ));
    }
}
