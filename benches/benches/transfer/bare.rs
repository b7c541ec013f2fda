//! The yardstick: quinn alone, a stream for each MiB, from memory to memory, nothing verified and
//! nothing kept. Identity, TLS, windows and socket are those of qshare.

use std::env;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use qshare_net::{
    Callee, Endpoint, EndpointConfig, Greeting, Identity, Session, TransportConfig, accept, dial,
};
use qshare_tests::files::noise;
use qshare_tests::process::Process;
use qshare_wire::ALPN_PEER;
use qshare_wire::hello::Role;
use quinn::{Connection, RecvStream, SendStream};
use serde_json::json;
use tokio::task::JoinSet;

use crate::measure::{self, Trial};

/// Bytes of one answer.
const CHUNK_BYTES: u64 = 1 << 20;
/// Requests in flight: as many as the connection's receive window has room for.
const IN_FLIGHT: usize = 16;
/// What is served, over and over: more than the caches hold.
const SOURCE_BYTES: usize = 64 << 20;
/// For one connection to be made.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// A server that waits to be measured.
pub(crate) struct Bare {
    server: Process,
    at: String,
    id: String,
}

impl Bare {
    /// Starts the server, which is this program in another role.
    pub(crate) fn start() -> anyhow::Result<Bare> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("bare-serve");
        let server = Process::start(command);
        let ready = server.ready();
        let text = |field: &str| ready[field].as_str().map(str::to_owned);
        Ok(Bare {
            at: text("listen").context("the server does not say where it is")?,
            id: text("id").context("the server does not say who it is")?,
            server,
        })
    }

    /// Fetches so many bytes.
    pub(crate) fn trial(&self, bytes: u64) -> anyhow::Result<Trial> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["bare-fetch", &self.at, &self.id, &bytes.to_string()]);
        measure::trial(command, &[self.server.id()])
    }
}

fn endpoint() -> anyhow::Result<Endpoint> {
    let config = EndpointConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        accept_alpn: ALPN_PEER,
        transport: TransportConfig::default(),
    };
    Ok(Endpoint::bind(&Identity::ephemeral()?, &config)?)
}

fn greeting() -> Greeting {
    Greeting {
        role: Role::Node,
        group: None,
        candidates: Vec::new(),
        features: 0,
    }
}

/// Runs on this thread alone, as the binary does.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// Serves whoever dials, and never ends by itself.
pub(crate) fn serve() -> anyhow::Result<()> {
    block_on(async {
        let endpoint = endpoint()?;
        let source = Bytes::from(noise(SOURCE_BYTES, 1));
        let listen = endpoint.local_addr()?.to_string();
        println!(
            "{}",
            json!({ "listen": listen, "id": endpoint.id().to_string() })
        );
        while let Some(incoming) = endpoint.accept().await {
            let (us, source) = (endpoint.id(), source.clone());
            tokio::spawn(async move {
                if let Ok(session) = accept(us, &greeting(), incoming).await {
                    answer_all(&session, &source).await;
                }
            });
        }
        Ok(())
    })
}

async fn answer_all(session: &Session, source: &Bytes) {
    while let Ok((send, recv)) = session.connection.accept_bi().await {
        let source = source.clone();
        // A request that fails is the client's to report.
        tokio::spawn(async move { answer(send, recv, &source).await.ok() });
    }
}

async fn answer(mut send: SendStream, mut recv: RecvStream, source: &Bytes) -> anyhow::Result<()> {
    let mut chunk = [0; 8];
    recv.read_exact(&mut chunk).await?;
    let chunks = SOURCE_BYTES as u64 / CHUNK_BYTES;
    let start = (u64::from_le_bytes(chunk) % chunks * CHUNK_BYTES) as usize;
    let bytes = source.slice(start..start + CHUNK_BYTES as usize);
    send.write_chunk(bytes).await?;
    send.finish()?;
    Ok(())
}

/// Fetches `bytes` bytes, rounded up to whole chunks.
pub(crate) fn fetch(at: SocketAddr, id: String, bytes: u64) -> anyhow::Result<()> {
    block_on(async {
        let endpoint = endpoint()?;
        let server = Callee::Node(id.parse().ok().context("that is not a node id")?);
        let session = dial(&endpoint, &greeting(), server, at, DIAL_DEADLINE).await?;
        let chunks = bytes.div_ceil(CHUNK_BYTES);
        let next = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (connection, next) = (session.connection.clone(), next.clone());
            workers.spawn(async move {
                loop {
                    let chunk = next.fetch_add(1, Ordering::Relaxed);
                    if chunk >= chunks {
                        return anyhow::Ok(());
                    }
                    fetch_chunk(&connection, chunk).await?;
                }
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        Ok(())
    })
}

async fn fetch_chunk(connection: &Connection, chunk: u64) -> anyhow::Result<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&chunk.to_le_bytes()).await?;
    send.finish()?;
    let mut pieces = [const { Bytes::new() }; 32];
    let mut received = 0;
    while let Some(count) = recv.read_chunks(&mut pieces).await? {
        for piece in pieces.iter_mut().take(count) {
            received += std::mem::take(piece).len() as u64;
        }
    }
    ensure!(received == CHUNK_BYTES, "{received} bytes of chunk {chunk}");
    Ok(())
}
