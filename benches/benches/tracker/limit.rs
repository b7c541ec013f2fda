//! A fraction of a core for a process, by a cgroup.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

/// Short, so that a throttled process pauses for milliseconds only.
const PERIOD_US: u64 = 10_000;

/// A cgroup that gets at most a fraction of a core. Removed when the value is dropped, after its
/// processes have ended.
pub(crate) struct CpuLimit(PathBuf);

impl CpuLimit {
    /// Makes a group, with version 1 or 2 of cgroups.
    pub(crate) fn new(name: &str, cores: f64) -> anyhow::Result<CpuLimit> {
        let quota = (PERIOD_US as f64 * cores) as u64;
        let name = format!("qshare-bench-{}-{name}", std::process::id());
        let old = PathBuf::from("/sys/fs/cgroup/cpu");
        let is_old = old.join("cpu.cfs_quota_us").exists() || old.join("tasks").exists();
        let root = if is_old {
            old
        } else {
            PathBuf::from("/sys/fs/cgroup")
        };
        let group = CpuLimit(root.join(name));
        fs::create_dir(&group.0).context("no cgroup can be made; this needs root")?;
        if is_old {
            group.write("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            group.write("cpu.cfs_quota_us", &quota.to_string())?;
        } else {
            group.write("cpu.max", &format!("{quota} {PERIOD_US}"))?;
        }
        Ok(group)
    }

    /// Puts a process into it.
    pub(crate) fn add(&self, process: u32) -> anyhow::Result<()> {
        self.write("cgroup.procs", &process.to_string())
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.0.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for CpuLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
