//! A tracker endpoint without a registry. A node connects to it, and the test decides which
//! messages it sends.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use qshare_net::{
    Endpoint, EndpointConfig, Greeting, Identity, Session, TransportConfig, accept, framed,
};
use qshare_node::content::TrackerAddress;
use qshare_node::{Node, NodeConfig};
use qshare_wire::hello::Role;
use qshare_wire::tracker::{Announce, AnnounceAck};
use qshare_wire::{ALPN_TRACKER, Message};
use tokio::time::timeout;

/// Deadline of every wait.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Loopback, on an ephemeral port.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The tracker's end of the session with one node.
pub(crate) struct ScriptedTracker {
    session: Session,
    _endpoint: Endpoint,
}

impl ScriptedTracker {
    /// Starts a tracker and a one-shot node that connects to it.
    pub(crate) async fn with_node(punch_hard: bool) -> (ScriptedTracker, Node) {
        ScriptedTracker::with(|trackers| {
            let mut config = NodeConfig::one_shot(Identity::ephemeral().unwrap(), trackers);
            config.punch_hard = punch_hard;
            config
        })
        .await
    }

    /// Starts a tracker and a node, configured by `configure`, that connects to it.
    pub(crate) async fn with(
        configure: impl FnOnce(Vec<TrackerAddress>) -> NodeConfig,
    ) -> (ScriptedTracker, Node) {
        let identity = Identity::ephemeral().unwrap();
        let config = EndpointConfig {
            listen: ANY_PORT,
            accept_alpn: ALPN_TRACKER,
            transport: TransportConfig::default(),
        };
        let endpoint = Endpoint::bind(&identity, &config).unwrap();
        let address = endpoint.local_addr().unwrap().to_string();
        let mut config = configure(vec![address.parse().unwrap()]);
        config.listen = ANY_PORT;
        let node = Node::start(config).await.unwrap();
        let greeting = Greeting::new(Role::Tracker);
        let incoming = timeout(DEADLINE, endpoint.accept()).await.unwrap();
        let session = accept(endpoint.id(), &greeting, incoming.unwrap()).await;
        let tracker = ScriptedTracker {
            session: session.unwrap(),
            _endpoint: endpoint,
        };
        (tracker, node)
    }

    /// Receives the node's next announcement, and acknowledges it with `refused` refused entries.
    pub(crate) async fn take_announcement(&mut self, refused: u32) -> Announce {
        let received = timeout(DEADLINE, framed::read(&mut self.session.control_recv)).await;
        let announce: Announce = received.unwrap().unwrap();
        let ack = AnnounceAck {
            sequence: announce.sequence,
            refused,
            reason: "full".into(),
        };
        self.send(&ack).await;
        announce
    }

    /// Sends a message on the control stream.
    pub(crate) async fn send<M: Message>(&mut self, message: &M) {
        let sent = framed::write(&mut self.session.control_send, message).await;
        sent.unwrap();
    }
}
