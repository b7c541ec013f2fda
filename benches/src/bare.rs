//! The yardstick: bare quinn, one stream for each MiB, from memory to memory, without verification
//! or storage. It runs with quinn's defaults, and with the TLS, windows, packet sizes and socket of
//! qshare.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::{Subcommand, ValueEnum};
use data_encoding::HEXLOWER;
use qshare_net::{
    DialTarget, Endpoint, EndpointConfig, Greeting, Identity, TransportConfig, accept, dial,
};
use qshare_tests::files::noise;
use qshare_tests::process::Process;
use qshare_wire::ALPN_PEER;
use qshare_wire::hello;
use quinn::{ClientConfig, Connection, RecvStream, SendStream, ServerConfig};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::json;
use tokio::task::JoinSet;

/// Bytes of one answer.
const CHUNK_BYTES: u64 = 1 << 20;
/// Requests in flight: as many as the connection's receive window has room for.
const IN_FLIGHT: usize = 16;
/// Size of the buffer that is served repeatedly: more than the caches hold.
const SOURCE_BYTES: usize = 64 << 20;
/// Server name of the certificate where identities are not qshare's.
const STOCK_NAME: &str = "bare.invalid";
/// Deadline of a connection.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// Configuration of quinn.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Setup {
    /// As [`quinn::TransportConfig::default`] has it: packets of up to 1,452 bytes.
    Stock,
    /// As [`qshare_net::Endpoint`] has it: packets as long as the path takes, several in a call.
    Tuned,
}

/// The role of a benchmark that starts itself again.
#[derive(Debug, Clone, Subcommand)]
pub enum Role {
    /// Serves bytes from memory until it is killed
    #[command(hide = true)]
    BareServe {
        /// How
        setup: Setup,
        /// On this address
        on: IpAddr,
    },
    /// Fetches bytes into memory
    #[command(hide = true)]
    BareFetch {
        /// As the server has it
        setup: Setup,
        /// Where the server listens
        at: SocketAddr,
        /// Who it is
        id: String,
        /// How many bytes
        bytes: u64,
    },
}

impl Role {
    /// Does what the role says.
    ///
    /// # Errors
    ///
    /// When the network or the other side does not do its part.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Role::BareServe { setup, on } => serve(setup, on),
            Role::BareFetch {
                setup,
                at,
                id,
                bytes,
            } => fetch(setup, at, &id, bytes),
        }
    }
}

/// A running server.
pub struct Bare {
    setup: Setup,
    server: Process,
    at: String,
    id: String,
}

impl Bare {
    /// Starts the server on an address. `program` starts a program that takes a [`Role`].
    ///
    /// # Errors
    ///
    /// When it does not say where and who it is.
    pub fn start(setup: Setup, mut program: Command, on: IpAddr) -> anyhow::Result<Bare> {
        program.args(["bare-serve", setup.name(), &on.to_string()]);
        let server = Process::start(program);
        let ready = server.ready();
        let text = |field: &str| ready[field].as_str().map(str::to_owned);
        Ok(Bare {
            setup,
            at: text("listen").context("the server does not say where it is")?,
            id: text("id").context("the server does not say who it is")?,
            server,
        })
    }

    /// The command that fetches `bytes` bytes; `program` as for [`start`](Self::start).
    pub fn get(&self, mut program: Command, bytes: u64) -> Command {
        program.args(["bare-fetch", self.setup.name(), &self.at, &self.id]);
        program.arg(bytes.to_string());
        program
    }

    /// The server's process.
    pub fn id(&self) -> u32 {
        self.server.id()
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

/// Where to listen to reach an address.
fn near(to: IpAddr) -> SocketAddr {
    let ip = match to.is_loopback() {
        true => to,
        false => Ipv4Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

fn endpoint(listen: SocketAddr) -> anyhow::Result<Endpoint> {
    let config = EndpointConfig {
        listen,
        accept_alpn: ALPN_PEER,
        transport: TransportConfig::default(),
    };
    Ok(Endpoint::bind(&Identity::ephemeral()?, &config)?)
}

fn greeting() -> Greeting {
    Greeting::new(hello::Role::Node)
}

/// Runs on this thread alone, as the binary does.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// Serves every client until the process is killed.
fn serve(setup: Setup, on: IpAddr) -> anyhow::Result<()> {
    let source = Bytes::from(noise(SOURCE_BYTES, 1));
    let on = SocketAddr::new(on, 0);
    let ready = |listen: SocketAddr, id: String| {
        println!("{}", json!({ "listen": listen.to_string(), "id": id }));
    };
    block_on(async {
        match setup {
            Setup::Tuned => {
                let endpoint = endpoint(on)?;
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
                let endpoint = quinn::Endpoint::server(config, on)?;
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
        // The client reports a failed request.
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
fn fetch(setup: Setup, at: SocketAddr, id: &str, bytes: u64) -> anyhow::Result<()> {
    block_on(async {
        match setup {
            Setup::Tuned => {
                let endpoint = endpoint(near(at.ip()))?;
                let server = DialTarget::Node(id.parse().ok().context("that is not a node id")?);
                let session = dial(&endpoint, &greeting(), server, at, DIAL_DEADLINE).await?;
                fetch_all(&session.connection, bytes).await
            }
            Setup::Stock => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(HEXLOWER.decode(id.as_bytes())?.into())?;
                let config = ClientConfig::with_root_certificates(Arc::new(roots))?;
                let endpoint = quinn::Endpoint::client(near(at.ip()))?;
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
