//! Nodes behind routers reach each other, on the best path that the routers permit.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use qshare_tests::binary;
use qshare_tests::files::{assert_same, noise};
use qshare_tests::lab::{Host, HostPlan, Lab, Link, NatKind, isolation};
use qshare_tests::mappings;
use qshare_tests::moves::{self, Move};
use qshare_tests::networked::{Networked, paths};

const FILE: &str = "file.bin";

/// Returns the path that a download of `b` from `a` took.
fn path_between(a: HostPlan, b: HostPlan, of_tracker: &[&str]) -> String {
    paths_between(a, b, of_tracker, &[]).remove(0)
}

/// Returns all paths of a download of `b` from `a`, most bytes first, with options of both nodes.
fn paths_between(a: HostPlan, b: HostPlan, of_tracker: &[&str], of_nodes: &[&str]) -> Vec<String> {
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
    let _node = world.node(a, tracker, of_nodes);
    world.wait_listed(tracker, FILE);
    let arguments = [&["-vv", FILE], of_nodes].concat();
    let ended = world.get(b, tracker, &arguments).end().well();
    assert_same(&world.dir(b).join(FILE), &bytes);
    paths(&ended.json()[0])
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
fn a_folder_is_fetched_through_two_home_routers() {
    isolation::test(|| {
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .host(host("a", NatKind::Cone))
            .host(host("b", NatKind::Cone))
            .build()
            .unwrap();
        let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
        let world = Networked::new(binary::path().to_owned());
        let name = |at: u64| format!("docs/{}/{at}", at % 5);
        for at in 0..20 {
            world.share(a, &name(at), &noise(1000, at));
        }
        let big = noise(2_000_000, 1);
        world.share(a, "docs/big.bin", &big);
        let _tracker = world.tracker(tracker, &[]);
        let _node = world.node(a, tracker, &[]);
        for at in 0..20 {
            world.wait_listed(tracker, &name(at));
        }
        world.wait_listed(tracker, "docs/big.bin");
        let ended = world.get(b, tracker, &["docs/"]).end().well();
        let rows = ended.json();
        let of_big = rows.iter().find(|row| row["name"] == "big.bin").unwrap();
        assert_eq!(paths(of_big)[0], "direct");
        assert_eq!(rows.last().unwrap()["files"], 21);
        for at in 0..20 {
            assert_same(&world.dir(b).join(name(at)), &noise(1000, at));
        }
        assert_same(&world.dir(b).join("docs/big.bin"), &big);
    });
}

/// Both learn of each other at the same moment, and dial.
#[test]
fn two_who_dial_each_other_at_once_are_connected() {
    isolation::test(|| {
        let far = Link {
            delay: Duration::from_millis(20),
            ..Link::default()
        };
        // The download takes long enough for the punch to succeed.
        let seed = Link {
            up: Some("20mbit".parse().unwrap()),
            ..far
        };
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .host(HostPlan::new("seed").link(seed))
            .host(HostPlan::new("a").link(far))
            .host(HostPlan::new("b").link(far))
            .build()
            .unwrap();
        let (tracker, seed) = (lab.host("tracker"), lab.host("seed"));
        let world = Networked::new(binary::path().to_owned());
        world.share(seed, FILE, &noise(3_000_000, 1));
        let _tracker = world.tracker(tracker, &[]);
        let _node = world.node(seed, tracker, &[]);
        world.wait_listed(tracker, FILE);
        let gets = ["a", "b"].map(|name| {
            let arguments = ["-vv", "--seed", FILE];
            world.get(lab.host(name), tracker, &arguments)
        });
        for get in &gets {
            get.says("serving the downloaded files");
            let log = get.err.text();
            let came = log.matches(": connected peer=").count();
            let went = log.matches(": disconnected peer=").count();
            assert!(came - went >= 2, "with the seed and each other\n{log}");
        }
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

/// Without a relay: the 2,048 probes miss in 0.03 % of the cases.
#[test]
fn a_symmetric_router_and_a_home_router_are_passed_by_many_probes() {
    isolation::test(|| {
        for (a, b) in [
            (NatKind::Cone, NatKind::Symmetric),
            (NatKind::Symmetric, NatKind::Cone),
        ] {
            let (a, b) = (host("a", a), host("b", b));
            let paths = paths_between(a, b, &["--no-relay"], &["--punch-hard"]);
            assert_eq!(paths, ["direct"]);
        }
    });
}

/// Shares a file at `a`, with a tracker that relays nothing. Calls `check` with the hosts of the
/// tracker and of `b`.
fn without_relay(a: NatKind, b: NatKind, check: impl FnOnce(&Networked, &Host, &Host)) {
    let lab = Lab::builder()
        .host(HostPlan::new("tracker"))
        .host(host("a", a))
        .host(host("b", b))
        .build()
        .unwrap();
    let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
    let world = Networked::new(binary::path().to_owned());
    world.share(a, FILE, b"something");
    let _tracker = world.tracker(tracker, &["--no-relay"]);
    let _node = world.node(a, tracker, &[]);
    world.wait_listed(tracker, FILE);
    check(&world, tracker, b);
}

#[test]
fn many_probes_are_sent_only_where_both_agree() {
    isolation::test(|| {
        without_relay(NatKind::Cone, NatKind::Symmetric, |world, tracker, b| {
            let before = b.counters().unwrap();
            let ended = world.get(b, tracker, &["--punch-hard", FILE]).end();
            let ended = ended.with(5).saying("no answer to probes of 1 address");
            assert!(!ended.err.contains("ports"), "{}", ended.err);
            let sent = b.counters().unwrap().since(before);
            assert!(sent.sent_packets < 1000, "{sent:?}");
        });
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
        let symmetric = NatKind::Symmetric;
        without_relay(symmetric, symmetric, |world, tracker, b| {
            let ended = world.get(b, tracker, &[FILE]).end();
            ended
                .with(5)
                .saying("no answer to probes of 1 address")
                .saying("relay: the tracker offers none");
        });
    });
}

/// The transfer continues; received bytes are not fetched again.
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

#[test]
fn a_transfer_whose_path_is_restored_leaves_the_relay_again() {
    isolation::test(|| {
        let survived = moves::survive(binary::path(), Move::PathCutAndRestored);
        let report = &survived.report;
        eprintln!("{:?} {report}", survived.gap);
        let bytes = |path: &str| {
            let sources = report["sources"].as_array().unwrap().iter();
            let of_path = sources.filter(|source| source["path"] == path);
            of_path
                .map(|source| source["bytes"].as_u64().unwrap())
                .sum::<u64>()
        };
        // Twice of what had come directly before it was cut: it has left the relay.
        assert!(bytes("relay") > 0, "{report}");
        assert!(bytes("direct") > 2 * moves::BEFORE_BYTES, "{report}");
    });
}

/// Mappings time out after 2 s. One packet per second keeps them; without it they are lost.
#[test]
fn a_connection_on_which_nothing_happens_outlives_the_mapping() {
    isolation::test(|| {
        let (mapping, idle) = (Duration::from_secs(2), Duration::from_secs(6));
        let kept = |keep_alive| mappings::is_heard_after(idle, mapping, keep_alive);
        assert!(kept(Duration::from_millis(700)));
        assert!(!kept(Duration::from_secs(20)));
    });
}
