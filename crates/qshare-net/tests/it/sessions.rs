//! Sessions between two endpoints on loopback: which handshakes succeed, and why others are
//! refused.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use qshare_net::{
    AcceptError, DialError, DialTarget, Endpoint, EndpointConfig, Greeting, GroupSecret, Identity,
    Session, TransportConfig, accept, close_reason, dial,
};
use qshare_wire::hello::Role;
use qshare_wire::{ALPN_PEER, ALPN_TRACKER, CloseCode};

const DEADLINE: Duration = Duration::from_secs(10);

fn endpoint(listen: &str, accept_alpn: &'static [u8]) -> (Endpoint, SocketAddr) {
    let identity = Identity::ephemeral().unwrap();
    let transport = TransportConfig::default();
    let config = EndpointConfig {
        listen: listen.parse().unwrap(),
        accept_alpn,
        transport,
    };
    let endpoint = Endpoint::bind(&identity, &config).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    (endpoint, SocketAddr::from(([127, 0, 0, 1], port)))
}

fn greeting(group: Option<&GroupSecret>) -> Greeting {
    Greeting {
        group: group.cloned(),
        ..Greeting::new(Role::Node)
    }
}

/// Dials once between two nodes of these groups. Returns each side's result.
async fn meet(
    dialler: Option<&GroupSecret>,
    acceptor: Option<&GroupSecret>,
) -> (Result<Session, DialError>, Result<Session, AcceptError>) {
    let (a, _) = endpoint("[::]:0", ALPN_PEER);
    let (b, at) = endpoint("127.0.0.1:0", ALPN_PEER);
    let (to_b, of_b) = (greeting(dialler), greeting(acceptor));
    tokio::join!(
        dial(&a, &to_b, DialTarget::Node(b.id()), at, DEADLINE),
        async { accept(b.id(), &of_b, b.accept().await.unwrap()).await }
    )
}

#[tokio::test]
async fn two_open_nodes_learn_each_others_ids_and_addresses() {
    let (dialled, accepted) = meet(None, None).await;
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_ne!(dialled.peer, accepted.peer);
    let observed = dialled.hello.observed.unwrap();
    assert!(
        observed.ip().is_loopback() && observed.is_ipv4(),
        "{observed}"
    );
}

#[tokio::test]
async fn members_of_one_group_meet() {
    let secret = GroupSecret::random();
    let (dialled, accepted) = meet(Some(&secret), Some(&secret)).await;
    dialled.unwrap();
    accepted.unwrap();
}

#[tokio::test]
async fn whoever_does_not_belong_is_refused_on_both_sides() {
    let (one, other) = (GroupSecret::random(), GroupSecret::random());
    for (a, b) in [
        (Some(&one), Some(&other)),
        (None, Some(&one)),
        (Some(&one), None),
    ] {
        let (dialled, accepted) = meet(a, b).await;
        assert!(
            matches!(dialled, Err(DialError::GroupRefused(_))),
            "{dialled:?}"
        );
        assert!(matches!(
            accepted,
            Err(AcceptError::Refused(CloseCode::GroupRefused))
        ));
    }
}

#[tokio::test]
async fn an_impostor_is_refused_during_the_handshake() {
    let (a, _) = endpoint("127.0.0.1:0", ALPN_PEER);
    let (b, at) = endpoint("127.0.0.1:0", ALPN_PEER);
    let wanted = Identity::ephemeral().unwrap().id();
    let hi = greeting(None);
    let (dialled, accepted) = tokio::join!(
        dial(&a, &hi, DialTarget::Node(wanted), at, DEADLINE),
        async { accept(b.id(), &hi, b.accept().await.unwrap()).await }
    );
    assert!(dialled.is_err());
    assert!(accepted.is_err());
}

#[tokio::test]
async fn a_tracker_with_another_id_than_the_pinned_one_is_named() {
    let (a, _) = endpoint("127.0.0.1:0", ALPN_PEER);
    let (tracker, at) = endpoint("127.0.0.1:0", ALPN_TRACKER);
    let wanted = Identity::ephemeral().unwrap().id();
    let hi = greeting(None);
    let target = DialTarget::Tracker(Some(wanted));
    let (dialled, _) = tokio::join!(dial(&a, &hi, target, at, DEADLINE), async {
        accept(tracker.id(), &hi, tracker.accept().await.unwrap()).await
    });
    match dialled {
        Err(DialError::WrongIdentity { found, .. }) => assert_eq!(found, tracker.id()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_peer_is_not_a_tracker() {
    let (a, _) = endpoint("127.0.0.1:0", ALPN_PEER);
    let (b, at) = endpoint("127.0.0.1:0", ALPN_PEER);
    let hi = greeting(None);
    let (dialled, accepted) = tokio::join!(
        dial(&a, &hi, DialTarget::Tracker(None), at, DEADLINE),
        async { accept(b.id(), &hi, b.accept().await.unwrap()).await }
    );
    assert!(dialled.is_err());
    assert!(accepted.is_err());
}

#[tokio::test]
async fn a_goodbye_reaches_the_other_side_as_such() {
    let (a, _) = endpoint("127.0.0.1:0", ALPN_PEER);
    let (b, at) = endpoint("127.0.0.1:0", ALPN_PEER);
    let hi = greeting(None);
    let (dialled, accepted) = tokio::join!(
        dial(&a, &hi, DialTarget::Node(b.id()), at, DEADLINE),
        async { accept(b.id(), &hi, b.accept().await.unwrap()).await }
    );
    let (_dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    a.close(CloseCode::Goodbye, DEADLINE).await;
    let error = accepted.connection.closed().await;
    assert_eq!(close_reason(&error), Some(CloseCode::Goodbye));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (_first, at) = endpoint("127.0.0.1:0", ALPN_PEER);
    let identity = Identity::ephemeral().unwrap();
    let transport = TransportConfig::default();
    let config = EndpointConfig {
        listen: at,
        accept_alpn: ALPN_PEER,
        transport,
    };
    let error = Endpoint::bind(&identity, &config).unwrap_err();
    assert!(
        error.to_string().contains(&at.port().to_string()),
        "{error}"
    );
}
