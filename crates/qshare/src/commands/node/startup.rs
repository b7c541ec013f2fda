//! What a node prints when it is ready: its ID, its address, and how other nodes join.

use std::net::{IpAddr, SocketAddr};

use qshare_node::Node;
use qshare_node::content::TrackerAddress;

use crate::args::NodeArgs;
use crate::console::Console;
use crate::exit::Failure;
use crate::neutral::shown;
use crate::output::ReadyJson;
use crate::suggest::{self, quoted};

/// Prints these lines on stderr, and the ready object on stdout with --json.
pub(super) fn announce(
    node: &Node,
    args: &NodeArgs,
    trackers: &[TrackerAddress],
    console: &Console,
) -> Result<(), Failure> {
    let listen = node.listen_address();
    if args.json.on {
        console.json(&ReadyJson::new(node.id(), listen))?;
    }
    let written: Vec<String> = trackers.iter().map(TrackerAddress::host_port).collect();
    let group = match &args.group.file {
        Some(file) => format!(" --group {}", quoted(file.as_os_str())),
        None => String::new(),
    };
    console.note(&format!("node {}", node.id()));
    console.note(&format!("  listening on  {listen} (UDP)"));
    console.note(&format!("  shares        {}", shown(&args.assets)));
    console.note(&format!(
        "  downloads to  {} (also shared)",
        shown(&args.downloads)
    ));
    console.note(&format!("  tracker       {}", written.join(", ")));
    console.note(match (&args.group.file, args.lan.off) {
        (Some(_), _) => "  private group: only members, who have the group file, can download",
        (None, true) => {
            "  open swarm: everyone who can reach the tracker can download these files (--group \
             FILE restricts it)"
        }
        (None, false) => {
            "  open swarm: everyone who can reach the tracker or is on the local network can \
             download these files (--group FILE restricts it, --no-lan hides it from the network)"
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

/// Returns a tracker's address as other machines write it: loopback becomes this machine.
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
