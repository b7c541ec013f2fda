//! What a running node tells its user by itself: on the terminal, and to the clients of its API.

use std::collections::HashMap;

use qshare_node::{LibraryEvent, NodeEvent, PortMappingState, TrackerState};

use crate::api::objects::{Notice, Time};
use crate::messages;
use crate::neutral::shown;
use crate::output;

/// Decides what is news.
#[derive(Default)]
pub(crate) struct Notices {
    /// The last reported state of each tracker, by its address as written.
    trackers: HashMap<String, String>,
}

impl Notices {
    /// Returns what a user wants to know of an event, if anything.
    pub(crate) fn of(&mut self, event: &NodeEvent) -> Option<Notice> {
        let (kind, level, text) = match event {
            NodeEvent::Tracker(tracker, state) => {
                let place = tracker.host_port();
                let (kind, text) = describe(&place, state);
                // An unreachable tracker is retried often and mentioned once.
                let known = self.trackers.insert(place, kind.clone());
                if known.is_some_and(|known| known == kind) {
                    return None;
                }
                let level = match state {
                    TrackerState::Connected { .. } => INFO,
                    TrackerState::Away { .. } | TrackerState::Refused { .. } => WARNING,
                };
                ("tracker", level, text)
            }
            NodeEvent::PortMapping(state @ PortMappingState::Proven { .. }) => {
                ("port-mapping", INFO, format!("port mapping: {state}"))
            }
            // The end of the command reports the failure.
            NodeEvent::PortMapping(_) | NodeEvent::Failed(_) => return None,
            NodeEvent::Library(event) => {
                let (level, text) = of_library(event)?;
                ("library", level, text)
            }
            NodeEvent::PeerLied { node, content } => {
                ("liar", WARNING, messages::liar(node, content))
            }
        };
        Some(new(kind, level, text))
    }
}

const INFO: &str = "info";
const WARNING: &str = "warning";

fn new(kind: &str, level: &str, text: String) -> Notice {
    Notice {
        at: Time::now(),
        kind: kind.to_owned(),
        level: level.to_owned(),
        text,
    }
}

/// Returns the notice of a download that ended.
pub(crate) fn of_download(failed: bool, text: String) -> Notice {
    new("download", if failed { WARNING } else { INFO }, text)
}

fn of_library(event: &LibraryEvent) -> Option<(&'static str, String)> {
    Some(match event {
        LibraryEvent::ScanFinished { assets, bytes } => {
            let (files, size) = (output::count(*assets, "file"), output::bytes(*bytes));
            (INFO, format!("sharing {files} ({size})"))
        }
        LibraryEvent::Skipped { path, reason } => {
            (WARNING, format!("not shared: {}: {reason}", shown(path)))
        }
        LibraryEvent::WatchFailed { root, cause } => {
            let root = shown(root);
            let text = format!("cannot watch {root}: {cause}; scanning it for changes instead");
            (WARNING, text)
        }
        LibraryEvent::StillWritten { path } => {
            let path = shown(path);
            let text = format!("still being written: {path}; it is offered once it settles");
            (INFO, text)
        }
        LibraryEvent::IndexReplaced { cause } => {
            let text = format!("the index of shared files was damaged and is rebuilt: {cause}");
            (WARNING, text)
        }
        LibraryEvent::ScannerFailed { cause, restarted } => {
            let outcome = match restarted {
                true => "scanning again",
                false => "changes are no longer seen; restart this node",
            };
            let text = format!(
                "internal error while following the shared directories: {cause}; {outcome}"
            );
            (WARNING, text)
        }
        // The node passes on no other library events.
        _ => return None,
    })
}

/// Returns a key that distinguishes a tracker's state from the last one, and the line to print.
fn describe(place: &str, state: &TrackerState) -> (String, String) {
    let words = messages::tracker_state(state);
    match state {
        TrackerState::Connected { id, .. } => (
            id.to_string(),
            format!("tracker {place}: connected ({})", id.short()),
        ),
        TrackerState::Away { .. } => {
            let text = format!(
                "tracker {place}: {words}; retrying. Start one with `qshare tracker`, or restart \
                 this node with --tracker HOST:PORT"
            );
            ("away".into(), text)
        }
        TrackerState::Refused { cause } => (cause.to_string(), format!("tracker {place}: {words}")),
    }
}
