//! How long the bottleneck's queue is: small packets on the same way, there and back.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use qshare_tests::lab::Host;

use super::flow::Watch;

const EVERY: Duration = Duration::from_millis(20);

/// Round trips until the watch ends, each with the time at which it was over.
pub(crate) fn round_trips(
    from: &Host,
    to: &Host,
    watch: &Watch,
) -> anyhow::Result<Vec<(Instant, Duration)>> {
    let bind = |host: &Host| -> anyhow::Result<UdpSocket> {
        let socket = host
            .inside(|| UdpSocket::bind((host.address(), 0)))
            .flatten()?;
        socket.set_read_timeout(Some(EVERY * 5))?;
        Ok(socket)
    };
    let (here, there) = (bind(from)?, bind(to)?);
    let target = there.local_addr()?;
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut packet = [0; 8];
            while !watch.has_ended() {
                if let Ok((_, source)) = there.recv_from(&mut packet) {
                    let _ = there.send_to(&packet, source);
                }
            }
        });
        scope.spawn(|| {
            while !watch.has_ended() {
                let sent = began.elapsed().as_micros() as u64;
                let _ = here.send_to(&sent.to_be_bytes(), target);
                std::thread::sleep(EVERY);
            }
        });
        let mut found = Vec::new();
        let mut packet = [0; 8];
        while !watch.has_ended() {
            if here.recv_from(&mut packet).is_ok() {
                let sent = began + Duration::from_micros(u64::from_be_bytes(packet));
                let now = Instant::now();
                found.push((now, now.saturating_duration_since(sent)));
            }
        }
        Ok(found)
    })
}
