//! The code of a share: offered, shown, and replaced when it ends.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use qshare_node::content::TrackerAddress;
use qshare_node::{CodeEnd, CodeEvent, CodeOffer, CodeOfferConfig, Node, OfferedCode, Share};
use tokio::time::timeout;

use super::link::link_to;
use crate::suggest::quoted;

/// Time for the first code. An offer waits 4 s for a tracker.
pub(crate) const FIRST_CODE: Duration = Duration::from_secs(8);

/// A code that receivers can type.
#[derive(Debug, Clone)]
pub(crate) struct ShownCode {
    pub(crate) text: String,
    /// The receiver's whole command.
    pub(crate) command: String,
}

/// The code of one share.
pub(crate) struct ShareCode {
    offer: CodeOffer,
    /// A code that works nowhere yet.
    unusable: Option<OfferedCode>,
    /// Wrong codes that were typed.
    pub(crate) failed_attempts: u64,
    /// Whether as many receivers as the code admits have everything.
    pub(crate) is_served: bool,
}

impl ShareCode {
    /// Begins to offer a code for the newest version of a share, to `uses` receivers. The code is
    /// the first event.
    pub(crate) fn begin(node: &Node, share: &Share, uses: Option<NonZeroU32>) -> ShareCode {
        let (linking, shared) = (node.clone(), share.clone());
        let offer = node.offer_code(CodeOfferConfig {
            link: Arc::new(move || link_to(&linking, &shared)),
            uses,
        });
        ShareCode {
            offer,
            unusable: None,
            failed_attempts: 0,
            is_served: false,
        }
    }

    /// Offers a code for the newest version of a share, to `uses` receivers. Returns also the code,
    /// unless it works nowhere yet.
    pub(crate) async fn offer(
        node: &Node,
        share: &Share,
        uses: Option<NonZeroU32>,
    ) -> (ShareCode, Option<ShownCode>) {
        let mut code = ShareCode::begin(node, share, uses);
        let first = async {
            loop {
                if let CodeEvent::Offered(offered) = code.next().await {
                    return shown(&offered);
                }
            }
        };
        let first = timeout(FIRST_CODE, first).await.ok().flatten();
        (code, first)
    }

    /// Ends the code, and tells trackers.
    pub(crate) async fn close(self) {
        self.offer.close().await;
    }

    /// Waits for the next event; stays pending after the last one. Cancel safe.
    pub(crate) async fn next(&mut self) -> CodeEvent {
        let Some(event) = self.offer.next().await else {
            return std::future::pending().await;
        };
        let event = once_usable(&mut self.unusable, event);
        match &event {
            CodeEvent::AttemptFailed { .. } => self.failed_attempts += 1,
            CodeEvent::Completed { left: Some(0) } => self.is_served = true,
            _ => {}
        }
        event
    }
}

/// Returns an event as it is reported. A code that no tracker has yet is kept in `unusable`, and
/// reported as offered when the first tracker has it.
fn once_usable(unusable: &mut Option<OfferedCode>, event: CodeEvent) -> CodeEvent {
    match event {
        CodeEvent::Offered(offered) => {
            *unusable = shown(&offered).is_none().then(|| offered.clone());
            CodeEvent::Offered(offered)
        }
        CodeEvent::Claimed { tracker } => match unusable.take() {
            Some(offered) => CodeEvent::Offered(OfferedCode {
                trackers: vec![tracker],
                ..offered
            }),
            None => CodeEvent::Claimed { tracker },
        },
        event => event,
    }
}

/// Returns an offered code as it is shown; None if no tracker and no neighbour can use it.
pub(crate) fn shown(offered: &OfferedCode) -> Option<ShownCode> {
    if offered.trackers.is_empty() && !offered.lan {
        return None;
    }
    let text = offered.code.reveal().to_string();
    let mut command = format!("qshare get {text}");
    if let Some(tracker) = offered.trackers.iter().find(|tracker| !is_default(tracker)) {
        let place = tracker.host_port();
        command += &format!(" --tracker {}", quoted(place.as_ref()));
    }
    Some(ShownCode { text, command })
}

/// Whether receivers ask a tracker without naming it.
fn is_default(tracker: &TrackerAddress) -> bool {
    tracker.host == "127.0.0.1" && tracker.port == qshare_node::content::DEFAULT_TRACKER_PORT
}

/// Whether an event ends the code for good.
pub(crate) fn is_end(event: &CodeEvent) -> bool {
    matches!(event, CodeEvent::Ended(CodeEnd::UsedUp | CodeEnd::Expired))
}

#[cfg(test)]
mod tests {
    use qshare_node::content::Code;

    use super::*;

    #[test]
    fn a_code_is_shown_once_a_tracker_has_it() {
        let (mut unusable, tracker) = (None, "example.org:65000".parse().unwrap());
        let nowhere = CodeEvent::Offered(OfferedCode {
            code: Code::from_random(42, 7),
            trackers: Vec::new(),
            lan: false,
            replaces: None,
        });
        let CodeEvent::Offered(offered) = once_usable(&mut unusable, nowhere) else {
            panic!("it is offered");
        };
        assert!(shown(&offered).is_none());
        let text = offered.code.reveal().to_string();
        let claimed = || CodeEvent::Claimed {
            tracker: TrackerAddress::clone(&tracker),
        };
        let CodeEvent::Offered(offered) = once_usable(&mut unusable, claimed()) else {
            panic!("it is offered again");
        };
        let shown = shown(&offered).unwrap();
        assert_eq!(shown.text, text);
        assert!(shown.command.contains("example.org"), "{}", shown.command);
        let next = once_usable(&mut unusable, claimed());
        assert!(matches!(next, CodeEvent::Claimed { .. }));
    }
}
