//! `qshare tracker`: run a tracker, which knows which node has which file.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use qshare_node::content::DEFAULT_TRACKER_PORT;
use qshare_node::{
    BindError, GroupSecret, Identity, IdentityError, IdentityRole, exclude_from_core_dumps,
};
use qshare_tracker::{RelayLimits, SharedRegistryConfig, StartError, Tracker, TrackerConfig};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

mod operations;

use super::run_on_network;
use crate::args::{RegistryArgs, RelayArgs, TrackerArgs};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages;
use crate::neutral::shown;
use crate::output::ReadyJson;
use crate::service;
use crate::suggest::{self, CommandLine, quoted};

/// Deadline for closing the sessions. Service managers kill a process some seconds after they asked
/// it to stop; five is the shortest that qshare is made for.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

pub(crate) fn run(args: TrackerArgs, console: &Console) -> Result<(), Failure> {
    exclude_from_core_dumps();
    let dir = args.certs.resolve()?;
    let role = IdentityRole::Tracker;
    let _lock = Identity::lock(&dir, role).map_err(|error| match error {
        IdentityError::InUse { .. } => in_use(&error, &args),
        error => error.into(),
    })?;
    let identity = Identity::load_or_create(&dir, role)?;
    let group = args.group.load()?;
    run_on_network(|stop| serve(args, identity, group, console, stop))
}

async fn serve(
    args: TrackerArgs,
    identity: Identity,
    group: Option<GroupSecret>,
    console: &Console,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let tracker = start(&args, identity, group)?;
    check_registry(&tracker, &args.registry, console).await?;
    if let Some(address) = args.http {
        let listener = operations::bind(address).await?;
        let bound = listener.local_addr().unwrap_or(address);
        console.note(&format!("  status and metrics:   http://{bound}/"));
        let operations = tracker.operations().clone();
        tokio::spawn(operations::serve(listener, operations, stop.clone()));
    }
    announce(&tracker, &args, console)?;
    service::ready();
    stop.cancelled().await;
    service::stopping();
    console.note("stopping");
    tracker.shutdown(GOODBYE_MAX).await;
    Ok(())
}

fn start(
    args: &TrackerArgs,
    identity: Identity,
    group: Option<GroupSecret>,
) -> Result<Tracker, Failure> {
    let config = TrackerConfig {
        group,
        listen: args.listen,
        relay: relay_limits(&args.relay),
        allow: args.allow.clone(),
        deny: args.deny.clone(),
        shared: shared_registry(&args.registry)?,
        ..TrackerConfig::new(identity)
    };
    Tracker::start(config).map_err(|error| match &error {
        StartError::Bind(in_use @ BindError::PortInUse(_)) => {
            let command = suggest::on_free_port(CommandLine::of_this_process(), args.listen);
            messages::port_in_use(in_use, &command)
        }
        StartError::Bind(_)
        | StartError::Address(_)
        | StartError::Access(_)
        | StartError::Registry(_) => Failure::new(Exit::Failed, error.to_string()),
    })
}

/// Returns the registry that is shared with other trackers, if one is named.
fn shared_registry(args: &RegistryArgs) -> Result<Option<SharedRegistryConfig>, Failure> {
    let Some(address) = &args.url else {
        if args.advertise.is_some() {
            let reason = "--advertise needs a shared registry (--registry URL): without one there \
                          are no other trackers to tell";
            return Err(Failure::new(Exit::Usage, reason));
        }
        return Ok(None);
    };
    let password = match &args.password_file {
        Some(file) => {
            let text = Zeroizing::new(read(file)?);
            let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
            let line = std::str::from_utf8(line).map_err(|_| {
                let file = shown(file);
                Failure::new(
                    Exit::Failed,
                    format!("{file} does not hold a password in UTF-8"),
                )
            })?;
            Some(Zeroizing::new(line.trim_end_matches('\r').to_owned()))
        }
        None => None,
    };
    let config = SharedRegistryConfig {
        address: address.clone(),
        password,
        certificate_authority: args.authority.as_deref().map(read).transpose()?,
        advertise: args.advertise,
    };
    config
        .check_security(args.insecure)
        .map_err(|error| Failure::new(Exit::Usage, format!("--registry {address}: {error}")))?;
    Ok(Some(config))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|cause| {
        let file = shown(file);
        Failure::new(Exit::Failed, format!("cannot read {file}: {cause}"))
    })
}

/// Refuses a registry that would lose entries. One that does not answer may come back: the tracker
/// serves its own nodes meanwhile.
async fn check_registry(
    tracker: &Tracker,
    args: &RegistryArgs,
    console: &Console,
) -> Result<(), Failure> {
    let (Some(address), Err(fault)) = (&args.url, tracker.check_registry().await) else {
        return Ok(());
    };
    if fault.is_refusal() {
        let reason = format!("cannot use the registry {address}: {fault}");
        return Err(Failure::new(Exit::Failed, reason));
    }
    console.note(&format!(
        "the registry {address} cannot be used yet: {fault}. This tracker serves its own nodes and \
         keeps trying"
    ));
    Ok(())
}

fn relay_limits(args: &RelayArgs) -> Option<RelayLimits> {
    const BYTES_PER_MBIT: u64 = 1_000_000 / 8;
    (!args.no_relay).then(|| RelayLimits {
        bytes_per_second: u64::from(args.relay_mbit) * BYTES_PER_MBIT,
        bytes_per_second_per_client: u64::from(args.relay_client_mbit) * BYTES_PER_MBIT,
        clients_max: args.relay_clients,
        pairs_max: args.relay_pairs,
        ..RelayLimits::default()
    })
}

fn in_use(error: &IdentityError, args: &TrackerArgs) -> Failure {
    let command = suggest::beside_another(
        CommandLine::of_this_process(),
        IdentityRole::Tracker,
        args.certs.dir.as_deref(),
        args.listen,
    );
    messages::identity_in_use(error, "tracker", &command)
}

/// Prints that the tracker is ready, and how nodes use it.
fn announce(tracker: &Tracker, args: &TrackerArgs, console: &Console) -> Result<(), Failure> {
    let listen = tracker.listen();
    if args.json.on {
        console.json(&ReadyJson::new(tracker.id(), listen))?;
    }
    let group = match &args.group.file {
        Some(file) => format!(" --group {}", quoted(file.as_os_str())),
        None => String::new(),
    };
    let here = match listen.port() {
        DEFAULT_TRACKER_PORT if listen.ip().is_unspecified() || listen.ip().is_loopback() => {
            String::new()
        }
        port => format!(" --tracker {}", local(listen, port)),
    };
    let elsewhere = SocketAddr::new(suggest::host_for_others(listen), listen.port());
    console.note(&format!("tracker {}", tracker.id()));
    console.note(&format!("  listening on          {listen} (UDP)"));
    console.note(match &args.group.file {
        Some(_) => "  private group:        only members, who have the group file, are served",
        None => {
            "  open swarm:           everyone who can reach this tracker can use it (--group FILE \
             restricts it)"
        }
    });
    if let Some(registry) = &args.registry.url {
        console.note(&format!("  registry:             {registry}"));
    }
    console.note(&format!("  on this machine:      qshare node{here}{group}"));
    console.note(&match listen.ip().to_canonical().is_loopback() {
        true => "  from other machines:  not reachable at this address of --listen".to_owned(),
        false => format!("  from other machines:  qshare node --tracker {elsewhere}{group}"),
    });
    Ok(())
}

/// Returns the address at which this machine reaches the tracker.
fn local(listen: SocketAddr, port: u16) -> SocketAddr {
    match listen.ip().is_unspecified() {
        true => SocketAddr::from(([127, 0, 0, 1], port)),
        false => listen,
    }
}
