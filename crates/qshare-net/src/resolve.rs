//! Host names to socket addresses.

use std::io;
use std::net::SocketAddr;

use qshare_content::TrackerAddress;

/// Why a host has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The resolver failed.
    #[error("cannot resolve {host}: {cause}")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        cause: io::Error,
    },
    /// The name has no address.
    #[error("{0} has no address")]
    Nothing(String),
}

/// All addresses of a tracker's host, in the resolver's order.
pub async fn resolve(tracker: &TrackerAddress) -> Result<Vec<SocketAddr>, ResolveError> {
    let host = tracker.host.clone();
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), tracker.port))
        .await
        .map_err(|cause| ResolveError::Lookup {
            host: host.clone(),
            cause,
        })?
        .collect();
    if addresses.is_empty() {
        Err(ResolveError::Nothing(host))
    } else {
        Ok(addresses)
    }
}
