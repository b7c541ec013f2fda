//! TLS 1.3 with self-signed Ed25519 certificates. Only the public key identifies a peer.
//!
//! No CA, host name or expiry is checked. A dialler that wants a certain id pins it during the
//! handshake: the id is passed to the verifier as the server name, which is not sent (SNI is off).
//! Session resumption is off, so that every connection authenticates.

use std::sync::Arc;

use qshare_content::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};

use crate::Identity;
use crate::certificate::node_id_of;

/// Suffix that makes an id a server name; `.invalid` is reserved by RFC 2606.
const NAME_SUFFIX: &str = ".qshare.invalid";
/// Server name of a dialler that accepts any id and checks it after the handshake.
const ANYBODY: &str = "anybody.qshare.invalid";

/// Returns the cryptography provider, with AES-128-GCM first: the fastest on machines with AES
/// instructions.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    provider.signature_verification_algorithms =
        ed25519_only(&provider.signature_verification_algorithms);
    Arc::new(provider)
}

/// Keeps Ed25519 of the signature algorithms. Peers would otherwise be free to use keys of any kind
/// that the library knows, with NodeIds that other implementations refuse.
fn ed25519_only(all: &WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    let ed25519 = all
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == SignatureScheme::ED25519);
    match ed25519 {
        Some(entry) => WebPkiSupportedAlgorithms {
            all: entry.1,
            mapping: std::slice::from_ref(entry),
        },
        // The provider has it; without it no peer is accepted.
        None => WebPkiSupportedAlgorithms {
            all: &[],
            mapping: &[],
        },
    }
}

/// Returns the server name that pins `peer`, or accepts any id.
pub(crate) fn server_name(peer: Option<NodeId>) -> String {
    peer.map_or_else(|| ANYBODY.into(), |id| format!("{id}{NAME_SUFFIX}"))
}

/// Returns the configuration for dialling with `alpn`.
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

/// Returns the configuration for accepting with `alpn`.
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

/// Verifies that the peer owns the key of its certificate.
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

/// The methods that verifiers of servers and of clients have in common: a TLS 1.3 signature is
/// checked by `self.0`, and TLS 1.2 is not offered.
macro_rules! ed25519_signatures_in_tls13 {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
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
    };
}

/// DER SubjectPublicKeyInfo of an Ed25519 key, up to the 32 bytes of the key (RFC 8410 section 4).
const ED25519_SPKI: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// Checks that there is one certificate, no chain, and an Ed25519 key in it; returns its id.
fn check_shape(
    certificate: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<NodeId, Error> {
    if !intermediates.is_empty() {
        return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
    }
    let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
    match parsed.subject_public_key_info().split_first_chunk() {
        Some((&ED25519_SPKI, key)) if key.len() == 32 => node_id_of(certificate),
        _ => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
    }
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

    ed25519_signatures_in_tls13!();
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

    ed25519_signatures_in_tls13!();
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use rustls::client::ResolvesClientCert;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::{CertifiedKey, Signer, SigningKey};
    use rustls::{ClientConnection, ServerConnection, SignatureAlgorithm};

    use super::*;

    /// A key that signs whatever it is asked for, whether the other side offered it or not.
    #[derive(Debug)]
    struct Stubborn(Arc<dyn SigningKey>, SignatureScheme);

    impl SigningKey for Stubborn {
        fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
            self.0.choose_scheme(&[self.1])
        }

        fn algorithm(&self) -> SignatureAlgorithm {
            self.0.algorithm()
        }
    }

    #[derive(Debug)]
    struct Shows(Arc<CertifiedKey>);

    impl ResolvesClientCert for Shows {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    impl ResolvesServerCert for Shows {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    fn shows(kind: &'static rcgen::SignatureAlgorithm, scheme: SignatureScheme) -> Arc<Shows> {
        let key = KeyPair::generate_for(kind).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let der = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let loaded = aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(der.into())
            .unwrap();
        let chain = vec![certificate.der().clone()];
        let certified = CertifiedKey::new(chain, Arc::new(Stubborn(loaded, scheme)));
        Arc::new(Shows(Arc::new(certified)))
    }

    /// Carries bytes between both sides until neither has any; what each side made of it.
    fn shake(
        client: rustls::ClientConfig,
        server: rustls::ServerConfig,
    ) -> (Result<(), Error>, Result<(), Error>) {
        let name = ServerName::try_from(server_name(None)).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        let (mut of_client, mut of_server) = (Ok(()), Ok(()));
        for _ in 0..10 {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            while of_server.is_ok() && !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                of_server = server.process_new_packets().map(drop);
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            while of_client.is_ok() && !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                of_client = client.process_new_packets().map(drop);
            }
        }
        let is_over = !client.is_handshaking() && !server.is_handshaking();
        assert_eq!(is_over, of_client.is_ok() && of_server.is_ok());
        (of_client, of_server)
    }

    /// Sides that show this certificate, whatever the other one offered.
    fn attempt_with(shown: &Arc<Shows>) -> [bool; 2] {
        let identity = Identity::ephemeral().unwrap();
        let mut client = client_config(&identity, b"test").unwrap();
        client.client_auth_cert_resolver = Arc::clone(shown) as Arc<dyn ResolvesClientCert>;
        let (_, server) = shake(client, server_config(&identity, b"test").unwrap());
        let mut config = server_config(&identity, b"test").unwrap();
        config.cert_resolver = Arc::clone(shown) as Arc<dyn ResolvesServerCert>;
        let (client, _) = shake(client_config(&identity, b"test").unwrap(), config);
        [server.is_ok(), client.is_ok()]
    }

    #[test]
    fn keys_of_other_kinds_than_ed25519_are_refused_on_both_sides() {
        let ed25519 = shows(&PKCS_ED25519, SignatureScheme::ED25519);
        assert_eq!(attempt_with(&ed25519), [true, true]);
        let ecdsa = shows(
            &PKCS_ECDSA_P256_SHA256,
            SignatureScheme::ECDSA_NISTP256_SHA256,
        );
        assert_eq!(attempt_with(&ecdsa), [false, false]);
    }
}
