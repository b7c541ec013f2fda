//! Sessions with a server under test, and what is asked over them.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use qshare_benches::measure::cpu_time;
use qshare_content::{AssetName, ContentInfo, Hash};
use qshare_net::{DialTarget, Endpoint, Session, dial, framed};
use qshare_tests::process::Process;
use qshare_wire::tracker::{Announce, AnnounceAck, AnnounceStage, Entry, EntryKind, Find, Found};
use qshare_wire::{Frame, Message};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::serve::{endpoint, greeting};

const DIAL_DEADLINE: Duration = Duration::from_secs(20);
/// Deadline of a lookup, after which the run has failed.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Entries of one batch, the most that the protocol allows.
const BATCH: usize = 2048;

/// A server in a process of its own.
pub(crate) struct Served {
    pub(crate) process: Process,
    target: DialTarget,
    pub(crate) address: SocketAddr,
}

impl Served {
    /// Starts this benchmark again in a role.
    pub(crate) fn start(role: &[&str]) -> anyhow::Result<Served> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(role);
        let process = Process::start(command);
        let ready = process.ready();
        let text = |field: &str| ready[field].as_str().context("the server says no address");
        let id = text("id")?.parse().ok().context("that is no ID")?;
        Ok(Served {
            target: match role[0] {
                "tracker" => DialTarget::Tracker(Some(id)),
                _ => DialTarget::Node(id),
            },
            address: text("listen")?.parse()?,
            process,
        })
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_time(self.process.id()).context("the server is gone")
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Asking> {
        let (endpoint, greeting) = (endpoint()?, greeting());
        let session = dial(
            &endpoint,
            &greeting,
            self.target,
            self.address,
            DIAL_DEADLINE,
        );
        Ok(Asking {
            session: session.await?,
            _endpoint: endpoint,
        })
    }

    pub(crate) async fn connect_many(&self, count: usize) -> anyhow::Result<Vec<Asking>> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(self.connect().await?);
        }
        Ok(all)
    }
}

/// A session of its own identity.
pub(crate) struct Asking {
    pub(crate) session: Session,
    _endpoint: Endpoint,
}

/// Announces names and waits until the tracker has acknowledged all of them.
pub(crate) async fn announce(
    asking: &mut Asking,
    names: &[AssetName],
    info: u8,
) -> anyhow::Result<()> {
    let mut batches: Vec<Announce> = names
        .chunks(BATCH)
        .map(|names| Announce {
            sequence: 0,
            stage: AnnounceStage::FullMore,
            entries: names
                .iter()
                .enumerate()
                .map(|(at, name)| entry(name, info, at))
                .collect(),
            removed: Vec::new(),
            extensions: Vec::new(),
        })
        .collect();
    batches.push(Announce {
        sequence: 0,
        stage: AnnounceStage::FullEnd,
        entries: Vec::new(),
        removed: Vec::new(),
        extensions: Vec::new(),
    });
    batches[0].stage = AnnounceStage::FullBegin;
    let Session {
        control_send,
        control_recv,
        ..
    } = &mut asking.session;
    let last = batches.len() as u64 - 1;
    let send = async {
        for (sequence, batch) in (0..).zip(&mut batches) {
            batch.sequence = sequence;
            framed::write(control_send, batch).await?;
        }
        anyhow::Ok(())
    };
    let acknowledged = async {
        loop {
            let ack: AnnounceAck = framed::read(control_recv).await?;
            ensure!(
                ack.refused == 0,
                "{} entries refused: {}",
                ack.refused,
                ack.reason
            );
            if ack.sequence == last {
                return anyhow::Ok(());
            }
        }
    };
    let (sent, acknowledged) = tokio::join!(send, acknowledged);
    sent?;
    acknowledged
}

fn entry(name: &AssetName, info: u8, at: usize) -> Entry {
    let mut root = [info; 32];
    root[..8].copy_from_slice(&(at as u64).to_le_bytes());
    root[8..16].copy_from_slice(&(name.as_str().len() as u64).to_le_bytes());
    Entry {
        name: name.clone(),
        kind: EntryKind::File,
        info: ContentInfo {
            length: 1 << 20,
            root: Hash(root),
        },
        complete: true,
        flags: 0,
        metadata: Vec::new(),
    }
}

/// Returns the name of a number.
pub(crate) fn name(number: usize) -> anyhow::Result<AssetName> {
    let text = format!("dataset/{:03}/sample-{number:07}.parquet", number % 500);
    Ok(AssetName::new(&text)?)
}

/// Asks for one name.
pub(crate) fn question(text: &str, holders: u8) -> anyhow::Result<Find> {
    Ok(Find {
        query: text.parse()?,
        after: None,
        limit: 1,
        holders,
        extensions: Vec::new(),
    })
}

/// What is asked on each stream.
#[derive(Clone)]
pub(crate) enum Load {
    /// Lookups of names, one after the other.
    Lookups(Arc<Vec<Find>>),
    /// The bytes of a request; the answer has as many bytes as the server was told.
    Echo(bytes::Bytes, usize),
}

impl Load {
    async fn ask(&self, connection: &quinn::Connection, turn: u64) -> anyhow::Result<()> {
        match self {
            Load::Lookups(questions) => {
                let question = &questions[(turn % questions.len() as u64) as usize];
                let (found, ..) = framed::ask::<Find, Found>(connection, question).await?;
                ensure!(found.matches.len() == 1, "{} matches", found.matches.len());
            }
            Load::Echo(request, bytes) => {
                let (mut send, mut recv) = connection.open_bi().await?;
                send.write_chunk(request.clone()).await?;
                let answer = recv.read_to_end(1 << 20).await?;
                ensure!(answer.len() == *bytes, "{} bytes", answer.len());
            }
        }
        Ok(())
    }
}

/// The result of a measurement.
pub(crate) struct Outcome {
    pub(crate) per_second: f64,
    /// Processor time of the servers for each second.
    pub(crate) server_cpu: f64,
    /// Sorted.
    pub(crate) latencies: Vec<Duration>,
}

impl Outcome {
    /// Returns a percentile of the latencies in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies
            .get(at)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// Askers of one server, in order.
pub(crate) struct Askers<'a> {
    pub(crate) server: &'a Served,
    pub(crate) sessions: &'a [Asking],
}

fn cpu_of(all: &[Askers<'_>]) -> anyhow::Result<Duration> {
    all.iter().map(|askers| askers.server.cpu()).sum()
}

/// Asks on all connections, `depth` at once on each, for a time.
pub(crate) async fn saturate(
    all: &[Askers<'_>],
    load: &Load,
    depth: usize,
    time: Duration,
) -> anyhow::Result<Outcome> {
    let end = Instant::now() + time;
    let turn = Arc::new(AtomicU64::new(0));
    let (cpu, begun) = (cpu_of(all)?, Instant::now());
    let mut workers = JoinSet::new();
    for asker in all.iter().flat_map(|askers| askers.sessions) {
        for _ in 0..depth {
            let (connection, load) = (asker.session.connection.clone(), load.clone());
            let turn = Arc::clone(&turn);
            workers.spawn(async move {
                let mut latencies = Vec::new();
                while Instant::now() < end {
                    let asked = Instant::now();
                    let turn = turn.fetch_add(1, Ordering::Relaxed);
                    timeout(ANSWER_DEADLINE, load.ask(&connection, turn)).await??;
                    latencies.push(asked.elapsed());
                }
                anyhow::Ok(latencies)
            });
        }
    }
    collect(all, workers, begun, cpu).await
}

/// Asks at a fixed rate, over all connections in turn.
pub(crate) async fn pace(
    askers: Askers<'_>,
    load: &Load,
    per_second: f64,
    time: Duration,
) -> anyhow::Result<Outcome> {
    // Ticks of a millisecond, each with its share of the questions.
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let all = [askers];
    let (cpu, begun) = (cpu_of(&all)?, Instant::now());
    let sessions = all[0].sessions;
    let mut workers = JoinSet::new();
    let mut asked = 0;
    while begun.elapsed() < time {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * per_second) as u64;
        while asked < due {
            let asker = &sessions[(asked % sessions.len() as u64) as usize];
            let (connection, load, turn) = (asker.session.connection.clone(), load.clone(), asked);
            workers.spawn(async move {
                let asked = Instant::now();
                timeout(ANSWER_DEADLINE, load.ask(&connection, turn)).await??;
                anyhow::Ok(vec![asked.elapsed()])
            });
            asked += 1;
        }
    }
    collect(&all, workers, begun, cpu).await
}

async fn collect(
    all: &[Askers<'_>],
    mut workers: JoinSet<anyhow::Result<Vec<Duration>>>,
    begun: Instant,
    cpu: Duration,
) -> anyhow::Result<Outcome> {
    let mut latencies = Vec::new();
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let spent = cpu_of(all)? - cpu;
    latencies.sort_unstable();
    Ok(Outcome {
        per_second: latencies.len() as f64 / seconds,
        server_cpu: spent.as_secs_f64() / seconds,
        latencies,
    })
}

/// Returns the bytes of a request, and how many bytes its answer has.
pub(crate) async fn sizes(
    asker: &Asking,
    question: &Find,
) -> anyhow::Result<(bytes::Bytes, usize)> {
    let (found, ..) = framed::ask::<Find, Found>(&asker.session.connection, question).await?;
    ensure!(found.matches.len() == 1, "{} is not found", Find::NAME);
    let (request, answer) = (Frame::encode(question)?, Frame::encode(&found)?);
    Ok((request.into(), answer.len()))
}
