//! What strangers may try, counted in steps of work rather than measured in time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use qshare_content::{AssetName, ContentInfo, Hash, Query};
use qshare_registry::{Announced, Find, Page, RegistryConfig};

use super::common::{World, entry, info, node_id};

/// Names that a hostile node may announce in a second or two.
const NAMES: u32 = 50_000;

/// 965 bytes each, all `a` but for a number in front.
fn long_names() -> impl Iterator<Item = Announced> {
    (0..NAMES).map(|n| {
        let mut root = [0; 32];
        root[..4].copy_from_slice(&n.to_le_bytes());
        let component = "a".repeat(240);
        let name = format!("{n:05}/{component}/{component}/{component}/{:a<236}", "");
        assert_eq!(name.len(), 965);
        Announced {
            is_collection: false,
            name: AssetName::new(name).unwrap(),
            info: ContentInfo {
                length: u64::from(n),
                root: Hash(root),
            },
            complete: true,
            metadata: Default::default(),
        }
    })
}

fn filled() -> World {
    let mut world = World::new(RegistryConfig::default());
    let session = world.open(1);
    let names: Vec<Announced> = long_names().collect();
    for batch in names.chunks(1_000) {
        assert!(world.announce(session, batch).is_empty());
    }
    world
}

fn ask(world: &mut World, find: &Find) -> Page {
    let now = world.now;
    world.registry.find(now, find).unwrap()
}

/// The most that one page may cost: what is allowed, and the last name or match beyond that.
fn most() -> u64 {
    RegistryConfig::default().lookup_steps_max + 50_000
}

#[test]
fn a_glob_that_no_name_matches_is_answered_in_pages_of_bounded_work() {
    let mut world = filled();
    // The second is 236 bytes long.
    for glob in [
        format!("**/*a{}z", "?".repeat(60)),
        format!("**/*a{}z*", "?".repeat(229)),
        "**/*a*a*a*a*a*z?".into(),
        format!("{}z?", "{*a,**/b}".repeat(24)),
    ] {
        let mut find = world.query("x");
        find.query = Query::Name(glob.clone());
        let mut total = 0;
        let mut passed = 0;
        // Some of the hundreds of pages that it takes to pass all names.
        for _ in 0..50 {
            let page = ask(&mut world, &find);
            assert!(page.matches.is_empty());
            assert!(page.steps <= most(), "{glob}: {} steps", page.steps);
            total += page.steps;
            let Some(more) = page.more else {
                passed = u64::from(NAMES);
                break;
            };
            let number: u64 = more.name[..5].parse().unwrap();
            assert!(number >= passed, "each page passes one name at least");
            passed = number + 1;
            find.after = Some(more);
        }
        // At most the length of the glob for each byte of the names that were passed.
        assert!(total <= passed * 965 * glob.len() as u64, "{glob}: {total}");
    }
}

#[test]
fn a_prefix_of_nearly_all_ids_is_charged_by_matches_and_holders() {
    let mut world = World::new(RegistryConfig::default());
    for node in 0..100 {
        let session = world.open(node);
        let batch: Vec<_> = (0..255).map(|n| entry(&format!("f{n}"), n)).collect();
        world.announce(session, &batch);
    }
    let mut find = world.query("id:0");
    find.limit = 1024;
    find.holders = 16;
    let mut matches = 0;
    let mut steps = 0;
    loop {
        let page = ask(&mut world, &find);
        matches += page.matches.len() as u64;
        steps += page.steps;
        assert!(page.steps <= most(), "{} steps", page.steps);
        match page.more {
            Some(more) => find.after = Some(more),
            None => break,
        }
    }
    let expected = (0..255).filter(|&n| info(n).id().to_string().starts_with('0'));
    assert_eq!(matches, expected.count() as u64);
    // 64 holders are drawn for each match, and 16 given.
    assert!(steps >= matches * 64 * 10, "{steps} for {matches}");
}

#[test]
fn a_name_that_is_missing_costs_a_bounded_search_for_similar_ones() {
    let mut world = filled();
    let config = RegistryConfig::default();
    for name in ["a".repeat(60), "00100/aaaa".into(), "zzz".into()] {
        let find = world.query(&name);
        let page = ask(&mut world, &find);
        assert!(page.matches.is_empty());
        assert!(page.steps > 0 && page.steps <= config.near_steps_max + 10_000);
        let wanting_none = Find {
            near: false,
            ..find
        };
        let page = ask(&mut world, &wanting_none);
        assert!(page.near.is_empty());
        assert!(page.steps < 1_000, "{} steps without a search", page.steps);
    }
}

#[test]
fn a_name_with_many_contents_is_answered_in_pages_of_bounded_work() {
    let mut world = World::new(RegistryConfig::default());
    let (one, two) = (world.open(1), world.open(2));
    let same: Vec<Announced> = long_names()
        .map(|entry| Announced {
            is_collection: false,
            name: AssetName::new("same").unwrap(),
            ..entry
        })
        .collect();
    world.announce(one, &same);
    world.announce(two, &[entry("same", 1)]);
    let mut find = world.query(&format!("{}/same", node_id(2)));
    let mut found = 0;
    loop {
        let page = ask(&mut world, &find);
        assert!(page.steps <= most(), "{} steps", page.steps);
        found += page.matches.len();
        match page.more {
            Some(more) => find.after = Some(more),
            None => break,
        }
    }
    assert_eq!(found, 1);
}
