//! A peer that asks and asks and never takes the answers.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use qshare_content::{Chunks, ContentInfo};
use qshare_net::{Callee, Identity, Session, TransportConfig, dial, framed};
use qshare_wire::hello::Role;
use qshare_wire::peer::ChunkRequest;
use quinn::{RecvStream, SendStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::tracker_client::{endpoint_with, greeting};
use crate::world::Node;

const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// A node that grants no further stream for this long has set its limit.
const STREAM_DEADLINE: Duration = Duration::from_millis(500);
/// Less than the smallest chunk.
const WINDOW_BYTES: u32 = 64 << 10;
/// Streams on which more is sent than was asked for.
const POURS_MAX: usize = 4;
/// What is sent there.
const JUNK: [u8; 16 << 10] = [0; 16 << 10];
/// More streams than this nobody should grant.
const STREAMS_MAX: usize = 10_000;

/// Asks in a thread of its own, and holds what it asked for open until the value goes.
pub struct Asker {
    /// Streams that it was granted.
    pub streams: usize,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Asker {
    /// Asks `node` for chunks of this content on as many streams as it grants.
    pub fn start(node: &Node, content: ContentInfo) -> Asker {
        let (streams, stop, thread) = run(node, move |session| async move {
            let held = ask(&session, content).await;
            (held.len(), (session, held))
        });
        Asker {
            streams,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Asks `node` for chunks, and behind each request sends bytes that nobody wants, until nothing
    /// more is taken. Returns how many bytes were.
    pub fn pour(node: &Node, content: ContentInfo) -> usize {
        let (taken, stop, thread) = run(node, move |session| async move {
            let mut held = ask(&session, content).await;
            let mut taken = 0;
            for (send, _) in held.iter_mut().take(POURS_MAX) {
                while let Ok(Ok(written)) = timeout(STREAM_DEADLINE, send.write(&JUNK)).await {
                    taken += written;
                }
            }
            (taken, (session, held))
        });
        drop(stop);
        let _ = thread.join();
        taken
    }
}

/// Connects to a node in a thread of its own. Returns what `work` finds out; what it holds is held
/// until the sender goes.
fn run<T: Send + 'static, H, F: Future<Output = (T, H)>>(
    node: &Node,
    work: impl FnOnce(Session) -> F + Send + 'static,
) -> (T, oneshot::Sender<()>, JoinHandle<()>) {
    let (address, peer) = (node.address, node.id.parse().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, is_ready) = mpsc::channel();
    let thread = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // Every answer is held up at once: the node cannot get rid of it.
            let transport = TransportConfig {
                receive_window_bytes: WINDOW_BYTES,
                stream_receive_window_bytes: WINDOW_BYTES,
                ..TransportConfig::default()
            };
            let endpoint = endpoint_with(&Identity::ephemeral().unwrap(), transport);
            let greeting = greeting(Role::OneShot, None);
            let callee = Callee::Node(peer);
            let session = dial(&endpoint, &greeting, callee, address, DIAL_DEADLINE).await;
            let (found, held) = work(session.unwrap()).await;
            ready.send(found).unwrap();
            let _ = stopped.await;
            drop(held);
        });
    });
    let found = is_ready.recv().unwrap();
    (found, stop, thread)
}

impl Drop for Asker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn ask(session: &Session, content: ContentInfo) -> Vec<(SendStream, RecvStream)> {
    let chunks = Chunks::of_length(content.length);
    let mut held = Vec::new();
    while held.len() < STREAMS_MAX {
        let Ok(Ok((mut send, recv))) = timeout(STREAM_DEADLINE, session.connection.open_bi()).await
        else {
            break;
        };
        let request = ChunkRequest {
            content: content.id(),
            height: chunks.height(),
            index: held.len() as u64 % u64::from(chunks.count()),
            path_levels: 0,
            extensions: Vec::new(),
        };
        if framed::write(&mut send, &request).await.is_err() {
            break;
        }
        held.push((send, recv));
    }
    held
}
