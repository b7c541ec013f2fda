//! A page that stays still: rows are updated in place, and a long list costs little.

use qshare_tests::files::noise;
use qshare_tests::world::World;
use serde_json::json;

use super::browser::Browser;
use super::{Alone, Served};

const MIB: usize = 1 << 20;

/// Keeps the rows of the list, and counts the elements that come, go or move in it, and the texts
/// that change.
const WATCH: &str = "
    const list = document.querySelector('#download-rows');
    window.rows = [...list.querySelectorAll('.item')];
    window.moves = [];
    window.texts = 0;
    new MutationObserver((changes) => {
      for (const change of changes) {
        if (change.type === 'characterData') window.texts += 1;
        for (const node of [...change.addedNodes, ...change.removedNodes]) {
          if (node.nodeType === Node.ELEMENT_NODE) window.moves.push(node.outerHTML.slice(0, 100));
          else window.texts += 1;
        }
      }
    }).observe(list, { childList: true, characterData: true, subtree: true });";

#[test]
fn updates_leave_rows_focus_and_scrolling_where_they_are() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    let names = ["one.bin", "two.bin", "three.bin"];
    for (seed, name) in (0..).zip(names) {
        world.put("source", name, &noise(4 * MIB, seed));
    }
    let _source = world.node("source", tracker.address);
    for name in names {
        tracker.client().until_complete(name, 1);
    }
    let limit = ["--limit-down", "600kB"];
    let served = Served::start(&world, "node", &tracker, &limit);
    for name in names {
        let what = json!({"what": format!("name:{name}")});
        served.call("POST", "downloads", Some(what));
    }
    browser.resize(1280, 500);
    browser.open(&served.url_with_token());
    browser.until(
        "return document.querySelectorAll('#download-rows [data-state=fetching]').length === 3",
    );
    browser.click("#download-rows .item button.name");
    browser.until("return document.querySelector('#detail .map')?.checkVisibility()");
    browser.js(WATCH);
    browser.js(
        "window.kept = document.querySelector(\"#download-rows [aria-label='Pause two.bin']\");
         window.kept.focus();
         scrollTo(0, 150);
         window.top0 = scrollY;
         window.title0 = document.querySelector('#detail-title')",
    );
    browser.until("return window.texts >= 40");
    let moved = browser.js(
        "const rows = [...document.querySelectorAll('#download-rows .item')];
         return {
           rows: rows.length === 3 && rows.every((row, at) => row === window.rows[at]),
           focus: document.activeElement === window.kept,
           scroll: scrollY === window.top0 && window.top0 > 0,
           title: document.querySelector('#detail-title') === window.title0,
           moves: window.moves,
         }",
    );
    let still = json!({"rows": true, "focus": true, "scroll": true, "title": true, "moves": []});
    assert_eq!(moved, still);
}

#[test]
fn a_thousand_downloads_are_listed_in_steps_and_one_that_moves_moves_no_other() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    let total = 1000;
    for number in 0..total {
        world.put("source", &format!("all/{number:04}"), &noise(100, number));
    }
    world.put("source", "large.bin", &noise(16 * MIB, 5000));
    let _source = world.node("source", tracker.address);
    tracker.client().until_complete("large.bin", 1);
    tracker
        .client()
        .until("all/*", |found| found.len() == total as usize);
    let limit = ["--limit-down", "400kB"];
    let served = Served::start(&world, "node", &tracker, &limit);
    let all = json!({"what": "all/*", "paused": true});
    let added = served.call("POST", "downloads", Some(all));
    assert_eq!(added["downloads"].as_array().unwrap().len(), total as usize);
    served.call("POST", "downloads", Some(json!({"what": "name:large.bin"})));

    browser.open(&served.url_with_token());
    browser.until("return document.querySelectorAll('#download-rows .item').length === 200");
    browser.js(WATCH);
    browser.until("return window.texts >= 20");
    let moves = browser.js("return window.moves");
    assert_eq!(moves, json!([]));
    // Only the row of the running download has changed.
    browser.js("window.changed = new Set();
         new MutationObserver((changes) => {
           for (const { target } of changes) {
             const element = target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement;
             const item = element.closest('.item');
             if (item) window.changed.add(item.querySelector('.name').textContent);
           }
         }).observe(document.querySelector('#download-rows'),
           { childList: true, characterData: true, attributes: true, subtree: true });
         window.texts = 0");
    browser.until("return window.texts >= 10");
    let changed = browser.js("return [...window.changed]");
    assert_eq!(changed, json!(["large.bin"]));

    browser.click("#downloads-more");
    browser.until("return document.querySelectorAll('#download-rows .item').length === 400");
    let chip = browser.js(
        "return [...document.querySelectorAll('#download-filters button')]
           .find((one) => one.textContent.startsWith('Paused')).textContent",
    );
    assert_eq!(chip, "Paused 1,000");
    let page = served.call("GET", "downloads?limit=100", None);
    assert_eq!(page["downloads"].as_array().unwrap().len(), 100);
    assert!(page["next"].is_string(), "{page}");
}

#[test]
fn shares_that_come_quickly_are_read_once_a_second() {
    let Some((browser, Alone { served, .. })) = &Alone::with_browser() else {
        return;
    };
    browser.open(&served.url_with_token());
    browser.click(".tabs a[data-view=shares]");
    browser.until("return document.querySelector('#shares-empty').checkVisibility()");
    browser.js("performance.clearResourceTimings(); window.begun = performance.now()");
    let files = 40;
    browser.js_async(&format!(
        "const token = sessionStorage.getItem('qshare-token');
         for (let number = 0; number < {files}; number += 1) {{
           await fetch(`/api/1/uploads/file-${{number}}`, {{ method: 'PUT', body: `${{number}}`,
             headers: {{ Authorization: `Bearer ${{token}}` }} }});
           await new Promise((done) => setTimeout(done, 50));
         }}"
    ));
    browser.until(&format!(
        "return document.querySelectorAll('#share-rows .item').length === {files}"
    ));
    let read = browser.js("const reads = performance.getEntriesByType('resource')
           .filter(({ name }) => name.includes('/api/1/shares?')).length;
         return [reads, Math.ceil((performance.now() - window.begun) / 1000) + 2]");
    assert!(read[0].as_u64() <= read[1].as_u64(), "{read}");
}
