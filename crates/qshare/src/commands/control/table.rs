//! The status of a node as lines that fit a terminal.

use std::time::Duration;

use unicode_width::UnicodeWidthStr;

use crate::api::objects::{
    Download, DownloadDetail, FileKind, Share, Source, StageName, Status, Tracker,
};
use crate::output;

/// Narrowest column of names.
const NAME_MIN: usize = 12;
/// Trackers that are listed.
const TRACKERS_MAX: usize = 4;
/// Width of a progress bar, where there is room for one.
const BAR: usize = 12;
const WIDE: usize = 100;

/// Returns the lines about the node itself.
pub(super) fn of_node(status: &Status) -> Vec<String> {
    let rate = |rate| format!("{}/s", output::bytes(rate));
    let limited = |limit: Option<u64>| match limit {
        Some(limit) => format!(" (limit {}/s)", output::bytes(limit)),
        None => String::new(),
    };
    let short: String = status.node.chars().take(10).collect();
    let mut lines = vec![
        format!(
            "node {short}   up {}{}   down {}{}   {} connected",
            rate(status.up_bytes_per_second),
            limited(status.limits.up_bytes_per_second),
            rate(status.down_bytes_per_second),
            limited(status.limits.down_bytes_per_second),
            output::count(status.peers as u64, "node"),
        ),
        format!(
            "sharing {} ({})   {} sent, {} received since the start",
            output::count(status.shared_files as u64, "file"),
            output::bytes(status.shared_bytes),
            output::bytes(status.sent_bytes),
            output::bytes(status.received_bytes),
        ),
    ];
    lines.extend(status.trackers.iter().take(TRACKERS_MAX).map(tracker));
    if !matches!(status.port_mapping.state.as_str(), "off" | "not-needed") {
        lines.push(format!("port mapping: {}", status.port_mapping.text));
    }
    lines
}

fn tracker(tracker: &Tracker) -> String {
    let mut line = format!("tracker {}: ", tracker.tracker);
    line += match tracker.state.as_str() {
        "away" => "unreachable",
        other => other,
    };
    if let Some(cause) = &tracker.cause {
        line += &format!(": {cause}");
    }
    if tracker.unlisted_entries > 0 {
        let files = output::count(tracker.unlisted_entries, "file");
        line += &format!("; it is full and does not list {files} of this node");
    }
    line
}

/// Returns a table of downloads that is at most `width` columns wide and has at most `height`
/// lines, the heading included. What is under way comes first.
pub(super) fn of_downloads<'a>(
    downloads: impl IntoIterator<Item = &'a Download>,
    width: usize,
    height: usize,
) -> Vec<String> {
    let mut sorted: Vec<&Download> = downloads.into_iter().collect();
    sorted.sort_by_key(|download| (rank(download.stage), download.added_at, download.id.clone()));
    let total = sorted.len();
    let room = height.saturating_sub(1);
    let shown = match total <= room {
        true => total,
        // The last line counts the others.
        false => room.saturating_sub(1),
    };
    let heading = ["NAME", "SIZE", "DONE", "RATE", "LEFT", "FROM", "STATE"].map(str::to_owned);
    let mut rows = vec![heading];
    rows.extend(sorted.iter().take(shown).map(|one| row(one, width >= WIDE)));
    fit(&mut rows, width);
    let mut lines = output::table(&rows, [false, true, true, true, true, true, false]);
    for line in &mut lines {
        *line = truncate(line, width);
    }
    if shown < total {
        lines.push(truncate(&format!("and {} more", total - shown), width));
    }
    lines
}

/// Returns a table of the shares that were handed to the node, at most `width` columns wide and
/// `height` lines high, the heading included.
pub(super) fn of_shares<'a>(
    shares: impl IntoIterator<Item = &'a Share>,
    width: usize,
    height: usize,
) -> Vec<String> {
    let shares: Vec<&Share> = shares.into_iter().collect();
    let room = height.saturating_sub(1);
    let shown = match shares.len() <= room {
        true => shares.len(),
        false => room.saturating_sub(1),
    };
    let heading = ["SHARE", "SIZE", "CODE", "DONE", "SENT", "STATE"].map(str::to_owned);
    let mut rows = vec![heading];
    rows.extend(shares.iter().take(shown).map(|share| share_row(share)));
    let mut lines = output::table(&rows, [false, true, false, true, true, false]);
    for line in &mut lines {
        *line = truncate(line, width);
    }
    if shown < shares.len() {
        let more = format!("and {} more", shares.len() - shown);
        lines.push(truncate(&more, width));
    }
    lines
}

fn share_row(share: &Share) -> [String; 6] {
    let name = share.kind.shown(&share.name);
    let state = match (share.state.as_deref(), &share.error) {
        (_, Some(error)) => format!("failed: {error}"),
        (Some("serving"), None) => match (share.receivers.unwrap_or(0), share.private) {
            (0, true) => "private".to_owned(),
            (0, false) => "listed".to_owned(),
            (count, _) => output::count(count as u64, "receiver"),
        },
        (state, None) => state.unwrap_or_default().to_owned(),
    };
    [
        name,
        output::bytes(share.size_bytes),
        share.code.clone().unwrap_or_default(),
        share.received.unwrap_or(0).to_string(),
        output::bytes(share.sent_bytes.unwrap_or(0)),
        state,
    ]
}

fn rank(stage: StageName) -> u8 {
    match stage {
        StageName::Fetching | StageName::Finishing | StageName::Recovering => 0,
        StageName::Searching => 1,
        StageName::Failed => 2,
        StageName::Queued => 3,
        StageName::Paused => 4,
        StageName::Complete => 5,
    }
}

fn row(download: &Download, with_bar: bool) -> [String; 7] {
    let percent = percent(download);
    let done = match with_bar {
        true => format!("{} {percent} %", bar(percent)),
        false => format!("{percent} %"),
    };
    let rate = match download.bytes_per_second {
        0 => String::new(),
        rate => format!("{}/s", output::bytes(rate)),
    };
    let left = download.seconds_left.map(Duration::from_secs);
    [
        download.shown_name(),
        output::bytes(download.size_bytes),
        done,
        rate,
        left.map(output::clock).unwrap_or_default(),
        match download.sources {
            0 => String::new(),
            sources => sources.to_string(),
        },
        state(download),
    ]
}

fn percent(download: &Download) -> u64 {
    match (download.stage, download.size_bytes) {
        (StageName::Complete, _) => 100,
        (_, 0) => 0,
        // A download that is not complete is never shown as 100 %.
        (_, size) => (download.verified_bytes.saturating_mul(100) / size).min(99),
    }
}

fn bar(percent: u64) -> String {
    let full = percent as usize * BAR / 100;
    format!("{}{}", "#".repeat(full), "-".repeat(BAR - full))
}

/// Returns the stage, and why nothing happens or what takes most of the time.
fn state(download: &Download) -> String {
    let stage = download.stage.name();
    let detail = download.error.as_ref().or(download.trouble.as_ref());
    match (detail, download.why.first()) {
        (Some(detail), _) => format!("{stage}: {}", detail.lines().next().unwrap_or_default()),
        (None, Some(why)) if download.stage == StageName::Fetching => {
            format!("{stage}; {} % {}", why.percent, why.cause.replace('-', " "))
        }
        _ => stage.to_owned(),
    }
}

/// Shortens names so that a table of these rows fits into `width`, as far as names can.
fn fit(rows: &mut [[String; 7]], width: usize) {
    let widest = |rows: &[[String; 7]], column: usize| {
        let widths = rows.iter().map(|row| row[column].width());
        widths.max().unwrap_or(0)
    };
    // The last column is cut at the edge; a few words of it are to be seen.
    const STATE_MIN: usize = 12;
    let others: usize = (1..6).map(|column| widest(rows, column) + 2).sum();
    let state = widest(rows, 6).min(STATE_MIN) + 2;
    let room = width.saturating_sub(others + state).max(NAME_MIN);
    for row in rows {
        row[0] = truncate(&row[0], room);
    }
}

/// Cuts a text to `width` columns; an ellipsis shows that something is missing.
pub(super) fn truncate(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        let next = format!("{short}{c}");
        if next.width() + 1 > width {
            break;
        }
        short = next;
    }
    short + "…"
}

/// Returns a download in one line.
pub(super) fn one_line(download: &Download) -> String {
    let size = output::bytes(download.size_bytes);
    let percent = percent(download);
    let (name, state) = (download.shown_name(), state(download));
    let files = match (download.complete_files, download.files) {
        (Some(complete), Some(files)) => format!("  {complete} of {files} files"),
        _ => String::new(),
    };
    format!("{name}  {size}{files}  {percent} %  {state}")
}

/// Returns a download with its chunks and sources.
pub(super) fn of_detail(detail: &DownloadDetail) -> Vec<String> {
    let download = &detail.download;
    let mut lines = vec![
        one_line(download),
        format!("  content  {}", download.content),
        format!("  ID       {}", download.id),
        format!("  path     {}", download.path),
    ];
    if download.kind == FileKind::File && detail.chunks > 0 {
        lines.push(format!(
            "  chunks   {} of {} verified, {} held by no connected node, {} requested, {} wasted",
            detail.verified_chunks,
            detail.chunks,
            detail.unheld_chunks,
            output::bytes(detail.in_flight_bytes),
            output::bytes(detail.wasted_bytes),
        ));
    }
    if !download.why.is_empty() {
        let causes = download.why.iter();
        let causes = causes.map(|why| format!("{} {} %", why.cause.replace('-', " "), why.percent));
        let causes: Vec<String> = causes.collect();
        lines.push(format!("  time     {}", causes.join(", ")));
    }
    if !detail.sources.is_empty() {
        let heading = [
            "  SOURCE", "PATH", "ADDRESS", "RTT", "RATE", "RECEIVED", "CHUNKS", "",
        ];
        let mut rows = vec![heading.map(str::to_owned)];
        rows.extend(detail.sources.iter().map(source));
        let right = [false, false, false, true, true, true, true, false];
        lines.extend(output::table(&rows, right));
    }
    lines
}

fn source(source: &Source) -> [String; 8] {
    let short: String = source.node.chars().take(10).collect();
    let rtt = source.rtt_ms.map(|rtt| format!("{rtt:.1} ms"));
    let backs_off = source
        .asked_again_in_ms
        .map(|ms| format!("backing off for {:.1} s", ms as f64 / 1000.0));
    let dropped = source.dropped.as_ref().map(|why| format!("dropped: {why}"));
    [
        format!("  {short}"),
        source.path.name().to_owned(),
        source.address.clone(),
        rtt.unwrap_or_default(),
        format!("{}/s", output::bytes(source.bytes_per_second)),
        output::bytes(source.received_bytes),
        source.verified_chunks.to_string(),
        dropped.or(backs_off).unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::objects::{PriorityName, Time};

    fn download(name: &str, stage: StageName, at: u64) -> Download {
        Download {
            id: format!("{at:032x}"),
            content: "ab".repeat(32),
            name: name.to_owned(),
            kind: FileKind::File,
            files: None,
            complete_files: None,
            path: format!("/downloads/{name}"),
            stage,
            added_at: Time(at),
            ended_at: None,
            size_bytes: 1_000_000,
            verified_bytes: 999_999,
            bytes_per_second: 1000,
            seconds_left: Some(1),
            sources: 2,
            priority: PriorityName::Normal,
            limit_bytes_per_second: None,
            trouble: None,
            error: None,
            error_code: None,
            why: Vec::new(),
        }
    }

    #[test]
    fn a_table_fits_any_terminal() {
        let name = "a very long name of a file, with wide characters: 数据数据数据数据.iso";
        let downloads: Vec<Download> = (0..50)
            .map(|at| download(name, StageName::Fetching, at))
            .collect();
        for (width, height) in [(40, 5), (80, 24), (200, 60)] {
            let lines = of_downloads(&downloads, width, height);
            assert!(lines.len() <= height, "{width}x{height}: {}", lines.len());
            for line in &lines {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
        let lines = of_downloads(&downloads, 80, 24);
        assert_eq!(lines.last().map(String::as_str), Some("and 28 more"));
    }

    #[test]
    fn what_is_under_way_comes_first_and_is_not_complete() {
        let downloads = [
            download("done", StageName::Complete, 1),
            download("waits", StageName::Queued, 2),
            download("runs", StageName::Fetching, 3),
        ];
        let lines = of_downloads(&downloads, 80, 24);
        let names: Vec<_> = lines
            .iter()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(names, ["NAME", "runs", "waits", "done"]);
        assert!(
            lines[1].contains("99 %") && lines[3].contains("100 %"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_cut_text_says_so() {
        assert_eq!(truncate("abc", 3), "abc");
        assert_eq!(truncate("abcd", 3), "ab…");
        assert_eq!(truncate("数据数据", 4), "数…");
    }
}
