//! Delay and jitter, since a kernel may lack netem: a TUN device that returns each packet after a
//! delay. On a fast link packets come in bundles, so that one system call carries many. Loss
//! applies to each packet of a bundle separately.

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
use rustix::ioctl::{IntegerSetter, Setter, ioctl};

use super::bundle::{HEADER_BYTES, survivors};
use super::error::LabError;
use super::namespace::Namespace;
use super::units::Loss;

/// Packets may be this late, so that one wake-up serves several: at 1 Gbit/s one is due every 12
/// µs.
const GRAIN: Duration = Duration::from_micros(100);
/// Capacity in bytes: 1 Gbit/s for half a second. Further packets are dropped, as in a router.
const HELD_MAX_BYTES: usize = 64 << 20;
/// The largest bundle, with its header.
const BUNDLE_MAX_BYTES: usize = HEADER_BYTES + (64 << 10);
/// Bundles read before due packets are checked.
const READS_MAX: usize = 64;

/// Delay, jitter and loss of packets to a site.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) delay: Duration,
    /// Added delay, uniformly distributed between zero and this.
    pub(crate) jitter: Duration,
    pub(crate) loss: Loss,
    /// Whether packets may be bundled.
    pub(crate) bundled: bool,
}

/// A running delay; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Delay {
    stop: Arc<std::os::fd::OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Delay {
    /// Creates the device in `namespace` and starts a thread that serves it.
    pub(crate) fn start(
        namespace: &Namespace,
        device: &str,
        turn: Turn,
    ) -> Result<Delay, LabError> {
        let what = || LabError::system(format!("a delay needs a TUN device ({device})"));
        let tun = namespace
            .inside(|| open_tun(device, turn.bundled))
            .flatten()
            .map_err(what())?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| what()(error.into()))?;
        let stop = Arc::new(stop);
        let stopped = stop.clone();
        let line = Line {
            turn,
            held: VecDeque::new(),
            held_bytes: 0,
            taken: vec![0; BUNDLE_MAX_BYTES],
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
    bundle: Vec<u8>,
}

/// The delayed packets, in order.
struct Line {
    turn: Turn,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// The bundle just read.
    taken: Vec<u8>,
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
        let Turn {
            delay,
            jitter,
            loss,
            ..
        } = self.turn;
        let mut rng = rand::rng();
        for _ in 0..READS_MAX {
            let length = match tun.read(&mut self.taken) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let taken = &self.taken[..length];
            if length <= HEADER_BYTES || self.held_bytes + length > HELD_MAX_BYTES {
                continue;
            }
            let extra = match jitter.is_zero() {
                true => Duration::ZERO,
                false => rng.random_range(Duration::ZERO..=jitter),
            };
            let due = Instant::now() + delay + extra;
            // Jitter does not reorder packets: most real jitter comes from queues, which keep
            // order.
            let due = self.held.back().map_or(due, |last| last.due.max(due));
            let kept = match loss {
                Loss::NONE => vec![taken.to_vec()],
                loss => survivors(taken, || {
                    rng.random_range(0..1_000_000) < loss.per_million()
                }),
            };
            for bundle in kept {
                self.held_bytes += bundle.len();
                self.held.push_back(Held { due, bundle });
            }
        }
        Ok(())
    }

    fn let_out(&mut self, tun: &mut File) {
        let now = Instant::now();
        while let Some(first) = self.held.pop_front_if(|first| first.due <= now) {
            self.held_bytes -= first.bundle.len();
            // Packets that the stack refuses (an interface that is down) are lost.
            let _ = tun.write(&first.bundle);
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
/// `_IOW('T', 208, unsigned int)` of the same; its argument is the number itself.
const TUNSETOFFLOAD: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<u32>(b'T', 208);
/// Layer 3, no protocol number before the packets (`IFF_TUN | IFF_NO_PI`), but the header that
/// bundles need (`IFF_VNET_HDR`).
const TUN_FLAGS: u16 = 0x1001 | 0x4000;
/// `TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6`.
const BUNDLES: usize = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40;

fn open_tun(name: &str, bundled: bool) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tun = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: TUN_FLAGS,
        rest: [0; 22],
    };
    // The last byte stays zero.
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: TUNSETIFF takes a pointer to a `struct ifreq`, which this is, and keeps nothing.
    unsafe { ioctl(&tun, Setter::<TUNSETIFF, InterfaceRequest>::new(request)) }?;
    if bundled {
        // SAFETY: TUNSETOFFLOAD takes a number.
        unsafe { ioctl(&tun, IntegerSetter::<TUNSETOFFLOAD>::new_usize(BUNDLES)) }?;
    }
    Ok(tun.into())
}
