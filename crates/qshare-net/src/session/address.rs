//! The address of a dialler that moved.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::Connection;
use tokio::time::timeout;

use crate::Endpoint;
use crate::socket::is_made_up;

/// Exports the number by which probes name a connection.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-qshare-address-1";
/// Pauses after each probe. Three, because one may be lost; the last leaves time for a slow path.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1300),
];

/// Returns the address at which the peer of an accepted connection is now, once a round trip has
/// proven it; None if there was no echo within two seconds, or the address changed meanwhile.
///
/// [`Connection::remote_address`] alone may name a victim: the peer can forge the source of its
/// packets. Three datagrams of 17 bytes are sent to it.
pub async fn prove_address(endpoint: &Endpoint, connection: &Connection) -> Option<SocketAddr> {
    let address = connection.remote_address();
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    if is_made_up(address.ip()) {
        return None;
    }
    let proof = endpoint.begin_proof(connection_id(connection)?, address);
    for pause in PAUSES {
        let _ = endpoint.non_quic().send(address, &proof.probe());
        if timeout(pause, proof.proven()).await.is_ok() {
            let now = connection.remote_address();
            let is_same = now.ip().to_canonical() == address.ip() && now.port() == address.port();
            return is_same.then_some(address);
        }
    }
    None
}

/// Returns the number by which probes name a connection, known to its two ends only.
pub(super) fn connection_id(connection: &Connection) -> Option<u64> {
    let mut exported = [0; 8];
    connection
        .export_keying_material(&mut exported, EXPORTER_LABEL, b"")
        .ok()?;
    Some(u64::from_be_bytes(exported))
}
