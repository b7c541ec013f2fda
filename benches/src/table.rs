//! The printed table: a line for each run, and medians.

use std::time::Duration;

use crate::measure::{Trial, median};

/// Lines under one heading.
pub struct Table {
    bytes: u64,
}

impl Table {
    /// Prints the heading of a table of transfers of `bytes`.
    pub fn new(bytes: u64) -> Table {
        println!("{} MiB", bytes >> 20);
        println!(
            "{:18} {:>8} {:>8} {:>10} {:>10} {:>10} {:>10}",
            "", "wall s", "MB/s", "CPU s", "servers'", "peak MiB", "servers'"
        );
        Table { bytes }
    }

    /// Prints a run and returns it.
    pub fn add(&mut self, what: &str, trial: Trial) -> Trial {
        self.line(what, &trial);
        trial
    }

    /// Prints the median of each column; for memory the maximum.
    pub fn add_median(&mut self, what: &str, trials: &[Trial]) {
        if trials.is_empty() {
            return;
        }
        let middle = |of: fn(&Trial) -> Duration| {
            Duration::from_secs_f64(median(trials.iter().map(|trial| of(trial).as_secs_f64())))
        };
        let most = |of: fn(&Trial) -> u64| trials.iter().map(of).max().unwrap_or(0);
        self.line(
            &format!("= {what}"),
            &Trial {
                wall: middle(|trial| trial.wall),
                own_cpu: middle(|trial| trial.own_cpu),
                others_cpu: middle(|trial| trial.others_cpu),
                own_peak_bytes: most(|trial| trial.own_peak_bytes),
                others_peak_bytes: most(|trial| trial.others_peak_bytes),
            },
        );
    }

    fn line(&self, what: &str, trial: &Trial) {
        println!(
            "{what:18} {:8.2} {:8.0} {:10.2} {:10.2} {:10} {:10}",
            trial.wall.as_secs_f64(),
            trial.speed(self.bytes) / 1e6,
            trial.own_cpu.as_secs_f64(),
            trial.others_cpu.as_secs_f64(),
            trial.own_peak_bytes >> 20,
            trial.others_peak_bytes >> 20,
        );
    }
}
