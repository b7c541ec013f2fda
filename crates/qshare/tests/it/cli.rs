//! Runs the real binary, for commands that need no network.

// clippy.toml permits unwrap in test functions only. The helpers here are outside of those.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

/// Runs qshare in `dir`, with none of the test's environment variables.
fn qshare(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qshare"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .env("QSHARE_NO_LAN", "true")
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn usage_errors_end_with_code_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["get"][..],
        &["get", "../x"],
        &["get", "x", "--wait=soon"],
        &["get", "qshare:nonsense"],
        &["node", "--listen", "here"],
        &["forget"],
        &["group"],
        &["nonsense"],
        &[],
    ] {
        let output = qshare(dir.path(), arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn without_arguments_it_says_how_to_begin() {
    let dir = tempfile::tempdir().unwrap();
    let said = stderr(&qshare(dir.path(), &[]));
    for command in ["tracker", "node", "ls", "get NAME", "--help"] {
        assert!(said.contains(&format!("qshare {command}")), "{said}");
    }
}

#[test]
fn completions_and_manual_pages_cover_every_command() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = qshare(dir.path(), &["completions", shell]);
        assert_eq!(code(&script), 0, "{shell}");
        let script = stdout(&script);
        assert!(
            script.contains("no-port-mapping") && script.contains("forget"),
            "{shell}"
        );
    }
    assert_eq!(code(&qshare(dir.path(), &["completions", "dos"])), 2);
    assert_eq!(code(&qshare(dir.path(), &["man", "pages"])), 0);
    let page = |name: &str| std::fs::read_to_string(dir.path().join("pages").join(name)).unwrap();
    assert!(page("qshare.1").contains("QSHARE_LOG"));
    assert!(page("qshare-get.1").contains("QSHARE_NO_SYNC"));
    for command in [
        "tracker",
        "node",
        "ls",
        "net",
        "hash",
        "id",
        "forget",
        "group-new",
        "demo",
    ] {
        assert!(
            page(&format!("qshare-{command}.1")).contains(".TH"),
            "{command}"
        );
    }
}

#[test]
fn empty_variables_count_as_unset() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "a").unwrap();
    for command in [&["hash", "a"][..], &["id"], &["get", "--help"]] {
        let mut process = Command::new(env!("CARGO_BIN_EXE_qshare"));
        process
            .args(command)
            .current_dir(dir.path())
            .env_clear()
            .env("HOME", dir.path());
        for variable in [
            "CERTS",
            "JSON",
            "QUIET",
            "VERBOSE",
            "TRACKER",
            "LISTEN",
            "WAIT",
            "GROUP",
            "OUTPUT",
            "CONGESTION",
            "NO_LAN",
            "LOG",
        ] {
            process.env(format!("QSHARE_{variable}"), "");
        }
        let output = process.output().unwrap();
        assert_eq!(
            (code(&output), stderr(&output)),
            (0, String::new()),
            "{command:?}"
        );
    }
}

#[test]
fn a_link_or_code_that_cannot_be_used_is_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    for text in [
        "qshare:secret",
        "QSHARE:K=secret",
        "7-secret-walrus",
        "qshare:x,s=secret",
    ] {
        for command in ["get", "ls"] {
            let output = qshare(dir.path(), &[command, text]);
            assert_eq!(code(&output), 2, "{text}");
            assert!(!stderr(&output).contains("secret"), "{}", stderr(&output));
        }
    }
}

#[test]
fn no_control_character_of_an_argument_or_path_is_printed() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let evil = "evil\u{1b}]0;pwned\u{7}\u{1b}[2J\r\u{202e}x";
    std::fs::write(dir.path().join(evil), "x").unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff");
    std::fs::write(dir.path().join(odd), "x").unwrap();
    for arguments in [
        &["hash", evil][..],
        &["hash", "--json", evil],
        &["hash", "missing\u{1b}[2J"],
        &["get", evil],
        &["get", "x", "--listen", evil],
        &["node", "--assets", evil],
        &["id", "--certs", evil],
        &[evil],
    ] {
        let output = qshare(dir.path(), arguments);
        let printed = stdout(&output) + &stderr(&output);
        let deceptive = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!printed.contains(deceptive), "{arguments:?}: {printed:?}");
        assert!(!printed.is_empty(), "{arguments:?}");
    }
    // qshare prints a path that is not Unicode byte for byte, so that a script can open it.
    let output = Command::new(env!("CARGO_BIN_EXE_qshare"))
        .arg("hash")
        .arg(odd)
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.stdout.starts_with(b"odd\xff\n"), "{output:?}");
}

#[test]
fn assets_that_are_a_file_are_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("big.iso"), "x").unwrap();
    for option in ["--assets", "--downloads"] {
        let output = qshare(dir.path(), &["node", option, "big.iso", "--certs", "c"]);
        assert_eq!(code(&output), 1);
        let said = stderr(&output);
        assert!(
            said.contains(&format!(
                "cannot use {option} big.iso: big.iso is not a directory"
            )),
            "{said}"
        );
    }
}

#[test]
fn help_teaches_with_examples_and_says_what_hash_is_not() {
    let dir = tempfile::tempdir().unwrap();
    for command in [
        "tracker",
        "node",
        "get",
        "ls",
        "net",
        "hash",
        "id",
        "forget",
        "group",
        "demo",
        "completions",
        "man",
    ] {
        let output = qshare(dir.path(), &[command, "--help"]);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("Examples:"), "{command}");
    }
    let hash = stdout(&qshare(dir.path(), &["hash", "--help"]));
    assert!(hash.contains("NOT what sha256sum"), "{hash}");
    assert!(stdout(&qshare(dir.path(), &["-V"])).starts_with("qshare "));
}

#[test]
fn hash_prints_content_root_and_length() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hello.txt"), "hello\n").unwrap();
    // The file has one leaf, so its root is its SHA-256.
    let root = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let content = "a67d9bd99ed350339e0f7f5b781628e6cb8592bfd986746b1b8df1f0cc26d62c";
    let people = qshare(dir.path(), &["hash", "hello.txt"]);
    assert_eq!(
        stdout(&people),
        format!("hello.txt\n  content  {content}\n  root     {root}\n  length   6 bytes\n")
    );
    let machines = qshare(dir.path(), &["hash", "--json", "hello.txt"]);
    assert_eq!(
        stdout(&machines),
        format!(
            "{{\"content\":\"{content}\",\"root\":\"{root}\",\"name\":\"hello.txt\",\"size\":6}}\n"
        )
    );
}

#[test]
fn a_file_that_cannot_be_hashed_is_named_and_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("b"), "b").unwrap();
    let output = qshare(dir.path(), &["hash", "a", "b", "."]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("cannot read a"),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains(". is not a regular file"),
        "{}",
        stderr(&output)
    );
    assert!(
        stdout(&output).contains("length   1 bytes"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn an_identity_is_made_once_and_lives_where_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let first = qshare(dir.path(), &["id"]);
    let id = stdout(&first)
        .trim()
        .strip_prefix("node")
        .unwrap()
        .trim()
        .to_owned();
    assert_eq!(id.len(), 52);
    assert!(dir.path().join(".local/share/qshare/node.key").exists());
    assert_eq!(stdout(&qshare(dir.path(), &["id"])), stdout(&first));

    // qshare uses a directory `certs` only if it contains the marker file `.qshare`.
    std::fs::create_dir(dir.path().join("certs")).unwrap();
    assert_eq!(stdout(&qshare(dir.path(), &["id"])), stdout(&first));
    std::fs::write(dir.path().join("certs/.qshare"), "").unwrap();
    assert_ne!(stdout(&qshare(dir.path(), &["id"])), stdout(&first));

    let given = qshare(dir.path(), &["id", "--certs", "mine", "--json"]);
    assert!(dir.path().join("mine/node.key").exists());
    assert!(stdout(&given).ends_with("\"tracker\":null,\"certs\":\"mine\"}\n"));
}

#[test]
fn a_checkout_cannot_plant_an_identity() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    // The checkout contains a foreign identity in a directory with the marker file `.qshare`.
    qshare(dir.path(), &["id", "--certs", "elsewhere"]);
    std::fs::create_dir(&certs).unwrap();
    std::fs::write(certs.join(".qshare"), "").unwrap();
    for file in ["node.key", "node.crt"] {
        std::fs::copy(dir.path().join("elsewhere").join(file), certs.join(file)).unwrap();
    }
    let planted = stdout(&qshare(dir.path(), &["id", "--certs", "certs"]));
    let used = qshare(dir.path(), &["id"]);
    assert_ne!(stdout(&used), planted);
    assert!(
        stderr(&used).contains("--certs ./certs"),
        "{}",
        stderr(&used)
    );
    // qshare uses the directory once it has created the identity there itself.
    for file in ["node.key", "node.crt"] {
        std::fs::remove_file(certs.join(file)).unwrap();
    }
    let made = qshare(dir.path(), &["id"]);
    assert!(certs.join("node.key").exists());
    assert_eq!(stdout(&qshare(dir.path(), &["id"])), stdout(&made));
    assert_ne!(stdout(&made), stdout(&used));
}

#[test]
fn options_are_read_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_qshare"))
        .arg("id")
        .current_dir(dir.path())
        .env_clear()
        .env("QSHARE_CERTS", "from-env")
        .env("QSHARE_JSON", "1")
        .output()
        .unwrap();
    assert!(dir.path().join("from-env/node.key").exists());
    assert!(stdout(&output).starts_with('{'), "{}", stdout(&output));
}

#[test]
fn a_group_file_is_made_once_and_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let made = qshare(dir.path(), &["group", "new", "team.group"]);
    assert_eq!(code(&made), 0);
    assert!(
        stderr(&made).contains("--group team.group"),
        "{}",
        stderr(&made)
    );
    let secret = std::fs::read_to_string(dir.path().join("team.group")).unwrap();
    assert_eq!(secret.trim().len(), 64);
    let again = qshare(dir.path(), &["group", "new", "team.group"]);
    assert_eq!(code(&again), 1);
    assert!(
        stderr(&again).contains("team.group exists"),
        "{}",
        stderr(&again)
    );
    assert_eq!(
        std::fs::read_to_string(dir.path().join("team.group")).unwrap(),
        secret
    );
}

#[test]
fn a_group_file_that_is_not_there_is_named_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let output = qshare(dir.path(), &["get", "x", "--group", "team.group"]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(
        said.contains("team.group") && said.contains("qshare group new"),
        "{said}"
    );
}

#[test]
fn a_tracker_is_forgotten_once() {
    let dir = tempfile::tempdir().unwrap();
    let known = dir.path().join("certs/known_trackers");
    std::fs::create_dir(dir.path().join("certs")).unwrap();
    let id = "a".repeat(52);
    std::fs::write(
        &known,
        format!("tracker.example:65000 {id}\nother:7 {id}\n"),
    )
    .unwrap();
    let forget = || {
        qshare(
            dir.path(),
            &["forget", "tracker.example", "--certs", "certs"],
        )
    };
    assert_eq!(code(&forget()), 0);
    assert_eq!(
        std::fs::read_to_string(&known).unwrap(),
        format!("other:7 {id}\n")
    );
    let again = forget();
    assert_eq!(code(&again), 3);
    assert!(
        stderr(&again).contains("tracker.example:65000"),
        "{}",
        stderr(&again)
    );
}

#[test]
fn a_second_process_is_told_the_command_that_works() {
    let dir = tempfile::tempdir().unwrap();
    for (role, command) in [("node", "node"), ("tracker", "tracker")] {
        let certs = dir.path().join("certs");
        std::fs::create_dir_all(&certs).unwrap();
        let lock = std::fs::File::create(certs.join(format!("{role}.lock"))).unwrap();
        lock.lock().unwrap();
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap().to_string();
        let arguments = [command, "--certs", "certs", "--listen", &listen, "--json"];
        let output = qshare(dir.path(), &arguments);
        assert_eq!(code(&output), 1);
        assert!(output.stdout.is_empty());
        let said = stderr(&output);
        assert!(said.contains("in use by another process"), "{said}");
        let words = format!("{command} --json --certs certs-2 --listen 127.0.0.1:");
        assert!(said.contains(&words) && !said.contains(&listen), "{said}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    use std::process::Stdio;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "a").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_qshare"))
        .args(["hash", "a"])
        .current_dir(dir.path())
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
}
