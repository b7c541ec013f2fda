//! TLS 1.3 with self-signed certificates: a peer is its public key, nothing else counts.
//!
//! No CA, no host names, no expiry. A dialler that knows whom it wants pins the id during the
//! handshake: it travels as the server name, which never reaches the wire (SNI is off). There is
//! no session resumption, so every connection authenticates anew.

use std::sync::Arc;

use qshare_content::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};
use sha2::{Digest, Sha256};

use crate::Identity;

/// Appended to an id to make it look like a server name; `.invalid` is reserved by RFC 2606.
const NAME_SUFFIX: &str = ".qshare.invalid";
/// The server name of a dialler that takes whoever answers and looks at the id afterwards.
const ANYBODY: &str = "anybody.qshare.invalid";

/// The cryptography: AES-128-GCM first, which every machine with AES instructions does fastest.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

/// The id of a certificate's public key: SHA-256 of its DER SubjectPublicKeyInfo.
pub(crate) fn node_id_of(certificate: &CertificateDer<'_>) -> Result<NodeId, Error> {
    let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
    Ok(NodeId(
        Sha256::digest(parsed.subject_public_key_info().as_ref()).into(),
    ))
}

/// Whether key and certificate belong together.
pub(crate) fn check_key_belongs(
    certificate: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
) -> Result<(), Error> {
    let key = provider().key_provider.load_private_key(key.clone_key())?;
    rustls::sign::CertifiedKey::new(vec![certificate.clone()], key).keys_match()
}

/// The server name that pins `peer`, or accepts anybody.
pub(crate) fn server_name(peer: Option<NodeId>) -> String {
    peer.map_or_else(|| ANYBODY.into(), |id| format!("{id}{NAME_SUFFIX}"))
}

/// Settings for dialling with `alpn`.
pub(crate) fn client_config(
    identity: &Identity,
    alpn: &[u8],
) -> Result<rustls::ClientConfig, Error> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedServer(Signatures::new())))
        .with_client_auth_cert(vec![identity.certificate()], identity.key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Settings for being dialled with `alpn`.
pub(crate) fn server_config(
    identity: &Identity,
    alpn: &[u8],
) -> Result<rustls::ServerConfig, Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyClient(Signatures::new())))
        .with_single_cert(vec![identity.certificate()], identity.key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Checks that the peer holds the key of the certificate that it shows.
#[derive(Debug)]
struct Signatures(Arc<CryptoProvider>);

impl Signatures {
    fn new() -> Signatures {
        Signatures(provider())
    }

    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }
}

fn refuse_tls12<T>() -> Result<T, Error> {
    Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
}

/// One self-signed certificate, no chain.
fn check_shape(
    certificate: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<NodeId, Error> {
    if !intermediates.is_empty() {
        return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
    }
    node_id_of(certificate)
}

#[derive(Debug)]
struct PinnedServer(Signatures);

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let id = check_shape(certificate, intermediates)?;
        let wanted = name.to_str();
        if wanted == ANYBODY || wanted == server_name(Some(id)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[derive(Debug)]
struct AnyClient(Signatures);

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_shape(certificate, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
