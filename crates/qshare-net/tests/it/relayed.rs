//! Connections through a malicious relay. No treatment of the packets delivers a wrong byte.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use qshare_net::{
    DialTarget, Endpoint, EndpointConfig, Greeting, Identity, Session, TransportConfig, Traversal,
    accept, dial, is_virtual,
};
use qshare_wire::ALPN_PEER;
use qshare_wire::datagram::{Datagram, is_non_quic};
use qshare_wire::hello::Role;
use qshare_wire::introduction::RelayTicket;
use tokio::net::UdpSocket;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);
const BYTES: usize = 500_000;
const HANDLES: [u64; 2] = [11, 22];

fn endpoint() -> Endpoint {
    let config = EndpointConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        accept_alpn: ALPN_PEER,
        transport: TransportConfig::default(),
    };
    Endpoint::bind(&Identity::ephemeral().unwrap(), &config).unwrap()
}

fn greeting() -> Greeting {
    Greeting::new(Role::Node)
}

/// The relay's attacks. Each field N applies its attack to every Nth packet; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
struct Malice {
    drops: u32,
    doubles: u32,
    holds_back: u32,
    corrupts: u32,
    /// Replays an old packet, from the relay's address and from a stranger's.
    replays: u32,
}

/// Runs a relay between two ends. The relay accepts every bind and applies `malice` to packets.
async fn relay(socket: UdpSocket, malice: Malice, packets: Arc<AtomicU32>) {
    let mut ends: [Option<SocketAddr>; 2] = [None, None];
    let mut held: Option<(SocketAddr, Vec<u8>)> = None;
    let mut old: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        assert!(is_non_quic(buffer[0]), "QUIC of its own to a relay");
        match Datagram::parse(&buffer[..length]) {
            Some(Datagram::Bind { handle, .. }) => {
                let end = HANDLES.iter().position(|&known| known == handle).unwrap();
                ends[end] = Some(from);
                let bound = Datagram::Bound { handle }.to_bytes();
                socket.send_to(&bound, from).await.unwrap();
            }
            Some(Datagram::Relayed { handle, packet }) => {
                let end = HANDLES.iter().position(|&known| known == handle).unwrap();
                let Some(to) = ends[1 - end] else { continue };
                let count = packets.fetch_add(1, Ordering::Relaxed) + 1;
                let is_turn = |every: u32| every > 0 && count.is_multiple_of(every);
                let mut packet = packet.to_vec();
                if is_turn(malice.drops) {
                    continue;
                }
                if is_turn(malice.corrupts) {
                    let at = packet.len() / 2;
                    packet[at] ^= 0x20;
                }
                let bytes = Datagram::Relayed {
                    handle: HANDLES[1 - end],
                    packet: &packet,
                }
                .to_bytes();
                if is_turn(malice.replays) && !old.is_empty() {
                    let (to, bytes) = &old[count as usize * 7 % old.len()];
                    socket.send_to(bytes, to).await.unwrap();
                    stranger.send_to(bytes, to).await.unwrap();
                }
                if malice.replays > 0 {
                    old.push((to, bytes.clone()));
                }
                if is_turn(malice.doubles) {
                    socket.send_to(&bytes, to).await.unwrap();
                }
                if is_turn(malice.holds_back) && held.is_none() {
                    held = Some((to, bytes));
                    continue;
                }
                socket.send_to(&bytes, to).await.unwrap();
                if let Some((to, bytes)) = held.take() {
                    socket.send_to(&bytes, to).await.unwrap();
                }
            }
            _ => {}
        }
    }
}

/// Connects two endpoints through a relay and sends bytes from one to the other. Returns the bytes
/// sent, the bytes received, and the number of relayed packets.
async fn transfer(malice: Malice) -> (Vec<u8>, Vec<u8>, u32) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let packets = Arc::new(AtomicU32::new(0));
    let relaying = tokio::spawn(relay(socket, malice, packets.clone()));
    let (a, b) = (endpoint(), endpoint());
    let open = |of: &Endpoint, peer: &Endpoint, handle| {
        let traversal = Traversal::install(of);
        tokio::spawn(traversal.clone().run());
        let ticket = RelayTicket {
            handle,
            secret: [1; 16],
            lifetime_seconds: 600,
        };
        traversal.open_channel(peer.id(), at, &ticket).unwrap()
    };
    let virtual_b = open(&a, &b, HANDLES[0]);
    open(&b, &a, HANDLES[1]);

    let sent: Vec<u8> = (0..BYTES as u32)
        .map(|index| (index * 7 / 5) as u8)
        .collect();
    let bytes = sent.clone();
    let sender = async {
        let incoming = b.accept().await.unwrap();
        assert!(is_virtual(incoming.remote_address().ip()));
        let session: Session = accept(b.id(), &greeting(), incoming).await.unwrap();
        let (mut send, _recv) = session.connection.accept_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        session.connection.closed().await;
    };
    let receiver = async {
        let greeting = greeting();
        let session = dial(&a, &greeting, DialTarget::Node(b.id()), virtual_b, DEADLINE);
        let session = session.await.unwrap();
        let (mut send, mut recv) = session.connection.open_bi().await.unwrap();
        send.write_all(b"go").await.unwrap();
        let received = recv.read_to_end(2 * BYTES).await.unwrap();
        session.connection.close(0u32.into(), b"");
        received
    };
    let both = async { tokio::join!(sender, receiver) };
    let ((), received) = timeout(DEADLINE, both).await.unwrap();
    relaying.abort();
    (sent, received, packets.load(Ordering::Relaxed))
}

async fn assert_harmless(malice: Malice) {
    let (sent, received, packets) = transfer(malice).await;
    assert!(sent == received, "{malice:?}: wrong bytes");
    assert!(
        packets as usize > BYTES / 1500,
        "{malice:?}: it went elsewhere"
    );
}

#[tokio::test]
async fn a_relay_that_does_its_work_is_one() {
    assert_harmless(Malice::default()).await;
}

#[tokio::test]
async fn a_relay_that_drops_doubles_reorders_corrupts_and_replays_does_no_harm() {
    let all = Malice {
        drops: 37,
        doubles: 5,
        holds_back: 7,
        corrupts: 23,
        replays: 3,
    };
    assert_harmless(all).await;
}

#[tokio::test]
async fn what_a_stranger_sends_as_a_relay_is_not_taken_for_the_relays() {
    let (a, b) = (endpoint(), endpoint());
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let traversal = Traversal::install(&a);
    let ticket = RelayTicket {
        handle: 5,
        secret: [1; 16],
        lifetime_seconds: 600,
    };
    let at = relay.local_addr().unwrap();
    traversal.open_channel(b.id(), at, &ticket).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = a.local_addr().unwrap();
    let bound = Datagram::Bound { handle: 5 }.to_bytes();
    let challenge = Datagram::Challenge {
        handle: 5,
        cookie: [9; 8],
    };
    stranger.send_to(&bound, to).await.unwrap();
    stranger.send_to(&challenge.to_bytes(), to).await.unwrap();
    // The endpoint answers the relay's challenge. By then it has processed the stranger's packets.
    relay.send_to(&challenge.to_bytes(), to).await.unwrap();
    let mut buffer = [0; 2048];
    let answered = async {
        loop {
            let (length, from) = relay.recv_from(&mut buffer).await.unwrap();
            assert_eq!(from, to);
            if let Some(Datagram::Bind { cookie, .. }) = Datagram::parse(&buffer[..length])
                && cookie == [9; 8]
            {
                return;
            }
        }
    };
    timeout(DEADLINE, answered).await.unwrap();
    assert!(
        stranger.try_recv_from(&mut buffer).is_err(),
        "it was answered"
    );
}
