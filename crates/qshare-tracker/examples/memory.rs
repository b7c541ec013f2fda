//! Measures the memory that sessions take on the tracker's side: `memory [SESSIONS [WATCHES]]`.
//!
//! The tracker runs in this process and prints its resident memory; the nodes run in another
//! process, which this one starts. Each node is a QUIC connection with its own identity, and
//! watches WATCHES contents. Linux only.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use qshare_content::{ContentId, NodeId};
use qshare_net::{
    DialTarget, Endpoint, EndpointConfig, Greeting, Identity, Session, TransportConfig, dial,
    framed,
};
use qshare_tracker::{Tracker, TrackerConfig};
use qshare_wire::ALPN_PEER;
use qshare_wire::hello::Role;
use qshare_wire::tracker::{Holders, Watch};
use tokio::io::{AsyncBufReadExt, BufReader};

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, tracker, id, sessions, watches] = &arguments[..]
        && mode == "nodes"
    {
        let (tracker, id) = (tracker.parse()?, id.parse()?);
        return run_nodes(tracker, id, sessions.parse()?, watches.parse()?).await;
    }
    let count = |at: usize, default: &str| {
        let text = arguments.get(at).cloned();
        text.unwrap_or_else(|| default.into())
    };
    run_tracker(&count(0, "1000"), &count(1, "0")).await
}

async fn run_tracker(sessions: &str, watches: &str) -> Result<(), Failed> {
    let mut config = TrackerConfig::new(Identity::ephemeral()?);
    config.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let tracker = Tracker::start(config)?;
    let before = resident_bytes()?;
    let mut nodes = tokio::process::Command::new(std::env::current_exe()?)
        .arg("nodes")
        .arg(tracker.listen().to_string())
        .arg(tracker.id().to_string())
        .args([sessions, watches])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = nodes.stdout.take().ok_or("the nodes have no output")?;
    let mut lines = BufReader::new(output).lines();
    let ready = lines.next_line().await?;
    if ready.as_deref() != Some("ready") {
        return Err("the nodes did not connect".into());
    }
    let counts = tracker.counts();
    let after = resident_bytes()?;
    let each = (after - before) / counts.sessions.max(1) as u64;
    println!(
        "{} sessions, {} watches: {} KiB resident before, {} KiB with them, {each} bytes a session",
        counts.sessions,
        counts.watches,
        before / 1024,
        after / 1024,
    );
    nodes.kill().await?;
    Ok(())
}

async fn run_nodes(
    tracker: SocketAddr,
    id: NodeId,
    sessions: usize,
    watches: u32,
) -> Result<(), Failed> {
    let mut kept: Vec<(Endpoint, Session)> = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..sessions {
        let endpoint = Endpoint::bind(
            &Identity::ephemeral()?,
            &EndpointConfig {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                accept_alpn: ALPN_PEER,
                transport: TransportConfig::default(),
            },
        )?;
        let greeting = Greeting::new(Role::Node);
        let target = DialTarget::Tracker(Some(id));
        let deadline = Duration::from_secs(30);
        let session = dial(&endpoint, &greeting, target, tracker, deadline).await?;
        for n in 0..watches {
            let mut content = [0; 32];
            content[..4].copy_from_slice(&n.to_be_bytes());
            content[4..12].copy_from_slice(&kept.len().to_be_bytes());
            let request = Watch {
                content: ContentId(content),
                limit: 16,
                extensions: Vec::new(),
            };
            let watch = framed::ask::<Watch, Holders>(&session.connection, &request).await?;
            streams.push(watch);
        }
        kept.push((endpoint, session));
    }
    println!("ready");
    std::future::pending::<()>().await;
    drop(streams);
    Ok(())
}

/// Returns the resident memory of this process.
fn resident_bytes() -> Result<u64, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.ok_or("no VmRSS in /proc/self/status")?.parse::<u64>()? * 1024)
}
