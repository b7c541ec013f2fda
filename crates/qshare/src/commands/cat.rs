//! `qshare cat`, which is `get -o -`: writes a content to standard output while it is fetched.

use std::fs::File;
use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use qshare_node::content::{AssetName, Hash, PlainDigest};
use qshare_node::{ContentReader, DownloadError, DownloadRequest, Node, StreamError};
use tokio_util::sync::CancellationToken;

use crate::args::ByteRange;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output;

/// Interval at which the progress line changes.
const TICK: Duration = Duration::from_millis(250);

/// Writes a range of a content, or all of it, to standard output. A reader that closes the pipe has
/// read enough.
pub(super) async fn write(
    node: &Node,
    request: DownloadRequest,
    range: Option<ByteRange>,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let (name, length) = (request.name().clone(), request.info().length);
    let range = match range {
        None => 0..length,
        Some(range) => range.within(length).ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!(
                    "cannot write the range of {name}: it has {length} bytes, and none of them is \
                     in the range"
                ),
            )
        })?,
    };
    let wanted = request.required_sha256();
    let reader = node.read(request, range).map_err(|error| failure(&error))?;
    let line = Line::new(&name, console);
    let copied = tokio::select! {
        copied = copy(reader, wanted, &line) => copied,
        () = stop.cancelled() => Err(Failure::printed(Exit::Interrupted)),
    };
    line.clear(console);
    copied
}

async fn copy(mut reader: ContentReader, wanted: Option<Hash>, line: &Line) -> Result<(), Failure> {
    let out = Arc::new(standard_output().map_err(|error| cannot_write(&error))?);
    let start = reader.position();
    let mut digest = PlainDigest::default();
    loop {
        let next = {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                tokio::select! {
                    next = reader.next() => break next,
                    _ = ticks.tick() => line.show(&reader, start),
                }
            }
        };
        let Some(bytes) = next.map_err(|error| failure(&error))? else {
            return check(wanted, digest);
        };
        // On a blocking thread: a slow reader of the pipe must not stop the fetch that is ahead.
        let file = out.clone();
        let written = tokio::task::spawn_blocking(move || {
            if wanted.is_some() {
                digest.update(&bytes);
            }
            (&*file).write_all(&bytes).map(|()| digest)
        });
        match written.await.map_err(Failure::internal)? {
            Ok(advanced) => digest = advanced,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(cannot_write(&error)),
        }
    }
}

/// Compares the digest of everything that was written with the required one.
fn check(wanted: Option<Hash>, digest: PlainDigest) -> Result<(), Failure> {
    match (wanted, digest.finish()) {
        (Some(wanted), found) if wanted != found => Err(Failure::new(
            Exit::Unverified,
            format!(
                "the SHA-256 of what was written is {found}, not {wanted}\nDo not use it; check \
                 the digest, and who shares the file"
            ),
        )),
        _ => Ok(()),
    }
}

/// Returns standard output without the buffer, which would search for line feeds.
fn standard_output() -> io::Result<File> {
    Ok(File::from(stdout().as_fd().try_clone_to_owned()?))
}

fn cannot_write(error: &io::Error) -> Failure {
    Failure::new(
        Exit::Disk,
        format!("cannot write to standard output: {error}"),
    )
}

fn failure(error: &StreamError) -> Failure {
    match error {
        StreamError::Failed(error) => match &**error {
            DownloadError::Stopped => Failure::printed(Exit::Interrupted),
            error => Failure::from(error),
        },
        error => Failure::new(Exit::Failed, error.to_string()),
    }
}

/// The progress line on stderr, if that is a terminal and standard output is not.
struct Line {
    name: String,
    bar: Option<ProgressBar>,
}

impl Line {
    fn new(name: &AssetName, console: &Console) -> Line {
        let is_shown = stderr().is_terminal() && !stdout().is_terminal() && !console.is_quiet();
        let bar = is_shown.then(|| {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            console.show_bars(bars.clone());
            let bar = bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar
        });
        Line {
            name: name.to_string(),
            bar,
        }
    }

    fn show(&self, reader: &ContentReader, start: u64) {
        let Some(bar) = &self.bar else { return };
        let done = output::bytes(reader.position() - start);
        let all = output::bytes(reader.end() - start);
        let mut text = format!("{}: {done} of {all}", self.name);
        if let Some(progress) = reader.progress() {
            text += &format!(
                "  {}/s  {}",
                output::bytes(progress.bytes_per_second),
                output::count(u64::from(progress.sources), "source")
            );
            if let Some(trouble) = &progress.trouble {
                text += &format!("  {trouble}");
            }
        }
        bar.set_message(crate::neutral::neutral_line(&text).into_owned());
    }

    fn clear(&self, console: &Console) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            console.clear();
        }
    }
}
