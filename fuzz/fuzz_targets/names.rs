//! Names of assets: what is accepted is a harmless relative path, and stays accepted.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use qshare_content::{AssetName, NAME_MAX_BYTES};

fn check(name: &AssetName) {
    let text = name.as_str();
    assert!(!text.is_empty() && text.len() <= NAME_MAX_BYTES);
    assert!(!text.contains(['\\', '\0', '\n', '\u{202e}']));
    let path = Path::new(text);
    assert!(
        path.components()
            .all(|part| matches!(part, Component::Normal(_)))
    );
    assert!(
        name.components()
            .all(|part| !part.is_empty() && !part.starts_with('.'))
    );
    assert_eq!(name.components().count(), path.components().count());
    assert_eq!(AssetName::new(text).as_ref(), Ok(name));
    assert_eq!(AssetName::from_local(text).as_ref(), Ok(name));
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(name) = AssetName::new(text) {
        assert_eq!(name.as_str(), text);
        check(&name);
    }
    if let Ok(name) = AssetName::from_local(text) {
        check(&name);
    }
});
