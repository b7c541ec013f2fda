//! The report of a run.

use serde::Serialize;

use super::race::Race;
use super::shape::Crowd;

/// One run of one system.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    system: &'static str,
    shape: String,
    leechers: usize,
    rate: String,
    file_bytes: u64,
    /// Number of leechers that were to finish.
    pub(crate) wanted: usize,
    pub(crate) finished: usize,
    bound_seconds: f64,
    /// Time of the last finisher; null if a leecher did not finish.
    last_seconds: Option<f64>,
    ratio: Option<f64>,
    median_seconds: Option<f64>,
    /// Bytes received twice or discarded, over the files' bytes; null if unknown.
    waste: Option<f64>,
    /// Bytes that leechers' interfaces received over the files' bytes.
    wire: f64,
    /// Bytes that the seed's interface sent over the file's.
    seed_files_wire: f64,
    /// Bytes that leechers report from the seed, over the file's.
    seed_files: Option<f64>,
    cpu_seconds: f64,
    busy: f64,
}

impl Outcome {
    pub(crate) const HEADER: &str = "system      shape            N   rate      MiB  bound   last  ratio  median  waste   wire   seed (says)    CPU  busy";

    pub(crate) fn new(
        system: &'static str,
        crowd: &Crowd,
        race: &Race,
        waste: Option<f64>,
        seed_files: Option<f64>,
    ) -> Outcome {
        let bound = crowd.bound().as_secs_f64();
        let file = crowd.file_bytes as f64;
        let seconds: Vec<f64> = race
            .finishes
            .iter()
            .map(|finish| finish.at.as_secs_f64())
            .collect();
        let is_whole = seconds.len() == crowd.wanted();
        let last = seconds.last().copied().filter(|_| is_whole);
        Outcome {
            system,
            shape: crowd.shape.to_string(),
            leechers: crowd.leechers,
            rate: crowd.rate.to_string(),
            file_bytes: crowd.file_bytes,
            wanted: crowd.wanted(),
            finished: seconds.len(),
            bound_seconds: bound,
            last_seconds: last,
            ratio: last.map(|last| last / bound),
            median_seconds: seconds.get(seconds.len() / 2).copied(),
            waste,
            wire: race.leechers.received_bytes as f64 / (file * crowd.leechers as f64),
            seed_files_wire: race.seed.sent_bytes as f64 / file,
            seed_files,
            cpu_seconds: race.cpu_seconds,
            busy: race.busy,
        }
    }

    /// A row under [`Outcome::HEADER`].
    pub(crate) fn line(&self) -> String {
        let number = |value: Option<f64>, digits: usize| match value {
            Some(value) => format!("{value:.digits$}"),
            None => "-".into(),
        };
        let waste = match self.waste {
            Some(waste) => format!("{:.2}%", waste * 100.0),
            None => "-".into(),
        };
        let missing = match self.wanted - self.finished {
            0 => String::new(),
            missing => format!("  {missing} did not finish"),
        };
        format!(
            "{:<11} {:<15} {:>2} {:>8} {:>6} {:>6.2} {:>6} {:>6} {:>7} {:>6} {:>6.3} {:>6.2} ({:>4}) {:>6.1} {:>4.0}%{missing}",
            self.system,
            self.shape,
            self.leechers,
            self.rate,
            self.file_bytes >> 20,
            self.bound_seconds,
            number(self.last_seconds, 2),
            number(self.ratio, 2),
            number(self.median_seconds, 2),
            waste,
            self.wire,
            self.seed_files_wire,
            number(self.seed_files, 2),
            self.cpu_seconds,
            self.busy * 100.0,
        )
    }
}
