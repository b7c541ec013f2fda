//! A connection of qshare's endpoint that moves bytes from memory to memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use qshare_content::NodeId;
use qshare_net::{
    Congestion, DialTarget, Endpoint, EndpointConfig, Greeting, Identity, Session, TransportConfig,
    accept, dial,
};
use qshare_tests::lab::Host;
use qshare_wire::ALPN_PEER;
use qshare_wire::hello::Role;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::flow::Watch;

const CHUNK_BYTES: usize = 4 << 20;
/// Written at once.
const PART_BYTES: usize = 256 << 10;
/// Requests that wait at the sender: 64 MiB, so that it never runs dry.
const REQUESTS: usize = 16;
const DIAL_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The receiver dials, as a downloader does.
pub(crate) fn run(
    congestion: Congestion,
    from: &Host,
    to: &Host,
    watch: &Arc<Watch>,
) -> anyhow::Result<()> {
    let (say, said) = oneshot::channel();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| from.inside(|| send(congestion, from, say, watch)));
        let received = to.inside(|| receive(congestion, to, said, watch));
        watch.end();
        let sent = sender
            .join()
            .map_err(|_| anyhow::anyhow!("the sender died"))?;
        received??;
        sent?
    })
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn endpoint(congestion: Congestion, host: &Host) -> anyhow::Result<(Endpoint, Greeting)> {
    let config = EndpointConfig {
        listen: SocketAddr::from((host.address(), 0)),
        accept_alpn: ALPN_PEER,
        transport: TransportConfig {
            congestion,
            ..TransportConfig::default()
        },
    };
    let greeting = Greeting::new(Role::Node);
    Ok((Endpoint::bind(&Identity::ephemeral()?, &config)?, greeting))
}

fn send(
    congestion: Congestion,
    host: &Host,
    say: oneshot::Sender<(NodeId, SocketAddr)>,
    watch: &Watch,
) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let (endpoint, greeting) = endpoint(congestion, host)?;
        let _ = say.send((endpoint.id(), endpoint.local_addr()?));
        let incoming = endpoint.accept().await.context("nobody came")?;
        let Session { connection, .. } = accept(endpoint.id(), &greeting, incoming).await?;
        let part: bytes::Bytes = vec![7; PART_BYTES].into();
        let serve = async {
            while let Ok((mut stream, _request)) = connection.accept_bi().await {
                let part = part.clone();
                tokio::spawn(async move {
                    for _ in 0..CHUNK_BYTES / PART_BYTES {
                        stream.write_chunk(part.clone()).await?;
                    }
                    anyhow::Ok(stream.finish()?)
                });
            }
        };
        tokio::select! {
            () = serve => {}
            () = over(watch) => {}
        }
        Ok(())
    })
}

fn receive(
    congestion: Congestion,
    host: &Host,
    said: oneshot::Receiver<(NodeId, SocketAddr)>,
    watch: &Arc<Watch>,
) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let (endpoint, greeting) = endpoint(congestion, host)?;
        let (peer, address) = said.await?;
        let target = DialTarget::Node(peer);
        let session = dial(&endpoint, &greeting, target, address, DIAL_WITHIN).await?;
        for _ in 0..REQUESTS {
            let (connection, watch) = (session.connection.clone(), watch.clone());
            tokio::spawn(async move { while fetch(&connection, &watch).await.is_ok() {} });
        }
        tokio::select! {
            _ = session.connection.closed() => {}
            () = over(watch) => {}
        }
        Ok(())
    })
}

async fn fetch(connection: &quinn::Connection, watch: &Watch) -> anyhow::Result<()> {
    let (mut request, mut reply) = connection.open_bi().await?;
    request.finish()?;
    while let Some(chunk) = reply.read_chunk(usize::MAX, true).await? {
        watch.count(chunk.bytes.len());
    }
    Ok(())
}

async fn over(watch: &Watch) {
    while !watch.has_ended() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
