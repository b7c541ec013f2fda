//! Our Hello, and the check of the peer's.

use std::net::SocketAddr;

use qshare_content::NodeId;
use qshare_wire::hello::{Hello, VERSION};
use qshare_wire::{CloseCode, PeerText};
use quinn::Connection;

use super::Greeting;
use crate::identity::group::{EXPORTER_LABEL, ProofBinding};
use crate::socket::is_made_up;

/// The side of a connection that proves its group.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

/// Makes our Hello for a connection to the peer at `address`.
pub(super) fn own_hello(
    greeting: &Greeting,
    connection: &Connection,
    side: Side,
    us: NodeId,
    peer: NodeId,
    address: SocketAddr,
) -> Hello {
    let group_proof = greeting.group.as_ref().and_then(|secret| {
        let binding = binding(connection, side, us, peer)?;
        Some(secret.prove(&binding))
    });
    Hello {
        versions: (VERSION, VERSION),
        features: greeting.features,
        role: greeting.role,
        agent: PeerText::new(concat!("qshare/", env!("CARGO_PKG_VERSION"))),
        group_proof,
        candidates: greeting.candidates.clone(),
        observed: (!is_made_up(address.ip()))
            .then(|| SocketAddr::new(address.ip().to_canonical(), address.port())),
        extensions: greeting.extensions.clone(),
    }
}

/// Checks version and group of the peer's Hello; otherwise returns the code to close with.
pub(super) fn check_hello(
    greeting: &Greeting,
    connection: &Connection,
    hello: &Hello,
    prover_side: Side,
    us: NodeId,
    peer: NodeId,
) -> Result<(), CloseCode> {
    hello.common_version().ok_or(CloseCode::Version)?;
    let proven = match (&greeting.group, &hello.group_proof) {
        (None, None) => true,
        (Some(secret), Some(proof)) => binding(connection, prover_side, peer, us)
            .is_some_and(|binding| secret.verify(&binding, proof)),
        _ => false,
    };
    match proven {
        true => Ok(()),
        false => Err(CloseCode::GroupRefused),
    }
}

fn binding(
    connection: &Connection,
    side: Side,
    prover: NodeId,
    verifier: NodeId,
) -> Option<ProofBinding> {
    let mut exported = [0; 32];
    connection
        .export_keying_material(&mut exported, EXPORTER_LABEL, b"")
        .ok()?;
    let prover_side = match side {
        Side::Dialler => 0,
        Side::Acceptor => 1,
    };
    Some(ProofBinding {
        exported,
        prover_side,
        prover,
        verifier,
    })
}
