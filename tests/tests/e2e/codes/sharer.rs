//! A node in a thread of this process that offers a code.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use qshare_node::content::Link;
use qshare_node::{CodeEvent, CodeOfferConfig, Identity, Node, NodeConfig, OfferedCode};
use qshare_tests::process::PATIENCE;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// What a sharer offers, and where.
pub(super) struct SharerConfig {
    pub(super) trackers: Vec<SocketAddr>,
    pub(super) listen: SocketAddr,
    pub(super) lan: bool,
    pub(super) link: String,
    pub(super) uses: Option<u32>,
}

impl SharerConfig {
    /// A sharer on loopback with one tracker.
    pub(super) fn at(tracker: SocketAddr, link: &str) -> SharerConfig {
        SharerConfig {
            trackers: vec![tracker],
            listen: ([127, 0, 0, 1], 0).into(),
            lan: false,
            link: link.to_owned(),
            uses: None,
        }
    }
}

/// How a sharer ends.
enum Stop {
    /// It says goodbye.
    Goodbye,
    /// It is just gone, as after a power cut.
    Vanish,
}

/// A running sharer; it says goodbye when it is dropped.
pub(super) struct Sharer {
    events: mpsc::Receiver<CodeEvent>,
    stop: Option<oneshot::Sender<Stop>>,
    thread: Option<JoinHandle<()>>,
}

impl Sharer {
    pub(super) fn start(config: SharerConfig) -> Sharer {
        let (tell, events) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(config, tell, stopped));
        });
        Sharer {
            events,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Waits for the next event.
    pub(super) fn next(&self) -> CodeEvent {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    /// Waits for the code, or the next one.
    pub(super) fn offered(&self) -> OfferedCode {
        match self.next() {
            CodeEvent::Offered(offered) => offered,
            event => panic!("{event:?}"),
        }
    }

    /// Ends it with a goodbye, and waits until it has ended.
    pub(super) fn shut_down(mut self) {
        self.end(Stop::Goodbye);
    }

    /// Ends it without a word to anybody.
    pub(super) fn vanish(mut self) {
        self.end(Stop::Vanish);
    }

    fn end(&mut self, how: Stop) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(how);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        self.end(Stop::Goodbye);
    }
}

async fn run(
    config: SharerConfig,
    tell: mpsc::Sender<CodeEvent>,
    mut stopped: oneshot::Receiver<Stop>,
) {
    let trackers = config.trackers.iter();
    let trackers = trackers.map(|tracker| tracker.to_string().parse().unwrap());
    let identity = Identity::ephemeral().unwrap();
    let mut of_node = NodeConfig::one_shot(identity, trackers.collect());
    of_node.listen = config.listen;
    of_node.lan = config.lan;
    let node = Node::start(of_node).await.unwrap();
    let link: Link = config.link.parse().unwrap();
    let mut offer = node.offer_code(CodeOfferConfig {
        link: Arc::new(move || link.clone()),
        uses: config.uses.and_then(NonZeroU32::new),
    });
    let how = loop {
        tokio::select! {
            event = offer.next() => match event {
                Some(event) => _ = tell.send(event),
                None => break Stop::Goodbye,
            },
            how = &mut stopped => break how.unwrap_or(Stop::Goodbye),
        }
    };
    match how {
        Stop::Goodbye => node.shutdown(Duration::from_secs(1)).await,
        // The runtime is dropped with all tasks; nothing more is sent.
        Stop::Vanish => std::mem::forget(offer),
    }
}
