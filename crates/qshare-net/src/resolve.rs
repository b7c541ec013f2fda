//! Resolution of host names.

use std::io;
use std::net::SocketAddr;

use qshare_content::TrackerAddress;

/// Why a host cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The resolver failed.
    #[error("cannot resolve {host}: {cause}")]
    Lookup {
        /// The name.
        host: String,
        /// The resolver's error.
        cause: io::Error,
    },
    /// The name has no address.
    #[error("{0} has no address")]
    Nothing(String),
}

/// Returns all addresses of a tracker's host, in the resolver's order.
pub async fn resolve(tracker: &TrackerAddress) -> Result<Vec<SocketAddr>, ResolveError> {
    resolve_host(&tracker.host, tracker.port).await
}

/// Returns all addresses of a host, in the resolver's order. A link-local IPv6 address may name its
/// zone (`fe80::1%eth0`).
pub async fn resolve_host(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|cause| ResolveError::Lookup {
            host: host.into(),
            cause,
        })?
        .collect();
    if addresses.is_empty() {
        Err(ResolveError::Nothing(host.into()))
    } else {
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_local_address_keeps_its_zone() {
        let tracker: TrackerAddress = "[fe80::1%1]:7000".parse().unwrap();
        let addresses = resolve(&tracker).await.unwrap();
        let [SocketAddr::V6(address)] = addresses[..] else {
            panic!("{addresses:?}");
        };
        assert_eq!((address.scope_id(), address.port()), (1, 7000));
    }
}
