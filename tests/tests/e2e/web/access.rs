//! The page by keyboard, for screen readers, in both colour schemes, and on a phone.

use qshare_tests::files::noise;
use qshare_tests::world::World;
use serde_json::json;

use super::browser::Browser;
use super::{Alone, Served};

const MIB: usize = 1 << 20;
/// Keys as WebDriver names them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";

/// What has the focus, as a screen reader would name it.
const FOCUS: &str = "
    const one = document.activeElement;
    return one.ariaLabel ?? one.labels?.[0]?.textContent ?? one.textContent.trim()";

/// A node with one download that is complete, and a browser that shows its page.
fn with_a_download(browser: &Browser) -> (World, Vec<Box<dyn std::any::Any>>, Served) {
    let world = World::new();
    let tracker = world.tracker();
    world.put("source", "some.bin", &noise(2 * MIB, 1));
    let source = world.node("source", tracker.address);
    tracker.client().until_complete("some.bin", 1);
    let served = Served::start(&world, "node", &tracker, &[]);
    let what = json!({"what": "name:some.bin"});
    served.call("POST", "downloads", Some(what));
    browser.open(&served.url_with_token());
    browser.until("return document.querySelector('#download-rows [data-state=complete]') !== null");
    (world, vec![Box::new(tracker), Box::new(source)], served)
}

/// Presses Tab until something has the focus.
fn tab_to(browser: &Browser, name: &str) {
    let mut passed = Vec::new();
    for _ in 0..60 {
        browser.press(TAB);
        let focused = browser.js(FOCUS);
        if focused == name {
            return;
        }
        passed.push(focused);
    }
    panic!("{name}: not among {passed:?}");
}

#[test]
fn everything_is_reached_with_keys() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let _fixture = with_a_download(&browser);
    browser.press(TAB);
    assert_eq!(browser.js(FOCUS), "Skip to content");
    // What has the focus is visible, has a name, and shows that it has the focus.
    browser.press(ENTER);
    tab_to(&browser, "some.bin");
    let outline = browser.js("return getComputedStyle(document.activeElement).outlineStyle");
    assert_ne!(outline, "none");
    browser.press(ENTER);
    browser.until("return document.activeElement.id === 'detail-title'");
    browser.press(ESCAPE);
    browser.until("return !document.querySelector('#detail').checkVisibility()");
    browser.until(&format!("return (() => {{ {FOCUS} }})() === 'some.bin'"));

    tab_to(&browser, "Remove some.bin");
    browser.press(ENTER);
    browser.until("return document.querySelector('#dialog').open");
    // The focus cannot leave the dialog for the page behind it.
    for _ in 0..8 {
        browser.press(TAB);
        let inside = browser.js("return document.activeElement === document.body ||
               document.querySelector('#dialog').contains(document.activeElement)");
        assert_eq!(inside, true, "{}", browser.js(FOCUS));
    }
    browser.press(ESCAPE);
    browser.until("return !document.querySelector('#dialog').open");
    assert_eq!(browser.js(FOCUS), "Remove some.bin");
    // Enter in a field of a dialog is its button.
    tab_to(&browser, "some.bin");
    browser.press(ENTER);
    browser.until("return document.querySelector('#detail').checkVisibility()");
    tab_to(&browser, "Remove");
    browser.press(ENTER);
    browser.until("return document.querySelector('#dialog').open");
    tab_to(&browser, "Remove");
    browser.press(ENTER);
    browser.until("return document.querySelector('#downloads-empty').checkVisibility()");
    let said = browser.js("return document.querySelector('#toasts').textContent");
    assert!(said.as_str().unwrap().contains("Removed"), "{said}");
}

#[test]
fn screen_readers_learn_what_things_are_and_what_happens() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let _fixture = with_a_download(&browser);
    browser.click("#download-rows .item button.name");
    browser.until("return document.querySelector('#detail .map')?.checkVisibility()");
    let faults = browser.js(
        "const faults = [];
         const check = (what, holds) => { if (!holds) faults.push(what); };
         const of = (selector) => document.querySelector(selector);
         check('language', document.documentElement.lang === 'en');
         check('landmarks', of('main') && of('nav[aria-label]') && of('header'));
         check('one heading of the first level', [...document.querySelectorAll('h1')]
           .filter((one) => one.checkVisibility()).length === 1);
         check('messages are announced', of('#toasts').ariaLive === 'polite');
         check('the state of the connection is announced', of('#banner').role === 'status');
         const bar = of('#download-rows [role=progressbar]');
         check('progress', bar.ariaValueNow === '100' && bar.ariaLabel === 'Progress of some.bin');
         check('the current view', of('.tabs [aria-current=page]').dataset.view === 'downloads');
         check('the open row', of('#download-rows .item button.name').ariaExpanded === 'true');
         check('the chunk map', of('#detail .map').ariaLabel.startsWith('Chunk map: 16 of 16'));
         check('the region of details', of('aside[aria-labelledby=detail-title]'));
         for (const one of document.querySelectorAll('svg, canvas')) {
           check(`a name or none: ${one.outerHTML.slice(0, 60)}`,
             one.ariaHidden === 'true' || one.closest('[aria-hidden=true]') || one.ariaLabel ||
             one.hasAttribute('aria-labelledby'));
         }
         for (const one of document.querySelectorAll('ul.rows, table')) {
           check(`a labelled list: ${one.id}`, one.ariaLabel || one.hasAttribute('aria-labelledby'));
         }
         for (const one of document.querySelectorAll('th')) check('scope', one.scope);
         const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id);
         check('unique ids', new Set(ids).size === ids.length);
         for (const one of document.querySelectorAll('[aria-labelledby]')) {
           for (const id of one.getAttribute('aria-labelledby').split(' ')) {
             // The dialog's title comes with its content.
             check(`a label: ${id}`, document.getElementById(id) || one.tagName === 'DIALOG');
           }
         }
         return faults",
    );
    assert_eq!(faults, json!([]));
}

/// Returns visible texts whose contrast with their background is below 4.5.
const FAINT: &str = "
    const parse = (text) => {
      const canvas = new OffscreenCanvas(1, 1).getContext('2d');
      canvas.fillStyle = text;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = ([r, g, b]) => {
      const [x, y, z] = [r, g, b].map((value) => {
        const part = value / 255;
        return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = (element) => {
      for (let one = element; one; one = one.parentElement) {
        const colour = parse(getComputedStyle(one).backgroundColor);
        if (colour[3] > 250) return colour;
      }
      return [255, 255, 255, 255];
    };
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
      if (element.closest('.hidden, .skip, [disabled], script, style, kbd, option')) continue;
      const [text, behind] = [parse(getComputedStyle(element).color), ground(element)].map(luminance);
      const ratio = (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
      if (ratio < 4.5) faint.push(`${walker.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
    }
    return faint";

#[test]
fn both_colour_schemes_are_legible_and_fit_a_phone() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let (_world, _others, served) = with_a_download(&browser);
    let mut grounds = Vec::new();
    for (scheme, width) in [("light", 1280), ("dark", 360)] {
        browser.resize(width, 740);
        browser.js(&format!("localStorage.setItem('qshare-theme', '{scheme}')"));
        browser.open(&format!("{}?{scheme}#token={}", served.url, served.token));
        browser.until("return document.querySelector('#download-rows .item') !== null");
        grounds.push(browser.js("return getComputedStyle(document.body).backgroundColor"));
        let fits = |what: &str| {
            let faint = browser.js(FAINT);
            assert_eq!(faint, json!([]), "{scheme}, {what}");
            let wide = browser.js("return document.documentElement.scrollWidth - innerWidth");
            assert!(wide.as_i64().unwrap() <= 0, "{scheme}, {what}: {wide}");
        };
        for view in ["shares", "find", "node", "downloads"] {
            browser.click(&format!(".tabs a[data-view={view}]"));
            browser.until(&format!(
                "return document.querySelector('#view-{view}').checkVisibility()"
            ));
            fits(view);
        }
        browser.click("#download-rows .item button.name");
        browser.until("return document.querySelector('#detail').checkVisibility()");
        fits("details");
        for (button, dialog) in [("Link", "Link to"), ("Remove", "Remove some.bin?")] {
            browser.js(&format!(
                "[...document.querySelectorAll('#detail .actions button')]
                   .find((one) => one.textContent === '{button}').click()"
            ));
            browser.until(&format!(
                "return document.querySelector('#dialog[open] h2')?.textContent
                   .startsWith('{dialog}')"
            ));
            fits(dialog);
            let outside = browser.js(
                "const box = document.querySelector('#dialog').getBoundingClientRect();
                 return Math.max(-box.left, box.right - innerWidth, -box.top)",
            );
            assert!(outside.as_f64().unwrap() <= 0.0, "{dialog}: {outside}");
            browser.press(ESCAPE);
            browser.until("return !document.querySelector('#dialog').open");
        }
    }
    assert_ne!(grounds[0], grounds[1]);
}

#[test]
fn an_empty_page_says_what_to_do() {
    let Some((browser, Alone { served, .. })) = &Alone::with_browser() else {
        return;
    };
    browser.open(&served.url_with_token());
    browser.until("return document.querySelector('#downloads-empty').checkVisibility()");
    // Each way to begin leads somewhere.
    browser.click("#downloads-empty [data-go=omni]");
    browser.until("return document.activeElement.id === 'omni-text'");
    browser.click("#downloads-empty a[href='#/find']");
    browser.until("return document.querySelector('#view-find').checkVisibility()");
    browser.click(".tabs a[data-view=downloads]");
    browser.click("#downloads-empty a[href='#/shares']");
    browser.until("return document.querySelector('#shares-empty').checkVisibility()");
    let text = browser.js("return document.querySelector('#shares-empty').textContent");
    assert!(text.as_str().unwrap().contains("qshare get"), "{text}");
}
