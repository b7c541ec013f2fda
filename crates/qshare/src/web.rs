//! The web page and the API on TCP: `qshare node --http ADDRESS:PORT`.
//!
//! A browser runs pages of strangers beside ours, so a request is trusted for nothing but its
//! token, and names that a stranger may have made to point here are refused (`guard`). The page
//! itself holds no secret and is served without a token.

mod guard;
mod page;
mod tls;
mod token;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{http, suggest};

use guard::Guard;
use tls::Tls;
pub(crate) use tls::TlsError;
pub(crate) use token::{Token, TokenError};

/// The certificate chain and the private key of the server, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The certificate chain.
    pub(crate) certificates: PathBuf,
    /// The private key.
    pub(crate) key: PathBuf,
}

/// What the web server is started with.
pub(crate) struct WebConfig {
    /// The address to listen on.
    pub(crate) listen: SocketAddr,
    /// The token that requests of the API carry.
    pub(crate) token: Token,
    /// For HTTPS.
    pub(crate) tls: Option<TlsFiles>,
    /// Names under which browsers may reach the server, besides `localhost` and IP addresses.
    pub(crate) hosts: Vec<String>,
}

/// Why the web server cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The files for HTTPS are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A web server that listens, but does not answer yet.
pub(crate) struct WebServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    guard: Arc<Guard>,
}

impl WebServer {
    /// Binds the address and reads the files for HTTPS.
    ///
    /// # Errors
    ///
    /// [`WebError`] when the address is in use or not of this machine, or a file cannot be used.
    pub(crate) async fn bind(config: WebConfig) -> Result<WebServer, WebError> {
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let bind_error = |cause| WebError::Bind {
            address: config.listen,
            cause,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let guard = Guard::new(scheme, config.token, config.hosts);
        Ok(WebServer {
            listener,
            address,
            tls,
            guard: Arc::new(guard),
        })
    }

    /// Returns the address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of the page, without its token.
    pub(crate) fn url(&self) -> String {
        let host = suggest::host_for_others(self.address);
        let place = SocketAddr::new(host, self.address.port());
        format!("{}://{place}/", self.guard.scheme())
    }

    /// Returns the URL of the page with its token in the fragment, which browsers do not send. For
    /// terminals only.
    pub(crate) fn url_with_token(&self) -> String {
        format!("{}#token={}", self.url(), self.guard.token().expose())
    }

    /// Serves the page and `routes` until `stop` is cancelled. Routes below `/api/` need the token;
    /// a gateway's have capabilities of their own.
    pub(crate) async fn run(self, routes: Router, stop: CancellationToken) {
        let routes = page::routes()
            .merge(routes)
            .layer(middleware::from_fn(http::limit_body))
            .layer(middleware::from_fn_with_state(self.guard, guard::check));
        match self.tls {
            None => http::serve(self.listener, routes, stop).await,
            Some(tls) => http::serve(Tls::new(self.listener, tls), routes, stop).await,
        }
    }
}
