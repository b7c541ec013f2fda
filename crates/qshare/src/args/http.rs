//! Arguments of the web page.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::shared::parse_listen;

/// The web page and the API on TCP.
#[derive(Debug, Args)]
pub(crate) struct HttpArgs {
    /// Serve the web page and the API on this TCP address, such as 127.0.0.1:8080; other addresses
    /// than loopback need --http-token [default: off]
    #[arg(id = "http", long = "http", value_name = "ADDRESS:PORT", value_parser = parse_listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// File of the token that the page asks for; created with a random one if missing [default: a
    /// new token at each start]
    #[arg(id = "http-token", long = "http-token", value_name = "FILE")]
    pub(crate) token: Option<PathBuf>,
    /// Serve HTTPS with this certificate chain and private key (PEM)
    #[arg(id = "http-tls", long = "http-tls", value_name = "CERT,KEY")]
    #[arg(value_parser = parse_tls)]
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    /// Name by which browsers reach the page, if it is not an IP address or localhost; may be
    /// repeated
    #[arg(
        id = "http-host",
        long = "http-host",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(crate) hosts: Vec<String>,
}

fn parse_tls(text: &str) -> Result<(PathBuf, PathBuf), String> {
    match text.split_once(',') {
        Some((certificates, key)) if !certificates.is_empty() && !key.is_empty() => {
            Ok((certificates.into(), key.into()))
        }
        _ => Err("give CERT,KEY: the files of the certificate chain and of its key".to_owned()),
    }
}
