//! A tracker client: tests poll the tracker to learn when an event has happened.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use qshare_content::{ContentId, NodeId};
use qshare_net::{
    DialTarget, Endpoint, EndpointConfig, Greeting, GroupSecret, Identity, Session,
    TransportConfig, dial, framed,
};
use qshare_wire::hello::Role;
use qshare_wire::tracker::{Find, Found, Holder, Holders, HoldersChanged, Match, Watch};
use qshare_wire::{ALPN_PEER, Address};
use quinn::{RecvStream, SendStream};
use tokio::runtime::{Builder, Runtime};

use crate::client::soon;
use crate::process::eventually;

const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// A connection to a tracker from a node that shares nothing.
pub struct TrackerClient {
    runtime: Runtime,
    session: Session,
    _endpoint: Endpoint,
}

impl TrackerClient {
    /// Connects to the tracker at `address`, as a member of the group whose secret file is `group`.
    pub fn connect(address: SocketAddr, group: Option<&Path>) -> TrackerClient {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (endpoint, session) = runtime.block_on(async {
            let endpoint = endpoint(&Identity::ephemeral().unwrap());
            let greeting = greeting(Role::OneShot, group);
            let session = dial(
                &endpoint,
                &greeting,
                DialTarget::Tracker(None),
                address,
                DIAL_DEADLINE,
            );
            let session = session.await.unwrap();
            (endpoint, session)
        });
        TrackerClient {
            runtime,
            session,
            _endpoint: endpoint,
        }
    }

    /// Sends a lookup and returns the tracker's answer.
    pub fn find(&self, query: &str) -> Vec<Match> {
        let find = Find {
            query: query.parse().unwrap(),
            after: None,
            limit: 1024,
            holders: 1,
            extensions: Vec::new(),
        };
        self.runtime.block_on(async {
            let (found, ..) = framed::ask::<Find, Found>(&self.session.connection, &find)
                .await
                .unwrap();
            found.matches
        })
    }

    /// Watches the holders of a content. Returns the first answer and the stream of changes.
    pub fn watch(&self, content: ContentId) -> (Holders, Changes<'_>) {
        let watch = Watch {
            content,
            limit: 16,
            extensions: Vec::new(),
        };
        let (holders, send, recv) = self
            .runtime
            .block_on(framed::ask(&self.session.connection, &watch))
            .unwrap();
        let changes = Changes {
            client: self,
            recv,
            _send: send,
        };
        (holders, changes)
    }

    /// Waits until the tracker's answer to a query satisfies `wanted`.
    pub fn until(&self, query: &str, mut wanted: impl FnMut(&[Match]) -> bool) -> Vec<Match> {
        eventually(&format!("the tracker's answer to {query:?}"), || {
            let found = self.find(query);
            wanted(&found).then_some(found)
        })
    }

    /// Waits until `count` complete holders of the only file named `name` are listed.
    pub fn until_complete(&self, name: &str, holders: u32) -> Match {
        let found = self.until(name, |found| {
            found.len() == 1 && found[0].complete == holders
        });
        found.into_iter().next().unwrap()
    }

    /// Waits until no file named `name` is listed.
    pub fn until_gone(&self, name: &str) {
        self.until(name, <[Match]>::is_empty);
    }

    /// Returns the tracker's id.
    pub fn tracker(&self) -> NodeId {
        self.session.peer
    }
}

/// The stream of holder changes of one watched content.
pub struct Changes<'a> {
    client: &'a TrackerClient,
    recv: RecvStream,
    _send: SendStream,
}

impl Changes<'_> {
    /// Waits for the first holder of which `found` knows something, among those who came (with
    /// whether they have all of it) and those who left.
    pub fn until<T>(&mut self, mut found: impl FnMut(&HoldersChanged) -> Option<T>) -> T {
        let told = async {
            loop {
                let changed: HoldersChanged = framed::read(&mut self.recv).await.unwrap();
                if let Some(found) = found(&changed) {
                    return found;
                }
            }
        };
        self.client.runtime.block_on(soon("news of holders", told))
    }
}

/// Returns the loopback address of a holder that the tracker sees on this machine.
pub fn address_on_loopback(holder: &Holder) -> SocketAddr {
    let port = holder
        .contact
        .candidates
        .iter()
        .find_map(|candidate| match candidate.address {
            Address::TrackerHost { port } => Some(port),
            Address::Socket(at) => at.ip().is_loopback().then_some(at.port()),
        });
    SocketAddr::from(([127, 0, 0, 1], port.unwrap()))
}

/// Binds an endpoint on loopback with this identity.
pub fn endpoint(identity: &Identity) -> Endpoint {
    endpoint_with(identity, TransportConfig::default())
}

/// Binds an endpoint on loopback with this identity and transport configuration.
pub(crate) fn endpoint_with(identity: &Identity, transport: TransportConfig) -> Endpoint {
    let config = EndpointConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        accept_alpn: ALPN_PEER,
        transport,
    };
    Endpoint::bind(identity, &config).unwrap()
}

/// Returns the greeting sent in every Hello.
pub fn greeting(role: Role, group: Option<&Path>) -> Greeting {
    Greeting {
        group: group.map(|file| GroupSecret::load(file).unwrap()),
        ..Greeting::new(role)
    }
}
