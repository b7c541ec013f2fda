//! `qshare net` determines the kind of NAT.

use qshare_tests::binary;
use qshare_tests::lab::{HostPlan, Lab, NatKind, isolation};
use qshare_tests::networked::Networked;
use qshare_tests::process::run;
use qshare_tests::world::World;

/// Name, router, and the expected kind, mapping and filtering.
const KINDS: [(&str, NatKind, [&str; 3]); 4] = [
    ("open", NatKind::Open, ["open", "none", "open"]),
    ("cone", NatKind::Cone, ["cone", "same", "answers"]),
    (
        "symmetric",
        NatKind::Symmetric,
        ["symmetric", "per-destination", "answers"],
    ),
    // Two home routers, one behind the other, do what each of them does.
    ("double", NatKind::Double, ["cone", "same", "answers"]),
];

#[test]
fn every_kind_of_router_is_told_right() {
    isolation::test(|| {
        let hosts = KINDS.map(|(name, nat, _)| HostPlan::new(name).nat(nat));
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .hosts(hosts)
            .build()
            .unwrap();
        let tracker = lab.host("tracker");
        let world = Networked::new(binary::path().to_owned());
        let _tracker = world.tracker(tracker, &[]);
        let looking = KINDS.map(|(name, ..)| world.net(lab.host(name), tracker));
        for ((name, _, wanted), process) in KINDS.into_iter().zip(looking) {
            let found = process.end().well().json().remove(0);
            let ipv4 = &found["ipv4"];
            let told = ["kind", "mapping", "filtering"].map(|field| ipv4[field].as_str().unwrap());
            assert_eq!(told, wanted, "{name}: {found}");
            let host = lab.host(name);
            assert_eq!(ipv4["local"], host.address().to_string(), "{found}");
            let outside = match lab.routers_of(host).last() {
                Some(router) => router.outside_address(),
                None => host.address(),
            };
            let seen_at = ipv4["seen_at"].as_str().unwrap();
            assert!(seen_at.starts_with(&format!("{outside}:")), "{found}");
            assert_eq!(found["ipv6"]["reached"], false, "{found}");
            let asked = match name {
                "open" => "not-asked",
                _ => "none",
            };
            assert_eq!(found["port_mapping"]["state"], asked, "{found}");
        }
    });
}

#[test]
fn what_cannot_be_told_is_not_guessed() {
    isolation::test(|| {
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .host(HostPlan::new("cone").nat(NatKind::Cone))
            .build()
            .unwrap();
        let (tracker, cone) = (lab.host("tracker"), lab.host("cone"));
        let world = Networked::new(binary::path().to_owned());
        let _tracker = world.tracker(tracker, &[]);
        let mut shut = tracker.command("nft");
        shut.arg(
            "add table inet shut; \
             add chain inet shut input { type filter hook input priority 0; }; \
             add rule inet shut input udp dport 65001 drop",
        );
        run(shut).well();
        let found = world.net(cone, tracker).end().well().json().remove(0);
        let ipv4 = &found["ipv4"];
        assert_eq!(ipv4["kind"], "unknown", "{found}");
        assert_eq!(ipv4["mapping"], "unknown", "{found}");
        assert_eq!(ipv4["filtering"], "unknown", "{found}");
        assert!(ipv4["cause"].as_str().unwrap().contains("65001"), "{found}");
    });
}

#[test]
fn ipv6_is_looked_at_for_itself() {
    isolation::test(|| {
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .host(HostPlan::new("open"))
            .host(HostPlan::new("cone").nat(NatKind::Cone).ipv6())
            .build()
            .unwrap();
        let tracker = lab.host("tracker");
        let address = tracker.address_v6().unwrap();
        let world = Networked::new(binary::path().to_owned()).tracker_at(address.into());
        let _tracker = world.tracker(tracker, &[]);
        let looking = ["open", "cone"].map(|name| world.net(lab.host(name), tracker));
        for (wanted, process) in ["open", "firewall"].into_iter().zip(looking) {
            let found = process.end().well().json().remove(0);
            assert_eq!(found["ipv6"]["kind"], wanted, "{found}");
            assert_eq!(found["ipv4"]["reached"], false, "{found}");
        }
    });
}

#[test]
fn a_tracker_that_is_not_there_or_on_this_machine_is_named() {
    let world = World::new();
    let tracker = world.tracker();
    let at = tracker.address.to_string();
    let told = world.run("a", &["net", "--tracker", &at]).well();
    assert!(
        told.out.contains("the tracker is on this machine"),
        "{}",
        told.out
    );
    // No process listens there any more.
    drop(tracker);
    let nobody = world.run("a", &["net", "--tracker", &at]);
    nobody.with(5).saying(&at).saying("--tracker HOST:PORT");
}
