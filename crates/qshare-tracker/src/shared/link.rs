//! The connection to Redis. It heals itself: after a failure the next call connects again, with
//! pauses that grow, and asks Sentinel again who the master is.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, TlsMode,
    Value,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::address::{RegistryKind, SharedRegistryConfig};
use super::refusals::{WriteRefusal, WriteRefusals};
use super::scripts::{Call, load_scripts};
use crate::registry_metrics::RegistryMetrics;

/// Time for a new connection.
const CONNECT_DEADLINE: Duration = Duration::from_millis(1_500);
/// The first and the longest pause between attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often the loss of the connection is logged as a warning.
const TELL_INTERVAL: Duration = Duration::from_secs(30);

/// Why the shared registry cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryFault {
    /// No connection, and the pause before the next attempt has not passed.
    #[error("no connection")]
    Away,
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Redis answers with an error.
    #[error("{0}")]
    Redis(std::sync::Arc<RedisError>),
    /// Redis would evict entries when its memory is full.
    #[error(
        "its maxmemory-policy is {0}, so it would drop entries when its memory is full. Set it to \
         noeviction (CONFIG SET maxmemory-policy noeviction)"
    )]
    Evicts(String),
    /// Redis is too old.
    #[error("Redis {0} is too old: 7.0 is needed")]
    TooOld(String),
    /// The server's certificate is not trusted.
    #[error(
        "its certificate is not trusted ({0}). Name the certificate of the authority that signed \
         it with --registry-ca FILE"
    )]
    Untrusted(String),
    /// Redis wants a password, or another one.
    #[error(
        "{0}. Name the file with the password with --registry-password-file, and the user, if \
         there is one, in the URL: redis://USER@HOST:PORT"
    )]
    Unauthenticated(String),
    /// The server is a replica.
    #[error("it is a read-only replica")]
    Replica,
    /// An answer does not have the expected form.
    #[error("an answer is malformed")]
    Malformed,
}

impl RegistryFault {
    /// Whether only a person can change it.
    pub fn is_refusal(&self) -> bool {
        match self {
            RegistryFault::Evicts(_)
            | RegistryFault::TooOld(_)
            | RegistryFault::Untrusted(_)
            | RegistryFault::Unauthenticated(_) => true,
            RegistryFault::Redis(error) => {
                error.kind() == ErrorKind::InvalidClientConfig || error.code() == Some("NOPERM")
            }
            _ => false,
        }
    }
}

impl RegistryFault {
    /// Returns why writes are refused, if this says so.
    fn write_refusal(&self) -> Option<WriteRefusal> {
        match self {
            RegistryFault::Redis(error) => WriteRefusal::of_code(error.code()?),
            RegistryFault::Replica => Some(WriteRefusal::ReadOnly),
            _ => None,
        }
    }

    /// Returns the name under which it is counted.
    fn cause(&self) -> &'static str {
        match self {
            RegistryFault::Away => "away",
            RegistryFault::TimedOut(_) => "timed_out",
            RegistryFault::Redis(error) if error.is_io_error() => "connection",
            RegistryFault::Redis(_) => "refused",
            RegistryFault::Evicts(_)
            | RegistryFault::TooOld(_)
            | RegistryFault::Untrusted(_)
            | RegistryFault::Unauthenticated(_)
            | RegistryFault::Replica => "unusable",
            RegistryFault::Malformed => "malformed",
        }
    }
}

impl From<RedisError> for RegistryFault {
    fn from(error: RedisError) -> RegistryFault {
        // rustls' own error is wrapped in one of the operating system's.
        let text = error.to_string();
        if let Some(at) = text.find("invalid peer certificate") {
            return RegistryFault::Untrusted(text[at..].to_owned());
        }
        let wants_password = matches!(error.code(), Some("NOAUTH" | "WRONGPASS"));
        if wants_password || error.kind() == ErrorKind::AuthenticationFailed {
            return RegistryFault::Unauthenticated(text);
        }
        RegistryFault::Redis(std::sync::Arc::new(error))
    }
}

/// A connection to Redis that is made again when it breaks.
pub(crate) struct Link {
    /// Held while connecting.
    connector: tokio::sync::Mutex<Connector>,
    current: Mutex<Current>,
    response_deadline: Duration,
    /// Counts connections.
    connections: watch::Sender<u64>,
    refusals: WriteRefusals,
    metrics: RegistryMetrics,
}

struct Current {
    connection: Option<(u64, Connection)>,
    retry_at: Option<Instant>,
    pause: Duration,
    count: u64,
    fault: Option<RegistryFault>,
    /// When the loss of a connection was last logged as a warning.
    told_at: Option<Instant>,
    /// Whether that of the last one was.
    is_loss_told: bool,
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

enum Connector {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Box<SentinelClient>),
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    /// Makes a link that connects at its first use. Each answer must come within
    /// `response_deadline`.
    pub(crate) fn new(
        config: &SharedRegistryConfig,
        response_deadline: Duration,
        metrics: RegistryMetrics,
    ) -> Result<Link, RegistryFault> {
        Ok(Link {
            connector: tokio::sync::Mutex::new(Connector::new(config, response_deadline)?),
            current: Mutex::new(Current {
                connection: None,
                retry_at: None,
                pause: PAUSE_MIN,
                count: 0,
                fault: None,
                told_at: None,
                is_loss_told: false,
            }),
            response_deadline,
            connections: watch::Sender::new(0),
            refusals: WriteRefusals::default(),
            metrics,
        })
    }

    /// Returns a watch that reports the number of connections made so far.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        self.connections.subscribe()
    }

    /// Whether there is a connection.
    pub(crate) fn is_up(&self) -> bool {
        self.lock().connection.is_some()
    }

    /// Returns why Redis refuses writes; None if it accepts them, as far as is known.
    pub(crate) fn write_refusal(&self) -> Option<WriteRefusal> {
        self.refusals.current(Instant::now())
    }

    /// Counts a failure.
    fn failed(&self, fault: &RegistryFault) {
        self.metrics.failed(fault.cause());
        if let Some(refusal) = fault.write_refusal() {
            self.refusals.refused(Instant::now(), refusal);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects if there is no connection, unless the last attempt failed a moment ago.
    pub(crate) async fn connect(&self) -> Result<(), RegistryFault> {
        self.connection().await.map(|_| ())
    }

    async fn connection(&self) -> Result<(u64, Connection), RegistryFault> {
        if let Some(answer) = self.connected() {
            return answer;
        }
        // Others do not wait for the attempt: their callers have something better to do.
        let mut connector = self.connector.try_lock().map_err(|_| RegistryFault::Away)?;
        if let Some(answer) = self.connected() {
            return answer;
        }
        let connected =
            match timeout(CONNECT_DEADLINE, connector.connect(self.response_deadline)).await {
                Ok(connected) => connected,
                Err(_) => Err(RegistryFault::TimedOut(CONNECT_DEADLINE)),
            };
        let mut current = self.lock();
        match connected {
            Ok(connection) => {
                current.count += 1;
                let number = current.count;
                current.connection = Some((number, connection.clone()));
                current.pause = PAUSE_MIN;
                current.retry_at = None;
                current.fault = None;
                let was_told = std::mem::take(&mut current.is_loss_told);
                drop(current);
                self.metrics.connected();
                match was_told {
                    true => warn!("connected to the shared registry again"),
                    false => info!("connected to the shared registry"),
                }
                self.connections.send_replace(number);
                Ok((number, connection))
            }
            Err(fault) => {
                // A part of the pause is random, so that trackers do not return at once.
                let pause = current.pause.mul_f64(rand::rng().random_range(0.5..1.0));
                current.retry_at = Some(Instant::now() + pause);
                current.pause = (current.pause * 2).min(PAUSE_MAX);
                let is_news =
                    current.fault.as_ref().map(ToString::to_string) != Some(fault.to_string());
                current.fault = Some(fault.clone());
                drop(current);
                if is_news {
                    warn!(cause = %fault, "cannot use the shared registry");
                }
                Err(fault)
            }
        }
    }

    /// Returns the connection, or the fault if it is too early to connect again; None otherwise.
    fn connected(&self) -> Option<Result<(u64, Connection), RegistryFault>> {
        let current = self.lock();
        if let Some((number, connection)) = &current.connection {
            return Some(Ok((*number, connection.clone())));
        }
        let is_early = current.retry_at.is_some_and(|at| Instant::now() < at);
        is_early.then(|| Err(current.fault.clone().unwrap_or(RegistryFault::Away)))
    }

    /// Carries out calls, and returns one answer each. If any of them fails, all of them count as
    /// failed: calls can be repeated without harm.
    pub(crate) async fn run(&self, calls: &[Call]) -> Result<Vec<Value>, RegistryFault> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let (number, connection) = match self.connection().await {
            Ok(connection) => connection,
            Err(fault) => {
                self.failed(&fault);
                return Err(fault);
            }
        };
        let begun = Instant::now();
        let mut answer = self.attempt(connection.clone(), calls).await;
        if let Err(RegistryFault::Redis(error)) = &answer
            && error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        {
            // A server that was restarted or promoted does not know the scripts.
            answer = match self.load_scripts(connection.clone()).await {
                Ok(()) => self.attempt(connection, calls).await,
                Err(fault) => Err(fault),
            };
        }
        match &answer {
            Ok(_) => self.metrics.carried_out(calls.len()),
            Err(fault) => self.failed(fault),
        }
        // A call that waits for a message tells nothing about Redis.
        if !calls.iter().any(Call::waits) {
            self.metrics.took(begun.elapsed());
        }
        if let Err(fault) = &answer
            && breaks_connection(fault)
        {
            self.disconnect(number, fault);
        }
        answer
    }

    async fn attempt(
        &self,
        connection: Connection,
        calls: &[Call],
    ) -> Result<Vec<Value>, RegistryFault> {
        let answers = timeout(self.response_deadline, async {
            match connection {
                Connection::One(mut one) => {
                    let mut pipeline = redis::pipe();
                    for call in calls {
                        pipeline.add_command(call.to_command());
                    }
                    one.req_packed_commands(&pipeline, 0, calls.len()).await
                }
                Connection::Cluster(cluster) => run_in_cluster(cluster, calls).await,
            }
        });
        let values = answers
            .await
            .map_err(|_| RegistryFault::TimedOut(self.response_deadline))??;
        if values.len() != calls.len() {
            return Err(RegistryFault::Malformed);
        }
        let checked = values.into_iter().map(Value::extract_error);
        Ok(checked.collect::<Result<_, _>>()?)
    }

    async fn load_scripts(&self, connection: Connection) -> Result<(), RegistryFault> {
        let loaded = timeout(self.response_deadline, async {
            for command in load_scripts() {
                match connection.clone() {
                    Connection::One(mut one) => {
                        one.req_packed_command(&command).await?.extract_error()?;
                    }
                    Connection::Cluster(mut cluster) => {
                        cluster.route_command(command, all_masters()).await?;
                    }
                }
            }
            Ok::<(), RedisError>(())
        });
        loaded
            .await
            .map_err(|_| RegistryFault::TimedOut(self.response_deadline))??;
        Ok(())
    }

    fn disconnect(&self, number: u64, fault: &RegistryFault) {
        let mut current = self.lock();
        if current
            .connection
            .as_ref()
            .is_some_and(|(at, _)| *at == number)
        {
            current.connection = None;
            current.fault = Some(fault.clone());
            // A cluster without one of its masters is lost with each call that needs it.
            let now = Instant::now();
            let is_news = current.told_at.is_none_or(|at| now - at >= TELL_INTERVAL);
            if is_news {
                current.told_at = Some(now);
                current.is_loss_told = true;
            }
            drop(current);
            match is_news {
                true => warn!(cause = %fault, "lost the shared registry"),
                false => debug!(cause = %fault, "lost the shared registry"),
            }
        }
    }
}

/// Whether to connect anew: the connection is broken, or leads to a server that is no master.
fn breaks_connection(fault: &RegistryFault) -> bool {
    match fault {
        RegistryFault::Redis(error) => {
            error.is_unrecoverable_error()
                || error.is_io_error()
                || error.is_connection_dropped()
                || error.is_timeout()
                || matches!(
                    error.kind(),
                    ErrorKind::Server(
                        ServerErrorKind::ReadOnly
                            | ServerErrorKind::MasterDown
                            | ServerErrorKind::BusyLoading
                            | ServerErrorKind::ClusterDown
                    )
                )
        }
        RegistryFault::TimedOut(_) | RegistryFault::Unauthenticated(_) => true,
        _ => false,
    }
}

fn all_masters() -> RoutingInfo {
    RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None))
}

/// A pipeline leads to one server, and the keys of these calls lie on several.
async fn run_in_cluster(
    cluster: ClusterConnection,
    calls: &[Call],
) -> Result<Vec<Value>, RedisError> {
    let mut running = JoinSet::new();
    for (at, call) in calls.iter().enumerate() {
        let (mut cluster, command) = (cluster.clone(), call.to_command());
        running.spawn(async move { (at, cluster.req_packed_command(&command).await) });
    }
    let mut values = vec![Value::Nil; calls.len()];
    while let Some(ended) = running.join_next().await {
        if let Ok((at, value)) = ended {
            values[at] = value?;
        }
    }
    Ok(values)
}

impl Connector {
    fn new(
        config: &SharedRegistryConfig,
        response_deadline: Duration,
    ) -> Result<Connector, RegistryFault> {
        let address = &config.address;
        let certificates = config
            .certificate_authority
            .as_ref()
            .map(|pem| TlsCertificates {
                client_tls: None,
                root_cert: Some(pem.clone()),
            });
        let mut settings = RedisConnectionInfo::default();
        if let Some(user) = &address.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &config.password {
            settings = settings.set_password(password.as_str());
        }
        let place = |host: &str, port: u16| match address.tls {
            true => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: false,
                tls_params: None,
            },
            false => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        let at = |host: &str, port: u16, settings: RedisConnectionInfo| {
            let info: ConnectionInfo = place(host, port).into_connection_info()?;
            Ok::<_, RedisError>(info.set_redis_settings(settings))
        };
        Ok(match &address.kind {
            RegistryKind::Single { database } => {
                let (host, port) = address.hosts.first().ok_or(RegistryFault::Malformed)?;
                let info = at(host, *port, settings.set_db(*database))?;
                Connector::Single(Box::new(match certificates {
                    Some(certificates) => Client::build_with_tls(info, certificates)?,
                    None => Client::open(info)?,
                }))
            }
            RegistryKind::Cluster => {
                let hosts = address.hosts.iter();
                let nodes: Vec<ConnectionInfo> = hosts
                    .map(|(host, port)| at(host, *port, settings.clone()))
                    .collect::<Result<_, _>>()?;
                let mut builder = ClusterClient::builder(nodes)
                    .retries(2)
                    .min_retry_wait(20)
                    .max_retry_wait(200)
                    .connection_timeout(CONNECT_DEADLINE)
                    .response_timeout(response_deadline);
                if let Some(certificates) = certificates {
                    builder = builder.certs(certificates);
                }
                if address.tls {
                    builder = builder.tls(TlsMode::Secure);
                }
                Connector::Cluster(Box::new(builder.build()?))
            }
            RegistryKind::Sentinel { master } => {
                let hosts = address.hosts.iter();
                let sentinels = hosts.map(|(host, port)| place(host, *port));
                let mut builder = SentinelClientBuilder::new(
                    sentinels,
                    master.clone(),
                    SentinelServerType::Master,
                )?;
                if address.tls {
                    builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
                }
                if let Some(certificates) = certificates {
                    builder = builder
                        .set_client_to_redis_certificates(certificates.clone())
                        .set_client_to_sentinel_certificates(certificates);
                }
                if let Some(user) = &address.user {
                    builder = builder.set_client_to_redis_username(user);
                }
                if let Some(password) = &config.password {
                    builder = builder.set_client_to_redis_password(password.as_str());
                }
                Connector::Sentinel(Box::new(builder.build()?))
            }
        })
    }

    async fn connect(&mut self, response_deadline: Duration) -> Result<Connection, RegistryFault> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_DEADLINE))
            .set_response_timeout(Some(response_deadline));
        let mut connection = match self {
            Connector::Single(client) => Connection::One(
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?,
            ),
            Connector::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
            Connector::Sentinel(client) => {
                Connection::One(client.get_async_connection_with_config(&config).await?)
            }
        };
        connection.check().await?;
        Ok(connection)
    }
}

impl Connection {
    /// Refuses servers that would lose entries or do not know the commands.
    async fn check(&mut self) -> Result<(), RegistryFault> {
        let mut command = Cmd::new();
        command.arg("INFO");
        let reports = match self {
            Connection::One(one) => vec![one.req_packed_command(&command).await?],
            Connection::Cluster(cluster) => {
                match cluster.route_command(command, all_masters()).await? {
                    Value::Map(reports) => reports.into_iter().map(|(_, report)| report).collect(),
                    Value::Array(reports) => reports,
                    report => vec![report],
                }
            }
        };
        for report in reports {
            let report = report.extract_error()?;
            let report: String = redis::from_redis_value(report).map_err(RedisError::from)?;
            check_report(&report)?;
        }
        Ok(())
    }
}

/// Checks a server's `INFO`.
fn check_report(report: &str) -> Result<(), RegistryFault> {
    let field = |name: &str| {
        let line = report.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':').map(str::trim)
    };
    let version = field("redis_version").unwrap_or_default();
    let major: u32 = version
        .split('.')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if major < 7 {
        return Err(RegistryFault::TooOld(version.to_owned()));
    }
    match field("maxmemory_policy") {
        Some("noeviction") | None => {}
        Some(policy) => return Err(RegistryFault::Evicts(policy.to_owned())),
    }
    match field("role") {
        Some("slave") => Err(RegistryFault::Replica),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_lose_entries_are_refused() {
        let report = |version: &str, policy: &str, role: &str| {
            format!("redis_version:{version}\r\nmaxmemory_policy:{policy}\r\nrole:{role}\r\n")
        };
        assert!(check_report(&report("7.0.15", "noeviction", "master")).is_ok());
        assert!(matches!(
            check_report(&report("7.0.15", "allkeys-lru", "master")),
            Err(RegistryFault::Evicts(policy)) if policy == "allkeys-lru"
        ));
        assert!(matches!(
            check_report(&report("6.2.1", "noeviction", "master")),
            Err(RegistryFault::TooOld(_))
        ));
        assert!(matches!(
            check_report(&report("7.2.4", "noeviction", "slave")),
            Err(RegistryFault::Replica)
        ));
    }
}
