//! The display of downloads in progress. This module decides nothing about them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use qshare_node::content::AssetName;
use qshare_node::{Download, Progress, Report, Stage};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::console::Console;
use crate::neutral::neutral_line;
use crate::{output, terminal};

/// Interval at which a board needs [`Board::tick`].
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// A younger download is not displayed: bars of small files would flicker.
const SHOWN_AFTER: Duration = Duration::from_millis(300);
/// Interval of plain lines about one download.
const PLAIN_EVERY: Duration = Duration::from_secs(4);
/// Maximum number of bars; more would push all other lines off the screen.
const BARS_MAX: usize = 12;
/// With more files, plain lines give their total only.
const PLAIN_FILES_MAX: usize = 10;

/// The running downloads on stderr: bars on a terminal, else a line every [`PLAIN_EVERY`].
pub(crate) struct Board {
    console: Console,
    /// None for plain lines.
    bars: Option<MultiProgress>,
    total_bar: Option<ProgressBar>,
    /// In the order of their start.
    rows: BTreeMap<usize, Row>,
    files: Tally,
    last_plain: Instant,
}

/// Totals over all files of a command.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    expected: usize,
    expected_bytes: u64,
    finished: usize,
    finished_bytes: u64,
}

struct Row {
    download: Download,
    since: Instant,
    bar: Option<ProgressBar>,
    last_plain: Option<Instant>,
}

impl Board {
    /// Creates a board of progress bars.
    pub(crate) fn with_bars(console: &Console) -> Board {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        console.show_bars(bars.clone());
        Board::new(console, Some(bars))
    }

    /// Creates a board of lines, for a pipe or a terminal with a prompt.
    pub(crate) fn plain(console: &Console) -> Board {
        Board::new(console, None)
    }

    fn new(console: &Console, bars: Option<MultiProgress>) -> Board {
        Board {
            console: console.clone(),
            bars,
            total_bar: None,
            rows: BTreeMap::new(),
            files: Tally::default(),
            last_plain: Instant::now(),
        }
    }

    /// Adds files, and the sum of their lengths, to the totals.
    pub(crate) fn expect(&mut self, files: usize, bytes: u64) {
        self.files.expected += files;
        self.files.expected_bytes += bytes;
    }

    /// Adds a running download under a key that the caller chooses.
    pub(crate) fn add(&mut self, key: usize, download: Download) {
        let row = Row {
            download,
            since: Instant::now(),
            bar: None,
            last_plain: None,
        };
        self.rows.insert(key, row);
    }

    /// Removes a download that has ended, successfully or not.
    pub(crate) fn remove(&mut self, key: usize, size_bytes: u64) {
        self.files.finished += 1;
        self.files.finished_bytes += size_bytes;
        self.remove_row(key);
    }

    /// Removes a download in favour of another one, from the totals too.
    pub(crate) fn withdraw(&mut self, key: usize, size_bytes: u64) {
        self.files.expected = self.files.expected.saturating_sub(1);
        self.files.expected_bytes = self.files.expected_bytes.saturating_sub(size_bytes);
        self.remove_row(key);
    }

    fn remove_row(&mut self, key: usize) {
        if let Some(row) = self.rows.remove(&key)
            && let (Some(bars), Some(bar)) = (&self.bars, row.bar)
        {
            bar.finish_and_clear();
            bars.remove(&bar);
        }
    }

    /// Returns whether every file gets a line of its own.
    pub(crate) fn is_about_few_files(&self) -> bool {
        self.files.expected <= PLAIN_FILES_MAX
    }

    /// Updates the display; the caller calls it every [`TICK`].
    pub(crate) fn tick(&mut self) {
        if self.console.is_quiet() {
            return;
        }
        match self.bars.clone() {
            Some(bars) => self.draw(&bars),
            None => self.print(),
        }
    }

    fn draw(&mut self, bars: &MultiProgress) {
        let (columns, rows) = terminal::size();
        let mut room = BARS_MAX.min(rows.saturating_sub(2)).max(1);
        if self.files.expected > 1 {
            room = room.saturating_sub(1).max(1);
            let progress: Vec<Progress> = self
                .rows
                .values()
                .map(|row| row.download.progress())
                .collect();
            let text = total_line(&self.files, &progress);
            let bar = self
                .total_bar
                .get_or_insert_with(|| new_bar(bars.add(hidden_bar())));
            bar.set_message(cut(&text, columns.saturating_sub(1)));
        }
        for row in self.rows.values_mut() {
            let progress = row.download.progress();
            let deserves = row.since.elapsed() >= SHOWN_AFTER && progress.stage != Stage::Queued;
            if room == 0 || !(row.bar.is_some() || deserves) {
                continue;
            }
            room -= 1;
            let bar = row
                .bar
                .get_or_insert_with(|| new_bar(bars.insert(0, hidden_bar())));
            bar.set_message(bar_line(
                row.download.name().as_str(),
                &progress,
                columns.saturating_sub(1),
            ));
        }
    }

    fn print(&mut self) {
        if !self.is_about_few_files() {
            if self.last_plain.elapsed() >= PLAIN_EVERY && !self.rows.is_empty() {
                self.last_plain = Instant::now();
                let progress: Vec<Progress> = self
                    .rows
                    .values()
                    .map(|row| row.download.progress())
                    .collect();
                self.console.note(&total_line(&self.files, &progress));
            }
            return;
        }
        for row in self.rows.values_mut() {
            if row
                .last_plain
                .is_none_or(|last| last.elapsed() >= PLAIN_EVERY)
            {
                row.last_plain = Some(Instant::now());
                let progress = row.download.progress();
                self.console
                    .note(&plain_line(row.download.name(), &progress));
            }
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(bars) = &self.bars {
            let _ = bars.clear();
            self.console.clear();
        }
    }
}

fn hidden_bar() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
}

fn new_bar(bar: ProgressBar) -> ProgressBar {
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    bar
}

/// Describes a finished download: `x: 1.2 GB in 0:03 (400 MB/s) from 3 sources`.
pub(crate) fn finished_line(report: &Report) -> String {
    let (name, size) = match report.files {
        None => (report.name.to_string(), output::bytes(report.size_bytes)),
        Some(files) => (
            format!("{}/", report.name),
            format!(
                "{}, {}",
                output::count(files, "file"),
                output::bytes(report.size_bytes)
            ),
        ),
    };
    if report.already_there {
        return format!("{name}: {size}, already present");
    }
    let seconds = report.elapsed.as_secs_f64().max(0.001);
    let rate = (report.received_bytes as f64 / seconds) as u64;
    let mut line = format!(
        "{name}: {size} in {} ({}/s) from {}",
        output::clock(report.elapsed),
        output::bytes(rate),
        output::count(sources_of(report), "source"),
    );
    if report.resumed_bytes > 0 {
        line += &format!(
            ", {} resumed from an earlier run",
            output::bytes(report.resumed_bytes)
        );
    }
    if report.reused_bytes > 0 {
        line += &format!(
            ", {} reused from local files",
            output::bytes(report.reused_bytes)
        );
    }
    line
}

/// Returns the number of nodes that contributed; each may have used several paths.
fn sources_of(report: &Report) -> u64 {
    let nodes: std::collections::HashSet<_> =
        report.sources.iter().map(|source| source.node).collect();
    nodes.len() as u64
}

fn percentage(done: u64, total: u64) -> u64 {
    match total {
        0 => 100,
        total => (u128::from(done) * 100 / u128::from(total)) as u64,
    }
}

/// Returns a stage in words; None while chunks are being fetched, which rates describe.
fn stage_words(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Queued => Some("queued"),
        Stage::Recovering => Some("verifying existing data"),
        Stage::Searching => Some("looking for sources"),
        Stage::Fetching => None,
        Stage::Finishing => Some("flushing to disk"),
        Stage::Complete => Some("done"),
        Stage::Stopped => Some("stopped"),
    }
}

/// Returns rate, time left and sources, or the stage in words.
fn state_words(progress: &Progress) -> String {
    let mut words = match stage_words(progress.stage) {
        Some(words) => words.to_owned(),
        None => {
            let left = match progress.time_left {
                Some(left) => format!("{} left", output::clock(left)),
                None => "-:-- left".to_owned(),
            };
            format!(
                "{}/s  {left}  {}",
                output::bytes(progress.bytes_per_second),
                output::count(progress.sources, "source")
            )
        }
    };
    if progress.reused_bytes > 0 {
        words += &format!("  {} reused", output::bytes(progress.reused_bytes));
    }
    if let Some(trouble) = &progress.trouble {
        words += &format!("  {}", neutral_line(&trouble.to_string()));
    }
    words
}

/// Returns a line for a terminal of `columns` cells. If the room is short, the name is cut first.
fn bar_line(name: &str, progress: &Progress, columns: usize) -> String {
    /// Cells between the brackets of the bar, which is left out where there is no room.
    const BAR_CELLS: u64 = 20;
    const NAME_MIN: usize = 12;
    let percent = percentage(progress.verified_bytes, progress.total_bytes);
    let state = state_words(progress);
    let mut tail = format!("{percent:>3}%  {state}");
    if columns >= tail.width() + 2 * NAME_MIN + BAR_CELLS as usize {
        let full = (percent * BAR_CELLS / 100).min(BAR_CELLS) as usize;
        let empty = BAR_CELLS as usize - full;
        tail = format!("[{}{}] {tail}", "#".repeat(full), "-".repeat(empty));
    }
    let room = columns.saturating_sub(tail.width() + 2).max(NAME_MIN);
    let name = cut(name, room.min(40));
    cut(&format!("{name}  {tail}"), columns)
}

/// Returns a line about a download, for logs and `status`.
pub(crate) fn plain_line(name: &AssetName, progress: &Progress) -> String {
    let state = state_words(progress);
    // The size of a folder is unknown until its list is there.
    if progress.total_bytes == 0 && progress.stage != Stage::Complete {
        return format!("{name}: {state}");
    }
    let percent = percentage(progress.verified_bytes, progress.total_bytes);
    let size = output::bytes(progress.total_bytes);
    format!("{name}: {percent}% of {size}  {state}")
}

fn total_line(files: &Tally, current: &[Progress]) -> String {
    let verified: u64 = current.iter().map(|progress| progress.verified_bytes).sum();
    let rate: u64 = current
        .iter()
        .map(|progress| progress.bytes_per_second)
        .sum();
    let done = files
        .finished_bytes
        .saturating_add(verified)
        .min(files.expected_bytes);
    format!(
        "{} of {} files  {}% of {}  {}/s",
        files.finished,
        files.expected,
        percentage(done, files.expected_bytes),
        output::bytes(files.expected_bytes),
        output::bytes(rate),
    )
}

/// Returns at most `columns` cells of a text; the removed end is replaced by `…`.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut room = columns.saturating_sub(1);
    let mut kept = String::new();
    for c in text.chars() {
        let width = c.width().unwrap_or(0);
        if width > room {
            break;
        }
        room -= width;
        kept.push(c);
    }
    if columns > 0 {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use qshare_node::content::NodeId;
    use qshare_node::{NoSource, SourceFault};

    use super::*;

    fn fetching() -> Progress {
        Progress {
            stage: Stage::Fetching,
            total_bytes: 2_000_000_000,
            verified_bytes: 900_000_000,
            reused_bytes: 0,
            bytes_per_second: 12_300_000,
            time_left: Some(Duration::from_secs(83)),
            sources: 3,
            trouble: None,
            files: None,
        }
    }

    #[test]
    fn a_line_has_name_percentage_speed_time_left_and_sources() {
        assert_eq!(
            bar_line("disk.img", &fetching(), 100),
            "disk.img  [#########-----------]  45%  12 MB/s  1:23 left  3 sources"
        );
        let reusing = Progress {
            reused_bytes: 1_500_000,
            ..fetching()
        };
        assert_eq!(
            bar_line("disk.img", &reusing, 100),
            "disk.img  [#########-----------]  45%  12 MB/s  1:23 left  3 sources  1.5 MB reused"
        );
        let plain = plain_line(&AssetName::new("disk.img").unwrap(), &fetching());
        assert_eq!(
            plain,
            "disk.img: 45% of 2.0 GB  12 MB/s  1:23 left  3 sources"
        );
        let unknown = Progress {
            stage: Stage::Searching,
            total_bytes: 0,
            verified_bytes: 0,
            ..fetching()
        };
        assert_eq!(
            plain_line(&AssetName::new("album").unwrap(), &unknown),
            "album: looking for sources"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let name = "数据/".repeat(30) + "x";
        for columns in 0..200 {
            let line = bar_line(&name, &fetching(), columns);
            assert!(line.width() <= columns, "{columns}: {line}");
        }
    }

    #[test]
    fn trouble_is_displayed_and_cannot_control_the_terminal() {
        let progress = Progress {
            stage: Stage::Searching,
            trouble: Some(NoSource {
                failures: vec![(
                    NodeId([0; 32]),
                    SourceFault::ResolveTimedOut("host\x1b[2J".into()),
                )],
            }),
            ..fetching()
        };
        let line = bar_line("x", &progress, 100);
        assert!(
            line.contains("no reachable source") && line.contains(r"host\u{1b}[2J"),
            "{line}"
        );
    }

    #[test]
    fn the_total_counts_finished_and_running_downloads() {
        let files = Tally {
            expected: 2000,
            expected_bytes: 4_000_000_000,
            finished: 412,
            finished_bytes: 1_100_000_000,
        };
        assert_eq!(
            total_line(&files, &[fetching()]),
            "412 of 2000 files  50% of 4.0 GB  12 MB/s"
        );
    }

    #[test]
    fn an_empty_file_is_complete() {
        assert_eq!(percentage(0, 0), 100);
        assert_eq!(percentage(u64::MAX, u64::MAX), 100);
    }
}
