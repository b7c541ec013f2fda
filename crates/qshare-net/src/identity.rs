//! Who this process is: a key pair, its self-signed certificate, and a lock on both.

pub(crate) mod group;
mod known_trackers;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use etcetera::app_strategy::{AppStrategy, AppStrategyArgs, choose_app_strategy};
use qshare_content::NodeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub use group::{GroupError, GroupSecret};
pub use known_trackers::{KnownTrackers, TrustError};

use crate::tls;

/// What an identity is for. Each has files of its own, so that a tracker and a node of one user
/// run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityRole {
    /// `tracker.key`, `tracker.crt`, `tracker.lock`.
    Tracker,
    /// `node.key`, `node.crt`, `node.lock`.
    Node,
}

impl IdentityRole {
    /// The stem of the file names.
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
        /// What the system said.
        cause: io::Error,
    },
    /// Another process runs under it.
    #[error("the {} identity in {} is in use by another process", role.name(), dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Which of its identities.
        role: IdentityRole,
    },
    /// A file is there but is not what it should be.
    #[error("{path}: {why}; move it away to have a new identity made", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No directory was given and the user has no home.
    #[error("no directory for the identity: name one with --certs DIR")]
    NoDirectory,
}

/// An Ed25519 key pair and its self-signed certificate; what a node or a tracker *is*.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    id: NodeId,
}

/// Keeps other processes from running under the same identity; gone with the value or process.
#[derive(Debug)]
pub struct IdentityLock {
    _file: File,
}

impl Identity {
    /// An identity that lives in memory only.
    pub fn ephemeral() -> Result<Identity, IdentityError> {
        let memory = Path::new("(in memory)");
        let (key, certificate) = generate().map_err(|why| damaged(memory, why))?;
        Identity::assemble(
            memory,
            certificate,
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
    }

    /// Reads the identity of `role` in `dir`, made on first use (key file mode 0600).
    ///
    /// Does not lock it: see [`Identity::lock`].
    pub fn load_or_create(dir: &Path, role: IdentityRole) -> Result<Identity, IdentityError> {
        let key_path = dir.join(format!("{}.key", role.name()));
        let certificate_path = dir.join(format!("{}.crt", role.name()));
        if !key_path.exists() {
            create_files(dir, &key_path, &certificate_path)?;
        }
        let key_pem = read(&key_path)?;
        let key =
            PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| damaged(&key_path, error))?;
        if !certificate_path.exists() {
            // The key is what the identity is; a certificate can be made from it again.
            let pem = String::from_utf8_lossy(&key_pem);
            let key_pair = KeyPair::from_pem(&pem).map_err(|error| damaged(&key_path, error))?;
            let certificate = self_sign(&key_pair).map_err(|error| damaged(&key_path, error))?;
            write_new(&certificate_path, certificate.pem().as_bytes(), false)?;
        }
        let certificate = CertificateDer::from_pem_slice(&read(&certificate_path)?)
            .map_err(|error| damaged(&certificate_path, error))?;
        Identity::assemble(&certificate_path, certificate, key)
    }

    /// Makes sure that no other process runs as `role` from `dir`.
    pub fn lock(dir: &Path, role: IdentityRole) -> Result<IdentityLock, IdentityError> {
        fs::create_dir_all(dir).map_err(|cause| io_error(dir, cause))?;
        let path = dir.join(format!("{}.lock", role.name()));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|cause| io_error(&path, cause))?;
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
        path: &Path,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Identity, IdentityError> {
        let id = tls::node_id_of(&certificate).map_err(|error| damaged(path, error))?;
        tls::check_key_belongs(&certificate, &key).map_err(|error| damaged(path, error))?;
        Ok(Identity {
            certificate,
            key,
            id,
        })
    }

    /// The id that others know it by.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The certificate, DER.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// The private key, DER.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.id)
    }
}

/// Where identities live: `given`, else `./certs` if it contains `.qshare`, else the user's data
/// directory.
pub fn default_identity_dir(given: Option<&Path>) -> Result<PathBuf, IdentityError> {
    if let Some(dir) = given {
        return Ok(dir.into());
    }
    let here = Path::new("certs");
    if here.join(".qshare").exists() {
        return Ok(here.into());
    }
    let app = AppStrategyArgs {
        top_level_domain: String::new(),
        author: String::new(),
        app_name: "qshare".into(),
    };
    match choose_app_strategy(app) {
        Ok(user) => Ok(user.data_dir()),
        Err(_) => Err(IdentityError::NoDirectory),
    }
}

/// Creates a file that only its owner may read; fails if it exists.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn generate() -> Result<(KeyPair, CertificateDer<'static>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let certificate = self_sign(&key)?.der().clone();
    Ok((key, certificate))
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
    let certificate = self_sign(&key).map_err(|error| damaged(certificate_path, error))?;
    write_new(certificate_path, certificate.pem().as_bytes(), false)?;
    write_new(key_path, key.serialize_pem().as_bytes(), true)
}

/// Writes a file under another name first, so that it is never seen half written.
fn write_new(path: &Path, bytes: &[u8], private: bool) -> Result<(), IdentityError> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = if private {
            create_private(&temporary)?
        } else {
            File::create(&temporary)?
        };
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|cause| {
        let _ = fs::remove_file(&temporary);
        io_error(path, cause)
    })
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|cause| io_error(path, cause))
}

fn io_error(path: &Path, cause: io::Error) -> IdentityError {
    IdentityError::Io {
        path: path.into(),
        cause,
    }
}

fn damaged(path: &Path, why: impl ToString) -> IdentityError {
    IdentityError::Damaged {
        path: path.into(),
        why: why.to_string(),
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
