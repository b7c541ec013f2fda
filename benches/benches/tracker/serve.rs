//! The servers under test, each in a process of its own on one thread, as the program has it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_net::{
    DialTarget, Endpoint, EndpointConfig, Greeting, Identity, Session, TransportConfig, accept,
    dial, framed,
};
use qshare_tracker::{SharedRegistryConfig, Tracker, TrackerConfig};
use qshare_wire::ALPN_PEER;
use qshare_wire::hello::Role as Participant;
use serde_json::json;
use tokio::task::JoinSet;

/// Handshakes of idle sessions at once.
const DIALS_MAX: usize = 16;
const DIAL_DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

pub(crate) fn greeting() -> Greeting {
    Greeting::new(Participant::Node)
}

/// Binds an endpoint of an identity of its own.
pub(crate) fn endpoint() -> anyhow::Result<Endpoint> {
    let config = EndpointConfig {
        listen: loopback(),
        accept_alpn: ALPN_PEER,
        transport: TransportConfig::default(),
    };
    Ok(Endpoint::bind(&Identity::ephemeral()?, &config)?)
}

fn say_ready(listen: SocketAddr, id: &str) {
    println!("{}", json!({ "listen": listen.to_string(), "id": id }));
}

/// Runs a tracker without limits on requests, over a shared registry if there is one.
pub(crate) async fn run_tracker(registry: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut config = TrackerConfig::new(Identity::ephemeral()?);
    config.listen = loopback();
    config.limits.requests_per_second = u32::MAX;
    config.limits.requests_burst = u32::MAX;
    if let Some(url) = registry {
        config.shared = Some(SharedRegistryConfig {
            address: url.parse()?,
            password: None,
            certificate_authority: None,
            advertise: None,
        });
    }
    let tracker = Tracker::start(config)?;
    if registry.is_some() {
        tracker.check_registry().await?;
    }
    say_ready(tracker.listen(), &tracker.id().to_string());
    std::future::pending().await
}

/// Reads each stream to the end of one frame and answers with `bytes` bytes.
pub(crate) async fn run_echo(bytes: usize) -> anyhow::Result<ExitCode> {
    let endpoint = endpoint()?;
    say_ready(endpoint.local_addr()?, &endpoint.id().to_string());
    let answer = bytes::Bytes::from(vec![7; bytes]);
    while let Some(incoming) = endpoint.accept().await {
        let (us, answer) = (endpoint.id(), answer.clone());
        tokio::spawn(async move {
            let Ok(session) = accept(us, &greeting(), incoming).await else {
                return;
            };
            while let Ok((mut send, mut recv)) = session.connection.accept_bi().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    if framed::read_frame(&mut recv, 1 << 20).await.is_ok() {
                        framed::take_end(&mut recv);
                        let _ = send.write_chunk(answer).await;
                        let _ = send.finish();
                    }
                });
            }
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens sessions that stay idle, and says so.
pub(crate) async fn run_nodes(
    tracker: SocketAddr,
    id: NodeId,
    count: usize,
) -> anyhow::Result<ExitCode> {
    let mut kept: Vec<(Endpoint, Session)> = Vec::with_capacity(count);
    let mut dials: JoinSet<anyhow::Result<(Endpoint, Session)>> = JoinSet::new();
    for _ in 0..count {
        if dials.len() >= DIALS_MAX
            && let Some(dialled) = dials.join_next().await
        {
            kept.push(dialled??);
        }
        dials.spawn(async move {
            let mut config = EndpointConfig {
                listen: loopback(),
                accept_alpn: ALPN_PEER,
                transport: TransportConfig::default(),
            };
            config.transport.mtu_max_bytes = 1452;
            let endpoint = Endpoint::bind(&Identity::ephemeral()?, &config)?;
            let target = DialTarget::Tracker(Some(id));
            let session = dial(&endpoint, &greeting(), target, tracker, DIAL_DEADLINE).await?;
            Ok((endpoint, session))
        });
    }
    while let Some(dialled) = dials.join_next().await {
        kept.push(dialled??);
    }
    println!("{}", json!({ "sessions": kept.len() }));
    std::future::pending().await
}
