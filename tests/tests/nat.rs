//! Nodes behind routers reach each other, on the way that should be possible.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use qshare_tests::binary;
use qshare_tests::files::{assert_same, noise};
use qshare_tests::lab::{HostPlan, Lab, NatKind, isolation};
use qshare_tests::moves::{self, Move};
use qshare_tests::networked::{Networked, paths};

const FILE: &str = "file.bin";

/// Two hosts like these, b downloads from a: the way that it took.
fn path_between(a: HostPlan, b: HostPlan, of_tracker: &[&str]) -> String {
    let lab = Lab::builder()
        .host(HostPlan::new("tracker"))
        .host(a)
        .host(b)
        .build()
        .unwrap();
    let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
    let world = Networked::new(binary::path().to_owned());
    let bytes = noise(3_000_000, 1);
    world.share(a, FILE, &bytes);
    let _tracker = world.tracker(tracker, of_tracker);
    let _node = world.node(a, tracker, &[]);
    world.wait_listed(tracker, FILE);
    let ended = world.get(b, tracker, &["-vv", FILE]).end().well();
    assert_same(&world.dir(b).join(FILE), &bytes);
    paths(&ended.json()[0]).remove(0)
}

fn host(name: &str, nat: NatKind) -> HostPlan {
    HostPlan::new(name).nat(nat)
}

#[test]
fn two_behind_home_routers_reach_each_other_directly() {
    isolation::test(|| {
        let path = path_between(host("a", NatKind::Cone), host("b", NatKind::Cone), &[]);
        assert_eq!(path, "direct");
    });
}

#[test]
fn two_behind_one_router_use_its_network() {
    isolation::test(|| {
        let b = HostPlan::new("b").sharing_router_of("a");
        assert_eq!(path_between(host("a", NatKind::Cone), b, &[]), "lan");
    });
}

#[test]
fn who_is_behind_a_symmetric_router_reaches_and_is_reached_by_a_public_address() {
    isolation::test(|| {
        for (a, b) in [
            (NatKind::Open, NatKind::Symmetric),
            (NatKind::Symmetric, NatKind::Open),
        ] {
            assert_eq!(path_between(host("a", a), host("b", b), &[]), "direct");
        }
    });
}

#[test]
fn two_behind_symmetric_routers_use_the_relay() {
    isolation::test(|| {
        let (a, b) = (host("a", NatKind::Symmetric), host("b", NatKind::Symmetric));
        assert_eq!(path_between(a, b, &[]), "relay");
    });
}

#[test]
fn without_a_relay_it_is_said_what_was_tried() {
    isolation::test(|| {
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .host(host("a", NatKind::Symmetric))
            .host(host("b", NatKind::Symmetric))
            .build()
            .unwrap();
        let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
        let world = Networked::new(binary::path().to_owned());
        world.share(a, FILE, b"something");
        let _tracker = world.tracker(tracker, &["--no-relay"]);
        let _node = world.node(a, tracker, &[]);
        world.wait_listed(tracker, FILE);
        let ended = world.get(b, tracker, &[FILE]).end();
        ended
            .with(5)
            .saying("no answer to probes of 1 addresses")
            .saying("the tracker does not relay");
    });
}

/// The transfer goes on: what had come is not fetched again.
fn assert_survives(what: Move) -> Vec<String> {
    let survived = moves::survive(binary::path(), what);
    let report = &survived.report;
    eprintln!("{}: {:?} {report}", what.describe(), survived.gap);
    let (size, wasted) = (
        report["size"].as_u64().unwrap(),
        report["wasted_bytes"].as_u64().unwrap(),
    );
    assert!(wasted < size / 4, "{report}");
    paths(report)
}

#[test]
fn a_transfer_survives_routers_that_forget() {
    isolation::test(|| {
        assert_survives(Move::MappingsFlushed);
    });
}

#[test]
fn a_transfer_survives_a_new_address_on_either_side() {
    isolation::test(|| {
        for what in [
            Move::ReceiverAddress,
            Move::SenderAddress,
            Move::ReceiverRouter,
            Move::SenderRouter,
        ] {
            assert_survives(what);
        }
    });
}

#[test]
fn a_transfer_whose_path_is_cut_goes_on_through_the_relay() {
    isolation::test(|| {
        let paths = assert_survives(Move::PathCut);
        assert!(paths.contains(&"relay".to_owned()), "{paths:?}");
    });
}
