//! BBRv3 on a virtual bottleneck. Shares are of the bottleneck's rate.

use std::time::{Duration, Instant};

use super::Congestion;
use super::bbr3::Bbr3;
use super::virtual_link::{Controller, Cubic, PACKET, Path, World};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// 100 Mbit/s, RTT 100 ms, a queue of 50 ms.
const LONG: Path = Path {
    rate: 100e6,
    round_trip: ms(100),
    queue: ms(50),
    loss: 0.0,
};

/// 100 Mbit/s, RTT 40 ms, a queue of 40 ms.
const WIDE: Path = Path {
    round_trip: ms(40),
    queue: ms(40),
    ..LONG
};

fn world_with_one(path: Path, seed: u64) -> World {
    let mut world = World::new(path, seed);
    let bbr3 = world.bbr3(seed);
    world.flow(bbr3, Duration::ZERO);
    world
}

/// Returns the shares of all flows during that time.
fn shares(world: &mut World, during: Duration) -> Vec<f64> {
    let rates = world.rates_during(during);
    rates.iter().map(|rate| rate / world.path.rate).collect()
}

/// Returns the longest and the median queueing delay, sampled a hundred times a second.
fn queue_during(world: &mut World, during: Duration) -> (Duration, Duration) {
    let mut seen: Vec<_> = (0..during.as_millis() / 10)
        .map(|_| {
            world.rates_during(ms(10));
            world.queue()
        })
        .collect();
    seen.sort();
    (seen[seen.len() - 1], seen[seen.len() / 2])
}

#[test]
fn a_long_path_without_loss_is_full_within_two_seconds() {
    let mut world = world_with_one(LONG, 1);
    world.run_until(secs(2));
    let share = shares(&mut world, secs(10))[0];
    assert!(share > 0.97, "{share}");
}

#[test]
fn random_loss_costs_little_more_than_what_is_lost() {
    for (path, least) in [
        (
            Path {
                loss: 0.001,
                ..LONG
            },
            0.95,
        ),
        (
            Path {
                rate: 20e6,
                round_trip: ms(300),
                queue: ms(150),
                loss: 0.02,
            },
            0.85,
        ),
    ] {
        let mut world = world_with_one(path, 1);
        world.run_until(secs(4));
        let share = shares(&mut world, secs(20))[0];
        assert!(share > least, "{share} of {path:?}");

        let mut world = World::new(path, 1);
        world.flow(Box::new(Cubic::new()), Duration::ZERO);
        world.run_until(secs(4));
        let cubic = shares(&mut world, secs(20))[0];
        assert!(
            share > 4.0 * cubic,
            "{share}, and Cubic {cubic}, of {path:?}"
        );
    }
}

#[test]
fn a_queue_of_two_seconds_stays_nearly_empty() {
    let bloated = Path {
        rate: 20e6,
        queue: secs(2),
        ..WIDE
    };
    let mut world = world_with_one(bloated, 1);
    world.run_until(secs(3));
    let (worst, median) = queue_during(&mut world, secs(10));
    assert!(worst < ms(100) && median < ms(40), "{worst:?}, {median:?}");
    let share = shares(&mut world, secs(10))[0];
    assert!(share > 0.97, "{share}");
}

#[test]
fn a_queue_too_short_for_trying_costs_few_packets() {
    let shallow = Path {
        queue: ms(5),
        ..LONG
    };
    let mut world = world_with_one(shallow, 1);
    world.run_until(secs(4));
    let share = shares(&mut world, secs(20))[0];
    let loss = world.loss(0);
    assert!(share > 0.85 && loss < 0.03, "{share}, lost {loss}");
}

#[test]
fn who_has_little_to_send_learns_nothing_wrong_about_the_path() {
    let mut world = world_with_one(LONG, 1);
    world.run_until(secs(4));
    // 2 Mbit/s, for longer than any measurement is kept.
    world.set_supply(0, Some(0.25e6));
    world.run_until(secs(24));
    world.set_supply(0, None);
    world.run_until(secs(25));
    let share = shares(&mut world, secs(1))[0];
    assert!(share > 0.9, "{share}");

    // The same from the start, before any measurement.
    let mut world = World::new(LONG, 1);
    let bbr3 = world.bbr3(1);
    world.flow(bbr3, Duration::ZERO);
    world.set_supply(0, Some(0.25e6));
    world.run_until(secs(10));
    world.set_supply(0, None);
    world.run_until(secs(12));
    let share = shares(&mut world, secs(1))[0];
    assert!(share > 0.9, "{share}");
}

#[test]
fn half_the_rate_and_twice_the_rate_are_noticed_within_seconds() {
    let mut world = world_with_one(
        Path {
            queue: secs(1),
            ..LONG
        },
        1,
    );
    world.run_until(secs(6));
    world.path.rate /= 2.0;
    world.run_until(secs(12));
    let (worst, median) = queue_during(&mut world, secs(5));
    assert!(worst < ms(120) && median < ms(60), "{worst:?}, {median:?}");
    assert!(shares(&mut world, secs(5))[0] > 0.95);
    world.path.rate *= 2.0;
    world.run_until(secs(30));
    let share = shares(&mut world, secs(5))[0];
    assert!(share > 0.9, "{share}");
}

#[test]
fn two_share_a_bottleneck_and_a_latecomer_gets_its_part() {
    for queue in [ms(10), ms(40), ms(160)] {
        let mut world = world_with_one(Path { queue, ..WIDE }, 3);
        let bbr3 = world.bbr3(4);
        world.flow(bbr3, secs(3));
        world.run_until(secs(10));
        let shares = shares(&mut world, secs(20));
        let all: f64 = shares.iter().sum();
        assert!(all > 0.9, "{shares:?} with a queue of {queue:?}");
        for share in &shares {
            let part = share / all;
            assert!(
                (0.35..0.65).contains(&part),
                "{shares:?} with a queue of {queue:?}"
            );
        }
    }
}

#[test]
fn eight_share_a_bottleneck_in_the_long_run() {
    let mut world = World::new(WIDE, 5);
    for seed in 0..8 {
        let bbr3 = world.bbr3(100 + seed);
        world.flow(bbr3, ms(10 * seed));
    }
    world.run_until(secs(5));
    let shares = shares(&mut world, secs(40));
    let all: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    let jain = all * all / squares / 8.0;
    assert!(jain > 0.9 && all > 0.95, "{jain}: {shares:?}");
}

#[test]
fn a_cubic_flow_keeps_a_good_part() {
    for (queue, least) in [(ms(10), 0.2), (ms(40), 0.25), (ms(160), 0.1)] {
        let mut world = World::new(Path { queue, ..WIDE }, 1);
        world.flow(Box::new(Cubic::new()), Duration::ZERO);
        let bbr3 = world.bbr3(7);
        world.flow(bbr3, secs(5));
        world.run_until(secs(9));
        let shares = shares(&mut world, secs(30));
        let [cubic, bbr3] = shares[..] else {
            panic!("{shares:?}")
        };
        assert!(
            cubic > least && bbr3 > 0.1,
            "Cubic {cubic}, BBRv3 {bbr3}, with a queue of {queue:?}"
        );
    }
}

/// Returns an idle controller that has measured a path.
fn experienced(now: Instant) -> (Bbr3, Instant) {
    let mut bbr3 = Bbr3::new(now, 64 << 10, PACKET as u16, 1);
    let mut at = now;
    for _ in 0..200 {
        let sent_at = at;
        bbr3.sent(sent_at, 100 * PACKET);
        at += ms(20);
        for _ in 0..100 {
            bbr3.acked(at, sent_at, PACKET, false, ms(20));
        }
        bbr3.acks_end(at, 0, false);
    }
    (bbr3, at)
}

#[test]
fn a_mark_by_the_network_counts_as_too_much_once_a_round_trip() {
    let (mut bbr3, now) = experienced(Instant::now());
    let before = bbr3.window_bytes();
    bbr3.sent(now, 10 * PACKET);
    let sent_at = now;
    bbr3.lost(now + ms(20), sent_at, 0, false);
    let after = bbr3.window_bytes();
    assert!(after < before, "{after} of {before}");
    bbr3.lost(now + ms(21), sent_at, 0, false);
    assert_eq!(bbr3.window_bytes(), after);
}

#[test]
fn a_few_losses_are_no_reason_and_many_are() {
    let (mut bbr3, now) = experienced(Instant::now());
    let before = bbr3.window_bytes();
    bbr3.sent(now, 100 * PACKET);
    bbr3.lost(now + ms(20), now, 2 * PACKET, false);
    assert_eq!(bbr3.window_bytes(), before);
    bbr3.lost(now + ms(20), now, 30 * PACKET, false);
    assert!(bbr3.window_bytes() < before);
}

#[test]
fn a_path_that_carries_nothing_any_more_is_learned_anew() {
    let (mut bbr3, now) = experienced(Instant::now());
    assert!(bbr3.rate() > 0.0);
    bbr3.sent(now, 10 * PACKET);
    bbr3.lost(now + secs(3), now, 10 * PACKET, true);
    assert_eq!(bbr3.rate(), 0.0);
    assert_eq!(bbr3.window_bytes(), 8 * PACKET);
}

#[test]
fn memory_does_not_grow_with_what_is_in_flight() {
    let now = Instant::now();
    let mut bbr3 = Bbr3::new(now, 64 << 10, PACKET as u16, 1);
    for packet in 0..100_000 {
        bbr3.sent(now + Duration::from_micros(100 * packet), PACKET);
    }
    assert!(bbr3.remembered() <= 160, "{}", bbr3.remembered());
    // An acknowledgement after all that time is still measured.
    let end = now + secs(11);
    bbr3.acked(end, now + secs(9), PACKET, false, secs(2));
    bbr3.acks_end(end, 0, false);
    assert!(bbr3.rate() > 0.0);
}

#[test]
fn names_are_read_and_written_alike() {
    for congestion in Congestion::ALL {
        assert_eq!(congestion.to_string().parse(), Ok(congestion));
    }
    assert!("vegas".parse::<Congestion>().is_err());
}
