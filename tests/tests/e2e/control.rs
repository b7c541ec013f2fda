//! Commands on a running node, over its control socket.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use qshare_tests::controlled::Controlled;
use qshare_tests::files::{assert_same, noise};
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::process::{Process, Signal, eventually, run};
use qshare_tests::terminal::OnTerminal;
use qshare_tests::world::Node;
use serde_json::Value;

const MIB: usize = 1 << 20;
/// A user without rights.
const NOBODY: u32 = 65_534;

#[test]
fn a_download_is_added_paused_resumed_and_listed_by_commands() {
    let scene = Controlled::new();
    let bytes = noise(4 * MIB, 70);
    let source = TestPeer::start(Manner::Gated, scene.tracker.address, "x.bin", &bytes);
    let mut node = scene.node("node");
    let added = scene
        .run(&["add", "--json", "x.bin"])
        .well()
        .json()
        .remove(0);
    assert_eq!(added["size_bytes"], 4 * MIB);
    source.allow(3);
    source.until_answered(3);
    eventually("three chunks", || {
        let download = scene.download("x.bin")?;
        (download["verified_bytes"] == 3 * 128 * 1024).then_some(())
    });
    scene
        .run(&["pause", "x.bin"])
        .well()
        .saying("paused 1 download");
    scene
        .run(&["pause", "x.bin"])
        .well()
        .saying("1 needed no change");
    scene.until_stage("x.bin", "paused");

    // It stays paused even after a kill, and nothing that was fetched is lost.
    node.process.kill();
    let node = scene.node("node");
    let paused = scene.download("x.bin").unwrap();
    assert_eq!(paused["stage"], "paused");
    assert_eq!(paused["id"], added["id"]);
    assert_eq!(paused["added_at"], added["added_at"]);

    source.allow(1000);
    let content = added["content"].as_str().unwrap();
    scene
        .run(&["resume", &format!("id:{}", &content[..12])])
        .well()
        .saying("resumed 1 download");
    scene.until_stage("x.bin", "complete");
    assert_same(&scene.world.path("node/downloads/x.bin"), &bytes);
    let table = scene.run(&["status"]).well().out;
    assert!(
        table.contains("x.bin") && table.contains("100 %"),
        "{table}"
    );
    let detail = scene.run(&["status", "x.bin"]).well().out;
    assert!(detail.contains(content), "{detail}");
    drop(node);
}

#[test]
fn a_removed_download_is_not_resumed_by_itself_and_its_data_is_used_when_it_is_added_again() {
    const ANSWERED: usize = 5;
    let scene = Controlled::new();
    let bytes = noise(4 * MIB, 71);
    let source = TestPeer::start(Manner::Gated, scene.tracker.address, "x.bin", &bytes);
    let node = scene.node("node");
    scene.run(&["add", "x.bin"]).well();
    source.allow(ANSWERED);
    source.until_answered(ANSWERED);
    let fetched = ANSWERED * 128 * 1024;
    eventually("five chunks", || {
        let download = scene.download("x.bin")?;
        (download["verified_bytes"] == fetched).then_some(())
    });
    scene
        .run(&["remove", "x.bin"])
        .well()
        .saying("removed 1 download");
    assert_eq!(scene.download("x.bin"), None);
    let part = scene.world.path("node/downloads/x.bin.qshare.part");
    assert!(part.exists());
    scene.run(&["stop"]).well();
    drop(node);
    let node = scene.node("node");
    assert_eq!(scene.download("x.bin"), None);
    scene.run(&["add", "x.bin"]).well();
    eventually("what was there counts", || {
        let download = scene.download("x.bin")?;
        (download["verified_bytes"] == fetched).then_some(())
    });
    scene.run(&["remove", "--files", "x.bin"]).well();
    assert!(!part.exists());
    drop(node);
}

#[test]
fn remove_with_files_deletes_a_complete_file_but_none_that_was_changed() {
    let scene = Controlled::new();
    scene.world.put("source", "a.txt", b"first");
    scene.world.put("source", "b.txt", b"second");
    let _source = scene.world.node("source", scene.tracker.address);
    scene.tracker.client().until_complete("b.txt", 1);
    let _node = scene.node("node");
    scene.run(&["add", "a.txt", "b.txt"]).well();
    scene.until_stage("a.txt", "complete");
    scene.until_stage("b.txt", "complete");
    let client = scene.tracker.client();
    client.until_complete("a.txt", 2);
    client.until_complete("b.txt", 2);
    let (a, b) = (
        scene.world.path("node/downloads/a.txt"),
        scene.world.path("node/downloads/b.txt"),
    );
    fs::write(&b, b"mine now").unwrap();
    client.until("b.txt", |found| {
        found.iter().any(|one| one.info.length == 8)
    });
    scene
        .run(&["remove", "--files", "--all"])
        .well()
        .saying("removed 2 downloads");
    assert!(!a.exists());
    assert_eq!(fs::read(&b).unwrap(), b"mine now");
}

#[test]
fn limits_and_priorities_are_changed_while_a_node_runs() {
    let scene = Controlled::new();
    let bytes = noise(MIB, 72);
    let _source = TestPeer::start(Manner::Gated, scene.tracker.address, "x.bin", &bytes);
    let _node = scene.node("node");
    scene
        .run(&["limit", "--up", "2MB", "--down", "80Mbit"])
        .well();
    let limits = scene.run(&["limit", "--json"]).well().json().remove(0);
    assert_eq!(limits["up_bytes_per_second"], 2_000_000);
    assert_eq!(limits["down_bytes_per_second"], 10_000_000);
    assert_eq!(scene.report()["status"]["limits"], limits);
    scene.run(&["add", "x.bin"]).well();
    scene
        .run(&["limit", "--down", "50KB", "--priority", "high", "x.bin"])
        .well();
    let download = scene.download("x.bin").unwrap();
    assert_eq!(download["priority"], "high");
    assert_eq!(download["limit_bytes_per_second"], 50_000);
    scene.run(&["limit", "--up", "1MB", "x.bin"]).with(2);
    scene.run(&["limit", "--priority", "high"]).with(2);
}

#[test]
fn a_name_that_is_not_there_and_a_missing_node_have_their_messages() {
    let scene = Controlled::new();
    let no_node = [
        &["status"] as &[&str],
        &["add", "x"],
        &["pause", "x"],
        &["resume", "--all"],
        &["remove", "x"],
        &["limit"],
        &["stop"],
        &["status", "--watch"],
    ];
    for arguments in no_node {
        scene
            .run(arguments)
            .with(5)
            .saying("no node is running")
            .saying("qshare node");
    }
    let node = scene.node("node");
    scene
        .run(&["pause", "x"])
        .with(3)
        .saying("no download is named");
    let hidden = scene.run(&["pause", "qshare:1,s3cr3t"]).with(3);
    assert!(!hidden.err.contains("s3cr3t"), "{hidden:?}");
    scene.run(&["add", "x"]).with(3).saying("no node shares");
    scene.run(&["pause"]).with(2);
    scene.run(&["stop"]).well().saying("the node has stopped");
    // It has ended, and not only stopped to answer.
    let mut process = node.process;
    assert!(eventually("the end", || process.has_ended()).success());
    scene.run(&["status"]).with(5);
}

#[test]
fn one_of_several_nodes_is_chosen() {
    let scene = Controlled::new();
    let (first, second) = (scene.node("first"), scene.node("second"));
    scene
        .run(&["status"])
        .with(2)
        .saying("2 nodes are running")
        .saying(&format!("--node {}", first.id))
        .saying(&format!("--node {}", second.id));
    let of = |arguments: &[&str]| {
        let report = scene
            .run(&[&["status", "--json"], arguments].concat())
            .well();
        report.json().remove(0)["status"]["node"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(of(&["--node", &second.id]), second.id);
    let certs = scene.world.path("first/certs");
    assert_eq!(of(&["--certs", certs.to_str().unwrap()]), first.id);
    scene.run(&["stop", "--node", &first.id]).well();
    assert_eq!(of(&[]), second.id);
    scene
        .run(&["status", "--node", &first.id])
        .with(5)
        .saying("is not running");
    scene
        .run(&["status", "--certs", "nowhere"])
        .with(5)
        .saying("no node was ever started");
}

#[test]
fn a_socket_that_a_crash_left_is_no_node_and_no_obstacle() {
    let scene = Controlled::new();
    let mut node = scene.node("node");
    let dir = scene.runtime_dir().join("qshare");
    let socket = dir.join(format!("{}.sock", node.id));
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&socket)), (0o700, 0o600));
    node.process.kill();
    assert!(socket.exists());
    scene.run(&["status"]).with(5).saying("no node is running");
    let _node = scene.node("node");
    scene.run(&["status"]).well();
}

#[test]
fn a_socket_is_where_the_user_wants_it_or_nowhere() {
    let scene = Controlled::new();
    let socket = scene.world.dir("own").join("node.sock");
    let mut command = scene.node_command("node");
    command.arg("--socket").arg(&socket);
    let node = Node::start(command);
    let path = socket.to_str().unwrap();
    let report = scene
        .run(&["status", "--json", "--socket", path])
        .well()
        .json()
        .remove(0);
    assert_eq!(report["status"]["node"], node.id);
    scene.run(&["status"]).with(5);
    // Another node cannot take it.
    let mut command = scene.node_command("other");
    command.args(["--socket", path]);
    run(command)
        .with(1)
        .saying("cannot open the control socket")
        .saying("--socket");
    scene.run(&["stop", "--socket", path]).well();
    assert!(!socket.exists());
    scene
        .run(&["status", "--socket", path])
        .with(5)
        .saying("no node listens");

    let mut command = scene.node_command("node");
    command.arg("--no-control");
    let _node = Node::start(command);
    scene.run(&["status"]).with(5);

    // Everybody could put another socket there.
    let open = scene.world.dir("open");
    fs::set_permissions(&open, Permissions::from_mode(0o1777)).unwrap();
    let mut command = scene.node_command("other");
    command.arg("--socket").arg(open.join("node.sock"));
    run(command).with(1).saying("everybody may write");
}

#[test]
fn another_users_node_is_refused_in_both_directions() {
    if !rustix::process::geteuid().is_root() {
        return qshare_tests::privilege::skip("only root can act as another user");
    }
    let scene = Controlled::new();
    let theirs = scene.world.dir("theirs");
    let socket = theirs.join("node.sock");
    std::os::unix::fs::chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    // The other user must reach its directory and the program.
    fs::set_permissions(theirs.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let program = scene.world.path("qshare");
    let mut command = scene.node_command("theirs");
    // Not copied by this process: the children of other threads would inherit the file, open for
    // writing, and a file that is open for writing cannot be run.
    let copied = Command::new("cp")
        .arg(command.get_program())
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let as_nobody = |command: Command| {
        use std::os::unix::process::CommandExt;
        let mut as_nobody = Command::new(&program);
        let settings = command.get_envs();
        as_nobody
            .args(command.get_args())
            .envs(settings.filter_map(|(name, value)| Some((name, value?))))
            .current_dir(command.get_current_dir().unwrap())
            .uid(NOBODY)
            .gid(NOBODY);
        as_nobody
    };
    command.arg("--socket").arg(&socket);
    let _theirs = Node::start(as_nobody(command));
    let path = socket.to_str().unwrap();
    // Root is not that user: what it would send is not for that program.
    scene
        .run(&["status", "--socket", path])
        .with(7)
        .saying("belongs to another user");

    let _ours = scene.node("ours");
    let ours = scene.runtime_dir().join("qshare");
    let ours = fs::read_dir(&ours).unwrap().next().unwrap().unwrap().path();
    let mut command = scene.world.command("theirs", ["status", "--socket"]);
    command.arg(&ours);
    run(as_nobody(command))
        .with(7)
        .saying("belongs to another user");
}

#[test]
fn several_controllers_at_once_do_not_disturb_each_other() {
    let scene = Controlled::new();
    let bytes = noise(MIB, 73);
    let source = TestPeer::start(Manner::Gated, scene.tracker.address, "x.bin", &bytes);
    let _node = scene.node("node");
    scene.run(&["add", "x.bin"]).well();
    let start = |arguments: &[&str]| {
        let mut process = Process::start(scene.command(arguments));
        process.end_input();
        process
    };
    let controllers: Vec<Process> = (0..12)
        .map(|number| match number % 3 {
            0 => start(&["pause", "x.bin"]),
            1 => start(&["resume", "x.bin"]),
            _ => start(&["status", "--json"]),
        })
        .collect();
    for controller in controllers {
        controller.end().well();
    }
    scene.run(&["resume", "--all"]).well();
    source.allow(1000);
    scene.until_stage("x.bin", "complete");
    assert_same(&scene.world.path("node/downloads/x.bin"), &bytes);
}

#[test]
fn a_watch_reports_events_as_json_and_the_end_of_the_node() {
    let scene = Controlled::new();
    scene.world.put("source", "a.txt", b"hello");
    let _source = scene.world.node("source", scene.tracker.address);
    scene.tracker.client().until_complete("a.txt", 1);
    let node = scene.node("node");
    let watch = Process::start(scene.command(&["status", "--watch", "--json"]));
    let event = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    watch.out_line(|line| (event(line)["event"] == "status").then_some(()));
    watch.out_line(|line| {
        let event = event(line);
        let is_snapshot = event["event"] == "downloads" && event["data"]["snapshot"] == true;
        is_snapshot.then_some(())
    });
    scene.run(&["add", "a.txt"]).well();
    watch.out_line(|line| {
        let event = event(line);
        let changed = event["data"]["changed"].as_array()?;
        let is_complete = |one: &Value| one["name"] == "a.txt" && one["stage"] == "complete";
        changed.iter().any(is_complete).then_some(())
    });
    node.process.signal(Signal::TERM);
    watch.end().with(5).saying("the node has stopped");
}

#[test]
fn a_live_table_shows_changes_and_leaves_the_terminal_as_it_was() {
    let scene = Controlled::new();
    scene.world.put("source", "a.txt", b"hello");
    let _source = scene.world.node("source", scene.tracker.address);
    scene.tracker.client().until_complete("a.txt", 1);
    let _node = scene.node("node");
    let mut terminal = OnTerminal::start(&scene.command(&["status", "--watch"]));
    terminal.shows("no downloads");
    scene.run(&["add", "a.txt"]).well();
    terminal.shows("a.txt");
    terminal.shows("complete");
    terminal.press("\x03");
    // The cursor, and the screen from before.
    terminal.shows("\x1b[?25h\x1b[?1049l");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_download_that_lost_its_source_searches_and_goes_on_when_the_source_is_back() {
    let scene = Controlled::new();
    let bytes = noise(4 * MIB, 73);
    scene.world.put("source", "x.bin", &bytes);
    let mut source = scene.world.node("source", scene.tracker.address);
    scene.tracker.client().until_complete("x.bin", 1);
    let node = scene.node_with("node", &["--limit-down", "500kB"]);
    scene.run(&["add", "x.bin"]).well();
    scene.until_stage("x.bin", "fetching");
    source.process.kill();
    let lost = scene.until_stage("x.bin", "searching");
    assert_eq!(lost["sources"], 0);
    assert!(lost["verified_bytes"].as_u64().unwrap() < bytes.len() as u64);
    let table = scene.run(&["status"]).well().out;
    assert!(table.contains("searching"), "{table}");

    let _source = scene.world.node("source", scene.tracker.address);
    scene.until_stage("x.bin", "fetching");
    scene.run(&["limit", "--down", "0"]).well();
    scene.until_stage("x.bin", "complete");
    assert_same(&scene.world.path("node/downloads/x.bin"), &bytes);
    drop(node);
}

#[test]
fn downloads_of_one_source_share_a_limit_by_their_priorities() {
    let scene = Controlled::new();
    let files = ["high.bin", "low.bin"];
    let bytes = [noise(4 * MIB, 74), noise(4 * MIB, 75)];
    for (name, bytes) in files.iter().zip(&bytes) {
        scene.world.put("source", name, bytes);
    }
    let _source = scene.world.node("source", scene.tracker.address);
    for name in files {
        scene.tracker.client().until_complete(name, 1);
    }
    // So little that the limit decides, also on a machine with much to do.
    let node = scene.node_with("node", &["--limit-down", "400kB"]);
    scene
        .run(&["add", "--paused", "high.bin", "low.bin"])
        .well();
    scene
        .run(&["limit", "--priority", "high", "high.bin"])
        .well();
    scene.run(&["limit", "--priority", "low", "low.bin"]).well();
    scene.run(&["resume", "--all"]).well();
    let [high, low] = eventually("most of the first", || {
        // Both as of one moment.
        let downloads = scene.downloads();
        let verified = files.map(|name| {
            let download = downloads.iter().find(|one| one["name"] == name);
            download.and_then(|one| one["verified_bytes"].as_u64())
        });
        let [high, low] = [verified[0]?, verified[1]?];
        (high >= 3 * MIB as u64).then_some([high, low])
    });
    assert!(high >= 3 * low, "{high} and {low} bytes");
    scene.run(&["limit", "--down", "0"]).well();
    for (name, bytes) in files.iter().zip(&bytes) {
        scene.until_stage(name, "complete");
        assert_same(&scene.world.path("node/downloads").join(name), bytes);
    }
    drop(node);
}
