//! Proof that the peer of a connection receives at the address from which its packets come.
//!
//! quinn reports a new remote address with the first authenticated packet from there, before its
//! own path validation (RFC 9000 section 8.2), and does not report the result of that validation. A
//! peer can forge the source of its packets, so such an address may belong to a victim. The proof
//! takes a round trip outside QUIC, because QUIC retransmits data on other paths. A probe with a
//! fresh cookie goes to that address only, and the echo must come from there. The probe names the
//! connection by a number that only the connection's two ends can compute, so that another node at
//! the address does not answer for the peer.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_wire::datagram::Datagram;
use tokio::sync::Notify;

/// Running address proofs of one socket, and the connections whose probes it answers.
#[derive(Debug, Default)]
pub(crate) struct AddressProofs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Dialled connections whose probes are echoed.
    answered: HashSet<u64>,
    /// Accepted connections whose address is being proven.
    pending: HashMap<u64, Pending>,
}

#[derive(Debug)]
struct Pending {
    address: SocketAddr,
    cookie: [u8; 8],
    proven: Arc<Notify>,
}

impl AddressProofs {
    /// Echoes probes of a dialled connection until the result is dropped.
    pub(crate) fn answer(self: &Arc<Self>, connection_id: u64) -> AddressResponder {
        self.lock().answered.insert(connection_id);
        AddressResponder {
            proofs: Arc::clone(self),
            connection_id,
        }
    }

    /// Starts a proof; a second one for the same connection replaces the first.
    pub(crate) fn begin(
        self: &Arc<Self>,
        connection_id: u64,
        address: SocketAddr,
        cookie: [u8; 8],
    ) -> AddressProof {
        let proven = Arc::new(Notify::new());
        let pending = Pending {
            address,
            cookie,
            proven: Arc::clone(&proven),
        };
        self.lock().pending.insert(connection_id, pending);
        AddressProof {
            proofs: Arc::clone(self),
            connection_id,
            cookie,
            proven,
        }
    }

    /// Handles a probe or echo from `from`; returns the datagram to send back.
    pub(super) fn handle(&self, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        match Datagram::parse(datagram)? {
            Datagram::AddressProbe { id, cookie } => {
                let is_ours = self.lock().answered.contains(&id);
                is_ours.then(|| Datagram::AddressEcho { id, cookie }.to_bytes())
            }
            Datagram::AddressEcho { id, cookie } => {
                let state = self.lock();
                let pending = state.pending.get(&id)?;
                if pending.address == from && pending.cookie == cookie {
                    pending.proven.notify_one();
                }
                None
            }
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Echoes the address probes of one dialled connection for as long as it lives. Keep it as long as
/// the connection: otherwise the acceptor does not report a changed address to others.
#[derive(Debug)]
pub struct AddressResponder {
    proofs: Arc<AddressProofs>,
    connection_id: u64,
}

impl Drop for AddressResponder {
    fn drop(&mut self) {
        self.proofs.lock().answered.remove(&self.connection_id);
    }
}

/// A running proof. Dropping it cancels the proof.
pub(crate) struct AddressProof {
    proofs: Arc<AddressProofs>,
    connection_id: u64,
    cookie: [u8; 8],
    proven: Arc<Notify>,
}

impl AddressProof {
    /// Returns the probe to send to the address.
    pub(crate) fn probe(&self) -> Vec<u8> {
        let (id, cookie) = (self.connection_id, self.cookie);
        Datagram::AddressProbe { id, cookie }.to_bytes()
    }

    /// Waits until the echo arrives from the address.
    pub(crate) async fn proven(&self) {
        self.proven.notified().await;
    }
}

impl Drop for AddressProof {
    fn drop(&mut self) {
        let mut state = self.proofs.lock();
        let pending = state.pending.get(&self.connection_id);
        if pending.is_some_and(|pending| Arc::ptr_eq(&pending.proven, &self.proven)) {
            state.pending.remove(&self.connection_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn is_proven(proof: &AddressProof) -> bool {
        let mut proven = std::pin::pin!(proof.proven());
        let mut context = Context::from_waker(Waker::noop());
        proven.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn the_peer_at_the_address_proves_it() {
        let (ours, theirs) = (Arc::<AddressProofs>::default(), Arc::default());
        let proof = ours.begin(7, at("192.0.2.1:5000"), [1; 8]);
        let _responder = AddressProofs::answer(&theirs, 7);
        let echo = theirs.handle(at("198.51.100.1:1"), &proof.probe()).unwrap();
        assert_eq!(ours.handle(at("192.0.2.1:5000"), &echo), None);
        assert!(is_proven(&proof));
    }

    #[test]
    fn another_node_at_the_address_another_address_and_a_guess_prove_nothing() {
        let (ours, theirs) = (Arc::<AddressProofs>::default(), Arc::default());
        let proof = ours.begin(7, at("192.0.2.1:5000"), [1; 8]);
        // Another node has no such connection.
        let _other = AddressProofs::answer(&theirs, 8);
        assert_eq!(theirs.handle(at("198.51.100.1:1"), &proof.probe()), None);
        let (id, cookie) = (7, [1; 8]);
        for (from, echo) in [
            ("192.0.2.2:5000", Datagram::AddressEcho { id, cookie }),
            ("192.0.2.1:5001", Datagram::AddressEcho { id, cookie }),
            (
                "192.0.2.1:5000",
                Datagram::AddressEcho { id, cookie: [2; 8] },
            ),
            ("192.0.2.1:5000", Datagram::AddressProbe { id, cookie }),
        ] {
            ours.handle(at(from), &echo.to_bytes());
        }
        assert!(!is_proven(&proof));
    }

    #[test]
    fn a_connection_that_ended_is_not_answered_for() {
        let theirs = Arc::<AddressProofs>::default();
        let id = 7;
        let probe = Datagram::AddressProbe { id, cookie: [1; 8] }.to_bytes();
        let responder = theirs.answer(id);
        assert!(theirs.handle(at("192.0.2.1:1"), &probe).is_some());
        drop(responder);
        assert_eq!(theirs.handle(at("192.0.2.1:1"), &probe), None);
    }
}
