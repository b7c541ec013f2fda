//! Routers that map ports on request, and routers that claim to.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;

use qshare_tests::binary;
use qshare_tests::files::{assert_same, noise};
use qshare_tests::lab::{Asked, Host, HostPlan, Lab, NatKind, Router, isolation, missing_daemon};
use qshare_tests::networked::{Networked, paths};
use qshare_tests::process::{Process, Signal, eventually, run};
use serde_json::Value;

const FILE: &str = "file.bin";
const PORT: u16 = 64500;

/// A shares, behind a router that gives each destination another port, as B's does: without
/// mapped ports they need the relay.
struct Case {
    lab: Lab,
    world: Networked,
    tracker: Option<Process>,
}

impl Case {
    fn new() -> Case {
        let symmetric = |name| HostPlan::new(name).nat(NatKind::Symmetric);
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .host(symmetric("a"))
            .host(symmetric("b"))
            .host(HostPlan::new("neighbour").sharing_router_of("a"))
            .build()
            .unwrap();
        let world = Networked::new(binary::path().to_owned());
        let tracker = world.tracker(lab.host("tracker"), &[]);
        Case {
            lab,
            world,
            tracker: Some(tracker),
        }
    }

    fn restart_tracker(&mut self) {
        self.tracker = None;
        self.tracker = Some(self.world.tracker(self.lab.host("tracker"), &[]));
    }

    fn host(&self, name: &str) -> &Host {
        self.lab.host(name)
    }

    fn router_of_a(&self) -> &Router {
        self.lab.routers_of(self.host("a")).next().unwrap()
    }

    fn share(&self) -> (Vec<u8>, Process) {
        let bytes = noise(300_000, 1);
        self.world.share(self.host("a"), FILE, &bytes);
        let node = self
            .world
            .node(self.host("a"), self.host("tracker"), &["-vv"]);
        (bytes, node)
    }

    /// Returns the path on which B fetches it.
    fn path(&self, bytes: &[u8]) -> String {
        self.world.wait_listed(self.host("tracker"), FILE);
        let (b, tracker) = (self.host("b"), self.host("tracker"));
        let ended = self.world.get(b, tracker, &["-vv", FILE]).end().well();
        assert_same(&self.world.dir(b).join(FILE), bytes);
        paths(&ended.json()[0]).remove(0)
    }

    /// Returns whether the tracker tells others A's mapped port.
    fn is_offered(&self) -> bool {
        let mut command = self.world.command(self.host("b"), "ls");
        let tracker = format!("{}:65000", self.host("tracker").address());
        command.args(["--links", "--addresses", "--tracker", &tracker]);
        let mapped = format!("@{}:{PORT}", self.router_of_a().outside_address());
        let said = run(command).well().out;
        assert!(said.contains(",a="), "{said}");
        said.contains(&mapped)
    }

    /// Returns the output of `qshare net` on A.
    fn net(&self) -> Value {
        self.world
            .net(self.host("a"), self.host("tracker"))
            .end()
            .well()
            .json()
            .remove(0)
    }

    /// `status` of a node that was started with a prompt.
    fn status(node: &mut Process) -> Value {
        node.input().write_all(b"status\n").unwrap();
        let line = eventually("a status", || {
            let text = node.out.text();
            let mut lines = text.lines();
            lines
                .rfind(|line| line.contains("\"port_mapping\""))
                .map(str::to_owned)
        });
        serde_json::from_str(&line).unwrap()
    }
}

/// The daemon is no part of the lab: it has to be installed.
fn skipped() -> bool {
    let Some(reason) = missing_daemon() else {
        return false;
    };
    let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!is_ci, "{reason}");
    eprintln!("SKIPPED: {reason}");
    true
}

#[test]
fn a_mapped_port_lets_in_those_who_would_need_the_relay() {
    isolation::test(|| {
        if skipped() {
            return;
        }
        for (asked, said) in [(Asked::ByPcp, "by PCP"), (Asked::ByUpnp, "by UPnP")] {
            let case = Case::new();
            let router = case.router_of_a();
            let daemon = router.map_ports(asked).unwrap();
            // A mapping made for a diagnosis is released.
            let found = case.net()["port_mapping"].clone();
            assert_eq!(found["state"], "proven", "{found} {}", daemon.log());
            assert_eq!(router.mapped_ports().unwrap(), 0, "{}", daemon.log());
            let (bytes, node) = case.share();
            node.says("reachable at");
            let said_so = node.err.text();
            assert!(said_so.contains(said), "{said_so}");
            assert_eq!(router.mapped_ports().unwrap(), 1, "{}", daemon.log());
            assert_eq!(case.path(&bytes), "direct");
            assert!(case.is_offered());
            // A mapping that is not needed any more is released.
            node.signal(Signal::TERM);
            node.end().well();
            assert_eq!(router.mapped_ports().unwrap(), 0, "{}", daemon.log());
        }
    });
}

#[test]
fn a_router_that_has_forgotten_is_asked_anew() {
    isolation::test(|| {
        if skipped() {
            return;
        }
        let mut case = Case::new();
        let daemon = case.router_of_a().map_ports(Asked::ByPcp).unwrap();
        let (bytes, node) = case.share();
        node.says("reachable at");
        drop(daemon);
        case.router_of_a().forget_mapped_ports().unwrap();
        let daemon = case.router_of_a().map_ports(Asked::ByPcp).unwrap();
        assert_eq!(case.router_of_a().mapped_ports().unwrap(), 0);
        // Otherwise it would be noticed within two minutes.
        case.restart_tracker();
        let router = case.router_of_a();
        eventually("the port is mapped again", || {
            (router.mapped_ports().unwrap() == 1).then_some(())
        });
        case.world.wait_listed(case.host("tracker"), FILE);
        eventually("it is offered again", || case.is_offered().then_some(()));
        assert_eq!(case.path(&bytes), "direct", "{}", daemon.log());
    });
}

#[test]
fn a_router_that_is_not_asked_maps_nothing() {
    isolation::test(|| {
        if skipped() {
            return;
        }
        let case = Case::new();
        let router = case.router_of_a();
        let _daemon = router.map_ports(Asked::ByPcp).unwrap();
        let bytes = noise(300_000, 1);
        case.world.share(case.host("a"), FILE, &bytes);
        let more = ["--no-port-mapping"];
        let _node = case.world.node(case.host("a"), case.host("tracker"), &more);
        assert_eq!(case.path(&bytes), "relay");
        assert_eq!(router.mapped_ports().unwrap(), 0);
    });
}

#[test]
fn a_router_that_lies_is_not_believed() {
    isolation::test(|| {
        for to_neighbour in [false, true] {
            let case = Case::new();
            let neighbour = case.host("neighbour").address();
            let liar = case
                .router_of_a()
                .lie_about_ports(to_neighbour.then_some(neighbour))
                .unwrap();
            let (bytes, node) = case.share();
            node.says("unverified");
            assert!(liar.was_asked());
            assert_eq!(case.net()["port_mapping"]["state"], "not-proven");
            assert_eq!(case.path(&bytes), "relay");
            assert!(!case.is_offered());
        }
    });
}

#[test]
fn status_tells_of_the_port() {
    isolation::test(|| {
        let case = Case::new();
        let _liar = case.router_of_a().lie_about_ports(None).unwrap();
        let mut command = case.world.command(case.host("a"), "node");
        let tracker = format!("{}:65000", case.host("tracker").address());
        command.args(["--json", "--certs", "certs", "-vv", "--tracker", &tracker]);
        let mut node = Process::start(command);
        node.ready();
        node.says("unverified");
        let told = Case::status(&mut node)["port_mapping"].clone();
        assert_eq!(told["state"], "not-proven", "{told}");
        assert_eq!(told["protocol"], "NAT-PMP");
        assert_eq!(told["port"], PORT);
    });
}
