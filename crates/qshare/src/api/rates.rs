//! The node's rates over the last minutes and hours.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_node::{Node, Traffic};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::objects::{RatePoint, Rates, Time};

/// Values of one second: ten minutes.
const SECONDS_MAX: usize = 600;
/// Values of one minute: a day.
const MINUTES_MAX: usize = 24 * 60;
/// Period of the current rate.
const CURRENT_SECONDS: usize = 3;

/// (up, down) in bytes per second.
type Rate = (u64, u64);

/// The recorded rates.
pub(super) struct History {
    recorded: Mutex<Recorded>,
    latest: watch::Sender<RatePoint>,
}

#[derive(Default)]
struct Recorded {
    seconds: VecDeque<Rate>,
    minutes: VecDeque<Rate>,
    /// The sum of the seconds of the current minute, and their number.
    minute: (Rate, u64),
    /// When the last value of each list ended.
    second_end: Option<Time>,
    minute_end: Option<Time>,
}

impl Default for History {
    fn default() -> History {
        History {
            recorded: Mutex::default(),
            latest: watch::Sender::new(RatePoint {
                at: Time::now(),
                up_bytes_per_second: 0,
                down_bytes_per_second: 0,
            }),
        }
    }
}

impl Recorded {
    /// Adds the rate of a second that ended at `at`.
    fn add(&mut self, at: Time, (up, down): Rate) {
        push(&mut self.seconds, SECONDS_MAX, (up, down));
        self.second_end = Some(at);
        let ((up_sum, down_sum), seconds) = &mut self.minute;
        *up_sum += up;
        *down_sum += down;
        *seconds += 1;
        if *seconds == 60 {
            let mean = (*up_sum / 60, *down_sum / 60);
            push(&mut self.minutes, MINUTES_MAX, mean);
            self.minute = Default::default();
            self.minute_end = Some(at);
        }
    }
}

fn push(values: &mut VecDeque<Rate>, max: usize, value: Rate) {
    values.push_back(value);
    if values.len() > max {
        values.pop_front();
    }
}

impl History {
    /// Returns the rates of the last minutes (one value a second) or hours (one a minute).
    pub(super) fn rates(&self, hours: bool) -> Rates {
        let recorded = self.recorded();
        let (step_seconds, values, until) = match hours {
            true => (60, &recorded.minutes, recorded.minute_end),
            false => (1, &recorded.seconds, recorded.second_end),
        };
        Rates {
            step_seconds,
            until: until.unwrap_or_else(Time::now),
            up_bytes_per_second: values.iter().map(|(up, _)| *up).collect(),
            down_bytes_per_second: values.iter().map(|(_, down)| *down).collect(),
        }
    }

    /// Returns the mean of the last seconds: (up, down) in bytes per second.
    pub(super) fn current(&self) -> Rate {
        let recorded = self.recorded();
        let last = recorded.seconds.iter().rev().take(CURRENT_SECONDS);
        let count = last.len().max(1) as u64;
        let (up, down) = last.fold((0, 0), |sum, rate| (sum.0 + rate.0, sum.1 + rate.1));
        (up / count, down / count)
    }

    /// Returns a watch of the rate of the last second.
    pub(super) fn latest(&self) -> watch::Receiver<RatePoint> {
        self.latest.subscribe()
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records the node's rates, one value a second, until the node stops.
pub(super) async fn record(history: Arc<History>, node: Node, quit: CancellationToken) {
    let second = Duration::from_secs(1);
    let mut ticks = interval(second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut before, mut since) = (node.traffic(), Instant::now());
    while quit.run_until_cancelled(ticks.tick()).await.is_some() {
        let (now, at) = (node.traffic(), Instant::now());
        let (up, down) = rate(before, now, at.duration_since(since));
        (before, since) = (now, at);
        let time = Time::now();
        history.recorded().add(time, (up, down));
        history.latest.send_replace(RatePoint {
            at: time,
            up_bytes_per_second: up,
            down_bytes_per_second: down,
        });
    }
}

fn rate(before: Traffic, now: Traffic, elapsed: Duration) -> Rate {
    let millis = elapsed.as_millis().max(1) as u64;
    let per_second = |before: u64, now: u64| now.saturating_sub(before) * 1000 / millis;
    (
        per_second(before.sent_bytes, now.sent_bytes),
        per_second(before.received_bytes, now.received_bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_minutes_and_old_values_are_dropped() {
        let history = History::default();
        for second in 1..=(SECONDS_MAX as u64 + 60) {
            history.recorded().add(Time(second * 1000), (second, 2));
        }
        let minutes = history.rates(false);
        assert_eq!(minutes.step_seconds, 1);
        assert_eq!(minutes.up_bytes_per_second.len(), SECONDS_MAX);
        assert_eq!(minutes.up_bytes_per_second.last(), Some(&660));
        assert_eq!(minutes.until, Time(660_000));
        let hours = history.rates(true);
        assert_eq!(hours.step_seconds, 60);
        // The mean of 1 to 60.
        assert_eq!(hours.up_bytes_per_second.first(), Some(&30));
        assert_eq!(hours.down_bytes_per_second, vec![2; 11]);
        assert_eq!(history.current(), (659, 2));
    }

    #[test]
    fn a_late_tick_does_not_change_the_rate() {
        let traffic = |sent_bytes| Traffic {
            sent_bytes,
            received_bytes: 0,
        };
        let elapsed = Duration::from_millis(2500);
        assert_eq!(rate(traffic(100), traffic(5100), elapsed), (2000, 0));
    }
}
