//! The wording of errors of the web page's server.

use crate::exit::{Exit, Failure};
use crate::neutral::shown;
use crate::web::{TlsError, TokenError, WebError};

use super::disk::exit_of_io;

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Failure {
        match error {
            TokenError::Io { path, cause } => Failure::new(
                exit_of_io(&cause),
                format!("cannot use the token file {}: {cause}", shown(&path)),
            ),
            TokenError::LooseMode { path, mode } => Failure::new(
                Exit::Failed,
                format!(
                    "cannot use the token file {path}: its mode {mode:04o} lets other users read \
                     or change it\nRun: chmod 600 {path}",
                    path = shown(&path)
                ),
            ),
            TokenError::Invalid { path } => Failure::new(
                Exit::Failed,
                format!(
                    "cannot use the token file {}: a token is 16 to 512 printable ASCII characters \
                     without spaces\nName a file that does not exist, and it is created with a \
                     random token",
                    shown(&path)
                ),
            ),
        }
    }
}

impl From<WebError> for Failure {
    fn from(error: WebError) -> Failure {
        match error {
            WebError::Bind { address, cause } => Failure::new(
                Exit::Failed,
                format!(
                    "cannot serve the web page: cannot listen on {address}: {cause}\nChoose \
                     another address: --http 127.0.0.1:PORT"
                ),
            ),
            WebError::Tls(TlsError::File { path, cause }) => Failure::new(
                Exit::Failed,
                format!(
                    "cannot serve the web page by HTTPS: {}: {cause}\n--http-tls CERT,KEY takes \
                     the certificate chain and the private key as PEM files",
                    shown(&path)
                ),
            ),
            WebError::Tls(TlsError::Unusable(cause)) => Failure::new(
                Exit::Failed,
                format!(
                    "cannot serve the web page by HTTPS: {cause}\nThe key of --http-tls CERT,KEY \
                     has to belong to the first certificate"
                ),
            ),
        }
    }
}

/// Describes an address that others reach, which needs a token that lasts.
pub(crate) fn http_needs_token(address: std::net::SocketAddr) -> Failure {
    Failure::new(
        Exit::Usage,
        format!(
            "cannot serve the web page on {address}: other machines can reach it\nName a file for \
             its token, which is created if missing: --http-token FILE"
        ),
    )
}
