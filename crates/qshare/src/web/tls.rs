//! HTTPS with the user's certificate.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, version::TLS13};
use tokio_rustls::server::TlsStream;

use super::TlsFiles;
use crate::http::Door;

/// Why the files for HTTPS are of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read, or is not PEM of the expected kind.
    #[error("{path}: {cause}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: pem::Error,
    },
    /// The certificate and the key do not belong together, or are of an unknown kind.
    #[error(transparent)]
    Unusable(#[from] rustls::Error),
}

/// Reads the certificate chain and the key. TLS 1.3 only: all browsers that run the page have it.
pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        |cause| TlsError::File { path, cause }
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(&files.certificates)
        .and_then(Iterator::collect)
        .map_err(failed(&files.certificates))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(failed(&files.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A door that speaks TLS.
pub(super) struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Tls {
    pub(super) fn new(listener: TcpListener, acceptor: TlsAcceptor) -> Tls {
        Tls { listener, acceptor }
    }
}

impl Door for Tls {
    type Accepted = TcpStream;
    type Stream = TlsStream<TcpStream>;

    async fn accept(&self) -> io::Result<(TcpStream, IpAddr)> {
        Door::accept(&self.listener).await
    }

    async fn open(&self, accepted: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(accepted).await
    }
}
