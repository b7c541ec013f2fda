//! `qshare net`: diagnose NAT type, firewall and port mapping.

use qshare_node::{
    AddressMapping, Filtering, NatKind, NetReport, NotAsked, PortMappingFound, Seen, TrackerFault,
    net_report,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::run_on_network;
use crate::args::NetArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};

pub(crate) fn run(args: NetArgs, console: &Console) -> Result<(), Failure> {
    run_on_network(|stop| look(args, console, stop))
}

async fn look(args: NetArgs, console: &Console, stop: CancellationToken) -> Result<(), Failure> {
    let mut failed = None;
    let mut is_first = true;
    for config in args.net_report_configs()? {
        let place = config.tracker.host_port();
        let found = tokio::select! {
            found = net_report(&config) => found,
            () = stop.cancelled() => return Err(Failure::new(Exit::Interrupted, "interrupted")),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let failure = Failure::from(error);
                if let Some(earlier) = failed.replace(failure) {
                    console.error(&earlier.message);
                }
                continue;
            }
        };
        if args.json.on {
            console.json(&NetJson::new(&place, &found))?;
        } else {
            if !is_first {
                console.result("")?;
            }
            for line in describe(&place, &found) {
                console.result(&line)?;
            }
        }
        is_first = false;
    }
    failed.map_or(Ok(()), Err)
}

/// Returns a diagnosis for people.
fn describe(place: &str, found: &NetReport) -> Vec<String> {
    let mut lines = vec![format!("tracker       {place} ({})", found.tracker.short())];
    for (family, seen) in [("IPv4", &found.ipv4), ("IPv6", &found.ipv6)] {
        match seen {
            Err(cause) => lines.push(format!("{family}          no answer: {cause}")),
            Ok(seen) => lines.extend(describe_family(family, seen)),
        }
    }
    lines.push(format!(
        "port mapping  {}",
        describe_mapping(&found.port_mapping)
    ));
    lines.push(format!("=> {}", conclude(found)));
    lines
}

fn describe_family(family: &str, seen: &Seen) -> Vec<String> {
    let mapping = match seen.mapping {
        AddressMapping::None => "no NAT: this is the machine's own address".to_owned(),
        AddressMapping::Same => format!(
            "NAT (this machine is {}): the same port for every destination",
            seen.local
        ),
        AddressMapping::PerDestination => format!(
            "NAT (this machine is {}): a different port for each destination",
            seen.local
        ),
        AddressMapping::Unknown => format!("this machine is {}; mapping unknown", seen.local),
    };
    let filtering = match seen.filtering {
        Filtering::Open => "filtering: unsolicited packets get in",
        Filtering::Answers => "filtering: only answers get in",
        Filtering::Unknown => "filtering: unknown",
    };
    let mut lines = vec![
        format!(
            "{family}          {}, seen at {}",
            seen.kind().name(),
            seen.observed
        ),
        format!("              {mapping}"),
        format!("              {filtering}"),
    ];
    if let Some(trouble) = &seen.trouble {
        lines.push(format!("              incomplete: {trouble}"));
    }
    lines
}

/// Why no port mapping was requested.
fn not_asked(why: NotAsked) -> &'static str {
    match why {
        NotAsked::TurnedOff => "turned off by --no-port-mapping",
        NotAsked::NoNat => "the tracker sees no NAT",
        NotAsked::NoSocket => "no socket could be opened",
        NotAsked::NoIpv4 => "the tracker was not reached over IPv4",
    }
}

fn describe_mapping(found: &PortMappingFound) -> String {
    match found {
        PortMappingFound::NotAsked(why) => format!("not requested: {}", not_asked(*why)),
        PortMappingFound::None { cause } => format!("none: {cause}"),
        PortMappingFound::Mapped {
            mapping,
            external_ip,
            is_proven,
        } => {
            let external = external_ip.map_or("its external address".into(), |ip| ip.to_string());
            let (gateway, protocol, port) = (mapping.gateway, mapping.protocol, mapping.port);
            match is_proven {
                true => format!(
                    "verified: router {gateway} maps port {port} of {external} to this machine \
                     ({protocol}), and the tracker's probe arrived"
                ),
                false => format!(
                    "unverified: router {gateway} granted port {port} of {external} ({protocol}), \
                     but the tracker's probe did not arrive"
                ),
            }
        }
    }
}

/// Returns what the diagnosis means for transfers, in a sentence or two.
fn conclude(found: &NetReport) -> String {
    let kind = |seen: &Result<Seen, TrackerFault>| seen.as_ref().map(Seen::kind).ok();
    let is_here = |seen: &Result<Seen, TrackerFault>| {
        let observed = seen.as_ref().map(|seen| seen.observed.ip());
        observed.is_ok_and(|ip| ip.is_loopback())
    };
    if is_here(&found.ipv4) || is_here(&found.ipv6) {
        return "the tracker is on this machine and cannot see the NAT; name a tracker elsewhere: \
                --tracker HOST:PORT"
            .into();
    }
    let v6 = match kind(&found.ipv6) {
        Some(NatKind::Open) => " Over IPv6 every node can connect to this machine.",
        Some(NatKind::Firewall | NatKind::Cone) => {
            " Over IPv6 nodes connect directly after the tracker has introduced them."
        }
        _ => "",
    };
    let is_mapped = matches!(
        found.port_mapping,
        PortMappingFound::Mapped {
            is_proven: true,
            ..
        }
    );
    let v4 = match kind(&found.ipv4) {
        Some(NatKind::Open | NatKind::FullCone) => {
            "every node can connect to this machine directly, behind any NAT; no relay is needed."
        }
        Some(NatKind::Firewall | NatKind::Cone | NatKind::Symmetric) if is_mapped => {
            "the router maps ports, so every node can connect to a `qshare node` on this machine \
             directly; `qshare get` requests no mapping and does not profit from it."
        }
        Some(NatKind::Firewall | NatKind::Cone) => {
            "direct connections to and from every node that is not behind a symmetric NAT; with \
             those, traffic passes the tracker's relay, unless both sides set --punch-hard or this \
             router maps ports (enable UPnP, NAT-PMP or PCP in its settings)."
        }
        Some(NatKind::Symmetric) => {
            "direct connections only with nodes that have a public address or a mapped port; with \
             all others, traffic passes the tracker's relay, unless this router maps ports (enable \
             UPnP, NAT-PMP or PCP in its settings), or both sides set --punch-hard and the other \
             is behind a home router."
        }
        Some(NatKind::Unknown) => "the NAT type over IPv4 is unknown; see above.",
        None => "the tracker is reachable over IPv6 only.",
    };
    format!("{v4}{v6}")
}

/// What `net --json` prints.
#[derive(Debug, Serialize)]
struct NetJson {
    tracker: String,
    id: String,
    ipv4: FamilyJson,
    ipv6: FamilyJson,
    port_mapping: MappingJson,
    summary: String,
}

#[derive(Debug, Default, Serialize)]
struct FamilyJson {
    reached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mapping: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filtering: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct MappingJson {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

impl NetJson {
    fn new(place: &str, found: &NetReport) -> NetJson {
        NetJson {
            tracker: place.to_owned(),
            id: found.tracker.to_string(),
            ipv4: FamilyJson::new(&found.ipv4),
            ipv6: FamilyJson::new(&found.ipv6),
            port_mapping: MappingJson::new(&found.port_mapping),
            summary: conclude(found),
        }
    }
}

impl FamilyJson {
    fn new(seen: &Result<Seen, TrackerFault>) -> FamilyJson {
        let seen = match seen {
            Ok(seen) => seen,
            Err(cause) => {
                return FamilyJson {
                    cause: Some(cause.to_string()),
                    ..FamilyJson::default()
                };
            }
        };
        FamilyJson {
            reached: true,
            local: Some(seen.local.to_string()),
            seen_at: Some(seen.observed.to_string()),
            kind: Some(seen.kind().name()),
            mapping: Some(match seen.mapping {
                AddressMapping::None => "none",
                AddressMapping::Same => "same",
                AddressMapping::PerDestination => "per-destination",
                AddressMapping::Unknown => "unknown",
            }),
            filtering: Some(match seen.filtering {
                Filtering::Open => "open",
                Filtering::Answers => "answers",
                Filtering::Unknown => "unknown",
            }),
            cause: seen.trouble.clone(),
        }
    }
}

impl MappingJson {
    fn new(found: &PortMappingFound) -> MappingJson {
        match found {
            PortMappingFound::NotAsked(why) => MappingJson {
                state: "not-asked",
                cause: Some(not_asked(*why).to_owned()),
                ..MappingJson::default()
            },
            PortMappingFound::None { cause } => MappingJson {
                state: "none",
                cause: Some(cause.to_string()),
                ..MappingJson::default()
            },
            PortMappingFound::Mapped {
                mapping,
                external_ip,
                is_proven,
            } => MappingJson {
                state: match is_proven {
                    true => "proven",
                    false => "not-proven",
                },
                protocol: Some(mapping.protocol.to_string()),
                gateway: Some(mapping.gateway.to_string()),
                external_ip: external_ip.map(|ip| ip.to_string()),
                port: Some(mapping.port),
                cause: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use qshare_node::MappingFailure;
    use qshare_node::content::NodeId;

    use super::*;
    use crate::output;

    fn found(mapping: AddressMapping, filtering: Filtering, port: PortMappingFound) -> NetReport {
        NetReport {
            tracker: NodeId([1; 32]),
            ipv4: Ok(Seen {
                local: [10, 0, 0, 2].into(),
                observed: ([192, 0, 2, 1], 40000).into(),
                mapping,
                filtering,
                trouble: None,
            }),
            ipv6: Err(TrackerFault::NoAddress("IPv6")),
            port_mapping: port,
        }
    }

    fn cone() -> NetReport {
        let none = PortMappingFound::None {
            cause: MappingFailure::NoGateway.into(),
        };
        found(AddressMapping::Same, Filtering::Answers, none)
    }

    #[test]
    fn people_read_what_the_diagnosis_means() {
        let lines = describe("t:65000", &cone());
        assert!(
            lines[1].contains("cone, seen at 192.0.2.1:40000"),
            "{lines:?}"
        );
        let last = lines.last().unwrap();
        assert!(
            last.starts_with("=> direct connections to and from every node that is not"),
            "{last}"
        );
    }

    #[test]
    fn a_tracker_on_this_machine_cannot_see_the_nat() {
        let mut here = cone();
        if let Ok(seen) = &mut here.ipv4 {
            seen.observed = ([127, 0, 0, 1], 40000).into();
        }
        assert!(conclude(&here).contains("--tracker"));
    }

    #[test]
    fn scripts_get_exactly_the_documented_fields() {
        let id = NodeId([1; 32]);
        let printed = output::json(&NetJson::new("t:65000", &cone()));
        let wanted = format!(
            r#"{{"tracker":"t:65000","id":"{id}","ipv4":{{"reached":true,"local":"10.0.0.2","seen_at":"192.0.2.1:40000","kind":"cone","mapping":"same","filtering":"answers"}},"ipv6":{{"reached":false,"cause":"it has no IPv6 address"}},"port_mapping":{{"state":"none","cause":"no default gateway"}},"summary":"#
        );
        assert!(printed.starts_with(&wanted), "{printed}");
    }
}
