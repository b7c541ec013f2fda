//! `lab run` and `lab shell`.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::Context;
use qshare_tests::lab::probe::{self, Dependence};
use qshare_tests::lab::{HostPlan, Lab, NatKind, isolation};

use crate::args::{NetworkArgs, RunArgs};

/// `on NAME COMMAND…`
const ON: &str = "#!/bin/sh\nname=$1; shift; exec nsenter --net=/run/netns/\"$name\" -- \"$@\"\n";

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitStatus> {
    let lab = build(&args.network)?;
    let mut command = match args.command.as_slice() {
        [script] => {
            let mut sh = Command::new("sh");
            sh.args(["-c", script]);
            sh
        }
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        [] => anyhow::bail!("nothing to run"),
    };
    in_the_middle(&lab, &mut command)
}

pub(crate) fn shell(args: &NetworkArgs) -> anyhow::Result<ExitStatus> {
    let lab = build(args)?;
    for host in lab.hosts() {
        let addresses: Vec<_> = host
            .addresses()
            .map(|address| address.to_string())
            .collect();
        eprintln!("{:12} {}", host.name(), addresses.join("  "));
    }
    eprintln!("`on NAME COMMAND…` runs something on a host; Ctrl-D takes the network apart.");
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    in_the_middle(&lab, &mut Command::new(shell))
}

fn build(args: &NetworkArgs) -> anyhow::Result<Lab> {
    Ok(Lab::builder().hosts(args.plans()?).build()?)
}

/// Runs a command with the addresses of the hosts in its environment.
fn in_the_middle(lab: &Lab, command: &mut Command) -> anyhow::Result<ExitStatus> {
    let bin = isolation::scratch_dir()?.join("bin");
    std::fs::create_dir_all(&bin).context("a directory for `on`")?;
    let mut on = std::fs::File::create(bin.join("on"))?;
    on.write_all(ON.as_bytes())?;
    on.set_permissions(std::fs::Permissions::from_mode(0o755))?;
    drop(on);

    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)))?;
    let names: Vec<_> = lab.hosts().iter().map(|host| host.name()).collect();
    command.env("PATH", path).env("HOSTS", names.join(" "));
    for host in lab.hosts() {
        command.env(host.name().replace('-', "_"), host.address().to_string());
    }
    let program = command.get_program().to_owned();
    command.status().with_context(|| format!("run {program:?}"))
}

pub(crate) fn nats() -> anyhow::Result<ExitCode> {
    let kinds = [
        NatKind::Open,
        NatKind::Cone,
        NatKind::Double,
        NatKind::Symmetric,
    ];
    let lab = Lab::builder()
        .host(HostPlan::new("meeting"))
        .host(HostPlan::new("other"))
        .hosts(kinds.map(|kind| HostPlan::new(kind.to_string()).nat(kind)))
        .hosts(kinds.map(|kind| HostPlan::new(format!("{kind}2")).nat(kind)))
        .build()?;
    let meeting = lab.host("meeting");
    println!(
        "{:10}  {:22} {:22} punches through to",
        "", "mapping by", "filtering by"
    );
    for kind in kinds {
        let host = lab.host(&kind.to_string());
        let behaviour = probe::behaviour(host, meeting, lab.host("other"))?;
        let mut reached = Vec::new();
        for other in kinds {
            if probe::punch(host, lab.host(&format!("{other}2")), meeting)? {
                reached.push(other.to_string());
            }
        }
        println!(
            "{:10}  {:22} {:22} {}",
            kind.to_string(),
            words(behaviour.mapping),
            words(behaviour.filtering),
            reached.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn words(dependence: Dependence) -> &'static str {
    match dependence {
        Dependence::Endpoint => "nothing",
        Dependence::Address => "address",
        Dependence::AddressAndPort => "address and port",
    }
}
