//! A working directory, files in it, and swarms on loopback that share them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use qshare_tests::binary;
use qshare_tests::files::noise;
use qshare_tests::process::Process;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::measure::{self, Trial};

const MEMORY_DIR: &str = "/dev/shm";
/// A file is made in pieces of this size.
const PIECE_BYTES: u64 = 16 << 20;
/// For all nodes to have hashed and announced the file.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A working directory, removed when the value is dropped.
pub struct Stage {
    dir: TempDir,
}

impl Stage {
    /// Makes one in `dir`, by default in memory, else among temporary files.
    pub fn new(dir: Option<&Path>) -> anyhow::Result<Stage> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("qshare-bench");
        let memory = Path::new(MEMORY_DIR);
        let dir = match dir {
            Some(dir) => builder.tempdir_in(dir),
            None if memory.is_dir() => builder.tempdir_in(memory),
            None => builder.tempdir(),
        };
        let dir = dir.context("cannot make a directory to work in")?;
        Ok(Stage { dir })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of which no two chunks are the same.
    pub fn noise_file(&self, name: &str, bytes: u64) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(name);
        let mut file = File::create(&path)?;
        for start in (0..bytes).step_by(PIECE_BYTES as usize) {
            let piece = (bytes - start).min(PIECE_BYTES) as usize;
            file.write_all(&noise(piece, start + 1))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(path)
    }

    /// Makes a file of zeros that takes no room.
    pub fn sparse_file(&self, name: &str, bytes: u64) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(name);
        File::create(&path)?.set_len(bytes)?;
        Ok(path)
    }

    /// Returns a command of the binary, run in the directory `place` of the stage.
    pub fn command(&self, place: &str, arguments: &[&str]) -> anyhow::Result<Command> {
        let home = self.dir.path().join(place);
        fs::create_dir_all(&home)?;
        let mut command = binary::command(&home);
        command.args(arguments);
        Ok(command)
    }
}

/// A tracker, and nodes that share one file.
pub struct Swarm {
    tracker: Process,
    address: String,
    nodes: Vec<Process>,
    name: String,
    bytes: u64,
    place: String,
}

impl Swarm {
    /// Starts them in the directory `place`, and waits until all nodes have announced the file.
    pub fn start(stage: &Stage, place: &str, file: &Path, sources: usize) -> anyhow::Result<Swarm> {
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.context("the file has no name")?.to_owned();
        let common = ["--json", "--certs", "certs", "--listen", "127.0.0.1:0"];
        let at = format!("{place}/tracker");
        let mut command = stage.command(&at, &["tracker"])?;
        command.args(common);
        let tracker = Process::start(command);
        let ready = tracker.ready();
        let address = ready["listen"]
            .as_str()
            .context("the tracker does not say where it is")?
            .to_owned();
        let mut nodes = Vec::new();
        for source in 0..sources {
            let at = format!("{place}/node-{source}");
            let mut command =
                stage.command(&at, &["node", "--no-prompt", "--tracker", &address])?;
            command.args(common);
            let assets = stage.dir.path().join(&at).join("assets");
            fs::create_dir_all(&assets)?;
            // All share the same bytes in memory.
            fs::hard_link(file, assets.join(&name))?;
            let node = Process::start(command);
            node.ready();
            nodes.push(node);
        }
        let swarm = Swarm {
            tracker,
            address,
            nodes,
            name,
            bytes: file.metadata()?.len(),
            place: place.to_owned(),
        };
        swarm.wait_until_announced(stage)?;
        Ok(swarm)
    }

    fn wait_until_announced(&self, stage: &Stage) -> anyhow::Result<()> {
        let deadline = Instant::now() + ANNOUNCE_DEADLINE;
        loop {
            let place = format!("{}/ls", self.place);
            let arguments = ["ls", "--json", "--tracker", &self.address, &self.name];
            let listed = stage.command(&place, &arguments)?.output()?;
            let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
            if listed["complete"].as_u64() == Some(self.nodes.len() as u64) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the nodes have not announced {} within {ANNOUNCE_DEADLINE:?}",
                self.name
            );
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Downloads the file once.
    pub fn trial(&self, stage: &Stage) -> anyhow::Result<Trial> {
        self.trial_with(stage, &[])
    }

    /// Downloads the file once, with more arguments of `get`.
    pub fn trial_with(&self, stage: &Stage, more: &[&str]) -> anyhow::Result<Trial> {
        let place = format!("{}/get", self.place);
        let arguments = ["-q", "get", "--tracker", &self.address, &self.name];
        let mut command = stage.command(&place, &arguments)?;
        command.args(more);
        let trial = measure::trial(command, &self.process_ids())?;
        let result = stage.dir.path().join(place).join(&self.name);
        let length = result.metadata()?.len();
        ensure!(length == self.bytes, "{length} bytes arrived");
        fs::remove_file(result)?;
        Ok(trial)
    }
    fn process_ids(&self) -> Vec<u32> {
        let nodes = self.nodes.iter().map(Process::id);
        nodes.chain([self.tracker.id()]).collect()
    }

    /// Starts a further node, which has nothing, with a capability for the file.
    pub fn gateway(&self, stage: &Stage) -> anyhow::Result<Gateway> {
        let place = format!("{}/gateway", self.place);
        let node = ["node", "--no-prompt", "--tracker", &self.address];
        let mut command = stage.command(&place, &node)?;
        command.args(["--json", "--certs", "certs", "--listen", "127.0.0.1:0"]);
        command.args(["--http", "127.0.0.1:0", "--http-token", "token"]);
        let node = Process::start(command);
        let ready = node.ready();
        let url = ready["http"].as_str().context("the node has no page")?;
        let home = stage.dir.path().join(&place);
        let token = fs::read_to_string(home.join("token"))?;
        let what = json!({"what": format!("name:{}", self.name)});
        let made = Command::new("curl")
            .args(["-sS", "-H", "Content-Type: application/json", "-H"])
            .arg(format!("Authorization: Bearer {}", token.trim()))
            .args(["-d", &what.to_string()])
            .arg(format!("{url}api/1/capabilities"))
            .output()?;
        let made: Value = serde_json::from_slice(&made.stdout)?;
        let path = made["path"].as_str();
        let path = path.with_context(|| format!("no capability: {made}"))?;
        Ok(Gateway {
            url: format!("{}{path}", url.trim_end_matches('/')),
            node,
            place,
            bytes: self.bytes,
        })
    }
}

/// A node that reads the file of a swarm for clients of HTTP.
pub struct Gateway {
    node: Process,
    url: String,
    place: String,
    bytes: u64,
}

impl Gateway {
    fn command(&self) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "-f", "-o", "read", &self.url]);
        command
    }

    /// Reads the file once with curl.
    pub fn trial(&self, swarm: &Swarm, stage: &Stage) -> anyhow::Result<Trial> {
        let home = stage.dir.path().join(&self.place);
        let mut command = self.command();
        command.current_dir(&home);
        let mut others = swarm.process_ids();
        others.push(self.node.id());
        let trial = measure::trial(command, &others)?;
        let result = home.join("read");
        let length = result.metadata()?.len();
        ensure!(length == self.bytes, "{length} bytes arrived");
        fs::remove_file(result)?;
        Ok(trial)
    }

    /// Reads the file and returns where it is.
    pub fn fetch(&self, stage: &Stage) -> anyhow::Result<PathBuf> {
        let home = stage.dir.path().join(&self.place);
        let status = self.command().current_dir(&home).status()?;
        ensure!(status.success(), "curl: {status}");
        Ok(home.join("read"))
    }
}
