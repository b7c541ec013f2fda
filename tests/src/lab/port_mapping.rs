//! Routers with port mapping: a real daemon, and one that lies.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::LabError;
use super::isolation;
use super::router::Router;

/// Where Debian's `miniupnpd-nftables` puts it; not on everybody's search path.
const DAEMON: &str = "/usr/sbin/miniupnpd";
/// Time for the daemon to listen.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// What the daemon says that its outside address is. It refuses to work with those of the lab,
/// which are reserved (RFC 2544).
const CLAIMED_OUTSIDE: &str = "192.88.7.2";
/// Where routers are asked by NAT-PMP and PCP.
const PORT: u16 = 5351;

/// By which protocols a router may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// PCP and NAT-PMP.
    ByPcp,
    /// UPnP.
    ByUpnp,
}

/// Why there is no daemon, if there is none.
pub fn missing_daemon() -> Option<String> {
    let is_there = Path::new(DAEMON).exists();
    (!is_there).then(|| format!("{DAEMON} is missing (package miniupnpd-nftables)"))
}

/// The daemon in a router, until this is dropped.
#[derive(Debug)]
pub struct PortMappingDaemon {
    child: Child,
    log: PathBuf,
}

impl Router {
    /// Starts miniupnpd, which maps ports by rules of nftables.
    pub fn map_ports(&self, asked: Asked) -> Result<PortMappingDaemon, LabError> {
        let outside = self.outside_interface();
        self.namespace().nft(&chains())?;
        let system = |what: &str| LabError::system(what.to_owned());
        let dir = isolation::scratch_dir().map_err(system("make a directory"))?;
        let name = self.namespace().name();
        let path = |extension: &str| dir.join(format!("{name}.miniupnpd.{extension}"));
        let is_on = |on| if on { "yes" } else { "no" };
        let config = format!(
            "ext_ifname={outside}\next_ip={CLAIMED_OUTSIDE}\nlistening_ip=lan\nipv6_disable=yes\n\
             enable_natpmp={}\nenable_upnp={}\nsecure_mode=yes\nmin_lifetime=120\n\
             uuid=00000000-0000-0000-0000-000000000001\n\
             allow 1024-65535 0.0.0.0/0 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
            is_on(asked == Asked::ByPcp),
            is_on(asked == Asked::ByUpnp),
        );
        let (config_path, log) = (path("conf"), path("log"));
        fs::write(&config_path, config).map_err(system("write miniupnpd's configuration"))?;
        let out = fs::File::create(&log).map_err(system("write miniupnpd's log"))?;
        let err = out.try_clone().map_err(system("write miniupnpd's log"))?;
        let mut command = self.namespace().command(DAEMON);
        command.arg("-d").arg("-f").arg(&config_path);
        command.arg("-P").arg(path("pid"));
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().map_err(system(DAEMON))?;
        let mut daemon = PortMappingDaemon { child, log };
        let ready = match asked {
            Asked::ByPcp => "Listening for NAT-PMP/PCP",
            Asked::ByUpnp => "HTTP listening",
        };
        let deadline = Instant::now() + START_DEADLINE;
        while !daemon.log().contains(ready) {
            let ended = daemon.child.try_wait().map_err(system(DAEMON))?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(LabError::Command {
                    command: DAEMON.into(),
                    message: daemon.log(),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// Answers every NAT-PMP request with success, and maps nothing; with `to`, forwards all ports
    /// there.
    pub fn lie_about_ports(&self, to: Option<std::net::Ipv4Addr>) -> Result<Liar, LabError> {
        if let Some(to) = to {
            self.namespace().nft(&chains())?;
            let outside = self.outside_interface();
            self.namespace().nft(&format!(
                "add rule inet filter prerouting_miniupnpd iifname {outside} \
                 udp dport 1024-65535 dnat ip to {to}\n\
                 add rule inet filter miniupnpd iifname {outside} ip daddr {to} accept\n"
            ))?;
        }
        let socket = self
            .namespace()
            .inside(|| UdpSocket::bind(("0.0.0.0", PORT)))
            .flatten()
            .map_err(LabError::system("listen for NAT-PMP"))?;
        Liar::start(socket).map_err(LabError::system("start a liar"))
    }

    /// Forgets the ports that are mapped, as a router that restarts does, and all translations.
    pub fn forget_mapped_ports(&self) -> Result<(), LabError> {
        self.namespace().nft(
            "flush chain inet filter miniupnpd\nflush chain inet filter prerouting_miniupnpd\n\
             flush chain inet filter postrouting_miniupnpd\n",
        )?;
        self.flush_mappings()
    }

    /// Mappings by which others are let in.
    pub fn mapped_ports(&self) -> Result<usize, LabError> {
        let mut command = self.namespace().command("nft");
        command.args(["list", "chain", "inet", "filter", "prerouting_miniupnpd"]);
        let output = command.output().map_err(LabError::system("nft list"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(said.matches("dnat").count())
    }
}

/// What miniupnpd fills, and the rules that lead there.
fn chains() -> String {
    "
table inet filter {
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain forward {
        jump miniupnpd
    }
    chain mapped_in {
        type nat hook prerouting priority -100;
        jump prerouting_miniupnpd
    }
    chain mapped_out {
        type nat hook postrouting priority 90;
        jump postrouting_miniupnpd
    }
}
"
    .into()
}

impl PortMappingDaemon {
    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

impl Drop for PortMappingDaemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers NAT-PMP (RFC 6886) with success, and does nothing, until this is dropped.
#[derive(Debug)]
pub struct Liar {
    asked: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Liar {
    fn start(socket: UdpSocket) -> io::Result<Liar> {
        let (asked, stop) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let thread = std::thread::Builder::new().spawn({
            let (asked, stop) = (Arc::clone(&asked), Arc::<AtomicBool>::clone(&stop));
            move || lie(&socket, &asked, &stop)
        })?;
        Ok(Liar {
            asked,
            stop,
            thread: Some(thread),
        })
    }

    /// Whether somebody was told that a port is mapped.
    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lie(socket: &UdpSocket, asked: &AtomicBool, stop: &AtomicBool) {
    let mut request = [0; 1100];
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
        let a_while = Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        if !matches!(poll(&mut ready, Some(&a_while)), Ok(1..)) {
            continue;
        }
        let Ok((length, from)) = socket.recv_from(&mut request) else {
            continue;
        };
        let Some(answer) = answer(&request[..length]) else {
            continue;
        };
        asked.fetch_or(answer.len() == 16, Ordering::Relaxed);
        let _ = socket.send_to(&answer, from);
    }
}

/// Requests are version, operation, and for a mapping: reserved u16, inside port u16, outside
/// port u16, lifetime u32.
fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let success = |operation: u8| vec![0, 128 + operation, 0, 0, 0, 0, 0, 1];
    match request {
        [0, 0] => Some([&success(0)[..], &[192, 88, 7, 2]].concat()),
        [0, operation @ 1..=2, _, _, ports_and_lifetime @ ..] if ports_and_lifetime.len() == 8 => {
            Some([&success(*operation)[..], ports_and_lifetime].concat())
        }
        // Another version: PCP. "Unsupported version" sends the asker on to NAT-PMP.
        [2, ..] => Some(vec![0, 128, 0, 1, 0, 0, 0, 1]),
        _ => None,
    }
}
