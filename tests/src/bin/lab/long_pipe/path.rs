//! The path: one receiver behind a bottleneck, distant senders.

use std::time::Duration;

use clap::Args;
use qshare_tests::lab::{HostPlan, Link, Loss, Rate, parse_duration};

#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    /// Rate of the bottleneck
    #[arg(long, default_value = "1gbit")]
    pub(crate) rate: Rate,
    /// Round trip without queues
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_duration)]
    pub(crate) rtt: Duration,
    /// Share of packets that are lost, both ways
    #[arg(long, default_value = "0%")]
    loss: Loss,
    /// Length of the bottleneck's queue
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = parse_duration)]
    queue: Duration,
}

impl PathArgs {
    fn link(&self) -> Link {
        Link {
            delay: self.rtt / 2,
            loss: self.loss,
            ..Link::default()
        }
    }

    /// The receiver, with the bottleneck in front of it.
    pub(crate) fn sink(&self) -> HostPlan {
        HostPlan::new(SINK).link(Link {
            down: Some(self.rate),
            queue: self.queue,
            ..self.link()
        })
    }

    /// A host at the other end.
    pub(crate) fn far(&self, name: &str) -> HostPlan {
        HostPlan::new(name).link(self.link())
    }
}

pub(crate) const SINK: &str = "sink";
