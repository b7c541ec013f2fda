//! The configuration file: precedence, sections, wrong keys, and what `qshare config` prints.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use qshare_tests::process::{Ended, run};
use qshare_tests::world::World;
use serde_json::Value;

const FILE: &str = "home/.config/qshare/config.toml";

/// Writes the user's configuration file.
fn configure(world: &World, text: &str) {
    let file = world.path(FILE);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// Runs `qshare config --json` and returns the entry of an option.
fn entry(world: &World, command: &str, option: &str, variables: &[(&str, &str)]) -> Value {
    let mut config = world.command("home", ["config", "--json", command]);
    config.envs(variables.iter().copied());
    let printed = run(config).well().json();
    let mut found = printed
        .into_iter()
        .filter(|entry| entry["option"] == option);
    found.next().unwrap()
}

fn refused(world: &World, arguments: &[&str]) -> Ended {
    let ended = world.run("home", arguments).with(2);
    assert!(ended.out.is_empty(), "{ended:?}");
    ended
}

#[test]
fn the_file_is_used_and_options_and_variables_win_over_it() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "a", b"1");
    let _node = world.node("node", tracker.address);
    configure(
        &world,
        &format!("tracker = '{}'\n[ls]\njson = true\n", tracker.address),
    );
    let listed = |command| run(command).well().json()[0]["name"] == "a";
    let ls = |more: &[&str]| {
        let mut command = world.command("home", ["ls"]);
        command.args(more);
        command
    };
    qshare_tests::process::eventually("the file is listed", || listed_once(&world).then_some(()));
    assert!(listed(ls(&[])));
    // Nothing listens on port 1.
    let nowhere = "127.0.0.1:1";
    run(ls(&["--tracker", nowhere])).with(5);
    let mut by_variable = ls(&[]);
    by_variable.env("QSHARE_TRACKER", nowhere);
    run(by_variable).with(5);
    let mut empty_variable = ls(&[]);
    empty_variable.env("QSHARE_TRACKER", "");
    assert!(listed(empty_variable));
    let mut by_option = ls(&["--tracker", &tracker.address.to_string()]);
    by_option.env("QSHARE_TRACKER", nowhere);
    assert!(listed(by_option));
    // Another file replaces the user's.
    fs::write(world.path("other.toml"), format!("tracker = ['{nowhere}']")).unwrap();
    run(ls(&["--config", "../other.toml"])).with(5);
    let mut by_variable = ls(&[]);
    by_variable.env("QSHARE_CONFIG", "../other.toml");
    run(by_variable).with(5);
}

fn listed_once(world: &World) -> bool {
    world.run("home", &["ls"]).out.contains("\"a\"")
}

#[test]
fn config_says_where_each_value_comes_from() {
    let world = World::new();
    configure(
        &world,
        "tracker = ['a:1', 'b:2']\nno-lan = true\n\n[node]\ntracker = ['c:3']\nassets = \"/data\"\n",
    );
    let file = world.path(FILE).to_string_lossy().into_owned();
    let of_node = entry(&world, "node", "tracker", &[]);
    assert_eq!(of_node["value"], serde_json::json!(["c:3"]));
    assert_eq!(of_node["source"], "file");
    assert_eq!(of_node["line"], 5);
    assert_eq!(of_node["file"], file.as_str());
    let of_get = entry(&world, "get", "tracker", &[]);
    assert_eq!(of_get["value"], serde_json::json!(["a:1", "b:2"]));
    assert_eq!(of_get["line"], 1);
    let listen = entry(&world, "node", "listen", &[]);
    assert_eq!(listen["value"], "[::]:64500");
    assert_eq!(listen["source"], "default");
    let by_variable = entry(&world, "get", "tracker", &[("QSHARE_TRACKER", "x:1,y:2")]);
    assert_eq!(by_variable["value"], serde_json::json!(["x:1", "y:2"]));
    assert_eq!(by_variable["source"], "environment");
    assert_eq!(by_variable["variable"], "QSHARE_TRACKER");
    let unset = entry(&world, "get", "tracker", &[("QSHARE_TRACKER", "")]);
    assert_eq!(unset["source"], "file");
    let off = entry(&world, "get", "no-lan", &[("QSHARE_NO_LAN", "false")]);
    assert_eq!(off["value"], false);
    // What it prints for people is a configuration file with the same values.
    let printed = world.run("home", &["config", "node"]).well().out;
    assert!(printed.contains("tracker = [\"c:3\"]"), "{printed}");
    assert!(printed.contains(&format!("# {file}:5")), "{printed}");
    fs::write(world.path("printed.toml"), printed).unwrap();
    let again = ["config", "--json", "node", "--config", "../printed.toml"];
    let again = world.run("home", &again).well().json();
    let assets = again.iter().find(|entry| entry["option"] == "assets");
    assert_eq!(assets.unwrap()["value"], "/data");
    assert_eq!(assets.unwrap()["source"], "file");
    refused(&world, &["config", "nodes"]).saying("nodes");
}

#[test]
fn wrong_files_are_refused_with_the_line_by_every_command() {
    let world = World::new();
    let wrong = [
        ("no-lan = true\ntrakcer = 'a'\n", "line 2", "trakcer"),
        ("\n[node]\nseed = true\n", "line 3", "[get]"),
        ("[nodes]\n", "line 1", "nodes"),
        ("[node]\n\nlisten = 'here'\n", "line 3", "ADDRESS:PORT"),
        ("no-lan = 1\n", "line 1", "true or false"),
        ("tracker = ['a'\n", "line ", "TOML"),
        ("listen = '[::]:0'\n", "line 1", "[node]"),
        // Once a common key, although node and tracker mean different servers.
        ("http = '127.0.0.1:0'\n", "line 1", "[tracker] or [node]"),
    ];
    for (text, line, word) in wrong {
        configure(&world, text);
        for command in [&["id"][..], &["config"], &["ls"]] {
            refused(&world, command).saying(line).saying(word);
        }
        // Help is wanted most when something is wrong.
        world.run("home", &["ls", "--help"]).well();
    }
    configure(&world, "");
    refused(&world, &["ls", "--config", "missing.toml"]).saying("missing.toml");
    world.run("home", &["id"]).well();
}

#[test]
fn the_example_file_is_accepted_as_it_is_printed() {
    let world = World::new();
    let printed = world.run("home", &["config", "--example"]).well().out;
    configure(&world, &printed);
    world.run("home", &["config"]).well();
    assert_eq!(entry(&world, "get", "seed", &[])["source"], "default");
}
