//! What a fetch tells its caller to do, and what the caller tells it that peers refused.

use std::time::Duration;

use crate::{PeerKey, RequestId, Span};

/// What the caller is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchAction {
    /// Ask `peer` for `span`.
    Request {
        /// The name of the new request.
        request: RequestId,
        /// Whom to ask.
        peer: PeerKey,
        /// What to ask for.
        span: Span,
    },
    /// Take a request back if its peer has not started to answer (reset the client's half of the
    /// stream). It stays live until `handle_withdrawn`, `handle_started` or another end.
    Withdraw {
        /// The request to take back.
        request: RequestId,
    },
    /// Give a request up altogether (stop the receiving half too). It is void from now on;
    /// nothing more need be told about it.
    Abandon {
        /// The request to give up.
        request: RequestId,
    },
    /// Stop asking `peer` for this content. Its requests are void without an
    /// [`Abandon`](FetchAction::Abandon) for each. It stays in the status until
    /// `handle_peer_left`.
    DropPeer {
        /// Whom to drop.
        peer: PeerKey,
        /// Why.
        reason: DropReason,
    },
}

/// Why a peer is dropped for a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// It sent bytes that failed verification.
    Corrupt,
    /// It fell silent with requests outstanding, again and again.
    Stalled,
    /// It no longer has the content, may not give it to us, or only ever refuses.
    Useless,
}

/// Why a peer did not answer a request with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not hold the chunk.
    NotHere,
    /// It does not hold the chunk yet.
    NotYet,
    /// Too much is waiting there already.
    Busy {
        /// When to come back, as the peer says; not trusted beyond the configured bounds.
        retry_after: Duration,
    },
    /// Its file has changed since it announced the content.
    Changed,
    /// It does not give this content to us.
    NotAllowed,
}
