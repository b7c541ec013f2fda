//! Arguments that several commands have.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use qshare_node::Congestion;
use qshare_node::content::TrackerAddress;

/// The directory of the identities.
#[derive(Debug, Args)]
pub(crate) struct CertsArg {
    /// Directory of identities and remembered tracker keys [default: ./certs if it contains
    /// .qshare, else the user's data directory]
    #[arg(long = "certs", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// The private group.
#[derive(Debug, Args)]
pub(crate) struct GroupArg {
    /// Group file that `qshare group new` created; restricts the swarm to members of the group
    #[arg(long = "group", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// The trackers to ask.
#[derive(Debug, Args)]
pub(crate) struct TrackersArg {
    /// Tracker, as HOST[:PORT] or TRACKERID@HOST[:PORT]; may be repeated [default:
    /// 127.0.0.1:65000]
    #[arg(long = "tracker", value_name = "HOST:PORT", value_delimiter = ',')]
    pub(crate) given: Vec<TrackerAddress>,
}

/// Discovery on the local network.
#[derive(Debug, Args)]
pub(crate) struct LanArg {
    /// Disable discovery of nodes on the local network (mDNS), in both directions
    #[arg(long = "no-lan", value_parser = FalseyValueParser::new())]
    pub(crate) off: bool,
}

/// Hole punching through symmetric NATs.
#[derive(Debug, Args)]
pub(crate) struct PunchArg {
    /// Punch through a symmetric NAT with some 2,000 small probes within 1.5 s and 256 sockets,
    /// instead of using the relay; both nodes must set this. Some networks treat it as an attack
    #[arg(long = "punch-hard", value_parser = FalseyValueParser::new())]
    pub(crate) hard: bool,
}

/// Port mapping at the router.
#[derive(Debug, Args)]
pub(crate) struct PortMappingArg {
    /// Do not ask the router for a port mapping (PCP, NAT-PMP or UPnP)
    #[arg(long = "no-port-mapping", value_parser = FalseyValueParser::new())]
    pub(crate) no_port_mapping: bool,
}

/// Congestion control of sent data.
#[derive(Debug, Args)]
pub(crate) struct CongestionArg {
    /// Congestion control for sending: auto (bbr3 on long paths, else cubic), cubic, bbr or bbr3
    #[arg(
        long = "congestion",
        value_name = "NAME",
        default_value_t,
        hide_short_help = true
    )]
    pub(crate) congestion: Congestion,
}

/// Output for scripts.
#[derive(Debug, Args)]
pub(crate) struct JsonArg {
    /// Print results as JSON, one object a line
    #[arg(long = "json", value_parser = FalseyValueParser::new())]
    pub(crate) on: bool,
}

/// Parses the address to listen on.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "give ADDRESS:PORT, such as '[::]:64500' or 0.0.0.0:0".to_owned())
}

/// The longest time that an option sets: 100 years, which every clock can add to its present time.
pub(super) const TIME_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Parses a number of seconds. A number beyond [`TIME_MAX`], or beyond any integer, means that.
pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("give a whole number of seconds".to_owned());
    }
    let seconds = text.parse().unwrap_or(u64::MAX);
    Ok(Duration::from_secs(seconds).min(TIME_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_saturate() {
        assert_eq!(parse_seconds("7"), Ok(Duration::from_secs(7)));
        for text in ["9223372036854775807", "99999999999999999999999999"] {
            let time = parse_seconds(text).unwrap();
            assert_eq!(time, TIME_MAX, "{text}");
            assert!(std::time::Instant::now().checked_add(time).is_some());
        }
        for text in ["", "-1", "1.5", "soon", "+1"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
