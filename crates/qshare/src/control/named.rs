//! Which downloads a command's arguments mean.

use std::path::PathBuf;

use crate::api::objects::{Download, Share};

/// Shortest prefix of an ID.
const PREFIX_MIN: usize = 6;

/// Why arguments mean no downloads, or no shares.
#[derive(Debug, PartialEq)]
pub(crate) enum NameError<T = Download> {
    /// Nothing is named so. The text is not repeated where it may be a link.
    NotFound(String),
    /// Several have this name or ID.
    Ambiguous(String, Vec<T>),
}

/// Returns the downloads that arguments mean, each once: by name, content ID, `id:PREFIX`, or
/// download ID.
pub(crate) fn choose<'a>(
    downloads: &'a [Download],
    arguments: &[String],
) -> Result<Vec<&'a Download>, NameError> {
    choose_each(arguments, |argument| {
        let is_meant = |download: &&Download| is_meant(download, argument);
        downloads.iter().filter(is_meant).collect()
    })
}

/// Returns the shares that arguments mean, each once: by name, path, code, content ID,
/// `id:PREFIX` or share ID.
pub(crate) fn choose_shares<'a>(
    shares: &'a [Share],
    arguments: &[String],
) -> Result<Vec<&'a Share>, NameError<Share>> {
    choose_each(arguments, |argument| {
        let by_name = |share: &&Share| is_meant_share(share, argument);
        let found: Vec<&Share> = shares.iter().filter(by_name).collect();
        if !found.is_empty() {
            return found;
        }
        let path = real_path(argument);
        let has_path = |share: &&Share| share.path.as_ref().is_some_and(|at| *at == path);
        shares.iter().filter(has_path).collect()
    })
}

/// Returns the one thing that each argument means, each thing once.
fn choose_each<'a, T: Clone>(
    arguments: &[String],
    find: impl Fn(&str) -> Vec<&'a T>,
) -> Result<Vec<&'a T>, NameError<T>> {
    let mut chosen: Vec<&T> = Vec::new();
    for argument in arguments {
        match find(argument).as_slice() {
            [] => return Err(NameError::NotFound(argument.clone())),
            [one] => {
                if !chosen.iter().any(|known| std::ptr::eq(*known, *one)) {
                    chosen.push(one);
                }
            }
            several => {
                let several = several.iter().map(|one| (*one).clone()).collect();
                return Err(NameError::Ambiguous(argument.clone(), several));
            }
        }
    }
    Ok(chosen)
}

/// Returns a path as `qshare share` hands it over.
fn real_path(text: &str) -> String {
    match std::path::absolute(text) {
        Ok(path) => path.components().collect::<PathBuf>().display().to_string(),
        Err(_) => text.to_owned(),
    }
}

fn is_meant_share(share: &Share, argument: &str) -> bool {
    let name = argument.strip_prefix("name:").unwrap_or(argument);
    let lower = argument.to_ascii_lowercase();
    let prefix = lower
        .strip_prefix("id:")
        .filter(|text| text.len() >= PREFIX_MIN);
    let content = share.content.as_deref().unwrap_or_default();
    share.name == name
        || content == lower
        || share.id.as_ref() == Some(&lower)
        || share.code.as_ref() == Some(&lower)
        || prefix.is_some_and(|prefix| content.starts_with(prefix))
}

fn is_meant(download: &Download, argument: &str) -> bool {
    let name = argument.strip_prefix("name:").unwrap_or(argument);
    let lower = argument.to_ascii_lowercase();
    let prefix = lower.strip_prefix("id:").unwrap_or(&lower);
    let is_prefix = prefix.len() >= PREFIX_MIN && lower.starts_with("id:");
    download.name == name
        || download.shown_name() == name
        || download.content == lower
        || download.id == prefix
        || (is_prefix && download.content.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::objects::{FileKind, PriorityName, StageName, Time};

    fn download(id: u8, content: u8, name: &str) -> Download {
        Download {
            id: format!("{id:02x}").repeat(16),
            content: format!("{content:02x}").repeat(32),
            name: name.to_owned(),
            kind: FileKind::File,
            files: None,
            complete_files: None,
            path: name.to_owned(),
            stage: StageName::Queued,
            added_at: Time(0),
            ended_at: None,
            size_bytes: 0,
            verified_bytes: 0,
            bytes_per_second: 0,
            seconds_left: None,
            sources: 0,
            priority: PriorityName::Normal,
            limit_bytes_per_second: None,
            trouble: None,
            error: None,
            error_code: None,
            why: Vec::new(),
        }
    }

    #[test]
    fn downloads_are_named_by_name_and_by_both_ids() {
        let all = [download(1, 0xaa, "a"), download(2, 0xbb, "b")];
        let names = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(|text| text.to_string()).collect();
            let chosen = choose(&all, &arguments)?;
            Ok(chosen
                .iter()
                .map(|one| one.name.clone())
                .collect::<Vec<_>>())
        };
        assert_eq!(names(&["a"]), Ok(vec!["a".into()]));
        assert_eq!(names(&["b", "a", "b"]), Ok(vec!["b".into(), "a".into()]));
        assert_eq!(names(&[&"BB".repeat(32)]), Ok(vec!["b".into()]));
        assert_eq!(names(&["id:bbbbbb"]), Ok(vec!["b".into()]));
        assert_eq!(names(&[&"01".repeat(16)]), Ok(vec!["a".into()]));
        assert_eq!(names(&["id:bb"]), Err(NameError::NotFound("id:bb".into())));
        assert_eq!(names(&["a", "c"]), Err(NameError::NotFound("c".into())));
    }

    #[test]
    fn two_contents_of_one_name_are_ambiguous() {
        let all = [download(1, 0xaa, "a"), download(2, 0xbb, "a")];
        let chosen = choose(&all, &["a".to_owned()]);
        assert!(matches!(chosen, Err(NameError::Ambiguous(_, found)) if found.len() == 2));
    }
}
