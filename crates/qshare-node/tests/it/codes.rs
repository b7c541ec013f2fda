//! Codes between nodes and trackers in one process, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use qshare_node::content::{Code, ContentInfo, Hash, Link};
use qshare_node::{
    CodeEnd, CodeEvent, CodeOffer, CodeOfferConfig, Identity, Node, NodeConfig, OfferedCode,
    RedeemError, RedeemPatience,
};
use qshare_tracker::{Tracker, TrackerConfig};
use tokio::time::timeout;

use crate::waiting::eventually;

const DEADLINE: Duration = Duration::from_secs(30);
/// How long a receiver tries, where it must succeed.
const PATIENCE: RedeemPatience = RedeemPatience::Brief(Duration::from_secs(20));
/// How long a receiver tries, where it cannot succeed.
const SHORT: RedeemPatience = RedeemPatience::Brief(Duration::from_millis(800));
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SECOND: Duration = Duration::from_secs(1);

/// Starts a tracker at the address of one that has stopped, once the socket is free.
async fn restarted_at(listen: SocketAddr) -> Tracker {
    eventually("the socket is free", async || {
        let mut config = TrackerConfig::new(Identity::ephemeral().unwrap());
        config.listen = listen;
        Tracker::start(config).ok()
    })
    .await
}

fn tracker() -> Tracker {
    let mut config = TrackerConfig::new(Identity::ephemeral().unwrap());
    config.listen = ANY_PORT;
    Tracker::start(config).unwrap()
}

async fn node(trackers: &[&Tracker]) -> Node {
    let addresses = trackers.iter().map(|tracker| tracker.listen().to_string());
    let addresses = addresses.map(|address| address.parse().unwrap());
    let identity = Identity::ephemeral().unwrap();
    let mut config = NodeConfig::one_shot(identity, addresses.collect());
    config.listen = ANY_PORT;
    Node::start(config).await.unwrap()
}

/// Returns a link to a content of this length: its version.
fn link(length: u64) -> Link {
    let info = ContentInfo {
        length,
        root: Hash([7; 32]),
    };
    let text = format!("qshare:{},s={length},r={}", info.id(), info.root);
    text.parse().unwrap()
}

fn offer(node: &Node, uses: Option<u32>) -> CodeOffer {
    node.offer_code(CodeOfferConfig {
        link: Arc::new(|| link(1)),
        uses: uses.and_then(NonZeroU32::new),
    })
}

async fn next(offer: &mut CodeOffer) -> CodeEvent {
    timeout(DEADLINE, offer.next()).await.unwrap().unwrap()
}

async fn offered(offer: &mut CodeOffer) -> OfferedCode {
    match next(offer).await {
        CodeEvent::Offered(offered) => offered,
        event => panic!("{event:?}"),
    }
}

/// Returns a code with the same number and other words.
fn mistyped(code: &Code) -> Code {
    let wrong = Code::from_random(code.number(), 0);
    match wrong == *code {
        true => Code::from_random(code.number(), 1),
        false => wrong,
    }
}

#[tokio::test]
async fn a_code_leads_to_the_newest_link_at_every_tracker() {
    let trackers = [tracker(), tracker()];
    let sharer = node(&[&trackers[0], &trackers[1]]).await;
    let version = Arc::new(AtomicU64::new(0));
    let mut offer = sharer.offer_code(CodeOfferConfig {
        link: Arc::new(move || link(version.fetch_add(1, Ordering::Relaxed))),
        uses: None,
    });
    let OfferedCode {
        code, trackers: at, ..
    } = offered(&mut offer).await;
    assert_eq!(at.len(), 2);
    for (version, tracker) in trackers.iter().enumerate() {
        let receiver = node(&[tracker]).await;
        let redeemed = receiver.redeem(&code, PATIENCE).await.unwrap();
        assert_eq!(redeemed.link, link(version as u64));
        assert_eq!(redeemed.sharer, sharer.id());
        let event = next(&mut offer).await;
        assert!(matches!(event, CodeEvent::Redeemed { node, left: None } if node == receiver.id()));
    }
}

#[tokio::test]
async fn two_receivers_at_once_are_both_served() {
    let tracker = tracker();
    let sharer = node(&[&tracker]).await;
    let mut offer = offer(&sharer, None);
    let code = offered(&mut offer).await.code;
    let (one, two) = (node(&[&tracker]).await, node(&[&tracker]).await);
    let (one, two) = tokio::join!(one.redeem(&code, PATIENCE), two.redeem(&code, PATIENCE));
    assert_eq!(one.unwrap().link, two.unwrap().link);
}

#[tokio::test]
async fn three_wrong_guesses_replace_the_code() {
    let tracker = tracker();
    let sharer = node(&[&tracker]).await;
    let mut offer = offer(&sharer, None);
    let code = offered(&mut offer).await.code;
    let wrong = mistyped(&code);
    for left in [2, 1, 0] {
        // A typo costs one guess, although a receiver may make three.
        let receiver = node(&[&tracker]).await;
        let error = receiver.redeem(&wrong, PATIENCE).await.err().unwrap();
        assert!(matches!(error, RedeemError::WrongWords), "{error:?}");
        let event = next(&mut offer).await;
        assert!(matches!(event, CodeEvent::AttemptFailed { left: told, .. } if told == left));
    }
    let new = offered(&mut offer).await;
    assert_eq!(new.replaces, Some(CodeEnd::Guessed));
    assert_ne!(new.code.number(), code.number());
    let receiver = node(&[&tracker]).await;
    let error = receiver.redeem(&code, SHORT).await.err().unwrap();
    assert!(matches!(error, RedeemError::Guessed), "{error:?}");
    assert!(receiver.redeem(&new.code, PATIENCE).await.is_ok());
}

#[tokio::test]
async fn a_code_for_one_is_used_up_and_ends_with_the_report_of_completion() {
    let tracker = tracker();
    let sharer = node(&[&tracker]).await;
    let mut offer = offer(&sharer, Some(1));
    let code = offered(&mut offer).await.code;
    let receiver = node(&[&tracker]).await;
    let redeemed = receiver.redeem(&code, PATIENCE).await.unwrap();
    assert!(matches!(
        next(&mut offer).await,
        CodeEvent::Redeemed { left: Some(0), .. }
    ));
    assert!(matches!(
        next(&mut offer).await,
        CodeEvent::Ended(CodeEnd::UsedUp)
    ));
    let late = node(&[&tracker]).await;
    let error = late.redeem(&code, SHORT).await.err().unwrap();
    assert!(matches!(error, RedeemError::UsedUp), "{error:?}");
    // Another node than the one that redeemed may report; a second report counts nothing.
    assert!(late.report_complete(&redeemed).await);
    assert!(matches!(
        next(&mut offer).await,
        CodeEvent::Completed { left: Some(0) }
    ));
    assert!(!late.report_complete(&redeemed).await);
}

#[tokio::test]
async fn a_code_ends_with_its_share() {
    let tracker = tracker();
    let sharer = node(&[&tracker]).await;
    let mut offer = offer(&sharer, None);
    let code = offered(&mut offer).await.code;
    sharer.shutdown(SECOND).await;
    let receiver = node(&[&tracker]).await;
    let error = receiver.redeem(&code, SHORT).await.err().unwrap();
    assert!(matches!(error, RedeemError::Ended), "{error:?}");
    let unknown = Code::from_random(code.number() + 1, 5);
    let error = receiver.redeem(&unknown, SHORT).await.err().unwrap();
    let is_unknown = matches!(
        error,
        RedeemError::Unknown {
            asked_tracker: true,
            unreached: None
        }
    );
    assert!(is_unknown, "{error:?}");
}

#[tokio::test]
async fn a_code_outlives_a_restart_of_the_tracker() {
    let first = tracker();
    let listen = first.listen();
    let sharer = node(&[&first]).await;
    let mut offer = offer(&sharer, None);
    let code = offered(&mut offer).await.code;
    first.shutdown(SECOND).await;
    let second = restarted_at(listen).await;
    let receiver = node(&[&second]).await;
    let redeemed = receiver.redeem(&code, PATIENCE).await;
    assert_eq!(redeemed.unwrap().link, link(1));
    assert!(matches!(next(&mut offer).await, CodeEvent::Redeemed { .. }));
}

#[tokio::test]
async fn a_number_that_was_lost_in_a_restart_is_replaced() {
    let first = tracker();
    let listen = first.listen();
    let sharer = node(&[&first]).await;
    let mut offer = offer(&sharer, None);
    let code = offered(&mut offer).await.code;
    first.shutdown(SECOND).await;
    // Somebody else claims the number before the sharer comes back.
    let second = restarted_at(listen).await;
    let rival = claim_by_hand(listen, code.number()).await;
    let new = offered(&mut offer).await;
    assert_eq!(new.replaces, Some(CodeEnd::Taken));
    drop((rival, second));
}

/// Claims a mailbox as a node of its own.
async fn claim_by_hand(tracker: SocketAddr, number: u32) -> impl Sized {
    use qshare_net::{
        DialTarget, Endpoint, EndpointConfig, Greeting, TransportConfig, dial, framed,
    };
    use qshare_wire::hello::Role;
    use qshare_wire::mailbox::{MailboxClaim, MailboxClaimed};

    let config = EndpointConfig {
        listen: ANY_PORT,
        accept_alpn: qshare_wire::ALPN_PEER,
        transport: TransportConfig::default(),
    };
    let endpoint = Endpoint::bind(&Identity::ephemeral().unwrap(), &config).unwrap();
    let greeting = Greeting::new(Role::OneShot);
    let target = DialTarget::Tracker(None);
    let session = dial(&endpoint, &greeting, target, tracker, DEADLINE).await;
    let session = session.unwrap();
    let claim = MailboxClaim {
        number,
        token: [9; 32],
        extensions: Vec::new(),
    };
    let claimed = framed::ask::<_, MailboxClaimed>(&session.connection, &claim).await;
    (endpoint, session, claimed.unwrap())
}

#[tokio::test]
async fn without_any_tracker_a_receiver_learns_that_none_was_reached() {
    let gone = tracker();
    let receiver = node(&[&gone]).await;
    gone.shutdown(SECOND).await;
    let code = Code::from_random(7, 7);
    let error = receiver.redeem(&code, SHORT).await.err().unwrap();
    let is_unreached = matches!(
        error,
        RedeemError::Unknown {
            asked_tracker: false,
            unreached: Some(_)
        } | RedeemError::SharerAway
    );
    assert!(is_unreached, "{error:?}");
}
