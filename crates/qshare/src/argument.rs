//! The meaning of an argument of `get` and `ls`, or of a line at the prompt.
//!
//! An argument is classified by its form alone, before anything is sent. Text in the form of a link
//! or a code may be a secret: if it cannot be used, it is an error that does not repeat the text,
//! and no tracker or node ever sees it.

use std::fmt;

use qshare_node::FoundFile;
use qshare_node::content::{
    AssetName, Code, CodeError, Link, LinkParseError, NameError, Query, QueryParseError,
};

/// Marks the rest of an argument as a name: `name:id:notes.txt`.
const NAME_PREFIX: &str = "name:";
/// Prefix of a file in the current directory. The rest of the argument is a name here, too.
const HERE_PREFIX: &str = "./";
const LINK_PREFIX: &str = "qshare:";
const DIGEST_PREFIX: &str = "sha256:";

/// One thing that the user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A file by exactly this name: `name:TEXT`. No glob.
    Name(AssetName),
    /// An ID, an ID prefix, `NODEID/NAME`, a name or a glob, to be looked up.
    Query(Query),
    /// A link, which identifies the content without a lookup.
    Link(Box<Link>),
    /// A code, which stands for a link.
    Code(Code),
    /// A folder: `NAME/`.
    Folder(AssetName),
}

/// Why an argument is invalid. Never holds the text of a link or a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArgumentError {
    /// It has the form of a link.
    Link(LinkParseError),
    /// It has the form of a code, such as `7-amber-walrus`.
    Code(CodeError),
    /// It begins with `sha256:`, and 64 hex digits do not follow.
    Digest,
    /// It is `-`.
    Dash,
    /// A link or a code, where only names and ids make sense.
    LinkNotAllowed,
    /// The text after `name:` or `./` cannot be the name of a shared file.
    Name(NameError),
    /// None of these forms, and no valid name or glob.
    Query(QueryParseError),
}

impl Wanted {
    /// Classifies an argument.
    ///
    /// # Errors
    ///
    /// Returns an error for text that has the form of something special and is not, and for text
    /// that cannot be the name of a shared file.
    pub(crate) fn parse(text: &str) -> Result<Wanted, ArgumentError> {
        if let Some(name) = text.strip_prefix(NAME_PREFIX) {
            let name = AssetName::from_local(name).map_err(ArgumentError::Name)?;
            return Ok(Wanted::Name(name));
        }
        if let Some(name) = text.strip_prefix(HERE_PREFIX) {
            return parse_name_or_glob(name);
        }
        // A pasted link or code often brings spaces along.
        let trimmed = text.trim();
        if starts_with_ignoring_case(trimmed, LINK_PREFIX) {
            let link = trimmed.parse().map_err(ArgumentError::Link)?;
            return Ok(Wanted::Link(Box::new(link)));
        }
        if Code::has_form(trimmed) {
            let code = trimmed.parse().map_err(ArgumentError::Code)?;
            return Ok(Wanted::Code(code));
        }
        if starts_with_ignoring_case(trimmed, DIGEST_PREFIX) {
            let digest = trimmed.parse().map_err(|_| ArgumentError::Digest)?;
            return Ok(Wanted::Query(digest));
        }
        if text == "-" {
            return Err(ArgumentError::Dash);
        }
        if let Some(folder) = text.strip_suffix('/')
            && let Ok(folder) = AssetName::from_local(folder)
        {
            return Ok(Wanted::Folder(folder));
        }
        text.parse()
            .map(Wanted::Query)
            .map_err(ArgumentError::Query)
    }

    /// Returns the lookup that finds it; None for a link, which needs none, and for a code.
    pub(crate) fn query(&self) -> Option<Query> {
        match self {
            Wanted::Name(name) => Some(Query::Name(name.as_str().to_owned())),
            Wanted::Query(query) => Some(query.clone()),
            Wanted::Folder(folder) => Some(Query::Name(glob_of_folder(folder.as_str()))),
            Wanted::Link(_) | Wanted::Code(_) => None,
        }
    }

    /// Returns the folder that the argument may mean: any name.
    pub(crate) fn as_folder(&self) -> Option<AssetName> {
        match self {
            Wanted::Name(name) => Some(name.clone()),
            Wanted::Query(Query::Name(text)) => AssetName::from_local(text).ok(),
            Wanted::Query(_) | Wanted::Link(_) | Wanted::Code(_) | Wanted::Folder(_) => None,
        }
    }
}

/// Returns a glob that matches a text literally.
pub(crate) fn escape_glob(text: &str) -> String {
    let mut literal = String::new();
    for c in text.chars() {
        match c {
            '*' | '?' | '[' | ']' | '{' | '}' => literal.extend(['[', c, ']']),
            // Inside `{…}` a comma separates alternatives.
            ',' => literal.push_str("[,]"),
            c => literal.push(c),
        }
    }
    literal
}

/// Returns a glob that matches all files in a folder, at any depth.
pub(crate) fn glob_of_folder(folder: &str) -> String {
    format!("{}/**", escape_glob(folder))
}

/// Returns the form of a folder's name that is read back as one, without the `/` at its end.
fn suggested_folder(folder: &AssetName) -> String {
    let text = folder.as_str();
    let is_plain = Wanted::parse(&format!("{text}/")) == Ok(Wanted::Folder(folder.clone()));
    match is_plain && !text.starts_with('-') {
        true => text.to_owned(),
        false => format!("{HERE_PREFIX}{text}"),
    }
}

/// Returns the argument that downloads a folder.
pub(crate) fn folder_argument(folder: &AssetName) -> String {
    Wanted::Folder(folder.clone()).to_string()
}

/// Returns the argument that downloads what a lookup found.
pub(crate) fn found_argument(file: &FoundFile) -> String {
    match file.is_collection {
        true => folder_argument(&file.name),
        false => printed_name(&file.name),
    }
}

/// Classifies an argument of `ls`, which takes everything but links and codes.
///
/// # Errors
///
/// As [`Wanted::parse`], and for a link or a code.
pub(crate) fn parse_listed(text: &str) -> Result<Wanted, ArgumentError> {
    match Wanted::parse(text) {
        Ok(Wanted::Link(_) | Wanted::Code(_)) => Err(ArgumentError::LinkNotAllowed),
        other => other,
    }
}

fn parse_name_or_glob(text: &str) -> Result<Wanted, ArgumentError> {
    let text = text.trim_start_matches(HERE_PREFIX);
    if let Some(folder) = text.strip_suffix('/')
        && let Ok(folder) = AssetName::from_local(folder)
    {
        return Ok(Wanted::Folder(folder));
    }
    match AssetName::from_local(text) {
        Ok(name) => Ok(Wanted::Query(Query::Name(name.as_str().to_owned()))),
        Err(cause) => match text.parse() {
            Ok(Query::Name(glob)) => Ok(Wanted::Query(Query::Name(glob))),
            _ => Err(ArgumentError::Name(cause)),
        },
    }
}

fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Returns a name in a form that `get` and the prompt accept: with `name:` in front if it would be
/// read as something else, or as an option.
pub(crate) fn printed_name(name: &AssetName) -> String {
    let text = name.as_str();
    let plain = Wanted::Query(Query::Name(text.to_owned()));
    let is_plain = !text.starts_with('-') && Wanted::parse(text).is_ok_and(|read| read == plain);
    match is_plain {
        true => text.to_owned(),
        false => format!("{NAME_PREFIX}{text}"),
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Name(name) => f.write_str(&printed_name(name)),
            Wanted::Query(query) => query.fmt(f),
            Wanted::Link(link) => link.fmt(f),
            // Its words are a secret.
            Wanted::Code(code) => write!(f, "code {}", code.number()),
            Wanted::Folder(folder) => write!(f, "{}/", suggested_folder(folder)),
        }
    }
}

#[cfg(test)]
mod tests {
    use qshare_node::content::{ContentId, ContentInfo, Hash, NodeId};

    use super::*;

    fn name(text: &str) -> AssetName {
        AssetName::new(text).unwrap()
    }

    fn by_name(text: &str) -> Wanted {
        Wanted::Query(Query::Name(text.into()))
    }

    fn link() -> Link {
        Link {
            info: ContentInfo {
                length: 7,
                root: Hash([5; 32]),
            },
            trackers: Vec::new(),
            nodes: Vec::new(),
            name: Some(name("x")),
            key: None,
            modified_ns: None,
            executable: false,
            folder: None,
        }
    }

    #[test]
    fn arguments_are_classified_by_their_form() {
        let id = ContentId([0x0a; 32]);
        let node = NodeId([9; 32]);
        for (text, meant) in [
            (id.to_string(), Wanted::Query(Query::Id(id))),
            ("id:3fa9".into(), Wanted::Query("id:3fa9".parse().unwrap())),
            (
                format!("{node}/a/b"),
                Wanted::Query(Query::OfNode(node, name("a/b"))),
            ),
            (link().to_string(), Wanted::Link(Box::new(link()))),
            (format!(" {}\n", link()), Wanted::Link(Box::new(link()))),
            ("a/b.txt".into(), by_name("a/b.txt")),
            ("**/*.txt".into(), by_name("**/*.txt")),
            (" lead.txt".into(), by_name(" lead.txt")),
            ("trail.txt ".into(), by_name("trail.txt ")),
            ("name:id:abc".into(), Wanted::Name(name("id:abc"))),
            ("name:*".into(), Wanted::Name(name("*"))),
            ("./-".into(), by_name("-")),
            ("./id:abc".into(), by_name("id:abc")),
            ("././a".into(), by_name("a")),
            ("./*.jpg".into(), by_name("*.jpg")),
            ("7-zip".into(), by_name("7-zip")),
            ("7-amber-walrus.txt".into(), by_name("7-amber-walrus.txt")),
        ] {
            assert_eq!(Wanted::parse(&text), Ok(meant), "{text}");
        }
    }

    #[test]
    fn text_in_the_form_of_a_link_or_code_is_never_a_name() {
        let damaged = link().to_string().replace("s=7", "s=8");
        for text in ["qshare:readme", "QSHARE:readme", " qshare:x", &damaged] {
            let read = Wanted::parse(text);
            assert!(matches!(read, Err(ArgumentError::Link(_))), "{text}");
        }
        for text in ["7-zebra-zoo", "7-Zebra-ZOO", " 7-zebra-zoo\n"] {
            let code = "7-zebra-zoo".parse().unwrap();
            assert_eq!(Wanted::parse(text), Ok(Wanted::Code(code)), "{text}");
            assert_eq!(parse_listed(text), Err(ArgumentError::LinkNotAllowed));
        }
        for text in [
            "7-amber-walrus",
            "7-Amber-WALRUS",
            " 12-a-b ",
            "99999999999-zebra-zoo",
        ] {
            let read = Wanted::parse(text);
            assert!(matches!(read, Err(ArgumentError::Code(_))), "{text}");
        }
        let digest = format!("sha256:{}", "0a".repeat(32));
        let query = Query::Sha256(Hash([0x0a; 32]));
        assert_eq!(Wanted::parse(&digest), Ok(Wanted::Query(query)));
        assert_eq!(Wanted::parse("sha256:0a"), Err(ArgumentError::Digest));
        assert_eq!(Wanted::parse("-"), Err(ArgumentError::Dash));
        assert_eq!(Wanted::parse("photos/"), Ok(Wanted::Folder(name("photos"))));
        assert_eq!(
            parse_listed(&link().to_string()),
            Err(ArgumentError::LinkNotAllowed)
        );
        for text in ["", "../x", "id:zz", "name:", "name:../x", "./", "./.."] {
            assert!(Wanted::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_folder_becomes_a_glob_of_its_files() {
        let glob = glob_of_folder("a[1],*");
        let pattern = qshare_node::content::NamePattern::new(&glob).unwrap();
        assert!(pattern.matches("a[1],*/x") && pattern.matches("a[1],*/x/y"));
        assert!(!pattern.matches("a1,b/x"), "{glob}");
        assert_eq!(glob_of_folder("photos/2024"), "photos/2024/**");
    }

    #[test]
    fn every_name_is_read_back_as_it_is_printed() {
        let node = NodeId([9; 32]);
        for text in [
            "a".to_owned(),
            " a ".into(),
            "a*b[1]".into(),
            "-".into(),
            "-o".into(),
            "--force".into(),
            "0a".repeat(32),
            "id:abc".into(),
            "id:notes.txt".into(),
            "qshare:readme".into(),
            " Qshare:readme".into(),
            "name:x".into(),
            "name:name:x".into(),
            "7-amber-walrus".into(),
            "7-zebra-zoo".into(),
            "sha256:x".into(),
            format!("{node}/x"),
            "A: intro.txt".into(),
        ] {
            let Ok(wanted) = AssetName::new(text.clone()) else {
                continue;
            };
            let printed = printed_name(&wanted);
            let read = Wanted::parse(&printed).unwrap();
            let found = match &read {
                Wanted::Name(name) => name.as_str(),
                Wanted::Query(Query::Name(text)) => text,
                other => panic!("{printed}: {other:?}"),
            };
            assert_eq!(found, text, "{printed}");
            assert!(!printed.starts_with('-'), "{printed}");
        }
        assert_eq!(printed_name(&name("id:abc")), "name:id:abc");
        assert_eq!(printed_name(&name("a b")), "a b");
    }
}
