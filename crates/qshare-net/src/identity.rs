//! The identity of this process: a key pair, its self-signed certificate, and a lock on both; group
//! secrets; and the remembered keys of trackers.

mod created;
mod directory;
pub(crate) mod group;
mod known_trackers;
mod private_file;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use qshare_content::NodeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

pub use self::directory::{IdentityDir, default_identity_dir};
pub use self::group::{GroupError, GroupSecret};
pub use self::known_trackers::{KnownTrackers, TrustError};

use self::private_file::{ForbiddenMode, ReadError};
use crate::certificate;

/// The file of remembered tracker keys, in the directory of the identities.
const KNOWN_TRACKERS: &str = "known_trackers";

/// What an identity is for. Each role has files of its own, so that a tracker and a node of one
/// user run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityRole {
    /// `tracker.key`, `tracker.crt`, `tracker.lock`.
    Tracker,
    /// `node.key`, `node.crt`, `node.lock`.
    Node,
}

impl IdentityRole {
    /// Returns the stem of the file names.
    pub fn name(self) -> &'static str {
        match self {
            IdentityRole::Tracker => "tracker",
            IdentityRole::Node => "node",
        }
    }
}

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// Another process runs under it.
    #[error("the {} identity in {} is in use by another process", role.name(), dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The role.
        role: IdentityRole,
    },
    /// A file is not what it should be.
    #[error("{path}: {fault}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its fault.
        fault: IdentityFault,
    },
    /// Others than the owner may read or write a key file.
    #[error("{path}: mode {mode:04o} lets others read or change the key", path = path.display())]
    LooseMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No identity could be generated in memory.
    #[error("cannot generate an identity: {0}")]
    Generate(IdentityFault),
    /// No directory was given and the user has none.
    #[error("the user has no data directory")]
    NoDirectory,
}

/// What is wrong with a key or certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFault {
    /// It is not PEM.
    #[error("not a PEM file: {0}")]
    Pem(#[from] pem::Error),
    /// It cannot be read as a key, or no certificate can be made from it.
    #[error("{0}")]
    Key(#[from] rcgen::Error),
    /// TLS does not accept it, or key and certificate do not belong together.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

/// An Ed25519 key pair and its self-signed certificate.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    id: NodeId,
}

/// Keeps other processes from running under the same identity. Released with the value, or with
/// the process.
#[derive(Debug)]
pub struct IdentityLock {
    _file: File,
}

impl Identity {
    /// Generates an identity that lives in memory only.
    pub fn ephemeral() -> Result<Identity, IdentityError> {
        let generated = || -> Result<Identity, IdentityFault> {
            let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ED25519)?);
            let certificate = self_sign(&key)?.der().clone();
            let key = PrivatePkcs8KeyDer::from(key.serialize_der());
            Identity::assemble(certificate, key.into())
        };
        generated().map_err(IdentityError::Generate)
    }

    /// Reads the identity of `role` in `dir`, made on first use (key file mode 0600). A key file
    /// that others may read is refused.
    ///
    /// Does not lock it: see [`Identity::lock`].
    pub fn load_or_create(dir: &Path, role: IdentityRole) -> Result<Identity, IdentityError> {
        let key_path = dir.join(format!("{}.key", role.name()));
        let certificate_path = dir.join(format!("{}.crt", role.name()));
        if !key_path.exists() {
            create_files(dir, &key_path, &certificate_path)?;
        }
        let key_pem = read_key(&key_path)?;
        let key =
            PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| damaged(&key_path, error))?;
        if !certificate_path.exists() {
            // The key is the identity; a certificate can be made from it again.
            let pem = Zeroizing::new(String::from_utf8_lossy(&key_pem).into_owned());
            let key_pair = KeyPair::from_pem(&pem).map_err(|error| damaged(&key_path, error))?;
            let key_pair = Zeroizing::new(key_pair);
            let certificate = self_sign(&key_pair).map_err(|error| damaged(&key_path, error))?;
            write(&certificate_path, certificate.pem().as_bytes())?;
        }
        let certificate_pem =
            fs::read(&certificate_path).map_err(|cause| io_error(&certificate_path, cause))?;
        let certificate = CertificateDer::from_pem_slice(&certificate_pem)
            .map_err(|error| damaged(&certificate_path, error))?;
        Identity::assemble(certificate, key).map_err(|fault| damaged(&certificate_path, fault))
    }

    /// Makes sure that no other process runs as `role` from `dir`.
    pub fn lock(dir: &Path, role: IdentityRole) -> Result<IdentityLock, IdentityError> {
        fs::create_dir_all(dir).map_err(|cause| io_error(dir, cause))?;
        let path = dir.join(format!("{}.lock", role.name()));
        let file = private_file::open_lock(&path).map_err(|cause| io_error(&path, cause))?;
        match file.try_lock() {
            Ok(()) => Ok(IdentityLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(IdentityError::InUse {
                dir: dir.into(),
                role,
            }),
            Err(TryLockError::Error(cause)) => Err(io_error(&path, cause)),
        }
    }

    fn assemble(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Identity, IdentityFault> {
        let id = certificate::node_id_of(&certificate)?;
        certificate::check_key_belongs(&certificate, &key)?;
        Ok(Identity {
            certificate,
            key,
            id,
        })
    }

    /// Returns the id that others know it by.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Returns the certificate, DER.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// Returns a copy of the private key, DER.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.id)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Excludes the memory of this process, and so its keys, from core dumps, and keeps other processes
/// of the same user from attaching to it (Linux; elsewhere it does nothing). Returns whether it
/// did.
pub fn exclude_from_core_dumps() -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    false
}

fn self_sign(key: &KeyPair) -> Result<rcgen::Certificate, rcgen::Error> {
    let mut params = CertificateParams::default();
    // Nothing in the certificate but the key counts, so nothing else is in it.
    params.distinguished_name = DistinguishedName::new();
    params.self_signed(key)
}

/// Writes the certificate before the key: an identity exists once its key does.
fn create_files(dir: &Path, key_path: &Path, certificate_path: &Path) -> Result<(), IdentityError> {
    fs::create_dir_all(dir).map_err(|cause| io_error(dir, cause))?;
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| damaged(key_path, error))?;
    let key = Zeroizing::new(key);
    let certificate = self_sign(&key).map_err(|error| damaged(certificate_path, error))?;
    write(certificate_path, certificate.pem().as_bytes())?;
    let pem = Zeroizing::new(key.serialize_pem());
    // Where that fails, the directory has to be named next time.
    let _ = created::note(key_path, pem.as_bytes());
    write(key_path, pem.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    private_file::replace(path, bytes).map_err(|cause| io_error(path, cause))
}

fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    private_file::read(path, ForbiddenMode::OTHERS).map_err(|error| match error {
        ReadError::Io(cause) => io_error(path, cause),
        ReadError::LooseMode(mode) => IdentityError::LooseMode {
            path: path.into(),
            mode,
        },
    })
}

fn io_error(path: &Path, cause: io::Error) -> IdentityError {
    IdentityError::Io {
        path: path.into(),
        cause,
    }
}

fn damaged(path: &Path, fault: impl Into<IdentityFault>) -> IdentityError {
    IdentityError::Damaged {
        path: path.into(),
        fault: fault.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let made = Identity::load_or_create(dir.path(), IdentityRole::Node).unwrap();
        let found = Identity::load_or_create(dir.path(), IdentityRole::Node).unwrap();
        let other = Identity::load_or_create(dir.path(), IdentityRole::Tracker).unwrap();
        assert_eq!(made.id(), found.id());
        assert_ne!(made.id(), other.id());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(dir.path().join("node.key"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_read_or_change_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let id = Identity::load_or_create(dir.path(), IdentityRole::Node)
            .unwrap()
            .id();
        for (mode, is_accepted) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
            (0o666, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match Identity::load_or_create(dir.path(), IdentityRole::Node) {
                Ok(found) => assert!(is_accepted && found.id() == id, "{mode:o}"),
                Err(IdentityError::LooseMode { mode: found, .. }) => {
                    assert!(!is_accepted && found == mode, "{mode:o}");
                }
                Err(error) => panic!("{mode:o}: {error}"),
            }
        }
    }

    #[test]
    fn a_lost_certificate_is_made_again_from_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let made = Identity::load_or_create(dir.path(), IdentityRole::Node).unwrap();
        fs::remove_file(dir.path().join("node.crt")).unwrap();
        let again = Identity::load_or_create(dir.path(), IdentityRole::Node).unwrap();
        assert_eq!(made.id(), again.id());
    }

    #[test]
    fn damaged_files_are_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path(), IdentityRole::Node).unwrap();
        fs::write(dir.path().join("node.key"), "nonsense").unwrap();
        let error = Identity::load_or_create(dir.path(), IdentityRole::Node).unwrap_err();
        assert!(error.to_string().contains("node.key"), "{error}");
        assert_eq!(fs::read(dir.path().join("node.key")).unwrap(), b"nonsense");
    }

    #[test]
    fn another_identitys_key_is_noticed() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&a, &b] {
            Identity::load_or_create(dir.path(), IdentityRole::Node).unwrap();
        }
        fs::copy(a.path().join("node.key"), b.path().join("node.key")).unwrap();
        let error = Identity::load_or_create(b.path(), IdentityRole::Node).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
    }

    #[test]
    fn a_locked_identity_is_refused_until_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Identity::lock(dir.path(), IdentityRole::Node).unwrap();
        let second = Identity::lock(dir.path(), IdentityRole::Node);
        assert!(matches!(second, Err(IdentityError::InUse { .. })));
        Identity::lock(dir.path(), IdentityRole::Tracker).unwrap();
        drop(lock);
        Identity::lock(dir.path(), IdentityRole::Node).unwrap();
    }
}
