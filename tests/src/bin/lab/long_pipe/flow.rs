//! One sender with unlimited data, and one receiver that counts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use qshare_net::{Congestion, UnknownCongestion};
use qshare_tests::lab::Host;

use super::{quic, tcp};

/// The protocol of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The kernel's TCP, under this congestion control.
    Tcp(String),
    /// A connection as qshare makes them: chunks of 4 MiB, each on a stream of its own.
    Quic(Congestion),
}

impl FromStr for Flow {
    type Err = String;

    fn from_str(text: &str) -> Result<Flow, String> {
        match text.split_once('-') {
            Some(("tcp", name)) => Ok(Flow::Tcp(name.to_owned())),
            Some(("quic", name)) => name
                .parse()
                .map(Flow::Quic)
                .map_err(|error: UnknownCongestion| error.to_string()),
            _ => Err(format!("{text:?} is neither quic-NAME nor tcp-NAME")),
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flow::Tcp(name) => f.pad(&format!("tcp-{name}")),
            Flow::Quic(congestion) => f.pad(&format!("quic-{congestion}")),
        }
    }
}

/// What the two ends of a flow share with the one who watches.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    received: AtomicU64,
    ended: AtomicBool,
}

impl Watch {
    pub(crate) fn count(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Payload that has arrived, in order within its stream.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Flow {
    /// Runs the flow until the watch ends.
    pub(crate) fn run(&self, from: &Host, to: &Host, watch: &Arc<Watch>) -> anyhow::Result<()> {
        match self {
            Flow::Tcp(name) => tcp::run(name, from, to, watch),
            Flow::Quic(congestion) => quic::run(*congestion, from, to, watch),
        }
    }
}
