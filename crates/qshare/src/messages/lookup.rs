//! Lookups: trackers that do not answer or refuse, names that nobody shares.

use qshare_node::content::{AssetName, TrackerAddress};
use qshare_node::{FindError, TrackerFault, TrackerState};

use super::identity::{refused_remedy, trust_remedy};
use super::reader::Reader;
use crate::exit::{Exit, Failure};
use crate::neutral::neutral_line;

impl From<&FindError> for Failure {
    fn from(error: &FindError) -> Failure {
        find(error, Reader::Shell)
    }
}

/// Describes a lookup without an answer.
pub(crate) fn find(error: &FindError, reader: Reader) -> Failure {
    match error {
        FindError::NoTracker => Failure::new(
            Exit::Unreachable,
            reader.advise(
                "cannot look anything up: no tracker is configured".into(),
                "Name one: --tracker HOST:PORT",
                "A link with node addresses works without a tracker",
            ),
        ),
        FindError::Unreachable(causes) => Failure::new(
            Exit::Unreachable,
            reader.advise(
                format!("cannot reach {}", list_trackers(causes)),
                match reader {
                    Reader::Get => {
                        "Start a tracker with `qshare tracker`, name another with --tracker \
                         HOST:PORT, or wait with --wait"
                    }
                    Reader::Shell | Reader::Prompt => {
                        "Start a tracker with `qshare tracker`, or name another with --tracker \
                         HOST:PORT"
                    }
                },
                "The node keeps retrying; `status` shows the tracker's state",
            ),
        ),
        FindError::Refused(causes) => {
            let in_shell = causes.iter().find_map(|(_, cause)| refused_remedy(cause));
            let problem = format!("refused: {}", list_trackers(causes));
            let in_shell = in_shell.unwrap_or_default();
            // A running node does not change its group.
            let at_prompt = causes.iter().find_map(|(_, cause)| match cause {
                TrackerFault::Trust(error) => trust_remedy(error),
                _ => None,
            });
            let at_prompt = at_prompt.unwrap_or_default();
            let message = reader.advise(problem, &in_shell, &at_prompt);
            Failure::new(Exit::Refused, message)
        }
        FindError::Internal(cause) => Failure::internal(neutral_line(cause)),
        FindError::Failed { tracker, cause } => Failure::new(
            Exit::Failed,
            format!(
                "cannot look it up: tracker {} answered: {}",
                tracker.host_port(),
                neutral_line(&cause.to_string())
            ),
        ),
    }
}

fn list_trackers(causes: &[(TrackerAddress, TrackerFault)]) -> String {
    let described: Vec<String> = causes
        .iter()
        .map(|(tracker, cause)| {
            let cause = cause.to_string();
            format!("tracker {}: {}", tracker.host_port(), neutral_line(&cause))
        })
        .collect();
    described.join("; ")
}

/// Describes a name that no node shares, with similar names.
pub(crate) fn not_found(wanted: &str, near: &[AssetName]) -> String {
    let mut text = format!("no node shares {wanted:?}");
    if !near.is_empty() {
        let near: Vec<String> = near.iter().map(crate::argument::printed_name).collect();
        text += &format!("\nSimilar names: {}", near.join(", "));
    }
    text
}

/// Describes a name that no node shares although there are files beneath it.
pub(crate) fn is_a_folder(wanted: &str, command: &str) -> String {
    format!("{wanted:?} is a folder, not a file\nDownload it with a slash at the end: {command}")
}

/// Describes a listing that could not be completed.
pub(crate) fn listing_truncated(shown: usize) -> String {
    format!(
        "the listing is incomplete: it ended after {}. Give a narrower GLOB, or more time with \
         --timeout SECONDS",
        crate::output::count(shown as u64, "file")
    )
}

/// Describes a lookup at the prompt that could not be completed.
pub(crate) fn prompt_listing_truncated(shown: usize) -> String {
    format!(
        "the listing is incomplete: it ended after {}. Enter a narrower glob",
        crate::output::count(shown as u64, "file")
    )
}

/// Describes the state of a tracker in a few words.
pub(crate) fn tracker_state(state: &TrackerState) -> String {
    match state {
        TrackerState::Connected { id, seen_at, .. } => match seen_at {
            Some(at) => format!("connected ({}, sees this node at {at})", id.short()),
            None => format!("connected ({})", id.short()),
        },
        TrackerState::Away { cause: Some(cause) } => {
            format!("unreachable: {}", neutral_line(&cause.to_string()))
        }
        TrackerState::Away { cause: None } => "unreachable".to_owned(),
        TrackerState::Refused { cause } => {
            format!("refused: {}", neutral_line(&cause.to_string()))
        }
    }
}
