//! `qshare demo` succeeds and leaves no files.

use std::fs;

use qshare_tests::process::run;
use qshare_tests::world::World;

#[test]
fn the_demo_succeeds_and_tidies_up() {
    let world = World::new();
    let temporary = world.dir("tmp");
    let mut command = world.command("place", ["demo"]);
    command.env("TMPDIR", &temporary);
    let shown = run(command).well();
    println!("{}\n{}", shown.err, shown.out);
    for place in [temporary, world.path("place")] {
        let left: Vec<_> = fs::read_dir(&place).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
