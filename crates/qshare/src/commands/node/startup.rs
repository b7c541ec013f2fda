//! What a node prints when it is ready: its ID, its address, and how other nodes join.

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};

use qshare_node::Node;
use qshare_node::content::TrackerAddress;

use crate::args::{HttpArgs, NodeArgs};
use crate::console::Console;
use crate::exit::Failure;
use crate::neutral::shown;
use crate::output::ReadyJson;
use crate::suggest::{self, quoted};
use crate::web::WebServer;

/// Prints these lines on stderr, and the ready object on stdout with --json.
pub(super) fn announce(
    node: &Node,
    args: &NodeArgs,
    trackers: &[TrackerAddress],
    web: Option<&WebServer>,
    console: &Console,
) -> Result<(), Failure> {
    let listen = node.listen_address();
    if args.json.on {
        let ready = ReadyJson::new(node.id(), listen);
        console.json(&ready.with_http(web.map(WebServer::url)))?;
    }
    let written: Vec<String> = trackers.iter().map(TrackerAddress::host_port).collect();
    let group = match &args.network.group.file {
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
    console.note(match (&args.network.group.file, args.network.lan.off) {
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
    if let Some(web) = web {
        announce_page(web, &args.http, console);
    }
    Ok(())
}

/// Prints the URL of the web page. The token is printed to a terminal only: a journal or a log file
/// has other readers than the owner's files.
fn announce_page(web: &WebServer, args: &HttpArgs, console: &Console) {
    let line = match (&args.token, std::io::stderr().is_terminal()) {
        (_, true) => web.url_with_token(),
        (Some(file), false) => format!("{} (its token is in {})", web.url(), shown(file)),
        (None, false) => format!(
            "{} (its token is printed to a terminal only; --http-token FILE keeps it in a file)",
            web.url()
        ),
    };
    console.note(&format!("  web page      {line}"));
    if !web.address().ip().to_canonical().is_loopback() && args.tls.is_none() {
        console.note(
            "  warning: plain HTTP lets everyone on the network path read the token and what the \
             page shows. Use --http-tls CERT,KEY, or --http 127.0.0.1:PORT and `ssh -L`",
        );
    }
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
