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
use tokio::time::{sleep_until, timeout};

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
    /// Asks once; returns when the peer allowed a stream for it.
    async fn ask(&self, connection: &quinn::Connection, turn: u64) -> anyhow::Result<Instant> {
        let (mut send, mut recv) = connection.open_bi().await?;
        let opened = Instant::now();
        match self {
            Load::Lookups(questions) => {
                let question = &questions[(turn % questions.len() as u64) as usize];
                framed::write(&mut send, question).await?;
                send.finish()?;
                let found: Found = framed::read(&mut recv).await?;
                framed::take_end(&mut recv);
                ensure!(found.matches.len() == 1, "{} matches", found.matches.len());
            }
            Load::Echo(request, bytes) => {
                send.write_chunk(request.clone()).await?;
                send.finish()?;
                let answer = recv.read_to_end(1 << 20).await?;
                ensure!(answer.len() == *bytes, "{} bytes", answer.len());
            }
        }
        Ok(opened)
    }
}

/// Durations, sorted.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        Times(times)
    }

    /// Returns a permille in milliseconds.
    pub(crate) fn permille(&self, permille: usize) -> f64 {
        let at = (self.0.len() * permille / 1000).min(self.0.len().saturating_sub(1));
        self.0
            .get(at)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// The result of a measurement.
pub(crate) struct Outcome {
    pub(crate) per_second: f64,
    /// Processor time of the servers for each second.
    pub(crate) server_cpu: f64,
    /// Processor time of this process, the generator, for each second.
    pub(crate) generator_cpu: f64,
    pub(crate) latencies: Times,
}

/// The result of asking at a fixed rate.
pub(crate) struct Paced {
    /// Its latencies begin when a question is due.
    pub(crate) outcome: Outcome,
    /// The parts of the latencies: the time until the generator asks,
    pub(crate) late: Times,
    /// until the server allows another stream,
    pub(crate) opening: Times,
    /// and until the answer is there.
    pub(crate) answering: Times,
}

/// Askers of one server, in order.
pub(crate) struct Askers<'a> {
    pub(crate) server: &'a Served,
    pub(crate) sessions: &'a [Asking],
}

/// A measurement that runs.
struct Running<'a> {
    all: &'a [Askers<'a>],
    server_cpu: Duration,
    generator_cpu: Duration,
    begun: Instant,
}

impl Running<'_> {
    fn begin<'a>(all: &'a [Askers<'a>]) -> anyhow::Result<Running<'a>> {
        Ok(Running {
            all,
            server_cpu: server_cpu(all)?,
            generator_cpu: generator_cpu()?,
            begun: Instant::now(),
        })
    }

    fn end(self, latencies: Vec<Duration>) -> anyhow::Result<Outcome> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let a_second = |cpu: Duration| cpu.as_secs_f64() / seconds;
        Ok(Outcome {
            per_second: latencies.len() as f64 / seconds,
            server_cpu: a_second(server_cpu(self.all)? - self.server_cpu),
            generator_cpu: a_second(generator_cpu()? - self.generator_cpu),
            latencies: Times::new(latencies),
        })
    }
}

fn server_cpu(all: &[Askers<'_>]) -> anyhow::Result<Duration> {
    all.iter().map(|askers| askers.server.cpu()).sum()
}

fn generator_cpu() -> anyhow::Result<Duration> {
    cpu_time(std::process::id()).context("this process has no processor time")
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
    let running = Running::begin(all)?;
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
    let mut latencies = Vec::new();
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    running.end(latencies)
}

/// Asks at a fixed rate, with `depth` workers on each connection. A free worker takes the next
/// question and asks it when it is due. A latency begins when its question is due, so that it has
/// the time by which the generator is late, too.
pub(crate) async fn pace(
    askers: Askers<'_>,
    load: &Load,
    depth: usize,
    per_second: f64,
    time: Duration,
) -> anyhow::Result<Paced> {
    let all = [askers];
    let running = Running::begin(&all)?;
    let (begun, turn) = (running.begun, Arc::new(AtomicU64::new(0)));
    let mut workers: JoinSet<anyhow::Result<Vec<[Instant; 4]>>> = JoinSet::new();
    for asker in (0..depth).flat_map(|_| all[0].sessions) {
        let (connection, load) = (asker.session.connection.clone(), load.clone());
        let turn = Arc::clone(&turn);
        workers.spawn(async move {
            let mut times = Vec::new();
            loop {
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                let due = Duration::from_secs_f64(turn as f64 / per_second);
                if due >= time {
                    return Ok(times);
                }
                let due = begun + due;
                if Instant::now() < due {
                    // Wakes within a millisecond after that.
                    sleep_until(due.into()).await;
                }
                let asked = Instant::now();
                let opened = load.ask(&connection, turn).await?;
                times.push([due, asked, opened, Instant::now()]);
            }
        });
    }
    let mut times = Vec::new();
    while let Some(worker) = timeout(time + ANSWER_DEADLINE, workers.join_next()).await? {
        times.extend(worker??);
    }
    let between = |from: usize, to: usize| times.iter().map(|at| at[to] - at[from]).collect();
    Ok(Paced {
        outcome: running.end(between(0, 3))?,
        late: Times::new(between(0, 1)),
        opening: Times::new(between(1, 2)),
        answering: Times::new(between(2, 3)),
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
