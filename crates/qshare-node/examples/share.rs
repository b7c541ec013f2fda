//! Shares a directory until Ctrl-C:
//!
//! ```text
//! cargo run -p qshare-node --example share -- DIRECTORY TRACKER
//! ```
//!
//! `TRACKER` is the address of a running `qshare tracker`, `127.0.0.1:65000` for example.

use std::env;
use std::error::Error;
use std::time::Duration;

use qshare_node::{Identity, Node, NodeConfig, NodeEvent, Shares};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let (Some(directory), Some(tracker)) = (args.next(), args.next()) else {
        return Err("usage: share DIRECTORY TRACKER".into());
    };
    // The index of hashes and the downloads go to a directory of their own.
    let state = env::temp_dir().join("qshare-example");
    let shares = Shares {
        assets: directory.into(),
        downloads: state.join("downloads"),
        exclude: Vec::new(),
        state_dir: state.join("index"),
    };
    // A throw-away identity. A program that keeps one uses `Identity::load_or_create`.
    let identity = Identity::ephemeral()?;
    let node = Node::start(NodeConfig::full(identity, shares, vec![tracker.parse()?])).await?;
    println!("node {} listens on {}", node.id(), node.listen_address());

    let mut events = node.events();
    loop {
        tokio::select! {
            event = events.recv() => match event? {
                NodeEvent::Tracker(tracker, state) => {
                    println!("tracker {}: {state:?}", tracker.host_port());
                }
                NodeEvent::Library(event) => println!("shared directory: {event:?}"),
                _ => {}
            },
            failed = node.failure() => return Err(failed.into()),
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                break;
            }
        }
    }
    // Answers under way get two seconds.
    node.shutdown(Duration::from_secs(2)).await;
    Ok(())
}
