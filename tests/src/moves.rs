//! Changes of the network in the middle of a transfer.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::files::{assert_same, noise};
use crate::lab::{Host, HostPlan, Lab, LabError, Link, NatKind};
use crate::networked::Networked;
use crate::process::Process;

const FILE: &str = "file.bin";
const RATE: &str = "16mbit";
/// Bytes received before the change: some 1.5 s at the path's rate of 16 Mbit/s.
pub const BEFORE_BYTES: u64 = 3_000_000;
/// Bytes that the relay carries before the path is restored.
const RELAYED_BYTES: u64 = 1_000_000;
/// Interval between two reads of the counters.
const LOOK: Duration = Duration::from_millis(20);
/// Fewer bytes than this in one interval are keep-alives, probes and tracker packets, no transfer.
const NOTHING_BYTES: u64 = 4_000;

/// A change of the network. The sender shares the file; the receiver dialled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Both routers forget all mappings.
    MappingsFlushed,
    /// The receiver's machine gets another address in its local network.
    ReceiverAddress,
    /// The sender's machine gets another address in its local network.
    SenderAddress,
    /// The receiver's router gets another public address, and forgets its mappings.
    ReceiverRouter,
    /// The sender's router gets another public address, and forgets its mappings.
    SenderRouter,
    /// All packets between the two are dropped; both still reach the tracker.
    PathCut,
    /// As [`Move::PathCut`], until the relay has carried some of the file.
    PathCutAndRestored,
}

impl Move {
    /// All changes.
    pub const ALL: [Move; 7] = [
        Move::MappingsFlushed,
        Move::ReceiverAddress,
        Move::SenderAddress,
        Move::ReceiverRouter,
        Move::SenderRouter,
        Move::PathCut,
        Move::PathCutAndRestored,
    ];

    /// Describes the change.
    pub fn describe(self) -> &'static str {
        match self {
            Move::MappingsFlushed => "both routers forget their mappings",
            Move::ReceiverAddress => "the receiver's machine changes its address",
            Move::SenderAddress => "the sender's machine changes its address",
            Move::ReceiverRouter => "the receiver's router changes its address",
            Move::SenderRouter => "the sender's router changes its address",
            Move::PathCut => "the path between the two is cut",
            Move::PathCutAndRestored => "the path is cut, and restored after 1 MB",
        }
    }

    /// Size of the file: some 6 s at [`RATE`], so that the change falls into the transfer. To leave
    /// the relay it takes longer: the node looks for another path after 1, 3 and 7 s, which are 14
    /// MB.
    fn file_bytes(self) -> usize {
        match self {
            Move::PathCutAndRestored => 24_000_000,
            _ => 12_000_000,
        }
    }

    fn happen(self, lab: &Lab, sender: &Host, receiver: &Host) -> Result<(), LabError> {
        let router = |host| lab.routers_of(host).next().unwrap();
        match self {
            Move::MappingsFlushed => {
                router(sender).flush_mappings()?;
                router(receiver).flush_mappings()
            }
            Move::ReceiverAddress => receiver.change_address(),
            Move::SenderAddress => sender.change_address(),
            Move::ReceiverRouter => router(receiver).change_address(),
            Move::SenderRouter => router(sender).change_address(),
            Move::PathCut | Move::PathCutAndRestored => lab.sever(sender, receiver),
        }
    }
}

/// The outcome of a transfer.
#[derive(Debug)]
pub struct Survived {
    /// Longest time without payload after the change.
    pub gap: Duration,
    /// Output of `get --json`.
    pub report: Value,
}

/// Runs a transfer between two nodes behind home routers and applies the change in the middle of
/// it. Checks the bytes received.
pub fn survive(program: &Path, what: Move) -> Survived {
    let link = Link::with_rate(RATE.parse().unwrap());
    let host = |name| HostPlan::new(name).nat(NatKind::Cone).link(link);
    let lab = Lab::builder()
        .host(HostPlan::new("tracker"))
        .host(host("sender"))
        .host(host("receiver"))
        .build()
        .unwrap();
    let (tracker, sender, receiver) = (
        lab.host("tracker"),
        lab.host("sender"),
        lab.host("receiver"),
    );
    let world = Networked::new(program.to_owned());
    let bytes = noise(what.file_bytes(), 7);
    world.share(sender, FILE, &bytes);
    let _tracker = world.tracker(tracker, &[]);
    let _node = world.node(sender, tracker, &[]);
    world.wait_listed(tracker, FILE);
    let mut get = world.get(receiver, tracker, &["-vv", FILE]);
    wait_received(receiver, &mut get, BEFORE_BYTES);
    what.happen(&lab, sender, receiver).unwrap();
    let mut gap = Duration::ZERO;
    if what == Move::PathCutAndRestored {
        let carried = receiver.counters().unwrap().received_bytes + RELAYED_BYTES;
        gap = longest_gap(receiver, &mut get, Some(carried));
        lab.mend(sender, receiver).unwrap();
    }
    gap = gap.max(longest_gap(receiver, &mut get, None));
    let ended = get.end().well();
    if std::env::var_os("NAT_VERBOSE").is_some() {
        eprintln!("{}", ended.err);
    }
    assert_same(&world.dir(receiver).join(FILE), &bytes);
    let report = ended.json().remove(0);
    Survived { gap, report }
}

/// Waits until a host has received `bytes`, or until the process has ended.
fn wait_received(host: &Host, until: &mut Process, bytes: u64) {
    while host.counters().unwrap().received_bytes < bytes && until.has_ended().is_none() {
        thread::sleep(LOOK);
    }
}

/// Returns the longest time without payload, until the process ends or the host has received
/// `bytes` since its start.
fn longest_gap(host: &Host, until: &mut Process, received: Option<u64>) -> Duration {
    let mut gap = Duration::ZERO;
    let (mut last, mut last_at) = (host.counters().unwrap(), Instant::now());
    while until.has_ended().is_none() && received.is_none_or(|bytes| last.received_bytes < bytes) {
        thread::sleep(LOOK);
        let now = host.counters().unwrap();
        if now.since(last).received_bytes >= NOTHING_BYTES {
            gap = gap.max(last_at.elapsed());
            last_at = Instant::now();
        }
        last = now;
    }
    gap
}
