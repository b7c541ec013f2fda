//! The line that shows who is being served.

use std::io::{IsTerminal, stderr};
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use qshare_node::Audience;

use crate::console::Console;
use crate::output;

/// Weight of a new sample in the shown rate.
const NEW_WEIGHT: f64 = 0.4;

/// A line on a terminal, redrawn at each tick; nothing elsewhere.
pub(super) struct LiveLine {
    bar: Option<ProgressBar>,
    console: Console,
    last: (Instant, u64),
    bytes_per_second: f64,
}

impl LiveLine {
    pub(super) fn new(console: &Console) -> LiveLine {
        let bar = (stderr().is_terminal() && !console.is_quiet()).then(|| {
            let bars = MultiProgress::new();
            let bar = bars.add(ProgressBar::no_length());
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                bar.set_style(style);
            }
            console.show_bars(bars);
            bar
        });
        LiveLine {
            bar,
            console: console.clone(),
            last: (Instant::now(), 0),
            bytes_per_second: 0.0,
        }
    }

    /// Shows the receivers of all shares together, and `notice` behind them.
    pub(super) fn show(&mut self, all: &Audience, notice: &str) {
        let now = Instant::now();
        let (before, sent_bytes) = std::mem::replace(&mut self.last, (now, all.sent_bytes));
        let seconds = now.duration_since(before).as_secs_f64();
        if seconds > 0.0 {
            // A new version of a file begins at zero.
            let rate = all.sent_bytes.saturating_sub(sent_bytes) as f64 / seconds;
            self.bytes_per_second += NEW_WEIGHT * (rate - self.bytes_per_second);
        }
        if let Some(bar) = &self.bar {
            bar.set_message(describe(all, self.bytes_per_second, notice));
        }
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            self.console.clear();
        }
    }
}

fn describe(all: &Audience, bytes_per_second: f64, notice: &str) -> String {
    let mut line = match (all.receivers, all.received) {
        (0, 0) => "waiting for receivers".to_owned(),
        (0, received) => format!("{} done", output::count(received as u64, "receiver")),
        (receivers, 0) => output::count(receivers as u64, "receiver"),
        (receivers, received) => {
            format!(
                "{}, {received} done",
                output::count(receivers as u64, "receiver")
            )
        }
    };
    if all.sent_bytes > 0 {
        line += &format!(", {} sent", output::bytes(all.sent_bytes));
    }
    if all.receivers > 0 && bytes_per_second >= 1.0 {
        line += &format!(", {}/s", output::bytes(bytes_per_second as u64));
    }
    if !notice.is_empty() {
        line += &format!(", {notice}");
    }
    line + " (Ctrl-C ends)"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_what_there_is() {
        let audience = |receivers, received, sent_bytes| Audience {
            receivers,
            received,
            sent_bytes,
        };
        assert_eq!(
            describe(&audience(0, 0, 0), 0.0, ""),
            "waiting for receivers (Ctrl-C ends)"
        );
        assert_eq!(
            describe(&audience(2, 1, 3_000_000), 1_500_000.0, "1 failed attempt"),
            "2 receivers, 1 done, 3.0 MB sent, 1.5 MB/s, 1 failed attempt (Ctrl-C ends)"
        );
    }
}
