//! Self-signed certificates: which node a certificate belongs to, and which key belongs to it.

use qshare_content::NodeId;
use rustls::Error;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

/// Returns the id of a certificate's public key: SHA-256 of its DER SubjectPublicKeyInfo.
pub(crate) fn node_id_of(certificate: &CertificateDer<'_>) -> Result<NodeId, Error> {
    let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
    Ok(NodeId(
        Sha256::digest(parsed.subject_public_key_info().as_ref()).into(),
    ))
}

/// Checks that key and certificate belong together.
pub(crate) fn check_key_belongs(
    certificate: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
) -> Result<(), Error> {
    let provider = aws_lc_rs::default_provider();
    let key = provider.key_provider.load_private_key(key.clone_key())?;
    rustls::sign::CertifiedKey::new(vec![certificate.clone()], key).keys_match()
}
