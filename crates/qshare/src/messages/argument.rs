//! Arguments that mean nothing.

use qshare_node::content::{LinkParseError, QueryParseError};

use super::codes::not_a_code;
use super::reader::Reader;
use crate::argument::ArgumentError;
use crate::exit::{Exit, Failure};

/// Describes an argument that means nothing. Text in the form of a link or code is not repeated.
pub(crate) fn argument(text: &str, error: &ArgumentError, _reader: Reader) -> Failure {
    let quoted = format!("{text:?}");
    let (problem, remedy) = match error {
        ArgumentError::Link(cause) => (
            format!("cannot use the link: {}", link_cause(cause)),
            "Copy the whole link again; a file whose name starts with qshare: is name:NAME",
        ),
        ArgumentError::Code(cause) => return not_a_code(cause),
        ArgumentError::Digest => (
            "cannot look up sha256:...: 64 hex digits do not follow".to_owned(),
            "A file whose name starts with sha256: is name:NAME",
        ),
        ArgumentError::Dash => (
            "cannot download `-`: it is not a name".to_owned(),
            "A file named `-` is ./-",
        ),
        ArgumentError::LinkNotAllowed => (
            "`ls` takes names and IDs, not links or codes".to_owned(),
            "List names, or download the link or code with `get`",
        ),
        ArgumentError::Name(cause) => (
            format!("cannot look up {quoted}: {cause}"),
            "No shared file can have that name; `ls` lists the names",
        ),
        ArgumentError::Query(QueryParseError::Name { cause, .. }) => (
            format!("cannot look up {quoted}: {cause}"),
            "No shared file can have that name; `ls` lists the names",
        ),
        ArgumentError::Query(QueryParseError::Glob { cause, .. }) => (
            format!("cannot look up {quoted}: it is not a valid glob: {cause}"),
            "A file with exactly that name is name:NAME",
        ),
        ArgumentError::Query(cause) => (
            format!("cannot look up {quoted}: {cause}"),
            "A file with exactly that name is name:NAME",
        ),
    };
    Failure::new(Exit::Usage, format!("{problem}\n{remedy}"))
}

/// Describes what is wrong with a link without repeating its values.
fn link_cause(cause: &LinkParseError) -> String {
    match cause {
        LinkParseError::NotALink => "a link starts with qshare: and a content ID".into(),
        LinkParseError::TooLong => "it is too long".into(),
        LinkParseError::Mismatch => {
            "its size and root do not match its content ID, so it was damaged".into()
        }
        LinkParseError::Newer(_) => "it needs a newer version of qshare".into(),
        LinkParseError::Field(_) => "a field is missing or cannot be read".into(),
        LinkParseError::Name(_) => "no shared file can have its name".into(),
        LinkParseError::Tracker(_) => "the address of its tracker cannot be read".into(),
        LinkParseError::Node(_) => "the address of its node cannot be read".into(),
    }
}
