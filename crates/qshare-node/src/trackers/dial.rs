//! Dialling a tracker and checking its key. Node sessions and the net report share this.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::TrackerAddress;
use qshare_net::{
    DialError, DialTarget, Endpoint, Greeting, KnownTrackers, Session, close, dial, resolve,
};
use qshare_wire::CloseCode;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::TrackerFault;

/// Time for one attempt to resolve and to reach a tracker. A lookup has 5 s in all.
const DIAL_DEADLINE: Duration = Duration::from_secs(4);

/// Resolves a tracker's host name.
pub(crate) async fn resolve_tracker(
    tracker: &TrackerAddress,
) -> Result<Vec<SocketAddr>, TrackerFault> {
    timeout(DIAL_DEADLINE, resolve(tracker))
        .await
        .map_err(|_| TrackerFault::ResolveTimedOut(DIAL_DEADLINE))?
        .map_err(|error| TrackerFault::Resolve(Arc::new(error)))
}

/// Dials a tracker at all of its addresses at once, takes the first connection, and checks the
/// tracker's key against `known`. Without `known` any key is accepted, unless the address pins one.
///
/// If all attempts fail, a refusal is reported rather than a silent address.
pub(crate) async fn dial_tracker(
    endpoint: &Endpoint,
    greeting: &Greeting,
    tracker: &TrackerAddress,
    addresses: Vec<SocketAddr>,
    known: Option<&KnownTrackers>,
) -> Result<Session, TrackerFault> {
    let mut dials = JoinSet::new();
    for address in addresses {
        let (endpoint, greeting) = (endpoint.clone(), greeting.clone());
        let target = DialTarget::Tracker(tracker.id);
        dials
            .spawn(async move { dial(&endpoint, &greeting, target, address, DIAL_DEADLINE).await });
    }
    let mut last = TrackerFault::NoAddress("usable");
    while let Some(dialled) = dials.join_next().await {
        match dialled {
            Ok(Ok(session)) => return check_trust(tracker, known, session).await,
            Ok(Err(error)) => {
                let fault = match error {
                    DialError::TimedOut(_) => TrackerFault::NoAnswer(DIAL_DEADLINE),
                    error => TrackerFault::Dial(Arc::new(error)),
                };
                if fault.is_refusal() || !last.is_refusal() {
                    last = fault;
                }
            }
            Err(lost) => last = TrackerFault::Internal(lost.to_string()),
        }
    }
    Err(last)
}

/// Compares a tracker's key with the remembered one, and remembers it at the first contact. Closes
/// the session if the key is not trusted.
async fn check_trust(
    tracker: &TrackerAddress,
    known: Option<&KnownTrackers>,
    session: Session,
) -> Result<Session, TrackerFault> {
    let Some(known) = known.cloned() else {
        return Ok(session);
    };
    let (tracker, peer) = (tracker.clone(), session.peer);
    let seen_at = session.connection.remote_address();
    // Reads and writes a file under a lock.
    let checked = tokio::task::spawn_blocking(move || known.check(&tracker, seen_at, peer)).await;
    let fault = match checked {
        Ok(Ok(())) => return Ok(session),
        Ok(Err(error)) => TrackerFault::Trust(Arc::new(error)),
        Err(lost) => TrackerFault::Internal(lost.to_string()),
    };
    close(&session.connection, CloseCode::WrongIdentity);
    Err(fault)
}

#[cfg(test)]
mod tests {
    use qshare_content::NodeId;
    use qshare_net::TrustError;

    use super::*;

    #[test]
    fn refusals_are_told_from_silence_and_from_failures_of_our_own() {
        let wrong = DialError::WrongIdentity {
            address: ([127, 0, 0, 1], 1).into(),
            wanted: NodeId([1; 32]),
            found: NodeId([2; 32]),
        };
        assert!(TrackerFault::Dial(Arc::new(wrong)).is_refusal());
        assert!(!TrackerFault::NoAnswer(DIAL_DEADLINE).is_refusal());
        let unreadable = TrustError::Io {
            path: "known_trackers".into(),
            cause: std::io::ErrorKind::PermissionDenied.into(),
        };
        assert!(!TrackerFault::Trust(Arc::new(unreadable)).is_refusal());
        let changed = TrustError::KeyChanged {
            place: "t:1".into(),
            known: NodeId([1; 32]),
            found: NodeId([2; 32]),
        };
        assert!(TrackerFault::Trust(Arc::new(changed)).is_refusal());
    }
}
