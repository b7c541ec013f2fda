//! Codes: the real program redeems what a sharing node of this process offers.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod sharer;

use std::net::SocketAddr;

use qshare_node::content::{Code, code_words};
use qshare_node::{CodeEnd, CodeEvent};
use qshare_tests::files::{self, assert_same, noise};
use qshare_tests::process::{Ended, Process, Signal};
use qshare_tests::swapping_tracker::{Swap, SwappingTracker};
use qshare_tests::terminal::OnTerminal;
use qshare_tests::world::{Node, Tracker, World};

use sharer::{Sharer, SharerConfig};

const FILE: &str = "a.bin";
const KIB: usize = 1 << 10;

/// A tracker, a node that serves a file, and the link to the file.
struct Served {
    world: World,
    tracker: Tracker,
    link: String,
    bytes: Vec<u8>,
    _node: Node,
}

fn served() -> Served {
    let world = World::new();
    let tracker = world.tracker();
    let bytes = noise(300 * KIB, 1);
    world.put("node", FILE, &bytes);
    let node = world.node("node", tracker.address);
    node.process.says("sharing 1 file");
    let address = tracker.address.to_string();
    let listed = world.run("ls", &["ls", "--links", "--tracker", &address]);
    let link = listed.well().out.trim().to_owned();
    Served {
        world,
        tracker,
        link,
        bytes,
        _node: node,
    }
}

impl Served {
    fn sharer(&self) -> Sharer {
        Sharer::start(SharerConfig::at(self.tracker.address, &self.link))
    }

    fn get(&self, place: &str, code: &Code) -> Ended {
        let code = code.reveal();
        self.world.get(place, self.tracker.address, &[&code])
    }
}

/// Returns a code with the same number and other words.
fn mistyped(code: &Code) -> Code {
    let wrong = Code::from_random(code.number(), 0);
    match wrong == *code {
        true => Code::from_random(code.number(), 1),
        false => wrong,
    }
}

/// Fails if any output holds a word of a code.
fn assert_no_words(ended: &Ended, code: &Code) {
    let password = code.password();
    for output in [&ended.out, &ended.err] {
        assert!(!output.contains(password.as_str()), "{output}");
    }
}

#[test]
fn a_code_fetches_what_it_stands_for_and_the_sharer_hears_of_the_completion() {
    let served = served();
    let sharer = Sharer::start(SharerConfig {
        uses: Some(1),
        ..SharerConfig::at(served.tracker.address, &served.link)
    });
    let code = sharer.offered().code;
    let got = served.get("to", &code).well();
    assert_same(&served.world.path("to").join(FILE), &served.bytes);
    assert_no_words(&got, &code);
    assert!(matches!(
        sharer.next(),
        CodeEvent::Redeemed { left: Some(0), .. }
    ));
    assert!(matches!(sharer.next(), CodeEvent::Ended(CodeEnd::UsedUp)));
    assert!(matches!(
        sharer.next(),
        CodeEvent::Completed { left: Some(0) }
    ));
    served
        .get("late", &code)
        .with(3)
        .saying("as often as its sharer allows");
}

#[test]
fn three_wrong_guesses_end_a_code_and_a_new_one_is_offered() {
    let served = served();
    let sharer = served.sharer();
    let code = sharer.offered().code;
    let wrong = mistyped(&code);
    for left in [2, 1, 0] {
        let refused = served.get("to", &wrong).with(7);
        assert_no_words(&refused, &wrong);
        refused.saying("cannot redeem the code: the words are wrong");
        let event = sharer.next();
        assert!(
            matches!(event, CodeEvent::AttemptFailed { left: told, .. } if told == left),
            "{event:?}"
        );
    }
    let new = sharer.offered();
    assert_eq!(new.replaces, Some(CodeEnd::Guessed));
    served
        .get("to", &code)
        .with(3)
        .saying("three wrong guesses");
    served.get("to", &new.code).well();
    assert_same(&served.world.path("to").join(FILE), &served.bytes);
}

#[test]
fn text_in_the_form_of_a_code_with_unknown_words_is_neither_sent_nor_repeated() {
    let world = World::new();
    // No tracker is needed to refuse it.
    let refused = world.run("to", &["get", "7-zebrra-walrus"]).with(2);
    for output in [&refused.out, &refused.err] {
        let holds = ["zebr", "walrus"].iter().any(|word| output.contains(word));
        assert!(!holds, "{output}");
    }
    refused.saying("its words are not in the list");
    // On the terminal where it was typed, similar words are named.
    let mut terminal = OnTerminal::start(&world.command("to", ["get", "7-zebrra-zoo"]));
    terminal.shows("not in the list of words; similar words: zebra");
    assert_eq!(terminal.end(), Some(2));
}

#[test]
fn two_receivers_at_once_both_get_the_file() {
    let served = served();
    let sharer = served.sharer();
    let code = sharer.offered().code.reveal();
    let gets: Vec<Process> = ["one", "two"]
        .map(|place| {
            served
                .world
                .start_get(place, served.tracker.address, &[&code])
        })
        .into();
    for get in gets {
        get.end().well();
    }
    for place in ["one", "two"] {
        assert_same(&served.world.path(place).join(FILE), &served.bytes);
    }
}

#[test]
fn a_sharer_that_is_gone_and_one_that_ended_are_told_apart() {
    let served = served();
    let (gone, ended) = (served.sharer(), served.sharer());
    let (code_of_gone, code_of_ended) = (gone.offered().code, ended.offered().code);
    gone.vanish();
    ended.shut_down();
    served
        .get("to", &code_of_ended)
        .with(3)
        .saying("the share has ended");
    served
        .get("to", &code_of_gone)
        .with(5)
        .saying("its sharer is not connected");
    let unknown = Code::from_random(code_of_gone.number() + 100, 3);
    served
        .get("to", &unknown)
        .with(3)
        .saying("does not know it");
}

#[test]
fn a_code_survives_a_restart_of_the_tracker() {
    let Served {
        world,
        tracker,
        link,
        bytes,
        _node,
    } = served();
    let sharer = Sharer::start(SharerConfig::at(tracker.address, &link));
    let code = sharer.offered().code;
    let (address, id) = (tracker.address.to_string(), tracker.id);
    // A tracker that says goodbye: sharers come back at once, not after the idle time-out.
    tracker.process.signal(Signal::TERM);
    tracker.process.end().with(0);
    let again = world.tracker_with("tracker", &address, &[]);
    assert_eq!(again.id, id);
    let code = code.reveal();
    world.get("to", again.address, &["--wait=60", &code]).well();
    assert_same(&world.path("to").join(FILE), &bytes);
    assert!(matches!(sharer.next(), CodeEvent::Redeemed { .. }));
}

#[test]
fn a_tracker_that_tampers_with_the_exchange_gives_nobody_a_link() {
    let served = served();
    for (swap, words) in [
        (Swap::Exchange, "cannot redeem the code"),
        (Swap::Receiver, "the words are wrong"),
        (Swap::Sealed, "did not prove that it knows the words"),
        (Swap::Sharer, "did not prove that it knows the words"),
    ] {
        let tracker = SwappingTracker::start(swap);
        let sharer = Sharer::start(SharerConfig::at(tracker.address, &served.link));
        let code = sharer.offered().code.reveal();
        let place = format!("{swap:?}");
        served
            .world
            .get(&place, tracker.address, &[&code])
            .with(7)
            .saying(words);
        assert!(!served.world.path(&place).join(FILE).exists());
    }
    // The same tracker, honest, does pass the link on.
    let tracker = SwappingTracker::start(Swap::Nothing);
    let sharer = Sharer::start(SharerConfig::at(tracker.address, &served.link));
    let code = sharer.offered().code.reveal();
    served.world.get("honest", tracker.address, &[&code]).well();
    assert_same(&served.world.path("honest").join(FILE), &served.bytes);
}

#[test]
fn without_an_argument_get_asks_on_the_terminal_and_completes_words() {
    let served = served();
    let sharer = served.sharer();
    let code = sharer.offered().code;
    let address = served.tracker.address.to_string();
    let command = served.world.command("to", ["get", "--tracker", &address]);
    let mut terminal = OnTerminal::start(&command);
    terminal.shows("Code or link:");
    terminal.press(&format!("{}-", code.number()));
    let password = code.password();
    let (first, second) = password.split_once('-').unwrap();
    for (word, end) in [(first, "-"), (second, "")] {
        // Most words are unique by four letters; some are the start of another.
        let start: String = word.chars().take(4).collect();
        match code_words(&start).len() {
            1 => terminal.press(&format!("{start}\t")),
            _ => terminal.press(&format!("{word}{end}")),
        }
        terminal.shows(&format!("{word}{end}"));
    }
    terminal.press("\r");
    assert_eq!(terminal.end(), Some(0));
    assert_same(&served.world.path("to").join(FILE), &served.bytes);

    served
        .world
        .run("to", &["get", "--tracker", &address])
        .with(2)
        .saying("no name, code or link is given");
}

#[test]
fn without_a_tracker_the_failure_says_what_a_code_needs() {
    let world = World::new();
    let nowhere: SocketAddr = ([127, 0, 0, 1], 1).into();
    let code = Code::from_random(7, 7).reveal();
    let refused = world.get("to", nowhere, &[&code]).with(5);
    refused
        .saying("no tracker can be reached")
        .saying("--tracker HOST:PORT");
}

/// Starts `share --json` of a file of these bytes; returns its code, too.
fn share(world: &World, tracker: SocketAddr, bytes: &[u8], more: &[&str]) -> (Process, Code) {
    files::put(&world.path("sharer").join(FILE), bytes);
    let tracker = tracker.to_string();
    let mut command = world.command("sharer", ["share", FILE, "--json", "--tracker", &tracker]);
    command.args(["--listen", "127.0.0.1:0"]).args(more);
    let mut process = Process::start(command);
    process.end_input();
    let ready = process.ready();
    let code = ready["code"].as_str().unwrap().parse().unwrap();
    (process, code)
}

#[test]
fn a_share_for_one_receiver_ends_when_that_one_has_everything() {
    let (world, bytes) = (World::new(), noise(300 * KIB, 2));
    let tracker = world.tracker();
    let (sharer, code) = share(&world, tracker.address, &bytes, &["--once"]);
    let wrong = mistyped(&code).reveal();
    world
        .get("to", tracker.address, &[&wrong])
        .with(7)
        .saying("the words are wrong");
    world.get("to", tracker.address, &[&code.reveal()]).well();
    assert_same(&world.path("to").join(FILE), &bytes);
    let ended = sharer.end().with(0);
    let events: Vec<String> = ended.json()[1..]
        .iter()
        .map(|event| event["event"].as_str().unwrap().to_owned())
        .collect();
    for event in ["attempt_failed", "redeemed", "completed"] {
        assert!(events.iter().any(|told| told == event), "{events:?}");
    }
}

#[test]
fn cat_writes_a_private_file_and_ends_a_share_for_one_receiver() {
    let (world, bytes) = (World::new(), noise(2_300 * KIB, 4));
    let tracker = world.tracker();
    let (sharer, code) = share(&world, tracker.address, &bytes, &["--once"]);
    let address = tracker.address.to_string();
    let mut cat = world.command("to", ["cat", "--tracker", &address, &code.reveal()]);
    let got = cat.output().unwrap();
    assert!(
        got.stdout == bytes,
        "{}",
        String::from_utf8_lossy(&got.stderr)
    );
    sharer.end().with(0);
}

#[test]
fn a_share_prints_a_new_code_after_three_guesses_and_its_end_is_told_after_a_crash() {
    let (world, bytes) = (World::new(), noise(300 * KIB, 3));
    let tracker = world.tracker();
    let (mut sharer, code) = share(&world, tracker.address, &bytes, &[]);
    let wrong = mistyped(&code).reveal();
    for _ in 0..3 {
        world.get("to", tracker.address, &[&wrong]).with(7);
    }
    let new: Code = sharer.out_line(|line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        match event["event"].as_str()? {
            "code" => event["code"].as_str()?.parse().ok(),
            _ => None,
        }
    });
    assert_ne!(new.number(), code.number());
    world.get("to", tracker.address, &[&new.reveal()]).well();
    assert_same(&world.path("to").join(FILE), &bytes);
    sharer.kill();
    world
        .get("late", tracker.address, &[&new.reveal()])
        .with(5)
        .saying("its sharer is not connected");
}

#[cfg(target_os = "linux")]
mod in_the_lab {
    use std::process::Command;

    use qshare_tests::binary;
    use qshare_tests::lab::{Host, HostPlan, Lab, NatKind, isolation};
    use qshare_tests::networked::Networked;
    use qshare_tests::process::run;

    use super::*;

    fn on(host: &Host, world: &World, place: &str, arguments: &[&str]) -> Command {
        let mut command = host.command(binary::path());
        let dir = world.dir(place);
        command.args(arguments).env("HOME", &dir).current_dir(&dir);
        command
    }

    #[test]
    fn on_one_network_a_code_works_without_a_tracker() {
        isolation::test(|| {
            let lab = Lab::builder()
                .host(HostPlan::new("a").nat(NatKind::Cone))
                .host(HostPlan::new("b").sharing_router_of("a"))
                .build()
                .unwrap();
            let (world, bytes) = (World::new(), noise(300 * KIB, 1));
            world.put("a", FILE, &bytes);
            let mut node = on(
                lab.host("a"),
                &world,
                "a",
                &["node", "--json", "--no-prompt"],
            );
            node.args(["--certs", "certs"]);
            let node = Node::start(node);
            node.process.says("sharing 1 file");
            let b =
                |place: &str, arguments: &[&str]| run(on(lab.host("b"), &world, place, arguments));
            let link = b("b", &["ls", "--links"]).well().out.trim().to_owned();
            let config = SharerConfig {
                trackers: Vec::new(),
                listen: ([0, 0, 0, 0], 0).into(),
                lan: true,
                link,
                uses: None,
            };
            let sharer = lab.host("a").inside(|| Sharer::start(config)).unwrap();
            let offered = sharer.offered();
            assert!(offered.lan && offered.trackers.is_empty());
            let wrong = mistyped(&offered.code).reveal();
            b("b", &["get", &wrong])
                .with(7)
                .saying("the words are wrong");
            assert!(matches!(
                sharer.next(),
                CodeEvent::AttemptFailed { left: 2, .. }
            ));
            b("b", &["get", &offered.code.reveal()]).well();
            assert_same(&world.path("b").join(FILE), &bytes);
        });
    }

    #[test]
    fn a_code_works_through_the_nats_of_both_sides() {
        isolation::test(|| {
            let lab = Lab::builder()
                .host(HostPlan::new("tracker"))
                .host(HostPlan::new("a").nat(NatKind::Cone))
                .host(HostPlan::new("b").nat(NatKind::Cone))
                .build()
                .unwrap();
            let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
            let world = Networked::new(binary::path().to_owned());
            let bytes = noise(300 * KIB, 1);
            world.share(a, FILE, &bytes);
            let _tracker = world.tracker(tracker, &[]);
            let _node = world.node(a, tracker, &[]);
            world.wait_listed(tracker, FILE);
            let address = SocketAddr::new(tracker.address().into(), 65000);
            let (place, at) = (World::new(), address.to_string());
            let listed = run(on(b, &place, "ls", &["ls", "--links", "--tracker", &at]));
            let config = SharerConfig {
                listen: ([0, 0, 0, 0], 0).into(),
                uses: Some(1),
                ..SharerConfig::at(address, listed.well().out.trim())
            };
            let sharer = a.inside(|| Sharer::start(config)).unwrap();
            let code = sharer.offered().code.reveal();
            let got = world.get(b, tracker, &[code.as_str()]).end().well();
            assert_same(&world.dir(b).join(FILE), &bytes);
            assert_eq!(got.json()[0]["sources"][0]["path"], "direct");
            // The report of completion goes through both NATs, too.
            assert!(matches!(sharer.next(), CodeEvent::Redeemed { .. }));
            assert!(matches!(sharer.next(), CodeEvent::Ended(CodeEnd::UsedUp)));
            assert!(matches!(
                sharer.next(),
                CodeEvent::Completed { left: Some(0) }
            ));
        });
    }
}
