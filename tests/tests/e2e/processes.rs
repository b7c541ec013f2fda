//! The program as a process among others: ignored signals, background jobs, giving up downloads.

use std::io::Write;
use std::process::Command;

use qshare_tests::files::noise;
use qshare_tests::process::{Process, Signal, eventually};
use qshare_tests::terminal::OnTerminal;
use qshare_tests::world::{Node, World};

/// Returns a command that runs `command` from a shell script, in which it is `"$0" "$@"`.
fn in_shell(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    shell
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let world = World::new();
    let tracker = world.tracker();
    let command = world.node_command("node", tracker.address);
    let mut node = Node::start(in_shell("trap '' HUP INT; exec \"$0\" \"$@\"", &command));
    node.process.signal(Signal::HUP);
    node.process.signal(Signal::INT);
    world.put("node", "x", b"1");
    tracker.client().until_complete("x", 1);
    assert!(node.process.has_ended().is_none());
    node.process.signal(Signal::TERM);
    node.process.end().well();

    // Without it, the same signals stop the node.
    for signal in [Signal::HUP, Signal::INT] {
        let node = world.node("node", tracker.address);
        node.process.signal(signal);
        node.process.end().well();
    }
}

#[test]
fn a_node_in_the_background_of_a_terminal_serves_without_a_prompt() {
    let world = World::new();
    let tracker = world.tracker();
    let address = tracker.address.to_string();
    world.put("node", "x", b"1");
    let mut command = world.command("node", ["node", "--certs", "certs"]);
    command.args(["--listen", "127.0.0.1:0", "--tracker", &address]);
    // With job control, a background job has a process group of its own.
    let command = in_shell("set -m; \"$0\" \"$@\" & wait", &command);
    let mut terminal = OnTerminal::start(&command);
    terminal.shows("serving without a prompt");
    terminal.shows("sharing 1 file");
    tracker.client().until_complete("x", 1);
    world.get("to", tracker.address, &["x"]).well();
}

#[test]
fn discard_gives_up_an_unfinished_download_and_its_data() {
    let world = World::new();
    let tracker = world.tracker();
    let address = tracker.address.to_string();
    world.put("source", "big.bin", &noise(64 << 20, 80));
    let mut source = world.node("source", tracker.address);
    tracker.client().until_complete("big.bin", 1);
    let mut command = world.command("node", ["node", "--certs", "certs"]);
    command.args(["--listen", "127.0.0.1:0", "--tracker", &address]);
    let mut node = Process::start(command);
    node.input().write_all(b"big.bin\n").unwrap();
    let meta = world.path("node/downloads/big.bin.qshare.meta");
    eventually("the download has begun", || meta.exists().then_some(()));
    source.process.kill();
    node.input().write_all(b"discard big.bin\n").unwrap();
    node.says("discarded big.bin");
    assert!(!meta.exists());
    assert!(!world.path("node/downloads/big.bin.qshare.part").exists());
    node.input().write_all(b"discard big.bin\n").unwrap();
    node.says("no unfinished download");
}
