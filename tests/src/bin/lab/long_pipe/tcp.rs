//! The kernel's TCP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use qshare_tests::lab::Host;
use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};

use super::flow::Watch;

/// Timeout of a call, after which it checks whether the flow has ended.
const PATIENCE: Duration = Duration::from_millis(200);

/// The receiver connects, as a downloader does.
pub(crate) fn run(
    congestion: &str,
    from: &Host,
    to: &Host,
    watch: &Arc<Watch>,
) -> anyhow::Result<()> {
    let listener = from
        .inside(|| TcpListener::bind((from.address(), 0)))
        .flatten()?;
    set_tcp_congestion(&listener, congestion)
        .with_context(|| format!("this kernel has no congestion control {congestion}"))?;
    let used = tcp_congestion(&listener)?;
    anyhow::ensure!(used == congestion, "{used} instead of {congestion}");
    let address = listener.local_addr()?;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> anyhow::Result<()> {
            let (stream, _) = listener.accept()?;
            send(stream, watch);
            Ok(())
        });
        let received = to
            .inside(|| TcpStream::connect(address))
            .flatten()
            .and_then(|stream| receive(stream, watch));
        watch.end();
        let sent = sender.join().unwrap_or_else(|_| Ok(()));
        received?;
        sent
    })
}

fn send(mut stream: TcpStream, watch: &Watch) {
    let data = vec![7; 256 << 10];
    // An error is the receiver's end.
    let _ = stream.set_write_timeout(Some(PATIENCE));
    while !watch.has_ended() {
        match stream.write(&data) {
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(_) => break,
        }
    }
}

fn receive(mut stream: TcpStream, watch: &Watch) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    stream.set_read_timeout(Some(PATIENCE))?;
    while !watch.has_ended() {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => watch.count(length),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
