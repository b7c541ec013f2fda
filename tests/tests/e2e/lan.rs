//! Discovery on the local network without a tracker: the real program, in namespaces.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use mdns_sd::{ServiceDaemon, ServiceInfo};
use qshare_content::{Link, PlainDigest};
use qshare_net::framed::{self, ReadError};
use qshare_net::{DialTarget, Identity, dial};
use qshare_tests::binary;
use qshare_tests::files::{self, assert_same, noise};
use qshare_tests::lab::{Host, HostPlan, Lab, NatKind, isolation};
use qshare_tests::process::{Ended, PATIENCE, Process, eventually, run};
use qshare_tests::tracker_client::{endpoint, greeting};
use qshare_tests::world::{Node, World};
use qshare_wire::Refusal;
use qshare_wire::hello::Role;
use qshare_wire::tracker::{Find, Found};
use tokio::runtime::Builder;

const MIB: usize = 1 << 20;
/// Address of multicast DNS.
const MDNS: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);

/// `a`, `b` and `c` at home, that is on one segment behind a router, and somebody on the internet.
fn home() -> Lab {
    Lab::builder()
        .host(HostPlan::new("a").nat(NatKind::Cone).ipv6())
        .host(HostPlan::new("b").sharing_router_of("a"))
        .host(HostPlan::new("c").sharing_router_of("a"))
        .host(HostPlan::new("far"))
        .build()
        .unwrap()
}

/// Returns a command of the program on a host, in a directory of the world.
fn on(host: &Host, world: &World, place: &str, arguments: &[&str]) -> Command {
    let mut command = host.command(binary::path());
    let dir = world.dir(place);
    command.args(arguments).env("HOME", &dir).current_dir(&dir);
    command
}

fn node(host: &Host, world: &World, place: &str, more: &[&str]) -> Node {
    let mut command = on(host, world, place, &["node", "--json", "--no-prompt"]);
    command.args(["--certs", "certs"]).args(more);
    Node::start(command)
}

/// Receives all multicast DNS on a host's network.
fn listen(host: &Host) -> UdpSocket {
    let bind = || {
        let (v4, datagrams) = (socket2::Domain::IPV4, socket2::Type::DGRAM);
        let socket = socket2::Socket::new(v4, datagrams, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, MDNS.1)).into())?;
        socket.join_multicast_v4(&MDNS.0, &host.address())?;
        std::io::Result::Ok(UdpSocket::from(socket))
    };
    host.inside(bind).unwrap().unwrap()
}

/// Returns the packets received so far.
fn heard(ears: &UdpSocket) -> Vec<u8> {
    ears.set_nonblocking(true).unwrap();
    let (mut all, mut buffer) = (Vec::new(), vec![0; 65536]);
    while let Ok(length) = ears.recv(&mut buffer) {
        all.extend_from_slice(&buffer[..length]);
    }
    all
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// A node at `a` with two files, no tracker anywhere.
fn sharing(lab: &Lab, bytes: &[u8], more: &[&str]) -> (World, Node) {
    let world = World::new();
    world.put("a", "films/a.bin", bytes);
    world.put("a", "b.txt", b"small");
    let node = node(lab.host("a"), &world, "a", more);
    node.process.says("sharing 2 files");
    (world, node)
}

fn names(listed: &Ended) -> Vec<String> {
    let name = |file: &serde_json::Value| file["name"].as_str().unwrap().to_owned();
    listed.json().iter().map(name).collect()
}

#[test]
fn names_globs_and_ids_lead_to_files_on_this_network_with_no_tracker() {
    isolation::test(|| {
        let lab = home();
        let bytes = noise(3 * MIB, 1);
        let (world, node) = sharing(&lab, &bytes, &["--sha256"]);
        let b = |arguments: &[&str]| run(on(lab.host("b"), &world, "b", arguments));
        let digest = format!("sha256:{}", PlainDigest::of(&bytes));
        eventually("the digest is stated", || {
            let listed = b(&["ls", "--json", &digest]);
            (listed.code == Some(0) && names(&listed) == ["films/a.bin"]).then_some(())
        });

        let begun = Instant::now();
        let listed = b(&["ls", "--json"]).well();
        println!("ls took {:?}", begun.elapsed());
        assert_eq!(names(&listed), ["b.txt", "films/a.bin"]);
        let id = listed.json()[1]["content"].as_str().unwrap().to_owned();

        // A query by ID leaves the name open: a stranger's directories are not created.
        for (place, wanted, path) in [
            ("by-name", "films/a.bin", "films/a.bin"),
            ("by-glob", "**/a.*", "films/a.bin"),
            ("by-id", &*id, "a.bin"),
            ("by-digest", &digest, "a.bin"),
            ("by-prefix", &format!("id:{}", &id[..12]), "a.bin"),
            (
                "by-node",
                &format!("{}/films/a.bin", node.id),
                "films/a.bin",
            ),
        ] {
            let begun = Instant::now();
            let got = b(&["get", "--json", wanted, "-o", &format!("{place}/")]).well();
            println!("get {wanted} took {:?}", begun.elapsed());
            assert_same(&world.path("b").join(place).join(path), &bytes);
            let source = &got.json()[0]["sources"][0];
            assert_eq!(
                (source["path"].as_str(), source["node"].as_str()),
                (Some("lan"), Some(&*node.id))
            );
        }
        b(&["get", "b.txt"]).well();
        assert_same(&world.path("b/b.txt"), b"small");

        // The node is there and answers: what it does not have is not found, which is not the
        // same as nobody there.
        b(&["get", "c.txt"]).with(3);

        // A link made here names the node, since there is no tracker to name.
        let links = b(&["ls", "--links", "b.txt"]).well().out;
        let names_it = |at: IpAddr| {
            let place = SocketAddr::new(at, 64500).to_string();
            let place = place.replace('[', "%5B").replace(']', "%5D");
            links.contains(&format!(",a={}@{place}", node.id))
        };
        // The link names an address of the family that was discovered first.
        assert!(lab.host("a").addresses().any(names_it), "{links}");
        let link = links.trim();
        run(on(lab.host("c"), &world, "c", &["get", "--no-lan", link])).well();
        assert_same(&world.path("c/b.txt"), b"small");
    });
}

#[test]
fn a_tracker_that_knows_is_believed_and_one_that_does_not_is_helped_out() {
    isolation::test(|| {
        let lab = home();
        let bytes = noise(3 * MIB, 2);
        let (world, _node) = sharing(&lab, &bytes, &[]);
        let tracker = on(
            lab.host("far"),
            &world,
            "far",
            &["tracker", "--json", "--certs", "certs"],
        );
        let tracker = Process::start(tracker);
        tracker.ready();
        let at = format!("{}:65000", lab.host("far").address());
        // The tracker has not heard of the node, which knows no tracker.
        let get = ["get", "--json", "films/a.bin", "--tracker", &at];
        run(on(lab.host("b"), &world, "b", &get)).well();
        assert_same(&world.path("b/films/a.bin"), &bytes);
        // And a node that the tracker does know is reached inside the network.
        world.put("c", "c.bin", &bytes);
        let c = node(lab.host("c"), &world, "c", &["--tracker", &at]);
        c.process.says("connected");
        let get = ["get", "--json", "--wait=20", "c.bin", "--tracker", &at];
        let got = run(on(lab.host("b"), &world, "b", &get)).well();
        assert_eq!(got.json()[0]["sources"][0]["path"], "lan");
    });
}

#[test]
fn downloads_on_this_network_help_each_other_with_no_tracker() {
    isolation::test(|| {
        let lab = home();
        let bytes = noise(8 * MIB, 3);
        let (world, first) = sharing(&lab, &bytes, &[]);
        let get = ["get", "--json", "--seed", "films/a.bin"];
        let seeding = Process::start(on(lab.host("b"), &world, "b", &get));
        seeding.out_line(|line| line.contains("films/a.bin").then_some(()));
        // Only the one that downloaded it is left.
        drop(first);
        let get = ["get", "--json", "--wait=30", "films/a.bin"];
        run(on(lab.host("c"), &world, "c", &get)).well();
        assert_same(&world.path("c/films/a.bin"), &bytes);
    });
}

#[test]
fn a_group_is_found_by_its_members_only_and_what_is_multicast_gives_nothing_away() {
    isolation::test(|| {
        let lab = home();
        let ears = listen(lab.host("c"));
        let bytes = noise(3 * MIB, 4);
        let world = World::new();
        world.run("keys", &["group", "new", "team.group"]).well();
        let group = world.path("keys/team.group");
        let secret = std::fs::read_to_string(&group).unwrap();
        let group = group.to_str().unwrap();
        world.put("a", "films/a.bin", &bytes);
        let node = node(lab.host("a"), &world, "a", &["--group", group]);
        node.process.says("sharing 1 file");

        let get = ["get", "films/a.bin", "--group", group];
        run(on(lab.host("b"), &world, "member", &get)).well();
        assert_same(&world.path("member/films/a.bin"), &bytes);
        // Others cannot tell it from a node of another group.
        run(on(lab.host("b"), &world, "other", &["ls"])).with(5);

        let said = heard(&ears);
        assert!(contains(&said, &node.id), "nothing was heard");
        assert!(!contains(&said, "a.bin") && !contains(&said, "films"));
        assert!(!contains(&said, secret.trim()));
    });
}

#[test]
fn with_no_lan_a_node_is_silent_and_not_found() {
    isolation::test(|| {
        let lab = home();
        let ears = listen(lab.host("c"));
        let (world, node) = sharing(&lab, &noise(1000, 5), &["--no-lan"]);
        let begun = Instant::now();
        run(on(lab.host("b"), &world, "b", &["ls"])).with(5);
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
        assert!(!contains(&heard(&ears), &node.id));
        assert!(!node.process.err.text().contains("other node"));
    });
}

#[test]
fn a_node_tells_strangers_from_elsewhere_what_it_has_only_through_a_tracker() {
    // Here on loopback, with discovery off.
    let world = World::new();
    world.put("node", "a.txt", b"a");
    let node = world.node("node", "127.0.0.1:9".parse().unwrap());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let refused = runtime.block_on(async {
        let endpoint = endpoint(&Identity::ephemeral().unwrap());
        let greeting = greeting(Role::OneShot, None);
        let target = DialTarget::Node(node.id.parse().unwrap());
        let session = dial(&endpoint, &greeting, target, node.address, PATIENCE).await;
        let find = Find {
            query: "**".parse().unwrap(),
            after: None,
            limit: 10,
            holders: 0,
            extensions: Vec::new(),
        };
        let connection = session.unwrap().connection;
        framed::ask::<Find, Found>(&connection, &find).await
    });
    let Err(ReadError::Refused(refused)) = refused else {
        panic!("it was answered")
    };
    assert_eq!(refused.refusal(), Refusal::NotAllowed);
}

#[test]
fn nobody_is_led_off_the_network_or_to_somebody_else_on_it() {
    isolation::test(|| {
        let lab = home();
        let (world, node) = sharing(&lab, b"", &[]);
        // Somebody at `c` says that nodes are on the internet, and that the node at `a` is at `c`.
        let bait = |host: &Host, ip: IpAddr| {
            host.inside(|| UdpSocket::bind((ip, 7000)))
                .unwrap()
                .unwrap()
        };
        let far = bait(lab.host("far"), lab.host("far").address().into());
        let near = bait(lab.host("c"), lab.host("c").address().into());
        let liar = lab.host("c").inside(ServiceDaemon::new).unwrap().unwrap();
        let say = |id: &str, at: IpAddr| {
            let properties = [("v", "1")];
            let kind = "_qshare._udp.local.";
            let host = format!("{id}.local.");
            let mut info = ServiceInfo::new(kind, id, &host, at, 7000, &properties[..]).unwrap();
            info.set_requires_probe(false);
            liar.register(info).unwrap();
        };
        let other = world.run("x", &["id", "--json", "--certs", "certs"]).well();
        let other = other.json()[0]["node"].as_str().unwrap().to_owned();
        say(&other, lab.host("far").address().into());
        say(&node.id, lab.host("c").address().into());

        // The liar does not keep the node from being found for long: others hear both of them.
        let listed = eventually("the node is found beside the lies", || {
            let listed = run(on(lab.host("b"), &world, "b", &["-vv", "ls", "--json"]));
            (listed.code == Some(0)).then_some(listed)
        });
        assert_eq!(names(&listed), ["b.txt", "films/a.bin"]);
        far.set_nonblocking(true).unwrap();
        assert!(
            far.recv(&mut [0; 2000]).is_err(),
            "packets were sent off the network"
        );
        drop(near);
        liar.shutdown().unwrap();
    });
}

#[test]
fn without_a_network_there_is_nothing_to_be_said_about_it() {
    isolation::test(|| {
        let world = World::new();
        // This namespace has a loopback interface and nothing else.
        let mut ls = world.command("alone", ["ls"]);
        ls.env_remove("QSHARE_NO_LAN");
        let ended = run(ls).with(5);
        assert!(!ended.err.contains("network"), "{ended:?}");
        world.put("node", "a.txt", b"a");
        let words = ["node", "--json", "--no-prompt", "--certs", "certs"];
        let mut node = world.command("node", words);
        node.env_remove("QSHARE_NO_LAN");
        let node = Node::start(node);
        node.process.says("sharing 1 file");
        // It serves all the same.
        let mut ls = world.command("alone", ["ls", "--tracker", "127.0.0.1:9"]);
        ls.env_remove("QSHARE_NO_LAN");
        run(ls).with(5);
        assert!(!node.process.err.text().contains("panicked"));
    });
}

#[test]
fn a_private_share_is_found_on_this_network_by_its_link_alone() {
    isolation::test(|| {
        let lab = home();
        let world = World::new();
        let bytes = noise(3 * MIB, 11);
        files::put(&world.path("a").join("geheim.bin"), &bytes);
        let ears = listen(lab.host("c"));
        let arguments = ["share", "geheim.bin", "--json", "--no-code"];
        let mut sharer = Process::start(on(lab.host("a"), &world, "a", &arguments));
        sharer.end_input();
        sharer.says("no tracker");
        let ready = sharer.ready();
        let link: Link = ready["link"].as_str().unwrap().parse().unwrap();
        assert!(!link.nodes.is_empty());
        let bare = Link {
            nodes: Vec::new(),
            ..link
        };
        let b = |arguments: &[&str]| run(on(lab.host("b"), &world, "b", arguments));
        b(&["get", &bare.to_string()]).well();
        assert_same(&world.path("b/geheim.bin"), &bytes);
        let id = bare.info.id().to_string();
        assert_eq!(names(&b(&["ls", "--json"]).well()), Vec::<String>::new());
        b(&["get", &id, "-o", "other"]).with(3);
        let heard = heard(&ears);
        assert!(contains(&heard, "_qshare"));
        assert!(!contains(&heard, "geheim") && !contains(&heard, &id[..16]));
    });
}
