//! Commands for messages, complete so that a person can copy them: the one that resumes, the one
//! that works instead.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use qshare_node::content::Code;
use qshare_node::{Identity, IdentityRole};

use crate::neutral;

/// Number of ports, or directories, that are tried for a suggestion.
const TRIES_MAX: u16 = 100;

/// The command line of this process.
#[derive(Debug, Clone)]
pub(crate) struct CommandLine(Vec<OsString>);

impl CommandLine {
    /// Returns the command line that this process was started with.
    pub(crate) fn of_this_process() -> CommandLine {
        CommandLine(std::env::args_os().collect())
    }

    /// Replaces the value of an option, or adds the option.
    pub(crate) fn with(mut self, option: &str, value: impl Into<OsString>) -> CommandLine {
        let assigned = format!("{option}=");
        let mut kept = Vec::with_capacity(self.0.len() + 2);
        let mut words = self.0.into_iter();
        while let Some(word) = words.next() {
            if word == option {
                words.next();
            } else if !word.to_string_lossy().starts_with(&assigned) {
                kept.push(word);
            }
        }
        kept.push(option.into());
        kept.push(value.into());
        self.0 = kept;
        self
    }

    /// Replaces an argument; None if it was not given.
    pub(crate) fn replacing(mut self, argument: &str, other: &str) -> Option<CommandLine> {
        let mut words = self.0.iter_mut().skip(1);
        *words.find(|word| **word == *argument)? = other.into();
        Some(self)
    }
}

impl std::fmt::Display for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A code is a secret; the words of a command are printed into logs, too.
        let is_code = |word: &OsStr| word.to_str().is_some_and(Code::has_form);
        let words = self.0.iter().map(|word| match is_code(word) {
            true => "CODE".to_owned(),
            false => quoted(word),
        });
        let words: Vec<String> = words.collect();
        f.write_str(&words.join(" "))
    }
}

/// Returns a word in the form that a shell reads back.
pub(crate) fn quoted(word: &OsStr) -> String {
    let Some(text) = neutral::as_plain(word) else {
        return neutral::dollar_quoted(word);
    };
    let plain = |c: char| c.is_alphanumeric() || "._/:@,=+-%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Returns the command for a second process beside one that uses this identity.
pub(crate) fn beside_another(
    command: CommandLine,
    role: IdentityRole,
    certs: Option<&Path>,
    listen: SocketAddr,
) -> CommandLine {
    let command = match free_identity_dir(certs, role) {
        Some(dir) => command.with("--certs", dir),
        None => command,
    };
    on_free_port(command, listen)
}

/// Returns the command with a free port; unchanged if its port is free.
pub(crate) fn on_free_port(command: CommandLine, listen: SocketAddr) -> CommandLine {
    if is_free(listen) {
        return command;
    }
    let free = (1..=TRIES_MAX)
        .filter_map(|step| listen.port().checked_add(step))
        .map(|port| SocketAddr::new(listen.ip(), port))
        .find(|&address| is_free(address));
    let free = free.unwrap_or(SocketAddr::new(listen.ip(), 0));
    command.with("--listen", free.to_string())
}

fn is_free(address: SocketAddr) -> bool {
    UdpSocket::bind(address).is_ok()
}

/// Returns the first directory of `certs-2`, `certs-3` and so on that no process uses, beside the
/// given directory or else in the current one.
fn free_identity_dir(given: Option<&Path>, role: IdentityRole) -> Option<PathBuf> {
    let given = given.unwrap_or(Path::new("./certs"));
    let name = given.file_name()?.to_string_lossy().into_owned();
    let stem = match name.rsplit_once('-') {
        Some((stem, number)) if number.parse::<u16>().is_ok() => stem,
        _ => &name,
    };
    (2..=TRIES_MAX)
        .map(|number| given.with_file_name(format!("{stem}-{number}")))
        .find(|dir| !dir.exists() || (dir.is_dir() && Identity::lock(dir, role).is_ok()))
}

/// Returns the address at which other machines may reach `listen`: this machine's address towards
/// the internet, else loopback. Sends no packet.
pub(crate) fn host_for_others(listen: SocketAddr) -> IpAddr {
    if !listen.ip().is_unspecified() {
        return listen.ip();
    }
    // Connecting a UDP socket only selects a route. 192.0.2.0/24 is reserved (RFC 5737).
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
            socket.local_addr()
        })
        .map(|address| address.ip())
        .ok()
        .filter(|ip| !ip.is_unspecified())
        .unwrap_or(Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> CommandLine {
        CommandLine(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn an_option_is_replaced_in_either_spelling() {
        let given = line(&[
            "qshare", "node", "--listen", "[::]:1", "--assets", "my files",
        ]);
        assert_eq!(
            given.with("--listen", "[::]:2").to_string(),
            "qshare node --assets 'my files' --listen '[::]:2'"
        );
        let given = line(&["qshare", "node", "--certs=./a", "--json"]);
        assert_eq!(
            given.with("--certs", "./b").to_string(),
            "qshare node --json --certs ./b"
        );
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, shown) in [
            ("a/b.txt", "a/b.txt"),
            ("", "''"),
            ("**/*.txt", "'**/*.txt'"),
            ("it's", r"'it'\''s'"),
            ("数据", "数据"),
            ("$HOME", "'$HOME'"),
            ("a\x1bb", r"$'a\033b'"),
        ] {
            assert_eq!(quoted(OsStr::new(word)), shown);
        }
    }

    #[test]
    fn a_candidate_replaces_the_ambiguous_argument() {
        let given = line(&["qshare", "get", "x", "-o", "y"]);
        let picked = given.clone().replacing("x", "id:0a").unwrap();
        assert_eq!(picked.to_string(), "qshare get id:0a -o y");
        assert!(given.replacing("z", "id:0a").is_none());
    }

    #[test]
    fn a_port_in_use_is_replaced_by_a_free_one_and_a_free_one_is_kept() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let command = line(&["qshare", "tracker"]);
        let suggested = on_free_port(command.clone(), address).to_string();
        assert!(
            suggested.starts_with("qshare tracker --listen 127.0.0.1:"),
            "{suggested}"
        );
        let port: u16 = suggested.rsplit(':').next().unwrap().parse().unwrap();
        assert_ne!(address.port(), port);
        drop(taken);
        let anywhere = "127.0.0.1:0".parse().unwrap();
        assert_eq!(
            on_free_port(command, anywhere).to_string(),
            "qshare tracker"
        );
    }

    #[test]
    fn a_directory_in_use_is_skipped() {
        let temp = tempfile::tempdir().unwrap();
        let certs = temp.path().join("certs");
        let role = IdentityRole::Node;
        let second = free_identity_dir(Some(&certs), role).unwrap();
        assert_eq!(second, temp.path().join("certs-2"));
        let _lock = Identity::lock(&second, role).unwrap();
        assert_eq!(
            free_identity_dir(Some(&certs), role).unwrap(),
            temp.path().join("certs-3")
        );
        assert_eq!(
            free_identity_dir(Some(&second), role).unwrap(),
            temp.path().join("certs-3")
        );
    }
}
