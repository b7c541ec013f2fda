//! Plain SHA-256 digests that files must have: of --sha256, of --sums, and claimed by nodes.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use qshare_node::FoundFile;
use qshare_node::content::{AssetName, ContentId, Hash};

use super::request::Request;
use crate::choice::Choice;
use crate::exit::{Exit, Failure};
use crate::suggest::quoted;
use crate::sums;

/// Reads the file of --sums.
pub(super) fn read_sums(path: Option<&Path>) -> Result<Option<BTreeMap<AssetName, Hash>>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let refused = |cause: String| {
        let text = format!("cannot use --sums {}: {cause}", quoted(path.as_os_str()));
        Failure::new(Exit::Usage, text)
    };
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let sums = sums::parse(&text).map_err(|error| refused(error.to_string()))?;
    Ok(Some(sums))
}

/// Refuses a digest for several files, and files that --sums does not list.
pub(super) fn check(request: &Request, choice: &Choice) -> Result<(), Failure> {
    if request.args.sha256.is_some() && choice.files.len() > 1 {
        let text = "--sha256 is the digest of one file; use --sums for several";
        return Err(Failure::new(Exit::Usage, text));
    }
    let Some(sums) = &request.sums else {
        return Ok(());
    };
    match choice
        .files
        .iter()
        .find(|file| !sums.contains_key(&file.name))
    {
        None => Ok(()),
        Some(file) => Err(Failure::new(
            Exit::Usage,
            format!("--sums lists no digest of {}", file.name),
        )),
    }
}

/// Returns the plain digest that a file must have.
pub(super) fn digest_of(
    request: &Request,
    claimed: &HashMap<ContentId, (Hash, Vec<FoundFile>)>,
    file: &FoundFile,
) -> Option<Hash> {
    let listed = || request.sums.as_ref()?.get(&file.name).copied();
    let claimed = || claimed.get(&file.content).map(|(digest, _)| *digest);
    request.args.sha256.or_else(listed).or_else(claimed)
}
