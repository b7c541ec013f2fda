//! `qshare hash`: content ids of local files.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use qshare_node::{HashOptions, HashedFile, hash_file};

use crate::args::HashArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::{self, HashedJson};

/// Smaller files are hashed before a bar could be read.
const BAR_FROM_BYTES: u64 = 1 << 30;

/// Hashes each file; those that cannot be hashed do not stop the others.
pub(crate) fn run(args: &HashArgs, console: &Console) -> Result<(), Failure> {
    let mut worst: Option<Exit> = None;
    for (at, file) in args.files.iter().enumerate() {
        match hash(file, console) {
            Ok(hashed) if args.json.on => {
                console.result(&output::json(&HashedJson::new(file, &hashed.info)))?;
            }
            Ok(hashed) => {
                let gap = if at == 0 { "" } else { "\n" };
                console.result(&format!("{gap}{}", for_people(file, &hashed)))?;
            }
            Err(failure) => {
                console.error(&failure.message);
                worst = worst.max(Some(failure.exit));
            }
        }
    }
    match worst {
        None => Ok(()),
        Some(exit) => Err(Failure::said(exit)),
    }
}

fn for_people(file: &Path, hashed: &HashedFile) -> String {
    format!(
        "{}\n  content  {}\n  root     {}\n  length   {} bytes",
        file.display(),
        hashed.info.id(),
        hashed.info.root,
        hashed.info.length
    )
}

fn hash(file: &Path, console: &Console) -> Result<HashedFile, Failure> {
    let length = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
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
    let bar = ProgressBar::new(length).with_message(file.display().to_string());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
