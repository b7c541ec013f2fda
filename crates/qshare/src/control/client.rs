//! A client of the API over a Unix socket.

use std::io;
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, test_kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::stream::Events;
use crate::api::objects::{
    Add, Added, Changed, Download, DownloadChange, DownloadDetail, Downloads, Failed,
    FailedBecause, Limits, LimitsChange, LinkOf, NewShare, Remove, Share, Shares, Status, Which,
};
use crate::api::socket::is_trusted;

/// Longest answer that is read.
const ANSWER_MAX_BYTES: usize = 64 << 20;
/// Rows of one page.
const PAGE: usize = 1000;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing listens.
    #[error("cannot connect to {}: {cause}", .path.display())]
    Connect { path: PathBuf, cause: io::Error },
    /// The program behind the socket belongs to another user.
    #[error("{} belongs to another user", .0.display())]
    NotOurs(PathBuf),
    /// The connection was lost: most likely the node stopped.
    #[error("the node closed the connection")]
    Gone,
    /// The answer is not one of this API.
    #[error("the answer is not understood: {0}")]
    Unreadable(String),
    /// The node refused, and says why.
    #[error("{}", .0.message)]
    Refused(FailedBecause),
}

/// A client of one node. Each request has a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    path: PathBuf,
}

impl Client {
    /// Checks that a program of this user listens on a socket.
    pub(crate) async fn open(path: &Path) -> Result<Client, ClientError> {
        let client = Client {
            path: path.to_owned(),
        };
        client.connect().await?;
        Ok(client)
    }

    /// Returns the path of the socket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let failed = |cause| ClientError::Connect {
            path: self.path.clone(),
            cause,
        };
        let stream = UnixStream::connect(&self.path).await.map_err(failed)?;
        match is_trusted(&stream).map_err(failed)? {
            true => Ok(stream),
            false => Err(ClientError::NotOurs(self.path.clone())),
        }
    }

    /// Sends a request, and returns the body of a successful answer.
    async fn send(
        &self,
        method: Method,
        route: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Incoming, ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| ClientError::Gone)?;
        // It ends when the answer was read, or is dropped.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/1/{route}"))
            .header(HOST, "localhost");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        let request = request.body(body);
        let request = request.map_err(|error| ClientError::Unreadable(error.to_string()))?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|_| ClientError::Gone)?;
        let (status, body) = (answer.status(), answer.into_body());
        if status.is_success() {
            return Ok(body);
        }
        Err(refusal(status, &read(body).await?))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        route: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let body = read(self.send(method, route, body).await?).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Unreadable(error.to_string()))
    }

    async fn get<T: DeserializeOwned>(&self, route: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, route, None).await
    }

    async fn with_body<T: DeserializeOwned>(
        &self,
        method: Method,
        route: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body);
        let body = body.map_err(|error| ClientError::Unreadable(error.to_string()))?;
        self.ask(method, route, Some(body)).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        route: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.with_body(Method::POST, route, body).await
    }

    /// Returns the node's status.
    pub(crate) async fn status(&self) -> Result<Status, ClientError> {
        self.get("status").await
    }

    /// Returns all downloads, oldest first.
    pub(crate) async fn downloads(&self) -> Result<Vec<Download>, ClientError> {
        let mut all = Vec::new();
        let mut after = "0".to_owned();
        loop {
            let route = format!("downloads?limit={PAGE}&after={after}");
            let page: Downloads = self.get(&route).await?;
            all.extend(page.downloads);
            match page.next {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// Returns the details of one download.
    pub(crate) async fn detail(&self, id: &str) -> Result<DownloadDetail, ClientError> {
        self.get(&format!("downloads/{id}")).await
    }

    /// Adds downloads.
    pub(crate) async fn add(&self, add: &Add) -> Result<Added, ClientError> {
        self.post("downloads", add).await
    }

    /// Pauses downloads. Returns how many ran.
    pub(crate) async fn pause(&self, which: &Which) -> Result<usize, ClientError> {
        let changed: Changed = self.post("downloads/pause", which).await?;
        Ok(changed.changed)
    }

    /// Resumes downloads. Returns how many did not run.
    pub(crate) async fn resume(&self, which: &Which) -> Result<usize, ClientError> {
        let changed: Changed = self.post("downloads/resume", which).await?;
        Ok(changed.changed)
    }

    /// Removes downloads. Returns how many were removed.
    pub(crate) async fn remove(&self, which: &Remove) -> Result<usize, ClientError> {
        let changed: Changed = self.post("downloads/remove", which).await?;
        Ok(changed.changed)
    }

    /// Returns the limits in force.
    pub(crate) async fn limits(&self) -> Result<Limits, ClientError> {
        self.get("limits").await
    }

    /// Changes limits. Returns those in force.
    pub(crate) async fn limit(&self, change: &LimitsChange) -> Result<Limits, ClientError> {
        self.with_body(Method::PATCH, "limits", change).await
    }

    /// Changes the priority and the limit of a download.
    pub(crate) async fn change(
        &self,
        id: &str,
        change: &DownloadChange,
    ) -> Result<Download, ClientError> {
        let route = format!("downloads/{id}");
        self.with_body(Method::PATCH, &route, change).await
    }

    /// Shares a path. The answer has its link.
    pub(crate) async fn share(&self, share: &NewShare) -> Result<Share, ClientError> {
        self.post("shares", share).await
    }

    /// Returns a share by its share ID.
    pub(crate) async fn one_share(&self, id: &str) -> Result<Share, ClientError> {
        self.get(&format!("shares/{id}")).await
    }

    /// Returns the link to a share by its share ID.
    pub(crate) async fn link(&self, id: &str) -> Result<LinkOf, ClientError> {
        self.get(&format!("shares/{id}/link")).await
    }

    /// Returns all shares that were handed to the node.
    pub(crate) async fn handed_shares(&self) -> Result<Vec<Share>, ClientError> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let route = format!("shares?removable=true&limit={PAGE}{after}");
            let page: Shares = self.get(&route).await?;
            all.extend(page.shares);
            match page.next {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(all),
            }
        }
    }

    /// Ends a share by its share ID.
    pub(crate) async fn unshare(&self, id: &str) -> Result<usize, ClientError> {
        let route = format!("shares/{id}");
        let changed: Changed = self.ask(Method::DELETE, &route, None).await?;
        Ok(changed.changed)
    }

    /// Asks the node to stop. Returns whether it was not stopping already.
    pub(crate) async fn stop(&self) -> Result<bool, ClientError> {
        let changed: Changed = self.ask(Method::POST, "stop", None).await?;
        Ok(changed.changed > 0)
    }

    /// Waits until nothing listens on the socket any more, and its process has ended.
    pub(crate) async fn until_gone(&self, process: u32) {
        while self.connect().await.is_ok() || is_running(process) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Subscribes to events.
    pub(crate) async fn events(&self) -> Result<Events, ClientError> {
        let body = self.send(Method::GET, "events?per_second=4", None).await?;
        Ok(Events::new(body))
    }
}

/// Returns whether a process has not ended. One that its parent has not waited for has.
fn is_running(process: u32) -> bool {
    // The state follows the name, which may hold anything: see proc_pid_stat(5).
    if let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) {
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        return !matches!(state, Some('Z' | 'X'));
    }
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    process.is_some_and(|process| test_kill_process(process).is_ok())
}

async fn read(body: Incoming) -> Result<Bytes, ClientError> {
    let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ClientError::Unreadable("it is too long".to_owned()))
        }
        Err(_) => Err(ClientError::Gone),
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<Failed>(body) {
        Ok(failed) => ClientError::Refused(failed.error),
        Err(_) => ClientError::Unreadable(format!("status {status} without a reason")),
    }
}
