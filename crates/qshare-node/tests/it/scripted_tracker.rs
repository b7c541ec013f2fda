//! A tracker endpoint without a registry: a node connects to it, and the test decides what it
//! sends.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use qshare_net::{
    Endpoint, EndpointConfig, Greeting, Identity, Session, TransportConfig, accept, framed,
};
use qshare_node::{Node, NodeConfig};
use qshare_wire::hello::Role;
use qshare_wire::{ALPN_TRACKER, Message};
use tokio::time::timeout;

/// Deadline of every wait.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Loopback, on a port of the system's choice.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The tracker's end of the session with one node.
pub(crate) struct ScriptedTracker {
    session: Session,
    _endpoint: Endpoint,
}

impl ScriptedTracker {
    /// Starts a tracker and a one-shot node that connects to it.
    pub(crate) async fn with_node(punch_hard: bool) -> (ScriptedTracker, Node) {
        let identity = Identity::ephemeral().unwrap();
        let config = EndpointConfig {
            listen: ANY_PORT,
            accept_alpn: ALPN_TRACKER,
            transport: TransportConfig::default(),
        };
        let endpoint = Endpoint::bind(&identity, &config).unwrap();
        let address = endpoint.local_addr().unwrap().to_string();
        let trackers = vec![address.parse().unwrap()];
        let mut config = NodeConfig::one_shot(Identity::ephemeral().unwrap(), trackers);
        config.listen = ANY_PORT;
        config.punch_hard = punch_hard;
        let node = Node::start(config).await.unwrap();
        let greeting = Greeting {
            role: Role::Tracker,
            group: None,
            candidates: Vec::new(),
            features: 0,
        };
        let incoming = timeout(DEADLINE, endpoint.accept()).await.unwrap();
        let session = accept(endpoint.id(), &greeting, incoming.unwrap()).await;
        let tracker = ScriptedTracker {
            session: session.unwrap(),
            _endpoint: endpoint,
        };
        (tracker, node)
    }

    /// Sends a message on the control stream.
    pub(crate) async fn send<M: Message>(&mut self, message: &M) {
        let sent = framed::write(&mut self.session.control_send, message).await;
        sent.unwrap();
    }
}
