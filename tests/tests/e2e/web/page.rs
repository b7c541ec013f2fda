//! The web page in a browser, used as a person does: find, download, pause, share.

use std::path::Path;

use qshare_tests::files::{assert_same, noise};
use qshare_tests::process::Signal;
use qshare_tests::world::World;

use super::Served;
use super::browser::Browser;

const MIB: usize = 1 << 20;
const MARKUP: &str = "<img src=x onerror=document.title='owned'>.txt";

/// The stage that the first download in the list shows.
const STAGE: &str = "return document.querySelector('#download-rows .item')?.dataset.state";

/// Returns a script that waits for a text somewhere in an element.
fn shows(selector: &str, text: &str) -> String {
    format!(
        "return [...document.querySelectorAll({})].some((one) => one.checkVisibility() && \
         one.textContent.includes({}))",
        serde_json::json!(selector),
        serde_json::json!(text)
    )
}

fn until_stage(browser: &Browser, stage: &str) {
    browser.until(&format!("{STAGE} === '{stage}'"));
}

#[test]
fn a_file_is_found_downloaded_and_shared_on() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    let bytes = noise(5 * MIB, 1);
    world.put("source", "folder/big.bin", &bytes);
    world.put("source", MARKUP, b"names are text");
    let _source = world.node("source", tracker.address);
    tracker.client().until_complete("folder/big.bin", 1);
    let served = Served::start(&world, "node", &tracker, &[]);

    browser.open(&served.url_with_token());
    browser.until(&shows("#downloads-empty h2", "Nothing is downloading yet"));
    // The token stays neither in the address nor in a cookie.
    let address = browser.js("return location.href + ' ' + document.cookie");
    assert!(!address.as_str().unwrap().contains(&served.token));

    browser.click(".tabs a[data-view=find]");
    browser.type_into("#find-text", "**\n");
    browser.until(&shows("#find-rows .name", "folder/big.bin"));
    browser.until(&shows("#find-rows .name", MARKUP));
    assert_eq!(
        browser.js("return document.querySelectorAll('#find-rows img').length"),
        0
    );
    browser.click("#find-rows [aria-label='Download folder/big.bin']");
    until_stage(&browser, "complete");
    assert_same(&world.path("node/downloads/folder/big.bin"), &bytes);
    browser.until(&shows("#detail .facts", "big.bin"));

    // A download of a name with markup shows text in each place.
    let added = serde_json::json!({"what": format!("name:{MARKUP}")});
    served.call("POST", "downloads", Some(added));
    browser.until(&shows("#download-rows .name", MARKUP));
    browser.click(&format!("#download-rows .item button[title=\"{MARKUP}\"]"));
    browser.until(&shows("#detail-title", MARKUP));
    browser.until("return [...document.querySelectorAll('#download-rows .item')].every((row) => row.dataset.state === 'complete')");

    browser.click(".tabs a[data-view=shares]");
    browser.until(&shows("#share-rows .name", "folder/big.bin"));
    browser.until(&shows("#share-rows .name", MARKUP));
    browser.type_into("#share-filter-text", "BIG");
    browser.until("return document.querySelectorAll('#share-rows .item').length === 1");
    browser.click("#share-rows [aria-label='Link to folder/big.bin']");
    let link = browser.until("return document.querySelector('dialog[open] textarea')?.value");
    assert!(link.as_str().unwrap().starts_with("qshare:"));
    // The QR code is an image that could be loaded.
    browser.until("return document.querySelector('dialog[open] img.qr')?.naturalWidth > 0");
    assert_ne!(browser.js("return document.title"), "owned");
    let images = browser.js("return [...document.images].filter((one) => !one.src.startsWith('blob:') && !one.src.endsWith('/icon.svg')).length");
    assert_eq!(images, 0);
}

#[test]
fn a_link_waits_is_paused_resumed_and_completes_when_its_source_comes() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    let bytes = noise(3 * MIB, 2);
    world.put("source", "late.bin", &bytes);
    let source = world.node("source", tracker.address);
    tracker.client().until_complete("late.bin", 1);
    let address = tracker.address.to_string();
    let listed = world.run("asker", &["ls", "--links", "--tracker", &address]);
    let link = listed.well().out.trim().to_owned();
    source.process.signal(Signal::TERM);
    source.process.end();
    tracker.client().until_gone("late.bin");

    let served = Served::start(&world, "node", &tracker, &[]);
    browser.open(&served.url_with_token());
    browser.until(&shows("#downloads-empty h2", "Nothing is downloading yet"));
    // The key goes to the field that takes links.
    browser.press("/");
    browser.press(&format!("{link}\n"));
    until_stage(&browser, "searching");
    browser.click("#download-rows [aria-label='Pause late.bin']");
    until_stage(&browser, "paused");
    browser.click("#download-rows [aria-label='Resume late.bin']");
    until_stage(&browser, "searching");
    let _source = world.node("source", tracker.address);
    until_stage(&browser, "complete");
    assert_same(&world.path("node/downloads/late.bin"), &bytes);

    // Removing asks first, and keeps the file unless told otherwise.
    browser.click("#download-rows [aria-label='Remove late.bin']");
    browser.until(&shows("dialog[open] h2", "Remove late.bin?"));
    browser.click("dialog[open] button[type=submit]");
    browser.until(&shows("#downloads-empty h2", "Nothing is downloading yet"));
    assert_same(&world.path("node/downloads/late.bin"), &bytes);
}

#[test]
fn a_folder_is_one_row_with_its_files_as_the_map() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    let files = 24;
    for number in 0..files {
        let name = format!("photos/day {}/{number:02}.jpg", number % 3);
        world.put("source", &name, &noise(200_000, number));
    }
    let _source = world.node("source", tracker.address);
    tracker
        .client()
        .until("photos/**", |found| found.len() == files as usize);
    let limit = ["--limit-down", "800kB"];
    let served = Served::start(&world, "node", &tracker, &limit);
    browser.open(&served.url_with_token());
    browser.until(&shows("#downloads-empty h2", "Nothing is downloading yet"));

    // The slash says what is meant: it is added without a search.
    browser.press("/");
    browser.press("photos/\n");
    browser.until(&shows("#download-rows .name", "photos/"));
    browser.until(&shows("#detail-title", "photos/"));
    browser.click("#download-rows [aria-label='Pause photos/']");
    until_stage(&browser, "paused");
    browser.click("#download-rows [aria-label='Resume photos/']");
    until_stage(&browser, "complete");
    browser.until(&shows("#detail", "24 of 24 files"));
    let rows = browser.js("return document.querySelectorAll('#download-rows .item').length");
    assert_eq!(rows, 1);
    for number in 0..files {
        let name = format!("node/downloads/photos/day {}/{number:02}.jpg", number % 3);
        assert_same(&world.path(&name), &noise(200_000, number));
    }

    // The node offers the folder as one now.
    browser.click(".tabs a[data-view=find]");
    browser.type_into("#find-text", "photos\n");
    browser.until(&shows("#find-rows .item", "photos/"));
    browser.until(&shows("#find-rows .item", "Folder"));
    browser.click(".tabs a[data-view=downloads]");

    // The files are removed with the row only when the box is ticked.
    browser.click("#download-rows [aria-label='Remove photos/']");
    browser.until(&shows("dialog[open] h2", "Remove photos/?"));
    browser.click("dialog[open] input[type=checkbox]");
    browser.click("dialog[open] button[type=submit]");
    browser.until(&shows("#downloads-empty h2", "Nothing is downloading yet"));
    assert!(!world.path("node/downloads/photos").exists());
}

#[test]
fn a_chosen_file_is_copied_to_the_node_and_shared() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    let served = Served::start(&world, "node", &tracker, &[]);
    let bytes = noise(2 * MIB, 3);
    let chosen = world.dir("home").join("dropped file.bin");
    qshare_tests::files::put(&chosen, &bytes);
    browser.open(&served.url_with_token());
    browser.click(".tabs a[data-view=shares]");
    browser.until(&shows("#shares-empty h2", "Nothing is shared yet"));
    browser.js("document.querySelector('#file-input').hidden = false");
    browser.type_into("#file-input", chosen.to_str().unwrap());
    browser.until(&shows("#share-rows .name", "dropped file.bin"));
    assert_same(&world.asset("node", "dropped file.bin"), &bytes);
    tracker.client().until_complete("dropped file.bin", 1);
}

#[test]
fn a_file_that_is_dropped_onto_the_page_is_shared() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    let served = Served::start(&world, "node", &tracker, &[]);
    browser.open(&served.url_with_token());
    browser.until(&shows("#downloads-empty h2", "Nothing is downloading yet"));
    browser.js(
        "window.drag = (type, transfer) => document.querySelector('main').dispatchEvent(
           new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
         window.files = new DataTransfer();
         files.items.add(new File(['dropped by hand'], 'by hand.txt'));
         files.items.add(new File(['and another'], 'another <b>.txt'))",
    );
    // Text that is dragged over the page is none of its business.
    browser.js("const text = new DataTransfer(); text.items.add('x', 'text/plain'); drag('dragenter', text)");
    assert_eq!(
        browser.js("return document.querySelector('#drop-overlay').hidden"),
        true
    );
    browser.js("drag('dragenter', files)");
    browser.until(&shows("#drop-overlay", "Drop to share"));
    browser.js("drag('dragleave', files)");
    browser.until("return document.querySelector('#drop-overlay').hidden");
    browser.js("drag('dragenter', files)");
    // An event that nobody takes would open the file in place of the page.
    assert_eq!(browser.js("return drag('dragover', files)"), false);
    assert_eq!(browser.js("return drag('drop', files)"), false);
    browser.until("return document.querySelector('#drop-overlay').hidden");
    browser.until(&shows("#share-rows .name", "by hand.txt"));
    browser.until(&shows("#share-rows .name", "another <b>.txt"));
    assert_same(&world.asset("node", "by hand.txt"), b"dropped by hand");
    assert_same(&world.asset("node", "another <b>.txt"), b"and another");
    tracker.client().until_complete("by hand.txt", 1);
}

#[test]
fn the_page_asks_for_a_token_and_connects_again_to_a_restarted_node() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    let served = Served::start(&world, "node", &tracker, &[]);
    browser.open(&served.url);
    browser.until(&shows("#login-title", "token"));
    browser.type_into("#login-token", "not the right token at all\n");
    browser.until(&shows("#login-error", "does not accept this token"));
    browser.js("document.querySelector('#login-token').value = ''");
    browser.type_into("#login-token", &format!("{}\n", served.token));
    browser.until(&shows("#downloads-title", "Downloads"));

    let place = served.place().to_owned();
    drop(served);
    browser.until(&shows("#banner", "does not answer"));
    let _served = Served::start_at(&world, "node", &tracker, &place, &[]);
    browser.until("return document.querySelector('#banner').hidden");
}

#[test]
fn every_view_fits_a_phone_and_names_its_controls() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let world = World::new();
    let tracker = world.tracker();
    let long = format!("{}.bin", "a-long-name-".repeat(12));
    world.put("source", &long, &noise(MIB, 4));
    let _source = world.node("source", tracker.address);
    tracker.client().until_complete(&long, 1);
    let served = Served::start(&world, "node", &tracker, &[]);
    browser.resize(360, 740);
    browser.open(&served.url_with_token());
    browser.click(".tabs a[data-view=find]");
    browser.type_into("#find-text", "**\n");
    browser.click("#find-rows .item .tools button:last-child");
    until_stage(&browser, "complete");
    for view in ["downloads", "shares", "find", "node"] {
        browser.click(&format!(".tabs a[data-view={view}]"));
        browser.until(&format!(
            "return document.querySelector('#view-{view}').checkVisibility()"
        ));
        let width = browser.js("return document.documentElement.scrollWidth - innerWidth");
        assert!(width.as_i64().unwrap() <= 0, "{view}: {width}");
        let nameless = browser.js(
            "return [...document.querySelectorAll('button, a, input, select')]
                 .filter((one) => one.checkVisibility())
                 .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length))
                 .map((one) => one.outerHTML.slice(0, 80))",
        );
        assert_eq!(nameless.as_array().unwrap().len(), 0, "{view}: {nameless}");
    }
}

/// Not a test of anything: makes the pictures of the documents.
#[test]
fn pictures_of_the_page_are_made_on_request() {
    if std::env::var_os("QSHARE_PICTURES").is_none() {
        return;
    }
    let browser = Browser::start().unwrap();
    let world = World::new();
    let tracker = world.tracker();
    for (index, (name, megabytes)) in [
        ("builds/today.iso", 90),
        ("films/harbour at dawn.webm", 120),
        ("photos/iceland/DSC_0432.raw", 20),
        ("notes/minutes.md", 1),
    ]
    .into_iter()
    .enumerate()
    {
        for place in ["alice", "bob", "carol"] {
            world.put(place, name, &noise(megabytes * MIB, index as u64));
        }
    }
    let _sources = ["alice", "bob", "carol"].map(|place| world.node(place, tracker.address));
    for name in ["builds/today.iso", "films/harbour at dawn.webm"] {
        tracker.client().until_complete(name, 3);
    }
    let limit = ["--limit-down", "9MB"];
    let served = Served::start(&world, "node", &tracker, &limit);
    browser.resize(1280, 800);
    browser.open(&served.url_with_token());
    browser.until(&shows("#downloads-empty h2", "Nothing is downloading yet"));
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pictures");
    browser.picture(&pictures.join("web-empty.png"));
    for name in [
        "notes/minutes.md",
        "photos/iceland/DSC_0432.raw",
        "builds/today.iso",
        "films/harbour at dawn.webm",
    ] {
        served.call(
            "POST",
            "downloads",
            Some(serde_json::json!({"what": format!("name:{name}")})),
        );
    }
    browser.click("#download-rows .item button.name");
    browser.until("return document.querySelectorAll('#detail tbody tr').length > 1");
    browser.until(
        "return parseFloat(document.querySelector('#detail .big-numbers strong').textContent) > 20",
    );
    browser.picture(&pictures.join("web-downloads.png"));
    browser.click(".tabs a[data-view=node]");
    browser.js("localStorage.setItem('qshare-theme', 'light')");
    browser.click("#theme");
    browser.until("return document.documentElement.dataset.theme === 'dark'");
    browser.picture(&pictures.join("web-node-dark.png"));
    browser.resize(360, 740);
    browser.click(".tabs a[data-view=downloads]");
    browser.picture(&pictures.join("web-phone.png"));
}
