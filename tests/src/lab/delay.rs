//! Delay and jitter, which the kernel may lack (netem): a TUN device whose packets come out of
//! it again some time later.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Setter, ioctl};

use super::error::LabError;
use super::namespace::Namespace;

/// Packets are late by up to this, so that one wake-up serves several: at 1 Gbit/s one is due
/// every 12 µs.
const GRAIN: Duration = Duration::from_micros(100);
/// Bytes on the way: 1 Gbit/s for half a second. What comes on top is lost, as in a router.
const HELD_MAX_BYTES: usize = 64 << 20;
/// The largest that comes out of a device that bundles nothing, with room.
const PACKET_MAX_BYTES: usize = 2048;
/// Packets taken in before it is looked whether others are due.
const READS_MAX: usize = 64;
/// Buffers kept for the next packets.
const SPARE_MAX: usize = 4096;

/// A running delay; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Delay {
    stop: Arc<std::os::fd::OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Delay {
    /// Makes the device in that namespace and serves it.
    pub(crate) fn start(
        namespace: &Namespace,
        device: &str,
        delay: Duration,
        jitter: Duration,
    ) -> Result<Delay, LabError> {
        let what = || LabError::system(format!("a delay needs a TUN device ({device})"));
        let tun = namespace
            .inside(|| open_tun(device))
            .flatten()
            .map_err(what())?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| what()(error.into()))?;
        let stop = Arc::new(stop);
        let stopped = stop.clone();
        let line = Line {
            delay,
            jitter,
            held: VecDeque::new(),
            held_bytes: 0,
            spare: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name(device.to_owned())
            .spawn(move || {
                // The default slack of 50 µs would add to every wait.
                let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
                let _ = line.run(tun, &stopped);
            })
            .map_err(what())?;
        Ok(Delay {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Held {
    due: Instant,
    packet: Vec<u8>,
}

/// The packets on their way, in order.
struct Line {
    delay: Duration,
    jitter: Duration,
    held: VecDeque<Held>,
    held_bytes: usize,
    spare: Vec<Vec<u8>>,
}

impl Line {
    fn run(mut self, mut tun: File, stop: &std::os::fd::OwnedFd) -> io::Result<()> {
        loop {
            let wait = self.held.front().map(|first| {
                let left = first.due.saturating_duration_since(Instant::now()) + GRAIN;
                Timespec {
                    tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                }
            });
            let (tun_fd, stop_fd) = (tun.as_fd(), stop.as_fd());
            let mut ready = [
                PollFd::from_borrowed_fd(tun_fd, PollFlags::IN),
                PollFd::from_borrowed_fd(stop_fd, PollFlags::IN),
            ];
            match poll(&mut ready, wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [readable, stopped] = ready.map(|fd| !fd.revents().is_empty());
            if stopped {
                return Ok(());
            }
            if readable {
                self.take_in(&mut tun)?;
            }
            self.let_out(&mut tun);
        }
    }

    fn take_in(&mut self, tun: &mut File) -> io::Result<()> {
        for _ in 0..READS_MAX {
            let mut packet = self.spare.pop().unwrap_or_default();
            packet.resize(PACKET_MAX_BYTES, 0);
            match tun.read(&mut packet) {
                Ok(length) => packet.truncate(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if self.held_bytes + packet.len() > HELD_MAX_BYTES {
                continue;
            }
            self.held_bytes += packet.len();
            let extra = match self.jitter.is_zero() {
                true => Duration::ZERO,
                false => rand::rng().random_range(Duration::ZERO..=self.jitter),
            };
            let due = Instant::now() + self.delay + extra;
            // Jitter does not reorder: most of it comes from queues, which do not either.
            let due = self.held.back().map_or(due, |last| last.due.max(due));
            self.held.push_back(Held { due, packet });
        }
        Ok(())
    }

    fn let_out(&mut self, tun: &mut File) {
        let now = Instant::now();
        while let Some(first) = self.held.pop_front_if(|first| first.due <= now) {
            self.held_bytes -= first.packet.len();
            // What the stack does not want (an interface that is down) is lost.
            let _ = tun.write(&first.packet);
            if self.spare.len() < SPARE_MAX {
                self.spare.push(first.packet);
            }
        }
    }
}

/// `struct ifreq` of <linux/if.h> with `ifr_flags`.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// `_IOW('T', 202, int)` of <linux/if_tun.h>.
const TUNSETIFF: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<i32>(b'T', 202);
/// Layer 3, and no header before the packets.
const IFF_TUN_NO_PI: u16 = 0x1001;

fn open_tun(name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tun = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TUN_NO_PI,
        rest: [0; 22],
    };
    // The last byte stays zero.
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: TUNSETIFF takes a pointer to a `struct ifreq`, which this is, and keeps nothing.
    unsafe { ioctl(&tun, Setter::<TUNSETIFF, InterfaceRequest>::new(request)) }?;
    Ok(tun.into())
}
