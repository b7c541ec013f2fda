//! Downloads a file by its name into the current directory:
//!
//! ```text
//! cargo run -p qshare-node --example download -- NAME TRACKER
//! ```
//!
//! Interrupt it and run it again: it resumes from what was fetched.

use std::env;
use std::error::Error;
use std::time::Duration;

use qshare_node::{DownloadRequest, Identity, Node, NodeConfig, Target};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let (Some(name), Some(tracker)) = (args.next(), args.next()) else {
        return Err("usage: download NAME TRACKER".into());
    };
    let identity = Identity::ephemeral()?;
    let node = Node::start(NodeConfig::one_shot(identity, vec![tracker.parse()?])).await?;

    // A name is not an identity: several contents may have it. The content id tells them apart.
    let found = node
        .find(&name.parse()?, 2, Duration::from_secs(10))
        .await?;
    let mut files = found.files.into_iter();
    let file = match (files.next(), files.next()) {
        (Some(file), None) => file,
        (Some(one), Some(other)) => {
            let text = format!("several files match: {} and {}", one.content, other.content);
            return Err(text.into());
        }
        (None, _) => return Err(format!("no node shares {name}").into()),
    };
    println!(
        "{}: {} bytes, {} complete holders",
        file.name, file.info.length, file.complete
    );

    // The name comes from a stranger: it is opened beneath the directory, never outside it.
    let target = Target::beneath(env::current_dir()?, file.name.clone());
    let request = DownloadRequest::of_file(file, target).give_up_after(Duration::from_secs(60));
    let mut download = node.download(request);
    let finished = download.clone();
    let mut finished = std::pin::pin!(finished.finished());
    let report = loop {
        tokio::select! {
            report = &mut finished => break report?,
            () = download.changed() => {
                let progress = download.progress();
                println!("{:?}: {} bytes", progress.stage, progress.verified_bytes);
            }
        }
    };
    println!("saved as {}", report.path.display());
    node.shutdown(Duration::from_millis(100)).await;
    Ok(())
}
