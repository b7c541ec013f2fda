//! `qshare hash`: print the content IDs of local files.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use qshare_node::{
    HashOptions, HashedFile, THREAD_WORTH_BYTES, hash_file, hash_small_files, sha256_of_file,
};

use crate::args::HashArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages::{self, Reader};
use crate::neutral::shown;
use crate::output::HashedJson;

/// Files below 1 GiB are hashed before a person could read a progress bar.
const BAR_FROM_BYTES: u64 = 1 << 30;

/// Small files that are hashed together before their results are printed.
const BATCH_MAX: usize = 1024;

/// Hashes each file; a failure does not stop the others.
pub(crate) fn run(args: &HashArgs, console: &Console) -> Result<(), Failure> {
    let length = |file: &Path| std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    let files: Vec<(&Path, u64)> = args.files.iter().map(|f| (&**f, length(f))).collect();
    let small = |&(_, length): &(&Path, u64)| length < THREAD_WORTH_BYTES;
    let mut worst: Option<Exit> = None;
    let mut first = true;
    for run in files.chunk_by(|a, b| small(a) && small(b)) {
        for batch in run.chunks(BATCH_MAX) {
            for (file, hashed) in hash(batch, console) {
                let hashed = hashed.and_then(|hashed| {
                    let digest = args.sha256.then(|| sha256_of_file(file)).transpose();
                    let digest = digest.map_err(|error| messages::disk(&error, Reader::Shell))?;
                    Ok((hashed, digest))
                });
                match hashed {
                    Ok((hashed, digest)) if args.json.on => {
                        console.json(&HashedJson::new(file, &hashed.info, digest))?;
                    }
                    Ok((hashed, digest)) => {
                        if !std::mem::take(&mut first) {
                            console.result("")?;
                        }
                        console.path(file)?;
                        console.result(&describe(&hashed))?;
                        if let Some(digest) = digest {
                            console.result(&format!("  sha256   {digest}"))?;
                        }
                    }
                    Err(failure) => {
                        console.error(&failure.message);
                        worst = worst.max(Some(failure.exit));
                    }
                }
            }
        }
    }
    match worst {
        None => Ok(()),
        Some(exit) => Err(Failure::printed(exit)),
    }
}

/// Hashes several small files in parallel, or one file with all cores.
fn hash<'a>(
    batch: &[(&'a Path, u64)],
    console: &Console,
) -> Vec<(&'a Path, Result<HashedFile, Failure>)> {
    if let &[(file, length)] = batch {
        return vec![(file, hash_one(file, length, console))];
    }
    let files: Vec<&Path> = batch.iter().map(|&(file, _)| file).collect();
    let hashed = hash_small_files(&files, &HashOptions::default());
    let hashed = hashed
        .into_iter()
        .map(|hashed| hashed.map_err(Failure::from));
    files.into_iter().zip(hashed).collect()
}

fn describe(hashed: &HashedFile) -> String {
    format!(
        "  content  {}\n  root     {}\n  length   {} bytes",
        hashed.info.id(),
        hashed.info.root,
        hashed.info.length
    )
}

fn hash_one(file: &Path, length: u64, console: &Console) -> Result<HashedFile, Failure> {
    let mut options = HashOptions::default();
    let bar = (length >= BAR_FROM_BYTES && stderr().is_terminal() && !console.is_quiet())
        .then(|| new_bar(file, length));
    if let Some(bar) = &bar {
        let bars = MultiProgress::new();
        let bar = bars.add(bar.clone());
        console.show_bars(bars);
        options.progress = Some(Arc::new(move |done, _| bar.set_position(done)));
    }
    let hashed = hash_file(file, &options);
    if let Some(bar) = bar {
        bar.finish_and_clear();
        console.clear();
    }
    Ok(hashed?)
}

fn new_bar(file: &Path, length: u64) -> ProgressBar {
    let template = "{wide_msg} {percent:>3}%  {decimal_bytes_per_sec}  {eta} left";
    let bar = ProgressBar::new(length).with_message(shown(file));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
