//! The events of a simulated swarm, which a run handles in the order of their times.

use qshare_content::ChunkIndex;
use qshare_swarm::{RequestId, Span};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Join(usize),
    Leave(usize),
    Silence(usize),
    Wake(usize),
    ServeTimeout(usize),
    Rejoin {
        node: usize,
        peer: usize,
    },
    HaveAll {
        to: usize,
        from: usize,
        bytes: Vec<u8>,
        queue: u64,
    },
    FlushNews(usize),
    Have {
        to: usize,
        from: usize,
        chunks: Vec<ChunkIndex>,
        queue: u64,
    },
    Request {
        server: usize,
        client: usize,
        request: RequestId,
        span: Span,
    },
    Withdraw {
        server: usize,
        client: usize,
        request: RequestId,
    },
    Withdrawn {
        client: usize,
        request: RequestId,
    },
    Abandon {
        server: usize,
        client: usize,
        request: RequestId,
    },
    Refused {
        client: usize,
        request: RequestId,
        kind: u8,
    },
    Reset {
        client: usize,
        request: RequestId,
    },
    UplinkFree(usize),
    Arrival {
        client: usize,
        server: usize,
        request: RequestId,
        bytes: u64,
        last: bool,
    },
    Delivery {
        client: usize,
        server: usize,
        request: RequestId,
        bytes: u64,
        last: bool,
    },
    Acknowledged {
        server: usize,
        client: usize,
        bytes: u64,
    },
    Trickle {
        server: usize,
        client: usize,
        request: RequestId,
        left: u64,
    },
}
