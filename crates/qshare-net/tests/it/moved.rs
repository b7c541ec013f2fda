//! A dialler whose address changes, behind a simulated NAT.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_net::{
    DialTarget, Endpoint, EndpointConfig, Greeting, Identity, Session, TransportConfig, accept,
    dial, prove_address,
};
use qshare_wire::ALPN_TRACKER;
use qshare_wire::hello::Role;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

const DEADLINE: Duration = Duration::from_secs(10);

fn endpoint() -> (Endpoint, SocketAddr) {
    let identity = Identity::ephemeral().unwrap();
    let config = EndpointConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        accept_alpn: ALPN_TRACKER,
        transport: TransportConfig::default(),
    };
    let endpoint = Endpoint::bind(&identity, &config).unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

/// A NAT with two outside sockets, one of them in use. It forwards the client's packets to the
/// server from that socket. It forwards the server's packets from that socket to the client,
/// unless the source address is forged.
struct Nat {
    inside: Arc<UdpSocket>,
    outside: [Arc<UdpSocket>; 2],
    forwarding: JoinSet<()>,
}

impl Nat {
    async fn new() -> Nat {
        let bind = || async { Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()) };
        Nat {
            inside: bind().await,
            outside: [bind().await, bind().await],
            forwarding: JoinSet::new(),
        }
    }

    fn address(&self, index: usize) -> SocketAddr {
        self.outside[index].local_addr().unwrap()
    }

    /// Switches forwarding to the outside socket `index`. With a forged source, the server's
    /// packets do not reach the client.
    fn forward(&mut self, index: usize, server: SocketAddr, client: SocketAddr, is_forged: bool) {
        self.forwarding.abort_all();
        let (inside, outside) = (self.inside.clone(), self.outside[index].clone());
        self.forwarding.spawn(async move {
            let (mut out, mut back) = ([0; 65_535], [0; 65_535]);
            loop {
                tokio::select! {
                    Ok((length, _)) = inside.recv_from(&mut out) => {
                        let _ = outside.send_to(&out[..length], server).await;
                    }
                    Ok((length, _)) = outside.recv_from(&mut back) => {
                        if !is_forged {
                            let _ = inside.send_to(&back[..length], client).await;
                        }
                    }
                }
            }
        });
    }
}

/// Opens a session through the NAT. Returns the dialler's and the acceptor's ends.
async fn sessions(nat: &mut Nat) -> (Endpoint, Session, Endpoint, Session) {
    let (client, at) = endpoint();
    let (server, server_at) = endpoint();
    nat.forward(0, server_at, at, false);
    let greeting = Greeting::new(Role::Node);
    let entrance = nat.inside.local_addr().unwrap();
    let target = DialTarget::Tracker(Some(server.id()));
    let (dialled, accepted) = tokio::join!(
        dial(&client, &greeting, target, entrance, DEADLINE),
        async { accept(server.id(), &greeting, server.accept().await.unwrap()).await }
    );
    (client, dialled.unwrap(), server, accepted.unwrap())
}

/// Sends from the client until the server's connection reports `to` as the client's address.
async fn wait_for_move(dialled: &mut Session, accepted: &Session, to: SocketAddr) {
    let mut ticks = interval(Duration::from_millis(10));
    timeout(DEADLINE, async {
        while accepted.connection.remote_address() != to {
            ticks.tick().await;
            dialled.control_send.write_all(b"x").await.unwrap();
        }
    })
    .await
    .unwrap();
}

fn ipv4(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[tokio::test]
async fn a_peer_that_moved_is_at_its_new_address_once_it_answered_there() {
    let mut nat = Nat::new().await;
    let (client, mut dialled, server, accepted) = sessions(&mut nat).await;
    assert_eq!(ipv4(accepted.address), nat.address(0));
    let at = client.local_addr().unwrap();
    nat.forward(1, server.local_addr().unwrap(), at, false);
    let to = mapped(nat.address(1));
    wait_for_move(&mut dialled, &accepted, to).await;
    let proven = prove_address(&server, &accepted.connection).await;
    assert_eq!(proven, Some(nat.address(1)));
}

#[tokio::test]
async fn a_forged_source_is_no_address_of_the_peer() {
    let mut nat = Nat::new().await;
    let (client, mut dialled, server, accepted) = sessions(&mut nat).await;
    let at = client.local_addr().unwrap();
    nat.forward(1, server.local_addr().unwrap(), at, true);
    // quinn reports the forged source, although the client answered nothing from there.
    wait_for_move(&mut dialled, &accepted, mapped(nat.address(1))).await;
    assert_eq!(prove_address(&server, &accepted.connection).await, None);
    assert_eq!(ipv4(accepted.address), nat.address(0));
}

#[tokio::test]
async fn an_address_is_not_proven_for_a_dialler_that_ended_its_session() {
    let mut nat = Nat::new().await;
    let (_client, mut dialled, server, accepted) = sessions(&mut nat).await;
    let proven = prove_address(&server, &accepted.connection).await;
    assert_eq!(proven, Some(nat.address(0)));
    dialled.responder = None;
    assert_eq!(prove_address(&server, &accepted.connection).await, None);
}

/// Returns an address as quinn reports it: the dual-stack socket maps IPv4 to IPv6.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 => v6,
    }
}
