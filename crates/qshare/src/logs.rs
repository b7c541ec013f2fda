//! Logging: formats tracing's events and prints them on the console.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::args::{LogFormat, Verbosity};
use crate::console::Console;
use crate::terminal;

/// Starts logging. `QSHARE_LOG` takes tracing's directives and overrides -q and -v.
pub(crate) fn start(verbosity: &Verbosity, console: &Console) {
    let directives = match (verbosity.quiet, verbosity.verbose) {
        (true, _) => "error",
        // Left out is what others report better: commands report the state of their trackers, and a
        // tracker reports the state of its Redis. A datagram that cannot be sent is a lost packet,
        // which QUIC repairs.
        (false, 0) => "warn,qshare_node::trackers=error,quinn_udp=error,redis=error",
        (false, 1) => "warn,qshare=info,redis=error",
        (false, 2) => "info,qshare=debug",
        (false, _) => "debug,qshare=trace",
    };
    let filter = std::env::var("QSHARE_LOG")
        .ok()
        .filter(|directives| !directives.is_empty())
        .and_then(|directives| EnvFilter::try_new(directives).ok())
        .unwrap_or_else(|| EnvFilter::new(directives));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(ToConsole(console.clone()));
    // This fails only if a subscriber is installed, and there is no other.
    let _ = match verbosity.log_format {
        LogFormat::Text => subscriber.with_ansi(terminal::colours()).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
}

struct ToConsole(Console);

/// The text of one event, printed when it is complete.
struct Event {
    console: Console,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for ToConsole {
    type Writer = Event;

    fn make_writer(&'a self) -> Event {
        Event {
            console: self.0.clone(),
            text: Vec::new(),
        }
    }
}

impl io::Write for Event {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.console
            .log(String::from_utf8_lossy(&self.text).trim_end());
    }
}
