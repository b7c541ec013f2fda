//! What a node says when it is ready: who it is, where, and how others join.

use std::net::{IpAddr, SocketAddr};

use qshare_node::Node;
use qshare_node::content::TrackerAddress;

use crate::args::NodeArgs;
use crate::console::Console;
use crate::exit::Failure;
use crate::output::{self, ReadyJson};
use crate::suggest::{self, quoted};

/// Prints it.
pub(super) fn announce(
    node: &Node,
    args: &NodeArgs,
    trackers: &[TrackerAddress],
    console: &Console,
) -> Result<(), Failure> {
    let listen = node.listen_address();
    if args.json.on {
        console.result(&output::json(&ReadyJson::new(node.id(), listen)))?;
    }
    let written: Vec<String> = trackers.iter().map(TrackerAddress::host_port).collect();
    let group = match &args.group.file {
        Some(file) => format!(" --group {}", quoted(file.as_os_str())),
        None => String::new(),
    };
    console.note(&format!("node {}", node.id()));
    console.note(&format!("  listening on  {listen} (UDP)"));
    console.note(&format!("  shares        {}", args.assets.display()));
    console.note(&format!(
        "  downloads to  {} (shared, too)",
        args.downloads.display()
    ));
    console.note(&format!("  tracker       {}", written.join(", ")));
    console.note(match (&args.group.file, args.lan.off) {
        (Some(_), _) => "  private group: shared only with those who have its file",
        (None, true) => {
            "  open swarm: whoever reaches the tracker may download what is shared here (private: \
             --group FILE)"
        }
        (None, false) => {
            "  open swarm: whoever reaches the tracker or is on this network may download what is \
             shared here (private: --group FILE; not on this network: --no-lan)"
        }
    });
    if let Some(tracker) = trackers.first() {
        let tracker = for_others(tracker, suggest::host_for_others(listen));
        console.note(&format!(
            "  from other machines: qshare node --tracker {tracker}{group}"
        ));
    }
    Ok(())
}

/// A tracker's address as other machines write it: loopback here is this machine there.
fn for_others(tracker: &TrackerAddress, this_machine: IpAddr) -> String {
    let is_loopback = tracker.host == "localhost"
        || tracker
            .host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback());
    match is_loopback {
        true => SocketAddr::new(this_machine, tracker.port).to_string(),
        false => tracker.host_port(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_on_loopback_is_this_machine_to_others() {
        let here: IpAddr = "192.0.2.7".parse().unwrap();
        let shown = |text: &str| for_others(&text.parse().unwrap(), here);
        assert_eq!(shown("127.0.0.1:65000"), "192.0.2.7:65000");
        assert_eq!(shown("localhost:7"), "192.0.2.7:7");
        assert_eq!(shown("[::1]:7"), "192.0.2.7:7");
        assert_eq!(shown("tracker.example"), "tracker.example:65000");
    }
}
