//! Linux: one inotify watch per directory, and the mount table.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::{Change, MountPoint, WatchError, WatchEvent, WatchId, is_beneath};

/// The mount table of this process's namespace; `poll` reports `POLLPRI` when it changes.
const MOUNT_TABLE: &str = "/proc/self/mountinfo";
/// Bytes read from inotify at once: some 1,000 events with short names.
const BUFFER_BYTES: usize = 64 * 1024;

/// Watches directories. Its thread ends when it is dropped.
pub(crate) struct Watcher {
    inotify: Arc<OwnedFd>,
    /// The thread polls the other end.
    _alive: PipeWriter,
}

impl Watcher {
    /// Whether a watched directory includes everything beneath it.
    pub(crate) const RECURSIVE: bool = false;

    /// Starts watching nothing. `tell` is called from a thread of the watcher's; the thread ends
    /// when it returns false.
    pub(crate) fn new(
        tell: impl Fn(Vec<WatchEvent>) -> bool + Send + 'static,
    ) -> io::Result<Watcher> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let inotify = Arc::new(inotify);
        let (stop, alive) = io::pipe()?;
        // Without a mount table (no /proc) mounts are found by reconciliation.
        let mounts = File::open(MOUNT_TABLE).ok();
        let fd = inotify.clone();
        std::thread::Builder::new()
            .name("qshare-watch".into())
            .spawn(move || {
                let failed = read_events(&fd, mounts.as_ref(), &stop, &tell);
                if let Err(error) = failed {
                    tell(vec![WatchEvent::Failed(error.to_string())]);
                }
            })?;
        Ok(Watcher {
            inotify,
            _alive: alive,
        })
    }

    /// Watches a directory, not what lies beneath. Watching one that is watched already returns
    /// its id. `follow` follows a symbolic link at `path`.
    pub(crate) fn add(&self, path: &Path, follow: bool) -> Result<WatchId, WatchError> {
        let mut flags = WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        if !follow {
            flags |= WatchFlags::DONT_FOLLOW;
        }
        match inotify::add_watch(&*self.inotify, path, flags) {
            Ok(id) => Ok(WatchId(id)),
            Err(Errno::NOSPC) => Err(WatchError::System(
                "the limit fs.inotify.max_user_watches is reached".into(),
            )),
            Err(Errno::NOMEM) => Err(WatchError::System("no memory for more watches".into())),
            Err(_) => Err(WatchError::Directory),
        }
    }

    /// Ends a watch.
    pub(crate) fn remove(&self, id: WatchId) {
        // It has ended by itself if the directory is gone.
        let _ = inotify::remove_watch(&*self.inotify, id.0);
    }
}

/// Reads events until `tell` wants no more or the watcher is dropped.
fn read_events(
    inotify: &OwnedFd,
    mounts: Option<&File>,
    stop: &io::PipeReader,
    tell: &impl Fn(Vec<WatchEvent>) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
    loop {
        let mut fds = vec![
            PollFd::new(stop, PollFlags::IN),
            PollFd::new(inotify, PollFlags::IN),
        ];
        fds.extend(mounts.map(|mounts| PollFd::new(mounts, PollFlags::PRI)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        if ready(0) {
            return Ok(());
        }
        let mut events = Vec::new();
        if ready(2) {
            events.push(WatchEvent::Mounts);
        }
        if ready(1) {
            let mut reader = Reader::new(inotify, &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => events.push(decode(&event)),
                    Err(Errno::AGAIN | Errno::INTR) => break,
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        if !events.is_empty() && !tell(events) {
            return Ok(());
        }
    }
}

fn decode(event: &inotify::Event<'_>) -> WatchEvent {
    let flags = event.events();
    if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
        return WatchEvent::Overflow;
    }
    let directory = WatchId(event.wd());
    let Some(name) = event.file_name() else {
        return WatchEvent::Directory(directory);
    };
    let change = if flags.contains(ReadFlags::MODIFY) {
        Change::Written
    } else if flags.contains(ReadFlags::CLOSE_WRITE) {
        Change::Closed
    } else if flags.contains(ReadFlags::MOVED_FROM) {
        Change::MovedFrom(event.cookie())
    } else if flags.contains(ReadFlags::MOVED_TO) {
        Change::MovedTo(event.cookie())
    } else {
        Change::Other
    };
    WatchEvent::Entry {
        directory,
        name: OsStr::from_bytes(name.to_bytes()).to_os_string(),
        change,
    }
}

/// The mount points at or beneath `bases`, which are free of links.
pub(crate) fn mount_points(bases: &[PathBuf]) -> Vec<MountPoint> {
    let table = std::fs::read(MOUNT_TABLE).unwrap_or_default();
    let mut points: Vec<_> = table
        .split(|&byte| byte == b'\n')
        .filter_map(parse_mount)
        .filter(|(path, _)| is_beneath(path, bases))
        .collect();
    points.sort();
    points
}

/// Parses a line of the mount table: mount id, parent id, device, root, mount point, … (proc(5)).
fn parse_mount(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let path = fields.nth(3)?;
    Some((unescape(path), id))
}

/// Spaces, tabs, line feeds and backslashes are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\');
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402/a\134b rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(parse_mount(line), Some((r"/mnt 2/a\b".into(), 36)));
        assert_eq!(parse_mount(b""), None);
        assert_eq!(unescape(br"a\9"), PathBuf::from(r"a\9"));
    }

    #[test]
    fn a_directory_has_one_id_and_reports_writes_and_closes() {
        let temp = tempfile::tempdir().unwrap();
        let (sender, events) = channel();
        let watcher = Watcher::new(move |events| sender.send(events).is_ok()).unwrap();
        let id = watcher.add(temp.path(), true).unwrap();
        assert_eq!(watcher.add(temp.path(), true).unwrap(), id);
        std::fs::write(temp.path().join("a"), b"a").unwrap();
        let mut changes = Vec::new();
        while !changes.contains(&Change::Closed) {
            for event in events.recv_timeout(Duration::from_secs(10)).unwrap() {
                if let WatchEvent::Entry {
                    directory,
                    name,
                    change,
                } = event
                {
                    assert_eq!((directory, name.to_str()), (id, Some("a")));
                    changes.push(change);
                }
            }
        }
        assert_eq!(changes, [Change::Other, Change::Written, Change::Closed]);
        drop(temp);
        let gone = events.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(!gone.is_empty());
    }
}
