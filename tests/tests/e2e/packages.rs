//! Running as a service: readiness for the service manager, and unit files that it accepts.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use qshare_tests::binary;
use qshare_tests::process::{PATIENCE, Process, Signal, run};
use qshare_tests::world::World;

/// Returns a file of the repository.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name)
}

/// The socket of a service manager.
fn manager(world: &World) -> (UnixDatagram, PathBuf) {
    let path = world.dir("manager").join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, path)
}

/// Receives the next message.
fn told(socket: &UnixDatagram) -> String {
    let mut message = [0; 256];
    let length = socket.recv(&mut message).unwrap();
    String::from_utf8_lossy(&message[..length])
        .trim()
        .to_owned()
}

#[test]
fn the_service_manager_hears_when_a_tracker_or_node_is_ready_and_stops() {
    let world = World::new();
    let (socket, path) = manager(&world);
    let tracker = ["tracker", "--certs", "certs", "--listen", "127.0.0.1:0"];
    let nowhere = "127.0.0.1:1";
    let node = [
        "node",
        "--no-prompt",
        "--certs",
        "certs",
        "--listen",
        "127.0.0.1:0",
        "--tracker",
        nowhere,
    ];
    for (place, arguments) in [("tracker", &tracker[..]), ("node", &node[..])] {
        let mut command = world.command(place, arguments);
        command.env("NOTIFY_SOCKET", &path);
        let process = Process::start(command);
        assert_eq!(told(&socket), "READY=1", "{place}");
        process.signal(Signal::TERM);
        assert_eq!(told(&socket), "STOPPING=1", "{place}");
        process.end();
    }
}

#[test]
fn a_service_manager_that_is_gone_does_not_matter() {
    let world = World::new();
    let tracker = [
        "tracker",
        "--certs",
        "certs",
        "--listen",
        "127.0.0.1:0",
        "--json",
    ];
    let mut command = world.command("tracker", tracker);
    command.env("NOTIFY_SOCKET", world.path("nobody"));
    let process = Process::start(command);
    process.ready();
    process.signal(Signal::TERM);
    process.end().well();
}

#[test]
fn systemd_accepts_the_unit_files() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!is_ci, "systemd-analyze is missing");
        return eprintln!("SKIPPED: systemd-analyze is missing (package systemd)");
    }
    let world = World::new();
    let program = binary::path().to_string_lossy().into_owned();
    for (unit, manager) in [("qshare-tracker", "--system"), ("qshare-node", "--user")] {
        let text = fs::read_to_string(file(&format!("dist/systemd/{unit}.service"))).unwrap();
        assert!(text.contains("Type=notify"), "{unit}");
        // The program is not installed where the package puts it.
        let copy = world.dir("units").join(format!("{unit}.service"));
        fs::write(&copy, text.replace("/usr/bin/qshare", &program)).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify
            .args([manager, "--man=no", "--recursive-errors=no", "verify"])
            .arg(&copy)
            .env("XDG_RUNTIME_DIR", world.dir("runtime"));
        let verified = run(verify).well();
        assert!(!verified.err.contains(unit), "{verified:?}");
    }
}

#[test]
fn the_configuration_of_the_packaged_tracker_is_accepted() {
    let world = World::new();
    let text = fs::read_to_string(file("dist/tracker.toml")).unwrap();
    // With every example in force.
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if setting.contains(" = ") => setting,
        _ => line,
    });
    let lines: Vec<&str> = lines.collect();
    fs::write(world.dir("home").join("tracker.toml"), lines.join("\n")).unwrap();
    let config = ["config", "--json", "tracker", "--config", "tracker.toml"];
    let values = world.run("home", &config).well().json();
    let from_file = values.iter().filter(|value| value["source"] == "file");
    assert_eq!(from_file.count(), 3);
}
