//! The wording of codes. No message holds a code, except where nearest words are shown to the
//! terminal on which it was typed.

use std::io::{IsTerminal, stderr};

use qshare_node::content::CodeError;
use qshare_node::{CodeEnd, CodeEvent, RedeemError, TrackerStatus};

use super::reader::Reader;
use crate::exit::{Exit, Failure};
use crate::neutral::neutral_line;
use crate::output::count;

const NAMED_LIKE_A_CODE: &str = "A file with such a name is name:NAME";

/// Describes a text in the form of a code that is none. The nearest words are named only on
/// a terminal.
pub(crate) fn not_a_code(error: &CodeError) -> Failure {
    let problem = match error {
        CodeError::NotACode => "cannot use the code: it is not a number and two words".to_owned(),
        CodeError::Number => "cannot use the code: its number is too large".to_owned(),
        CodeError::Words(wrong) => {
            let near = match stderr().is_terminal() {
                true => nearest(&wrong.nearest),
                false => String::new(),
            };
            let unknown = wrong.nearest.iter().filter(|word| word.is_some()).count();
            format!(
                "cannot use the code: {} not in the list of words{near}",
                match unknown {
                    1 => "one of its words is",
                    _ => "its words are",
                }
            )
        }
    };
    Failure::new(
        Exit::Usage,
        format!("{problem}\nCompare it with the sharer's. {NAMED_LIKE_A_CODE}"),
    )
}

/// Returns `; similar: abandon, about (first word)` and so on.
fn nearest(words: &[Option<Vec<&'static str>>; 2]) -> String {
    let similar = ["first", "second"].iter().zip(words);
    let similar = similar.filter_map(|(place, words)| {
        let words = words.as_ref().filter(|words| !words.is_empty())?;
        Some(format!("{} ({place} word)", words.join(", ")))
    });
    let similar: Vec<String> = similar.collect();
    match similar.is_empty() {
        true => String::new(),
        false => format!("; similar words: {}", similar.join("; ")),
    }
}

/// Describes why a code gave no link.
pub(crate) fn redeem(error: &RedeemError, trackers: &[TrackerStatus], reader: Reader) -> Failure {
    let asked = match trackers {
        [] => "no tracker is configured, and no neighbour has it".to_owned(),
        [only] => format!("tracker {} does not know it", only.tracker.host_port()),
        several => format!("{} do not know it", count(several.len() as u64, "tracker")),
    };
    let (exit, problem, remedy) = match error {
        RedeemError::WrongWords => (
            Exit::Refused,
            "the words are wrong".to_owned(),
            "Type them again as the sharer has them; after three wrong guesses the sharer gets a \
             new code"
                .to_owned(),
        ),
        RedeemError::Tampered => (
            Exit::Refused,
            "the other side did not prove that it knows the words, so nothing was accepted from \
             it; the tracker may be changing messages"
                .to_owned(),
            "Use another tracker, or ask for the link".to_owned(),
        ),
        RedeemError::TooManyRuns => (
            Exit::Refused,
            "three others claimed to have it, and none of them proved it".to_owned(),
            "Use another tracker or --no-lan, or ask for the link".to_owned(),
        ),
        RedeemError::Expired => (
            Exit::NotFound,
            "it has expired; codes end after 24 hours".to_owned(),
            "Ask the sharer for a new code".to_owned(),
        ),
        RedeemError::UsedUp => (
            Exit::NotFound,
            "it has been used as often as its sharer allows".to_owned(),
            "Ask the sharer for a new code".to_owned(),
        ),
        RedeemError::Guessed => (
            Exit::NotFound,
            "it ended after three wrong guesses".to_owned(),
            "Ask the sharer for the new code, which its command printed".to_owned(),
        ),
        RedeemError::Ended => (
            Exit::NotFound,
            "the share has ended".to_owned(),
            "Ask the sharer to share again".to_owned(),
        ),
        RedeemError::SharerAway => (
            Exit::Unreachable,
            "its sharer is not connected to the tracker".to_owned(),
            reader.advise(
                String::new(),
                "Ask the sharer whether the command still runs, or wait with --wait",
                "Ask the sharer whether the command still runs",
            ),
        ),
        RedeemError::Busy { retry_after } => (
            Exit::Unreachable,
            "too many attempts are being made, at this code or from this network".to_owned(),
            format!("Try again in {} s", retry_after.as_secs().max(1)),
        ),
        RedeemError::Unknown {
            asked_tracker: true,
            ..
        } => (
            Exit::NotFound,
            format!(
                "{asked}: the number is wrong, the code is long over, or the tracker restarted"
            ),
            "Compare it with the sharer's, and name the sharer's tracker: --tracker HOST:PORT"
                .to_owned(),
        ),
        RedeemError::Unknown {
            asked_tracker: false,
            unreached,
        } => {
            let cause = match unreached {
                Some(cause) => format!(
                    "no tracker can be reached ({}), and no node of the local network has it",
                    neutral_line(&cause.to_string())
                ),
                None => "no node of the local network has it".to_owned(),
            };
            (
                Exit::Unreachable,
                cause,
                "Name the sharer's tracker: --tracker HOST:PORT; without one a code works on one \
                 local network only"
                    .to_owned(),
            )
        }
        RedeemError::Link(cause) => (
            Exit::Failed,
            format!("this version of qshare cannot use its link: {cause}"),
            "Install the sharer's version of qshare".to_owned(),
        ),
    };
    Failure::new(
        exit,
        format!("cannot redeem the code: {problem}\n{}", remedy.trim_start()),
    )
}

/// Describes an event of an offered code in one line; None for the code itself, which the caller
/// prints as a result.
pub(crate) fn code_event(event: &CodeEvent) -> Option<String> {
    Some(match event {
        CodeEvent::Offered(offered) => match offered.replaces? {
            CodeEnd::Guessed => "three wrong guesses: the code is replaced".to_owned(),
            CodeEnd::Taken => {
                "the tracker restarted and gave the number to another share: the code is replaced"
                    .to_owned()
            }
            CodeEnd::UsedUp | CodeEnd::Expired => "the code is replaced".to_owned(),
        },
        CodeEvent::Claimed { tracker } => {
            format!("the code works at tracker {} now, too", tracker.host_port())
        }
        CodeEvent::Unavailable { tracker, cause } => format!(
            "the code does not work at tracker {}: {}",
            tracker.host_port(),
            neutral_line(&cause.to_string())
        ),
        CodeEvent::AttemptFailed { left, .. } => format!(
            "somebody typed a wrong code; {} left until it is replaced",
            count(*left as u64, "attempt")
        ),
        CodeEvent::Redeemed { left, .. } => match left {
            Some(0) => "the code was used; it is used up".to_owned(),
            Some(left) => format!("the code was used; it works for {left} more"),
            None => "the code was used".to_owned(),
        },
        CodeEvent::Completed { .. } => "a receiver has everything".to_owned(),
        CodeEvent::Ended(end) => match end {
            CodeEnd::Expired => "the code has expired; the link goes on working".to_owned(),
            CodeEnd::UsedUp => "the code is used up".to_owned(),
            CodeEnd::Guessed | CodeEnd::Taken => "the code has ended".to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use qshare_node::content::Code;

    use super::*;

    #[test]
    fn a_message_about_wrong_words_does_not_repeat_them() {
        // Tests have no terminal on stderr; where they have one, similar words may be named.
        let error = "7-abandn-zoo".parse::<Code>().unwrap_err();
        let message = not_a_code(&error).message;
        assert!(
            !message.contains("abandn") && !message.contains("zoo"),
            "{message}"
        );
        let CodeError::Words(wrong) = error else {
            panic!("{error:?}");
        };
        assert!(nearest(&wrong.nearest).contains("abandon (first word)"));
        assert!(!nearest(&wrong.nearest).contains("second"));
    }

    #[test]
    fn every_failure_names_a_remedy() {
        for error in [
            RedeemError::WrongWords,
            RedeemError::Tampered,
            RedeemError::TooManyRuns,
            RedeemError::Expired,
            RedeemError::UsedUp,
            RedeemError::Guessed,
            RedeemError::Ended,
            RedeemError::SharerAway,
            RedeemError::Busy {
                retry_after: std::time::Duration::from_secs(2),
            },
            RedeemError::Unknown {
                asked_tracker: true,
                unreached: None,
            },
            RedeemError::Unknown {
                asked_tracker: false,
                unreached: None,
            },
        ] {
            for reader in [Reader::Get, Reader::Prompt] {
                let message = redeem(&error, &[], reader).message;
                let remedy = message.split_once('\n').unwrap().1;
                assert!(!remedy.trim().is_empty(), "{message}");
            }
        }
    }
}
