//! NAT mappings that time out.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_net::{
    DialTarget, Endpoint, EndpointConfig, Greeting, Identity, TransportConfig, accept, dial,
};
use qshare_wire::ALPN_PEER;
use qshare_wire::hello::Role;
use tokio::time::{sleep, timeout};

use crate::lab::{HostPlan, Lab, NatKind};

const PORT: u16 = 64500;
const DEADLINE: Duration = Duration::from_secs(10);
/// How long an expected absence of answers is observed.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Returns whether a node behind a home router, whose mappings live for `mapping`, still receives
/// packets on its connection after it was idle for `idle`.
pub fn is_heard_after(idle: Duration, mapping: Duration, keep_alive: Duration) -> bool {
    let lab = Lab::builder()
        .host(HostPlan::new("outside"))
        .host(HostPlan::new("inside").nat(NatKind::Cone))
        .build()
        .unwrap();
    let (outside, inside) = (lab.host("outside"), lab.host("inside"));
    for router in lab.routers_of(inside) {
        router.set_mapping_timeout(mapping).unwrap();
    }
    let identity = Identity::ephemeral().unwrap();
    let (id, at) = (
        identity.id(),
        SocketAddr::new(outside.address().into(), PORT),
    );
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let asked = outside.inside(|| block_on(ask_after(idle, &identity, keep_alive)));
            asked.unwrap()
        });
        let answering =
            scope.spawn(|| inside.inside(|| block_on(answer(at, id, idle, keep_alive))));
        let heard = asking.join().unwrap();
        answering.join().unwrap().unwrap();
        heard
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

fn endpoint(identity: &Identity, keep_alive: Duration) -> (Endpoint, Greeting) {
    let config = EndpointConfig {
        listen: SocketAddr::from(([0, 0, 0, 0], PORT)),
        accept_alpn: ALPN_PEER,
        transport: TransportConfig {
            keep_alive,
            ..TransportConfig::default()
        },
    };
    let greeting = Greeting::new(Role::Node);
    (Endpoint::bind(identity, &config).unwrap(), greeting)
}

/// Accepts a connection, keeps it idle, then sends a request. Returns whether an answer came.
async fn ask_after(idle: Duration, identity: &Identity, keep_alive: Duration) -> bool {
    let (endpoint, greeting) = endpoint(identity, keep_alive);
    let incoming = timeout(DEADLINE, endpoint.accept()).await.unwrap().unwrap();
    let session = accept(endpoint.id(), &greeting, incoming).await.unwrap();
    sleep(idle).await;
    let ask = async {
        let (mut send, mut recv) = session.connection.open_bi().await.ok()?;
        send.write_all(b"still there?").await.ok()?;
        send.finish().ok()?;
        recv.read_to_end(100).await.ok()
    };
    timeout(ANSWER_DEADLINE, ask)
        .await
        .is_ok_and(|answer| answer.is_some())
}

/// Dials, and answers requests until the connection ends.
async fn answer(at: SocketAddr, id: NodeId, idle: Duration, keep_alive: Duration) {
    let (endpoint, greeting) = endpoint(&Identity::ephemeral().unwrap(), keep_alive);
    let target = DialTarget::Node(id);
    // The other endpoint may not be bound yet; QUIC retransmits.
    let session = dial(&endpoint, &greeting, target, at, DEADLINE)
        .await
        .unwrap();
    let answered = async {
        while let Ok((mut send, mut recv)) = session.connection.accept_bi().await {
            let question = recv.read_to_end(100).await.unwrap();
            send.write_all(&question).await.unwrap();
            send.finish().unwrap();
        }
    };
    // The goodbye of the other side may not get through.
    let _ = timeout(idle + 2 * ANSWER_DEADLINE, answered).await;
}
