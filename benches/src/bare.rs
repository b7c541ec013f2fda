//! The yardsticks: quinn alone, a stream for each MiB, from memory to memory, nothing verified and
//! nothing kept; as it comes, and with the TLS, windows, packet sizes and socket of qshare.

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use data_encoding::HEXLOWER;
use qshare_benches::measure::{self, Trial};
use qshare_net::{
    Callee, Endpoint, EndpointConfig, Greeting, Identity, TransportConfig, accept, dial,
};
use qshare_tests::files::noise;
use qshare_tests::process::Process;
use qshare_wire::ALPN_PEER;
use qshare_wire::hello::Role;
use quinn::{ClientConfig, Connection, RecvStream, SendStream, ServerConfig};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::json;
use tokio::task::JoinSet;

/// Bytes of one answer.
const CHUNK_BYTES: u64 = 1 << 20;
/// Requests in flight: as many as the connection's receive window has room for.
const IN_FLIGHT: usize = 16;
/// What is served, over and over: more than the caches hold.
const SOURCE_BYTES: usize = 64 << 20;
/// Whose certificate it is where identities are not qshare's.
const STOCK_NAME: &str = "bare.invalid";
/// For one connection to be made.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// How quinn is set up.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Setup {
    /// As [`quinn::TransportConfig::default`] has it: packets of up to 1,452 bytes.
    Stock,
    /// As [`qshare_net::Endpoint`] has it: packets as long as the path takes, several in a call.
    Tuned,
}

/// A server that waits to be measured.
pub(crate) struct Bare {
    setup: Setup,
    server: Process,
    at: String,
    id: String,
}

impl Bare {
    /// Starts the server, which is this program in another role.
    pub(crate) fn start(setup: Setup) -> anyhow::Result<Bare> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["bare-serve", setup.name()]);
        let server = Process::start(command);
        let ready = server.ready();
        let text = |field: &str| ready[field].as_str().map(str::to_owned);
        Ok(Bare {
            setup,
            at: text("listen").context("the server does not say where it is")?,
            id: text("id").context("the server does not say who it is")?,
            server,
        })
    }

    /// Fetches so many bytes.
    pub(crate) fn trial(&self, bytes: u64) -> anyhow::Result<Trial> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["bare-fetch", self.setup.name(), &self.at, &self.id]);
        command.arg(bytes.to_string());
        measure::trial(command, &[self.server.id()])
    }
}

impl Setup {
    fn name(self) -> &'static str {
        match self {
            Setup::Stock => "stock",
            Setup::Tuned => "tuned",
        }
    }
}

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn endpoint() -> anyhow::Result<Endpoint> {
    let config = EndpointConfig {
        listen: LOOPBACK,
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
pub(crate) fn serve(setup: Setup) -> anyhow::Result<()> {
    let source = Bytes::from(noise(SOURCE_BYTES, 1));
    let ready = |listen: SocketAddr, id: String| {
        println!("{}", json!({ "listen": listen.to_string(), "id": id }));
    };
    block_on(async {
        match setup {
            Setup::Tuned => {
                let endpoint = endpoint()?;
                ready(endpoint.local_addr()?, endpoint.id().to_string());
                while let Some(incoming) = endpoint.accept().await {
                    let (us, source) = (endpoint.id(), source.clone());
                    tokio::spawn(async move {
                        if let Ok(session) = accept(us, &greeting(), incoming).await {
                            answer_all(&session.connection, &source).await;
                        }
                    });
                }
            }
            Setup::Stock => {
                let made = rcgen::generate_simple_self_signed([STOCK_NAME.to_owned()])?;
                let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
                let certificate = made.cert.der().clone();
                let id = HEXLOWER.encode(&certificate);
                let config = ServerConfig::with_single_cert(vec![certificate], key.into())?;
                let endpoint = quinn::Endpoint::server(config, LOOPBACK)?;
                ready(endpoint.local_addr()?, id);
                while let Some(incoming) = endpoint.accept().await {
                    let source = source.clone();
                    tokio::spawn(async move {
                        if let Ok(connection) = incoming.await {
                            answer_all(&connection, &source).await;
                        }
                    });
                }
            }
        }
        Ok(())
    })
}

async fn answer_all(connection: &Connection, source: &Bytes) {
    while let Ok((send, recv)) = connection.accept_bi().await {
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
pub(crate) fn fetch(setup: Setup, at: SocketAddr, id: &str, bytes: u64) -> anyhow::Result<()> {
    block_on(async {
        match setup {
            Setup::Tuned => {
                let endpoint = endpoint()?;
                let server = Callee::Node(id.parse().ok().context("that is not a node id")?);
                let session = dial(&endpoint, &greeting(), server, at, DIAL_DEADLINE).await?;
                fetch_all(&session.connection, bytes).await
            }
            Setup::Stock => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(HEXLOWER.decode(id.as_bytes())?.into())?;
                let config = ClientConfig::with_root_certificates(Arc::new(roots))?;
                let endpoint = quinn::Endpoint::client(LOOPBACK)?;
                let connection = endpoint.connect_with(config, at, STOCK_NAME)?.await?;
                fetch_all(&connection, bytes).await
            }
        }
    })
}

async fn fetch_all(connection: &Connection, bytes: u64) -> anyhow::Result<()> {
    let chunks = bytes.div_ceil(CHUNK_BYTES);
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (connection, next) = (connection.clone(), next.clone());
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
