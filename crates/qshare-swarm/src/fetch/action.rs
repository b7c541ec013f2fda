//! Actions of a fetch, and the refusals that its caller reports.

use std::time::Duration;

use crate::{PeerKey, RequestId, Span};

/// What the caller must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchAction {
    /// Request `span` from `peer`.
    Request {
        /// The key of the new request.
        request: RequestId,
        /// The peer to send it to.
        peer: PeerKey,
        /// The span to request.
        span: Span,
    },
    /// Withdraw a request if its peer has not started to answer (reset the client's half of the
    /// stream). The request stays live until `handle_withdrawn`, `handle_started` or another end.
    Withdraw {
        /// The request to withdraw.
        request: RequestId,
    },
    /// Cancel a request (stop the receiving half, too). It is void from now on; no further events
    /// of it need to be reported.
    Abandon {
        /// The request to cancel.
        request: RequestId,
    },
    /// Send no further requests for this content to `peer`. Its requests are void without an
    /// [`Abandon`](FetchAction::Abandon) for each. The peer stays in the status until
    /// `handle_peer_left`.
    DropPeer {
        /// The peer to drop.
        peer: PeerKey,
        /// The reason.
        reason: DropReason,
    },
}

/// Why a peer is dropped for a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// It sent bytes that failed verification.
    Corrupt,
    /// It stalled repeatedly with requests outstanding.
    Stalled,
    /// It no longer has the content, may not send it to us, or refuses every request.
    Useless,
}

/// Why a peer did not answer a request with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not hold the chunk.
    NotHere,
    /// It does not hold the chunk yet.
    NotYet,
    /// Its queue is full.
    Busy {
        /// The retry time that the peer names; clamped to the configured bounds.
        retry_after: Duration,
    },
    /// Its file has changed since it announced the content.
    Changed,
    /// It does not serve this content to us.
    NotAllowed,
}
