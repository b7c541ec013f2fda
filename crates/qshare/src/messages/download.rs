//! Downloads that end without their file.

use qshare_node::content::{ContentId, NodeId};
use qshare_node::{DownloadError, OpenError};

use super::disk::disk;
use super::lookup::find;
use super::reader::Reader;
use crate::exit::{Exit, Failure};
use crate::neutral::{neutral_line, shown};
use crate::output;

impl From<&DownloadError> for Failure {
    fn from(error: &DownloadError) -> Failure {
        download(error, Reader::Get)
    }
}

/// Describes a download that ended without its file.
pub(crate) fn download(error: &DownloadError, reader: Reader) -> Failure {
    match error {
        DownloadError::Tracker(error) => find(error, reader),
        DownloadError::Disk(error) => disk(error, reader),
        DownloadError::NoSource { .. } => Failure::new(
            Exit::Unreachable,
            reader.advise(
                neutral_line(&error.to_string()).into_owned(),
                "Fetched data is kept; run the same command again later, or with --wait",
                "Fetched data is kept; enter the name again to resume",
            ),
        ),
        DownloadError::Changed { name } => Failure::new(
            Exit::NotFound,
            reader.advise(
                format!("cannot finish {name}: the file has changed at its source"),
                "Ask for a new link, or get the code again: it leads to the present file",
                "Ask for a new link, or get the code again: it leads to the present file",
            ),
        ),
        DownloadError::VerificationFailed { name } => Failure::new(
            Exit::Unverified,
            reader.advise(
                format!("cannot verify {name}: every source sent wrong bytes"),
                "None of those bytes were kept; try again when other nodes share it",
                "None of those bytes were kept; try again when other nodes share it",
            ),
        ),
        DownloadError::OtherDigest { .. } => Failure::new(
            Exit::Unverified,
            reader.advise(
                format!("cannot accept {error}"),
                "Nothing of it was kept; check the digest, and who shares the file",
                "Nothing of it was kept; check the digest, and who shares the file",
            ),
        ),
        DownloadError::Different { path } => Failure::new(
            Exit::Failed,
            reader.advise(
                format!("cannot write {}: a different file is there", shown(path)),
                "Replace it with --force, or write elsewhere with -o",
                "Move it away, then enter the name again",
            ),
        ),
        DownloadError::NotAFile { path } => Failure::new(
            Exit::Failed,
            reader.advise(
                format!("cannot write {}: it is not a regular file", shown(path)),
                "It is never replaced; write elsewhere with -o",
                "It is never replaced; move it away, then enter the name again",
            ),
        ),
        DownloadError::NotADirectory { path } => Failure::new(
            Exit::Failed,
            reader.advise(
                format!(
                    "cannot write the folder to {}: it is not a directory",
                    shown(path)
                ),
                "Name another one with -o",
                "Move it away, or name another folder with `qshare add --name`",
            ),
        ),
        DownloadError::InvalidFolder { cause, .. } => Failure::new(
            Exit::Unverified,
            format!("cannot download the folder: {cause}\nNothing of it was written"),
        ),
        DownloadError::InvalidGlob { .. } => Failure::new(Exit::Usage, error.to_string()),
        DownloadError::List(error) => download(error, reader),
        DownloadError::Files {
            name,
            failed,
            first,
        } => {
            let Failure { exit, message } = download(first, reader);
            let files = output::count(*failed, "file");
            Failure::new(
                exit,
                format!("{files} of {name}/ could not be downloaded; the first: {message}"),
            )
        }
        DownloadError::Open { path, cause } => {
            let (in_shell, at_prompt) = match cause {
                OpenError::OtherUnfinished { .. } => (
                    "Discard that one with --force, or write elsewhere with -o",
                    "Discard that one with `discard NAME`",
                ),
                OpenError::Locked(_) => (
                    "Wait for the other qshare, or stop it",
                    "Wait for the other qshare, or stop it",
                ),
                _ => ("", ""),
            };
            let problem = format!("cannot write {}: {cause}", shown(path));
            Failure::new(Exit::Failed, reader.advise(problem, in_shell, at_prompt))
        }
        DownloadError::Internal(cause) => Failure::internal(neutral_line(cause)),
        DownloadError::Stopped => Failure::new(Exit::Interrupted, "stopped"),
    }
}

/// Describes a `discard` that means no unfinished download.
pub(crate) fn nothing_to_discard(text: &str) -> Failure {
    Failure::new(
        Exit::NotFound,
        format!(
            "cannot discard {text:?}: no unfinished download has this name\n`status` lists them"
        ),
    )
}

/// Why `--force` did not replace a file that an argument by content ID led to.
pub(crate) const FORCE_NEEDS_A_NAME: &str =
    "--force does not replace a file whose name only other nodes chose\nName the file: -o FILE";

/// Describes a node that sent bytes that failed verification.
pub(crate) fn liar(node: &NodeId, content: &ContentId) -> String {
    format!(
        "node {} sent wrong bytes of {}; they were discarded, and it is not asked for that content \
         again",
        node.short(),
        content.short()
    )
}
